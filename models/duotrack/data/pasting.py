"""How cut-outs are pasted into pictures, in colour and in thermal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.figures import Cutout
from duotrack.data.images import Pixels, View

EDGE = 0.6
"""Softness of a pasted edge in pixels (a deviation): a real camera has none that is sharper."""


@dataclass(frozen=True, slots=True)
class Stance:
    """Where a cut-out's middle comes to lie (pixels of the picture), how much it is scaled, and its turn in degrees."""

    cx: float
    cy: float
    scale: float
    turn: float = 0.0
    mirrored: bool = False

    def matrix(self, width: float, height: float) -> NDArray[np.float64]:
        """(2, 3): from coordinates of a ``width`` × ``height`` cut-out to those of the picture, both continuous."""
        angle = math.radians(self.turn)
        linear = self.scale * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        if self.mirrored:
            linear[:, 0] *= -1
        return np.column_stack((linear, np.array([self.cx, self.cy]) - linear @ (width / 2, height / 2)))


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A cut-out warped to the part of a picture that it covers: colour (h, w, 3), alpha (h, w), and where."""

    rgb: Pixels
    alpha: Pixels
    region: tuple[slice, slice]

    def mask(self, width: int, height: int) -> Pixels:
        """Its alpha on an otherwise empty (height, width) picture."""
        mask = np.zeros((height, width), np.uint8)
        mask[self.region] = self.alpha
        return mask


def place(cutout: Cutout, stance: Stance, width: int, height: int) -> Patch | None:
    """``cutout`` as it lies in a ``width`` × ``height`` picture; None where it lies wholly outside."""
    h, w = cutout.mask.shape
    matrix = stance.matrix(w, h)
    corners = matrix[:, :2] @ np.array([[0, w, w, 0], [0, 0, h, h]]) + matrix[:, 2:]
    left, top = np.clip(np.floor(corners.min(1)) - 3, 0, (width, height)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(1)) + 3, 0, (width, height)).astype(int).tolist()
    if left >= right or top >= bottom:
        return None
    rgb, mask = cutout.rgb, cutout.mask
    if stance.scale < 0.6:  # bilinear sampling would skip pixels
        small = max(round(w * stance.scale), 1), max(round(h * stance.scale), 1)
        rgb = cast("Pixels", cv2.resize(rgb, small, interpolation=cv2.INTER_AREA))
        mask = cast("Pixels", cv2.resize(mask, small, interpolation=cv2.INTER_AREA))
        matrix[:, :2] *= (w / small[0], h / small[1])
    # OpenCV's coordinates are those of pixel centres.
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5 - np.array([left, top])
    size = (right - left, bottom - top)
    warped = cv2.warpAffine(rgb, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.GaussianBlur(cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_LINEAR), (0, 0), EDGE)
    return Patch(cast("Pixels", warped), cast("Pixels", alpha), np.s_[top:bottom, left:right])


def lay(canvas: Pixels, patch: Patch, *, behind: Pixels | None = None) -> None:
    """Blend a patch into the (H, W, 3) ``canvas``, in place, except where ``behind``, an alpha (H, W), is set."""
    alpha = _uncovered(patch.alpha, patch, behind)[..., None]
    under = canvas[patch.region]
    canvas[patch.region] = np.rint(under + (patch.rgb.astype(np.float32) - under) * alpha).astype(np.uint8)


def _uncovered(alpha: Pixels, patch: Patch, behind: Pixels | None) -> NDArray[np.float32]:
    share = alpha.astype(np.float32) / np.float32(255)
    if behind is not None:
        share *= np.float32(1) - behind[patch.region].astype(np.float32) / np.float32(255)
    return share


@dataclass(frozen=True, slots=True)
class Heat:
    """How an object looks in a thermal image, in its grey values (0 to 255).

    Attributes:
        level: its mean.
        detail: by how much the object's own light and dark parts differ, as a share of the difference in colour.
        slope: by how much its top is warmer than its bottom.
        softness: of its edge and its detail in pixels (a deviation); thermal optics resolve less.
    """

    level: float
    detail: float
    slope: float
    softness: float

    @staticmethod
    def draw(around: float, rng: Generator) -> Heat:
        """Of an object before a background of grey value ``around``: warmer three times out of four."""
        contrast = rng.uniform(25, 110) * (1 if rng.random() < 0.75 else -1)
        if not 10 <= around + contrast <= 245:
            contrast = -contrast
        return Heat(float(np.clip(around + contrast, 5, 250)), *_texture(rng))

    @staticmethod
    def near(level: float, rng: Generator) -> Heat:
        """Of an object about as warm as one of mean ``level``."""
        return Heat(float(np.clip(level + 12 * rng.normal(), 5, 250)), *_texture(rng))


def _texture(rng: Generator) -> tuple[float, float, float]:
    return rng.uniform(-0.35, 0.35), 14 * rng.normal(), rng.uniform(0.6, 1.6)


def lay_heat(thermal: Pixels, patch: Patch, heat: Heat, *, behind: Pixels | None = None) -> None:
    """Blend the heat of a patch into an (H, W) thermal image, in place."""
    grey = cv2.GaussianBlur(cv2.cvtColor(patch.rgb, cv2.COLOR_RGB2GRAY), (0, 0), heat.softness).astype(np.float32)
    slope = np.linspace(heat.slope / 2, -heat.slope / 2, grey.shape[0], dtype=np.float32)[:, None]
    warmth = np.clip(heat.level + slope + np.float32(heat.detail) * (grey - np.float32(128)), 1, 255)
    soft = cast("Pixels", cv2.GaussianBlur(patch.alpha, (0, 0), heat.softness))
    alpha, under = _uncovered(soft, patch, behind), thermal[patch.region]
    thermal[patch.region] = np.rint(under + (warmth - under) * alpha).astype(np.uint8)


def beside(box: Box, width: float, height: float, nearness: tuple[float, float], rng: Generator) -> tuple[float, float]:
    """A centre for a ``width`` × ``height`` object near ``box``, in any direction.

    Args:
        nearness: the least and the largest distance, in units of that at which the two just touch.
    """
    angle = rng.uniform(0, 2 * math.pi)
    x, y = math.cos(angle), math.sin(angle)
    touching = min((box.w + width) / 2 / max(abs(x), 1e-6), (box.h + height) / 2 / max(abs(y), 1e-6))
    distance = touching * rng.uniform(*nearness)
    return box.center[0] + distance * x, box.center[1] + distance * y


def crowd(view: View, cutout: Cutout, rng: Generator) -> View:
    """``view`` with an object of about the target's size beside the target, or partly behind it where it has a mask.

    The target stays as visible as it was. Where no place for the object is found in the picture, ``view`` itself.
    """
    assert view.rgb is not None
    width, height = view.size
    mirrored, scale = bool(rng.random() < 0.5), math.sqrt(view.box.area) / cutout.root * math.exp(0.15 * rng.normal())
    bounds = scale * cutout.mask.shape[1], scale * cutout.mask.shape[0]
    nearness = (1.1, 1.7) if view.mask is None else (0.6, 1.4)
    for _ in range(12):
        cx, cy = beside(view.box, *bounds, nearness, rng)
        if not (0 < cx < width and 0 < cy < height):
            continue
        patch = place(cutout, Stance(cx, cy, scale, 0.0, mirrored), width, height)
        assert patch is not None
        rgb, thermal = view.rgb.copy(), None if view.thermal is None else view.thermal.copy()
        lay(rgb, patch, behind=view.mask)
        if thermal is not None:
            lay_heat(thermal, patch, Heat.near(_level(thermal, view.box), rng), behind=view.mask)
        return View(rgb, thermal, view.box, view.mask, view.scene)
    return view


def _level(thermal: Pixels, box: Box) -> float:
    """The mean grey value in the middle of a box."""
    (cx, cy), (h, w) = box.center, thermal.shape
    rows = slice(int(np.clip(cy - box.h / 4, 0, h - 1)), int(np.clip(cy + box.h / 4, 0, h - 1)) + 1)
    columns = slice(int(np.clip(cx - box.w / 4, 0, w - 1)), int(np.clip(cx + box.w / 4, 0, w - 1)) + 1)
    return float(thermal[rows, columns].mean())
