"""Running a tracker over annotated sequences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from duotrack.boxes import Box
from duotrack.data.synthetic import Scene, SceneConfig
from duotrack.errors import SourceError
from duotrack.evaluation.metrics import Boxes, Scores, score
from duotrack.frames import FramePair
from duotrack.network import Network
from duotrack.tracker import Tracker


class AnnotatedPairs(Protocol):
    """A sequence of frame pairs with a box for each, None where the target is absent."""

    @property
    def name(self) -> str: ...

    @property
    def boxes(self) -> Sequence[Box | None]: ...

    def pair(self, index: int) -> FramePair: ...


class GeneratedSequence:
    """A generated scene as an annotated sequence; frames are drawn as they are asked for."""

    def __init__(self, config: SceneConfig) -> None:
        self.name = f"synthetic-{config.seed}"
        self._scene = Scene(config)
        self.boxes = [frame.box for frame in self._scene]

    def pair(self, index: int) -> FramePair:
        return self._scene[index].pair


class SequenceTracker(Protocol):
    """Anything that follows a first box through frame pairs."""

    def track(self, pairs: Iterable[FramePair], box: Box) -> Iterable[Box]:
        """A box for every pair after the first."""
        ...


class NetworkTracker:
    """DuoTrack itself on any network."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def track(self, pairs: Iterable[FramePair], box: Box) -> Iterable[Box]:
        frames = iter(pairs)
        tracker = Tracker(self._network)
        tracker.init(next(frames), box)
        return [tracker.update(pair).box for pair in frames]


class StaticBox:
    """The baseline that never moves."""

    def track(self, pairs: Iterable[FramePair], box: Box) -> Iterable[Box]:
        return [box for _ in pairs][1:]


def evaluate(tracker: SequenceTracker, sequence: AnnotatedPairs, frames: int = 0) -> Scores:
    """Scores over all frames but the first, whose box the tracker is given.

    Args:
        frames: look at so many frames at most; 0 is all.

    Raises:
        SourceError: the sequence starts without its target.
    """
    boxes = list(sequence.boxes)[: frames or None]
    if not boxes or boxes[0] is None:
        raise SourceError(f"sequence {sequence.name} starts without its target")
    predicted = tracker.track((sequence.pair(index) for index in range(len(boxes))), boxes[0])
    return score(to_array(predicted), to_array(boxes[1:]))


def to_array(boxes: Iterable[Box | None]) -> Boxes:
    """(N, 4) float64 x y w h; a row of zeros for None."""
    return np.array([(0.0, 0.0, 0.0, 0.0) if box is None else box.xywh for box in boxes]).reshape(-1, 4)
