"""What lies around a still: another picture, so that a search region is as full as in a video.

An object that someone photographed fills its picture, and a search region is several times larger than the object.
Without this, four fifths of it would be black, and the target whatever is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, cast

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.images import Pixels, View

TARGET_SIDES = 60.0, 120.0
"""Pixels, as a square, to which larger targets are made smaller: a search crop shows them at 64."""
REACH = 1.5, 4.5
"""Sides of the target from its centre to the new edges."""
SEAM = 0.4
"""Sides of the target over which the pictures blend at most; the target itself is not blended."""


class Picture(Protocol):
    """Colour (H, W, 3), thermal (H, W), or both."""

    @property
    def rgb(self) -> Pixels | None: ...

    @property
    def thermal(self) -> Pixels | None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """Where a view of a still comes to lie in a larger picture, and how it blends with it.

    Attributes:
        scale: of the view, 1 at most.
        left, top: pixels between the larger picture's edges and the view's; none are negative.
        width, height: of the larger picture.
        seams: sides of the target over which the view's left, upper, right and lower edge blend.
        origin: where the other picture is cut, as shares of what can be cut off on each axis.
        zoom: of the other picture, against the smallest that covers the larger picture.
    """

    scale: float
    left: int
    top: int
    width: int
    height: int
    seams: tuple[float, float, float, float]
    origin: tuple[float, float]
    zoom: float

    @staticmethod
    def draw(view: View, rng: Generator) -> Surroundings:
        root = math.sqrt(view.box.area)
        scale = min(1.0, rng.uniform(*TARGET_SIDES) / root)
        width, height = _scaled(view, scale)
        cx, cy = (value * scale for value in view.box.center)
        reach = rng.uniform(*REACH, size=4) * root * scale
        left, top = max(0, round(reach[0] - cx)), max(0, round(reach[1] - cy))
        right, bottom = max(0, round(reach[2] - (width - cx))), max(0, round(reach[3] - (height - cy)))
        first, second, third, fourth = (SEAM * rng.random(4)).tolist()
        return Surroundings(
            scale,
            left,
            top,
            left + width + right,
            top + height + bottom,
            (first, second, third, fourth),
            (rng.random(), rng.random()),
            math.exp(0.7 * rng.random()),
        )

    def apply(self, view: View, around: Picture) -> View:
        """``view``, with ``around`` around it: in thermal only where both have thermal."""
        width, height = _scaled(view, self.scale)
        box = Box(*(value * self.scale for value in view.box.xywh))
        moved = Box(box.x + self.left, box.y + self.top, box.w, box.h)
        inside = np.s_[self.top : self.top + height, self.left : self.left + width]
        weights = self._weights(width, height, box)
        mask = None
        if view.mask is not None:
            mask = np.zeros((self.height, self.width), np.uint8)
            mask[inside] = cv2.resize(view.mask, (width, height), interpolation=cv2.INTER_AREA)
            weights = np.maximum(weights, mask[inside].astype(np.float32) / 255)

        def joined(image: Pixels | None, other: Pixels | None) -> Pixels | None:
            if image is None or other is None:
                return None
            canvas = self._backdrop(other)
            alpha = weights if image.ndim == 2 else weights[..., None]
            small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            canvas[inside] = canvas[inside] + alpha * (small - canvas[inside].astype(np.float32)) + 0.5
            return canvas

        rgb, thermal = joined(view.rgb, around.rgb), joined(view.thermal, around.thermal)
        return View(rgb, thermal, moved, mask, view.scene)

    def _weights(self, width: int, height: int, box: Box) -> NDArray[np.float32]:
        """(height, width) from 0 at the view's edges to 1 within, and at the target's box."""
        side = math.sqrt(box.area)
        free = box.x, box.y, width - box.x - box.w, height - box.y - box.h
        spans = [max(1.0, min(margin, seam * side)) for margin, seam in zip(free, self.seams, strict=True)]
        columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
        across = np.minimum(columns / spans[0], (width - columns) / spans[2])
        down = np.minimum(rows / spans[1], (height - rows) / spans[3])
        return np.outer(np.clip(down, 0, 1), np.clip(across, 0, 1)).astype(np.float32)

    def _backdrop(self, other: Pixels) -> Pixels:
        """A part of ``other`` as large as the larger picture."""
        rows, columns = other.shape[:2]
        scale = self.zoom * max(self.width / columns, self.height / rows)
        w, h = min(columns, max(1, round(self.width / scale))), min(rows, max(1, round(self.height / scale)))
        x, y = round(self.origin[0] * (columns - w)), round(self.origin[1] * (rows - h))
        part = other[y : y + h, x : x + w]
        return cast("Pixels", cv2.resize(part, (self.width, self.height), interpolation=cv2.INTER_LINEAR))


def _scaled(view: View, scale: float) -> tuple[int, int]:
    """Width and height of ``view`` in pixels, ``scale`` times as large."""
    width, height = view.size
    return max(1, round(width * scale)), max(1, round(height * scale))
