"""What the service needs of a tracker, as a few lines of Protocol, and the engine that serves by default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from duotrack.boxes import Box
from duotrack.frames import FramePair
from duotrack_service.settings import Settings


class TrackResult(Protocol):
    """What a tracker says of one frame pair; ``state`` is one of ``duotrack_client.protocol.TargetState``."""

    @property
    def box(self) -> Box: ...
    @property
    def score(self) -> float: ...
    @property
    def state(self) -> str: ...


class Tracker(Protocol):
    """Follows one target; one per session, never used by two threads at a time."""

    def init(self, pair: FramePair, box: Box) -> TrackResult: ...
    def update(self, pair: FramePair) -> TrackResult: ...


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded model.

    Attributes:
        model, provider, precision: what really runs.
        tracker: makes a tracker for one session; cheap.
    """

    model: str
    provider: str
    precision: str
    tracker: Callable[[], Tracker]


def open_engine(settings: Settings) -> Engine:
    """Load the model of ``settings`` with ONNX Runtime. Takes seconds.

    Raises:
        duotrack.errors.ModelError: the model cannot be found, read or run.
    """
    import duotrack
    from duotrack.engine import Engine as OnnxEngine

    onnx = OnnxEngine.open(settings.model, provider=settings.provider, threads=settings.threads)
    return Engine(
        model=onnx.report.model,
        provider=onnx.report.provider,
        precision=onnx.report.precision,
        tracker=lambda: duotrack.Tracker(onnx),
    )
