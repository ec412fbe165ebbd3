"""Running a tracker over an annotated colour sequence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from duotrack.boxes import Box
from duotrack.data.images import Sequence
from duotrack.evaluation.metrics import Boxes, Scores, score
from duotrack.frames import FramePair
from duotrack.network import Network
from duotrack.tracker import Tracker


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


def evaluate(tracker: SequenceTracker, sequence: Sequence) -> Scores:
    """Scores over all frames but the first, whose box the tracker is given."""
    first = sequence.boxes[0]
    if first is None:
        raise ValueError(f"sequence {sequence.name} starts without its target")
    predicted = tracker.track((FramePair(frame, None) for frame in sequence.frames), first)
    return score(to_array(predicted), to_array(sequence.boxes[1:]))


def to_array(boxes: Iterable[Box | None]) -> Boxes:
    """(N, 4) float64 x y w h; a row of zeros for None."""
    return np.array([(0.0, 0.0, 0.0, 0.0) if box is None else box.xywh for box in boxes])
