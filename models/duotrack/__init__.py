"""DuoTrack: follows one object through paired colour and thermal video, in real time."""

from duotrack.boxes import Box
from duotrack.errors import BoxError, DuoTrackError, FrameError, ModelError, SourceError, StateError
from duotrack.frames import FramePair
from duotrack.health import Fault, FaultKind
from duotrack.state import TrackerState
from duotrack.tracker import TargetState, Tracker, TrackResult

__all__ = [
    "Box",
    "BoxError",
    "DuoTrackError",
    "Fault",
    "FaultKind",
    "FrameError",
    "FramePair",
    "ModelError",
    "SourceError",
    "StateError",
    "TargetState",
    "TrackResult",
    "Tracker",
    "TrackerState",
]

__version__ = "0.1.0.dev0"
