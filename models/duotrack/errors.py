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


class ConfigError(DuoTrackError, ValueError):
    """A training config with an unknown key, a wrong type, or a value out of range."""


class CheckpointError(DuoTrackError):
    """A training run's state that cannot be written, read, or continued."""


class TrainingError(DuoTrackError):
    """A training run that cannot go on: its loss is not finite, its batch cannot be shared, or a worker died."""


class EvaluationError(DuoTrackError):
    """A tracker, benchmark or result that cannot be evaluated, or an evaluation that cannot go on."""
