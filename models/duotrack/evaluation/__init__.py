"""Measuring trackers on annotated sequences."""
