"""Sequences that trackers are run over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.synthetic import Scene, SceneConfig
from duotrack.frames import FramePair

Boxes = NDArray[np.float64]


class AnnotatedPairs(Protocol):
    """A sequence of frame pairs with a box for each, None where the target is absent."""

    @property
    def name(self) -> str: ...

    @property
    def boxes(self) -> Sequence[Box | None]: ...

    def pair(self, index: int) -> FramePair: ...


class BenchmarkPairs(AnnotatedPairs, Protocol):
    """A benchmark's sequence: one that says what is hard about it."""

    @property
    def attributes(self) -> Sequence[str]:
        """Challenge attributes, as the set calls them."""


class GeneratedSequence:
    """A generated scene as an annotated sequence; frames are drawn as they are asked for."""

    def __init__(self, config: SceneConfig, attributes: Sequence[str] = ()) -> None:
        self.name = f"synthetic-{config.seed}"
        self.attributes = tuple(attributes)
        self._scene = Scene(config)
        self.boxes = [self._scene.sight(frame).box for frame in range(config.frames)]

    def pair(self, index: int) -> FramePair:
        return self._scene[index].pair


class LateBoxes(Sequence[Box | None]):
    """Boxes that are worked out when one of them is asked for; how many they are is known before."""

    def __init__(self, count: int, work_out: Callable[[], list[Box | None]]) -> None:
        self._count = count
        self._work_out = work_out

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Box | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[Box | None]: ...
    def __getitem__(self, index: int | slice) -> Box | list[Box | None] | None:
        return self._boxes[index]

    def __repr__(self) -> str:
        return f"LateBoxes({self._count} boxes)"

    @cached_property
    def _boxes(self) -> list[Box | None]:
        boxes = self._work_out()
        assert len(boxes) == self._count
        return boxes


def to_array(boxes: Iterable[Box | None]) -> Boxes:
    """(N, 4) float64 x y w h; a row of zeros for None."""
    return np.array([(0.0, 0.0, 0.0, 0.0) if box is None else box.xywh for box in boxes]).reshape(-1, 4)
