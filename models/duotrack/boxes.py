"""Boxes in pixels, and the square crops that the network sees around them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from duotrack.errors import BoxError

SMALLEST_SIDE, LARGEST_SIDE = 1e-9, 1e6  # of a box that starts a track, in pixels


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box: left ``x``, top ``y``, width ``w``, height ``h``, in pixels of the full frame.

    Coordinates are continuous: pixel column ``i`` covers the interval from ``i`` to ``i + 1``. Numbers of any type,
    such as NumPy's, are kept as ``float``.

    Raises:
        BoxError: a value is no finite number, or the width or height is not positive.
    """

    x: float
    y: float
    w: float
    h: float

    def __post_init__(self) -> None:
        try:
            values = [float(value) for value in self.xywh]
        except (TypeError, ValueError, OverflowError) as error:
            raise BoxError(f"box values must be finite numbers, got {self.xywh!r}") from error
        for name, value in zip(("x", "y", "w", "h"), values, strict=True):
            object.__setattr__(self, name, value)
        if not all(math.isfinite(value) for value in self.xywh):
            raise BoxError(f"box values must be finite numbers, got {self.text()}")
        if self.w <= 0 or self.h <= 0:
            raise BoxError(f"box must have a positive width and height, got {self.text()}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``x,y,w,h``, separated by commas or white space.

        Raises:
            BoxError: there are not exactly four numbers, or they do not make a box.
        """
        parts = text.replace(",", " ").split()
        try:
            values = [float(part) for part in parts]
        except ValueError:
            values = []
        if len(values) != 4:
            raise BoxError(f"expected a box as four numbers x,y,w,h in pixels, got {text!r}")
        return cls(*values)

    @classmethod
    def from_center(cls, cx: float, cy: float, w: float, h: float) -> Self:
        return cls(cx - w / 2, cy - h / 2, w, h)

    @property
    def xywh(self) -> tuple[float, float, float, float]:
        return self.x, self.y, self.w, self.h

    @property
    def center(self) -> tuple[float, float]:
        return self.x + self.w / 2, self.y + self.h / 2

    @property
    def area(self) -> float:
        return self.w * self.h

    def iou(self, other: Box) -> float:
        """Intersection over union with ``other``, in [0, 1], of the continuous boxes."""
        width = min(self.x + self.w, other.x + other.w) - max(self.x, other.x)
        height = min(self.y + self.h, other.y + other.h) - max(self.y, other.y)
        if width <= 0 or height <= 0:
            return 0.0
        intersection = width * height
        return intersection / (self.area + other.area - intersection)

    def clip(self, width: int, height: int, margin: float = 10.0) -> Box:
        """The part of the box inside a ``width`` × ``height`` image, never thinner than ``margin`` pixels.

        OSTrack's border rule: the left edge stays ``margin`` pixels inside the right border (and so on),
        so that a target which leaves the image keeps a box that can be found again. On an image smaller
        than the margin the margin shrinks to the image.
        """
        margin_x, margin_y = min(margin, width), min(margin, height)
        left = min(max(self.x, 0.0), width - margin_x)
        top = min(max(self.y, 0.0), height - margin_y)
        right = min(max(self.x + self.w, margin_x), float(width))
        bottom = min(max(self.y + self.h, margin_y), float(height))
        return Box(left, top, max(margin_x, right - left), max(margin_y, bottom - top))

    def require_inside(self, width: int, height: int) -> None:
        """Check that the box can start a track on a ``width`` × ``height`` image.

        A box may stick out over the border (targets enter frames), but its centre must be inside.

        Raises:
            BoxError: the centre of the box lies outside the image, or the box is absurdly large or small.
        """
        if min(self.w, self.h) < SMALLEST_SIDE:
            raise BoxError(f"box {self.w:g} x {self.h:g} is too small: a side has at least {SMALLEST_SIDE:g} pixels")
        if max(self.w, self.h) > LARGEST_SIDE:
            raise BoxError(f"box {self.text()} is larger than any image: a side has at most {LARGEST_SIDE:g} pixels")
        cx, cy = self.center
        if not (0 <= cx <= width and 0 <= cy <= height):
            raise BoxError(f"box {self.text()} has its centre outside the {width}x{height} image")

    def text(self) -> str:
        """The box as ``x,y,w,h``, the form of result files and of ``parse``."""
        return ",".join(f"{value:.2f}".rstrip("0").rstrip(".") for value in self.xywh)


@dataclass(frozen=True, slots=True)
class CropWindow:
    """A square of the full frame that is resampled to ``size`` × ``size`` pixels for the network.

    ``x`` and ``y`` are its left and top in whole frame pixels (they may lie outside the frame), ``side`` its
    side in frame pixels. What lies outside the frame is zero, as in OSTrack.
    """

    x: int
    y: int
    side: int
    size: int

    @classmethod
    def around(cls, box: Box, factor: float, size: int) -> Self:
        """The window of side ``ceil(sqrt(w·h)·factor)`` centred on ``box``, as in OSTrack's ``sample_target``."""
        side = max(1, math.ceil(math.sqrt(box.area) * factor))
        cx, cy = box.center
        return cls(round(cx - side / 2), round(cy - side / 2), side, size)

    @property
    def scale(self) -> float:
        """Crop pixels per frame pixel."""
        return self.size / self.side

    def to_frame(self, cx: float, cy: float, w: float, h: float) -> Box:
        """A box given as centre and size in units of the crop's side (0 to 1), in frame pixels."""
        return Box.from_center(self.x + cx * self.side, self.y + cy * self.side, w * self.side, h * self.side)

    def to_crop(self, box: Box) -> tuple[float, float, float, float]:
        """Centre and size of a frame box in units of the crop's side: the inverse of ``to_frame``."""
        cx, cy = box.center
        return (cx - self.x) / self.side, (cy - self.y) / self.side, box.w / self.side, box.h / self.side


def mask_box(mask: NDArray[Any]) -> Box | None:
    """The smallest box around the pixels of an (H, W) mask that are set; None where none is."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not columns.size:
        return None
    left, right, top, bottom = int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1
    return Box(left, top, right - left, bottom - top)
