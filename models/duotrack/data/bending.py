"""Pictures bent out of shape: what a still lacks is how living and flexible things change their outline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.boxes import Box, mask_box
from duotrack.data.figures import SMALLEST, Cutout
from duotrack.data.images import Pixels, View

STRENGTH = 0.035
"""Of a bend: the deviation by which knots are moved, on each axis, in sides of the object (as a square)."""
SPACING = 0.4
"""Of the knots, in the same sides."""
STRETCH, LEAN = 0.1, 0.08
"""Deviations of the logarithm of width against height, and of the shear."""
MARGIN = 0.2
"""Around a cut-out, in its sides: room to bend into."""


@dataclass(frozen=True, slots=True, eq=False)
class Bend:
    """A smooth change of shape of a picture.

    Attributes:
        x, y: (H, W) float32, the place that each pixel is taken from, with whole numbers at pixel centres.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]

    @staticmethod
    def draw(width: int, height: int, box: Box, rng: Generator) -> Bend:
        """For a picture of ``width`` × ``height`` with an object at ``box``, whose middle stays about where it is."""
        root, strength = math.sqrt(box.area), STRENGTH * rng.uniform(0.2, 1.8)
        spacing = SPACING * root
        knots = math.ceil(height / spacing) + 2, math.ceil(width / spacing) + 2
        moves = [
            cv2.resize(
                rng.normal(0, strength * root, knots).astype(np.float32), (width, height), None, 0, 0, cv2.INTER_CUBIC
            )
            for _ in range(2)
        ]
        stretch, lean = math.exp(STRETCH * rng.normal() / 2), LEAN * rng.normal(size=2)
        columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        dx, dy = columns - np.float32(box.center[0]), rows - np.float32(box.center[1])
        x = columns + dx * np.float32(stretch - 1) + dy * np.float32(lean[0]) + moves[0]
        y = rows + dy * np.float32(1 / stretch - 1) + dx * np.float32(lean[1]) + moves[1]
        return Bend(x, y)

    def apply(self, image: Pixels) -> Pixels:
        """(H, W) or (H, W, 3) uint8; beyond its edges the picture is mirrored."""
        bent = cv2.remap(image, self.x, self.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        return cast("Pixels", bent)


def bent_view(view: View, rng: Generator) -> View | None:
    """``view``, which must have a mask, in another shape; None where the target is then hardly in the picture."""
    assert view.mask is not None
    bend = Bend.draw(*view.size, view.box, rng)
    mask = bend.apply(view.mask)
    box = mask_box(mask)
    if box is None or box.area < SMALLEST:
        return None
    rgb = None if view.rgb is None else bend.apply(view.rgb)
    thermal = None if view.thermal is None else bend.apply(view.thermal)
    return View(rgb, thermal, box, mask, view.scene)


def bent_cutout(cutout: Cutout, rng: Generator) -> Cutout:
    """``cutout`` in another shape, with some room around it."""
    margin = math.ceil(MARGIN * cutout.root)
    sides = (margin,) * 4
    rgb = cv2.copyMakeBorder(cutout.rgb, *sides, cv2.BORDER_REPLICATE)
    mask = cv2.copyMakeBorder(cutout.mask, *sides, cv2.BORDER_CONSTANT, value=0)
    height, width = mask.shape
    bend = Bend.draw(width, height, Box(margin, margin, width - 2 * margin, height - 2 * margin), rng)
    return Cutout(bend.apply(cast("Pixels", rgb)), bend.apply(cast("Pixels", mask)))
