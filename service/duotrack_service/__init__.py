"""The DuoTrack service: sessions over HTTP, frame pairs and results over WebSockets."""
