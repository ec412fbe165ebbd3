"""What the service needs of a model, as a few lines of Protocol, and the tracker that serves by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from duotrack.boxes import Box
from duotrack.errors import FrameError, ModelError, StateError
from duotrack.frames import FramePair
from duotrack.network import Network
from duotrack.state import TrackerState
from duotrack.tracker import SearchRegion, TrackerOptions, advance, prepare, resume, start
from duotrack.tracker import Track as TrackerTrack
from duotrack_service.settings import Settings

Track: TypeAlias = object
"""What a model keeps of one target between frames: a value that only its model looks into, and nobody changes."""


class Fault(Protocol):
    """Something wrong with one modality, rgb or thermal, of a pair; ``kind`` as in ``duotrack.health``."""

    @property
    def modality(self) -> str: ...
    @property
    def kind(self) -> str: ...


class TrackResult(Protocol):
    """What a model says of one target in one pair; ``state`` is one of ``duotrack_client.protocol.TargetState``."""

    @property
    def box(self) -> Box: ...
    @property
    def score(self) -> float: ...
    @property
    def state(self) -> str: ...
    @property
    def faults(self) -> Sequence[Fault]: ...


Moved: TypeAlias = tuple[Track, TrackResult]


class Model(Protocol):
    """A loaded model. ``lanes`` threads may use it at once; each call may take several targets.

    Attributes:
        name, provider, precision: what really runs.
        lanes: how many threads use it best.
        max_batch: how many targets of one call it handles best.
    """

    @property
    def name(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def lanes(self) -> int: ...
    @property
    def max_batch(self) -> int: ...

    def start(self, pair: FramePair, box: Box, options: Mapping[str, bool]) -> Moved:
        """Start a track on ``box`` of ``pair``, with switches of ``duotrack.tracker.TrackerOptions``.

        Raises:
            BoxError: the box has its centre outside the frame.
        """

    def update(self, work: Sequence[tuple[Track, FramePair]]) -> list[Moved | FrameError]:
        """The next pair of each track; an error in the place of a pair that cannot be used."""

    def save(self, track: Track) -> bytes:
        """``track`` in a form for storage."""

    def restore(self, data: bytes) -> Track:
        """What ``save`` wrote.

        Raises:
            StateError: it is damaged, or comes from another model or version.
        """

    def configure(self, track: Track, redetection: bool) -> Track:
        """``track``, which from now on looks for a lost target all over the frame, or does not."""


@dataclass(frozen=True, slots=True, eq=False)
class NetworkModel:
    """DuoTrack's tracker on a network.

    Attributes:
        network: where it runs; called from ``lanes`` threads at once.
    """

    network: Network
    name: str
    provider: str
    precision: str
    lanes: int = 1
    max_batch: int = 1

    def start(self, pair: FramePair, box: Box, options: Mapping[str, bool]) -> Moved:
        return start(self.network, pair, box, TrackerOptions(**options))

    def update(self, work: Sequence[tuple[Track, FramePair]]) -> list[Moved | FrameError]:
        answers: dict[int, Moved | FrameError] = {}
        ready: dict[int, tuple[TrackerTrack, SearchRegion]] = {}
        for index, (track, pair) in enumerate(work):
            own = _own(track)
            try:
                ready[index] = own, prepare(self.network.spec, own.state, pair)
            except FrameError as error:
                answers[index] = error
        if ready:
            answers.update(zip(ready, advance(self.network, list(ready.values())), strict=True))
        return [answers[index] for index in range(len(work))]

    def save(self, track: Track) -> bytes:
        return _own(track).state.to_bytes()

    def restore(self, data: bytes) -> Track:
        return resume(self.network, TrackerState.from_bytes(data))

    def configure(self, track: Track, redetection: bool) -> Track:
        own = _own(track)
        return TrackerTrack(own.state.with_redetection(redetection), own.features)


def open_models(settings: Settings) -> list[Model]:
    """Load the models of ``settings`` with ONNX Runtime, the default first. Takes seconds.

    On a CPU, ``lanes`` streams of one thread each do more pairs than one stream of several threads, and more than
    batches (benchmarks/engine_streams.py). On a GPU, one lane decodes while the other infers, and batches pay.

    Raises:
        duotrack.errors.ModelError: a model cannot be found, read or run, or two have the same name.
    """
    models = [_open_model(name, settings) for name in settings.models]
    names = [model.name for model in models]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ModelError(f"two models have the same name: {', '.join(twice)}; sessions could not tell them apart")
    return models


def _open_model(name: str, settings: Settings) -> Model:
    from duotrack.engine import Engine
    from duotrack.engine.providers import default_threads

    threads = settings.threads or default_threads()
    lanes = settings.lanes or threads
    engine = Engine.open(name, provider=settings.provider, threads=threads, streams=lanes)
    report = engine.report
    on_gpu = report.provider in ("tensorrt", "cuda")
    return NetworkModel(
        engine,
        report.model,
        report.provider,
        report.precision,
        lanes=settings.lanes or (2 if on_gpu else lanes),
        max_batch=settings.max_batch or (32 if on_gpu else 1),
    )


def _own(track: Track) -> TrackerTrack:
    if not isinstance(track, TrackerTrack):
        raise StateError(f"expected a track of this model, got {type(track).__name__}")
    return track
