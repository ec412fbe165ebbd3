"""Every error that DuoTrack raises on purpose. Each message says what was wrong, with the value."""


class DuoTrackError(Exception):
    """Base of all errors raised on purpose by DuoTrack."""


class BoxError(DuoTrackError, ValueError):
    """A box that cannot be tracked: not finite, without area, or outside the image."""


class FrameError(DuoTrackError, ValueError):
    """A frame of the wrong type, shape or size, or a pair without any modality."""


class ModelError(DuoTrackError):
    """A model that cannot be found, read, or run by the installed providers."""


class StateError(DuoTrackError, ValueError):
    """A serialised tracker state that cannot be restored, or a step taken before ``init``."""


class SourceError(DuoTrackError):
    """A video, folder or frame file that cannot be read or written."""
