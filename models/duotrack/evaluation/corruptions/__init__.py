"""Sequences made worse on purpose, one thing at a time and by a known amount."""

from duotrack.evaluation.corruptions.corruption import Corruption
from duotrack.evaluation.corruptions.registry import CORRUPTIONS, CorruptionChoice, corrupted

__all__ = ["CORRUPTIONS", "Corruption", "CorruptionChoice", "corrupted"]
