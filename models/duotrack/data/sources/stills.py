"""Pairs from single pictures: both views are the same, and motion comes from how they are cropped."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.images import Pixels, ThermalFrame, View
from duotrack.data.regions import random_box
from duotrack.errors import SourceError

NEIGHBOURHOOD = 4.0
"""Neighbours are objects whose middles are nearer than this, in target sizes: a search crop shows them."""


@dataclass(frozen=True, slots=True, eq=False)
class StillPairs:
    """A random box of a still, in colour or in aligned colour and thermal.

    Raises:
        SourceError: there is no still.
    """

    stills: list[tuple[Pixels, Pixels | None]]

    def __post_init__(self) -> None:
        if not self.stills:
            raise SourceError("no stills to draw pairs from: expected at least one")

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:  # noqa: ARG002
        rgb, thermal = self.stills[rng.integers(len(self.stills))]
        view = View(rgb, thermal, random_box(rgb.shape[1], rgb.shape[0], rng), scene=id(rgb))
        return view, view

    def draw_absent(self, rng: Generator, progress: float = 1.0) -> tuple[View, View] | None:  # noqa: ARG002
        """None: a random box is no object that could be away from its place."""
        return None


@dataclass(frozen=True, slots=True, eq=False)
class ThermalPairs:
    """A labelled object of a thermal frame; what stands around it are distractors of its kind.

    Args:
        preference: how many times as often as a lone object one with neighbours is drawn.

    Raises:
        SourceError: no frame has a labelled object.
    """

    frames: list[ThermalFrame]
    preference: float = 3.0
    _chances: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        if not any(frame.boxes for frame in self.frames):
            raise SourceError(f"no objects to draw pairs from: none of {len(self.frames)} thermal frames has a box")
        shares = [1 + (self.preference - 1) * crowded(frame.boxes) for frame in self.frames]
        chances = np.cumsum(np.concatenate(shares))
        object.__setattr__(self, "_chances", chances / chances[-1])

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:  # noqa: ARG002
        number = int(np.searchsorted(self._chances, rng.random(), side="right"))
        for frame in self.frames:
            if number < len(frame.boxes):
                break
            number -= len(frame.boxes)
        view = View(None, frame.image, frame.boxes[number], scene=id(frame.image))
        return view, view


def crowded(boxes: list[Box]) -> NDArray[np.float64]:
    """(N,): 1 for each box with another within ``NEIGHBOURHOOD`` of its own sizes, else 0."""
    centers = np.array([box.center for box in boxes]).reshape(-1, 2)
    roots = np.sqrt([box.area for box in boxes])
    apart = np.abs(centers[:, None] - centers[None]).max(-1)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.min(1, initial=np.inf)
    return np.asarray(nearest <= NEIGHBOURHOOD * roots, np.float64)
