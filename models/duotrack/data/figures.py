"""Objects cut out of pictures: single cut-outs, and figures whose pose changes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from duotrack.boxes import Box, mask_box
from duotrack.data.images import Pixels, Sequence
from duotrack.errors import SourceError

SMALLEST = 64
"""Pixels that the bounds of a cut-out have at least: less is no object that one could recognise."""
SLIMMEST, EMPTIEST = 4.0, 0.35
"""Of an object: its longest side against its shortest, at most; the part of its bounds that it fills, at least."""
SHORTEST, JUMP, DRIFT = 4, 0.1, 0.45
"""Poses of a run at least, and by how much its size may differ from one to the next and from first to last (logs)."""


@dataclass(frozen=True, slots=True, eq=False)
class Cutout:
    """An object without its background: colour (H, W, 3), and how much of each pixel is object (H, W), 0 to 255."""

    rgb: Pixels
    mask: Pixels

    @property
    def root(self) -> float:
        """The square root of the area of its bounds, in pixels."""
        return math.sqrt(self.mask.shape[0] * self.mask.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """One object in consecutive poses, cut out when asked for; ``scene`` says which views may show it."""

    images: list[Pixels]
    masks: list[Pixels]
    scene: str | int

    def __len__(self) -> int:
        return len(self.masks)

    def pose(self, index: int) -> Cutout:
        """The object at ``index``; beyond the last pose it goes back the way it came."""
        turn = max(2 * len(self) - 2, 1)
        index = min(index % turn, -index % turn)
        cutout = cut(self.images[index], self.masks[index])
        assert cutout is not None
        return cutout


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """Objects to paste: those of ``moving`` change their pose, those of ``still`` have a single one.

    Raises:
        SourceError: there is no object at all.
    """

    moving: list[Figure]
    still: list[Figure]

    def __post_init__(self) -> None:
        if not self.moving and not self.still:
            raise SourceError("no objects to paste: expected a sequence with masks or a segment of a still")

    def draw(self, rng: Generator) -> Figure:
        """A moving one half of the time."""
        either = self.moving if rng.random() < 0.5 else self.still
        figures = either or self.moving or self.still
        return figures[rng.integers(len(figures))]


def gather_figures(sequences: Iterable[Sequence], segments: Iterable[tuple[Pixels, Pixels]]) -> Figures:
    """The objects of ``sequences`` (those with masks) and of ``segments`` (colour and mask of one object each).

    Segments that look like no object, slivers and scraps, are left out.
    """
    moving = [figure for sequence in sequences for figure in sequence_figures(sequence)]
    cutouts = [cutout for image, mask in segments if (cutout := cut(image, mask)) is not None]
    cutouts = [cutout for cutout in cutouts if _solid(cutout.mask)]
    return Figures(moving, [Figure([cutout.rgb], [cutout.mask], id(cutout.rgb)) for cutout in cutouts])


def sequence_figures(sequence: Sequence) -> list[Figure]:
    """The target of a sequence with masks, in runs of consecutive frames in which its outline changes smoothly.

    A target that is hidden for a while, or that comes much nearer, gives several figures: pasted elsewhere, one that
    swells or falls to pieces would look like nothing that moves.
    """
    if sequence.masks is None:
        return []
    runs: list[list[int]] = []
    roots = [_root(mask) for mask in sequence.masks]
    for index, root in enumerate(roots):
        joins = bool(runs) and runs[-1][-1] == index - 1 and root > 0
        if joins and abs(math.log(root / roots[index - 1])) < JUMP and abs(math.log(root / roots[runs[-1][0]])) < DRIFT:
            runs[-1].append(index)
        elif root > 0:
            runs.append([index])
    return [
        Figure([sequence.frames[index] for index in run], [sequence.masks[index] for index in run], sequence.name)
        for run in runs
        if len(run) >= SHORTEST
    ]


def _root(mask: Pixels) -> float:
    """The square root of a silhouette's area in pixels; 0 where it is tiny or in pieces."""
    if _bounds(mask) is None:
        return 0.0
    count, _, stats, _ = cv2.connectedComponentsWithStats((mask > 127).astype(np.uint8))
    areas = stats[1:count, cv2.CC_STAT_AREA]
    whole = float(areas.sum())
    return math.sqrt(whole) if whole and areas.max() > 0.85 * whole else 0.0


def cut(image: Pixels, mask: Pixels) -> Cutout | None:
    """What ``mask`` marks in ``image``; None where its bounds have fewer than ``SMALLEST`` pixels."""
    box = _bounds(mask)
    if box is None:
        return None
    left, top, width, height = (int(value) for value in box.xywh)
    region = np.s_[top : top + height, left : left + width]
    return Cutout(image[region], mask[region])


def _bounds(mask: Pixels) -> Box | None:
    box = mask_box(mask)
    return box if box is not None and box.area >= SMALLEST else None


def _solid(mask: Pixels) -> bool:
    return max(mask.shape) <= SLIMMEST * min(mask.shape) and float(mask.mean()) / 255 >= EMPTIEST


def tinted(cutout: Cutout, rng: Generator) -> Cutout:
    """The same object in another colour and brightness: a twin that can be told apart."""
    gain = np.exp(0.25 * rng.normal() + 0.2 * rng.normal(size=3))
    return Cutout(np.clip(cutout.rgb * gain, 0, 255).astype(np.uint8), cutout.mask)


def recoloured(cutout: Cutout, like: Cutout) -> Cutout:
    """``cutout`` with the mean and the spread of the colours of ``like``: another object that looks of its kind."""
    mean, spread = cv2.meanStdDev(cutout.rgb, mask=cutout.mask)
    other_mean, other_spread = cv2.meanStdDev(like.rgb, mask=like.mask)
    gain = np.clip(other_spread / np.maximum(spread, 1), 0.3, 3).ravel()
    rgb = (cutout.rgb - mean.ravel()) * gain + other_mean.ravel()
    return Cutout(np.clip(rgb, 0, 255).astype(np.uint8), cutout.mask)
