"""Pairs made by pasting cut-out objects onto other pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import cv2
import numpy as np
from numpy.random import Generator

from duotrack.boxes import Box, mask_box
from duotrack.data.bending import bent_cutout
from duotrack.data.figures import Cutout, Figure, Figures, recoloured, tinted
from duotrack.data.images import Pixels, View
from duotrack.data.pasting import Patch, Stance, beside, lay, place
from duotrack.data.regions import random_box
from duotrack.errors import SourceError

SIDE = 320
"""Of the composed pictures, in pixels."""
IMPOSTORS = 0.7
"""Share of the rivals that stand in the place of a target that is not there."""
POSES_APART = 40
"""Frames between the poses of the two views, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class PastedPairs:
    """An object pasted into two places of a background (or of two), among other objects.

    Sequences with masks give objects that really deform between the two views; those of stills give variety, and are
    bent out of shape in the search view.

    Args:
        rivals: share of the search views in which an object that looks like the target stands right beside it: the
            target in another tint, or another object in the target's colours.

    Raises:
        SourceError: there is no background.
    """

    figures: Figures
    backgrounds: list[Pixels]
    rivals: float = 0.5

    def __post_init__(self) -> None:
        if not self.backgrounds:
            raise SourceError("no backgrounds to paste objects onto: expected at least one")

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:  # noqa: ARG002
        figure, poses = self._target(rng)
        template, search_background = self._template(figure, poses[0], rng)
        rival = None
        if rng.random() < self.rivals:
            rival = tinted(poses[1], rng) if rng.random() < 0.5 else recoloured(self._other(rng), poses[1])
        return template, self._compose(search_background, figure, poses[1], rng, rival=rival)

    def draw_absent(self, rng: Generator, progress: float = 1.0) -> tuple[View, View] | None:  # noqa: ARG002
        """The search view lacks the target alone; beside its place or in it there may be something in its colours."""
        figure, poses = self._target(rng)
        template, search_background = self._template(figure, poses[0], rng)
        rival = recoloured(self._other(rng), poses[1]) if rng.random() < self.rivals else None
        return template, self._compose(
            search_background, figure, poses[1], rng, rival=rival, absent=True, impostor=bool(rng.random() < IMPOSTORS)
        )

    def _target(self, rng: Generator) -> tuple[Figure, tuple[Cutout, Cutout]]:
        figure = self.figures.draw(rng)
        first = int(rng.integers(len(figure)))
        second = int(np.clip(first + rng.integers(-POSES_APART, POSES_APART + 1), 0, len(figure) - 1))
        pose = figure.pose(second)
        return figure, (figure.pose(first), bent_cutout(pose, rng) if len(figure) == 1 else pose)

    def _other(self, rng: Generator) -> Cutout:
        figure = self.figures.draw(rng)
        return figure.pose(int(rng.integers(len(figure))))

    def _template(self, figure: Figure, pose: Cutout, rng: Generator) -> tuple[View, Pixels]:
        """The template view, and the background of the search view."""
        background = self._background(rng)
        second = background if rng.random() < 0.7 else self._background(rng)
        return self._compose(background, figure, pose, rng), second

    def _background(self, rng: Generator) -> Pixels:
        image = self.backgrounds[rng.integers(len(self.backgrounds))]
        return cast("Pixels", cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))

    def _compose(
        self,
        background: Pixels,
        figure: Figure,
        target: Cutout,
        rng: Generator,
        *,
        rival: Cutout | None = None,
        absent: bool = False,
        impostor: bool = False,
    ) -> View:
        """The background with up to two objects anywhere, ``rival`` beside the target, and on top the target.

        Args:
            absent: without the target.
            impostor: ``rival`` stands in the target's place, and not beside it.
        """
        canvas = background.copy()
        patch = place(target, _anywhere(target, rng), SIDE, SIDE)
        box = None if patch is None else mask_box(patch.mask(SIDE, SIDE) > 127)
        if patch is None or box is None:  # thinner than a pixel at this scale
            return View(canvas, None, random_box(SIDE, SIDE, rng), scene=figure.scene)
        for _ in range(rng.integers(0, 3)):
            other = self._other(rng)
            _lay_if_inside(canvas, place(other, _anywhere(other, rng), SIDE, SIDE))
        if rival is not None:
            stance = _beside(rival, box, rng)
            if impostor:
                stance = replace(stance, cx=box.center[0], cy=box.center[1])
            _lay_if_inside(canvas, place(rival, stance, SIDE, SIDE))
        if absent:
            return View(canvas, None, box, None, figure.scene)
        lay(canvas, patch)
        return View(canvas, None, box, patch.mask(SIDE, SIDE), figure.scene)


def _lay_if_inside(canvas: Pixels, patch: Patch | None) -> None:
    if patch is not None:
        lay(canvas, patch)


def _anywhere(cutout: Cutout, rng: Generator) -> Stance:
    """Scaled to between 36 and 130 pixels, turned a little, most of it inside the picture."""
    side = math.exp(rng.uniform(math.log(36), math.log(130)))
    cx, cy = rng.uniform(0.35 * side, SIDE - 0.35 * side, 2).tolist()
    return Stance(cx, cy, side / cutout.root, 8 * rng.normal(), bool(rng.random() < 0.1))


def _beside(cutout: Cutout, box: Box, rng: Generator) -> Stance:
    """Next to a target with ``box`` and about as large, or partly behind it; inside the picture where it can be."""
    scale = math.sqrt(box.area) / cutout.root * math.exp(0.15 * rng.normal())
    height, width = cutout.mask.shape
    for _ in range(6):
        cx, cy = beside(box, scale * width, scale * height, (0.6, 1.3), rng)
        if 0 < cx < SIDE and 0 < cy < SIDE:
            break
    return Stance(cx, cy, scale, 6 * rng.normal(), bool(rng.random() < 0.5))
