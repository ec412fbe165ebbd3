"""The target taken out of a picture: the same place with the same surroundings, to teach presence."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.images import Pixels, View
from duotrack.data.pasting import beside

CANDIDATES = 16
"""Places that are compared for how well they continue the surroundings of the hole."""
LEAST_CHANGE = 14.0
"""Mean change of a modality's grey values in the target's place; with less, one could not tell that it is gone."""
RING = 7
"""Width in pixels of the surroundings that are compared."""


def without_target(view: View, rng: Generator) -> View | None:
    """``view`` with background in the target's place, taken from beside it; the box says where the target was.

    Of several places around the target, the one whose rim continues the hole's rim best is copied over the target with
    a soft edge, the same in both modalities; everything else, distractors included, stays. The hole is the mask, or
    the box where there is none, and somewhat more.

    Returns:
        None where the target fills too much of the picture, or its place looks the same without it (a patch of
        lawn on a lawn), so that calling it absent would be wrong.
    """
    width, height = view.size
    hole = _hole(view, width, height)
    x, y, w, h = cv2.boundingRect(hole)
    left, top = max(x - RING, 0), max(y - RING, 0)
    right, bottom = min(x + w + RING, width), min(y + h + RING, height)
    region = np.s_[top:bottom, left:right]
    widened = cv2.dilate(hole[region], np.ones((2 * RING - 3, 2 * RING - 3), np.uint8))
    rim = np.asarray(widened - hole[region], np.uint8)
    pictures = [image for image in (view.rgb, view.thermal) if image is not None]
    place = Box(left, top, right - left, bottom - top)
    best, fill = math.inf, None
    for _ in range(CANDIDATES):
        cx, cy = beside(place, place.w, place.h, (1.0, 1.5), rng)
        dx, dy = round(cx - place.center[0]), round(cy - place.center[1])
        if left + dx < 0 or top + dy < 0 or right + dx > width or bottom + dy > height:
            continue
        source = np.s_[top + dy : bottom + dy, left + dx : right + dx]
        mismatch = math.fsum(_difference(image[region], image[source], rim) for image in pictures)
        if mismatch < best:
            best, fill = mismatch, source
    if fill is None:
        return None
    alpha = cv2.GaussianBlur(hole[region], (0, 0), 1.2).astype(np.float32) / np.float32(255)
    target = (view.mask if view.mask is not None else _box_mask(view.box, width, height))[region]
    filled = [_filled(image, region, fill, rim, alpha) for image in pictures]
    changes = [_difference(old[region], new[region], target) for old, new in zip(pictures, filled, strict=True)]
    if max(changes) < LEAST_CHANGE:
        return None
    rgb = filled[0] if view.rgb is not None else None
    return View(rgb, filled[-1] if view.thermal is not None else None, view.box, None, view.scene)


def _hole(view: View, width: int, height: int) -> Pixels:
    """(H, W) of 0 and 255: the target, its soft edge, and what a mask or box commonly misses of it."""
    root = math.sqrt(view.box.area)
    if view.mask is None:
        grown = Box.from_center(*view.box.center, 1.15 * view.box.w + 2, 1.15 * view.box.h + 2)
        return _box_mask(grown, width, height)
    reach = 2 * round(2 + 0.04 * root) + 1
    solid = (view.mask > 20).astype(np.uint8) * 255
    return np.asarray(cv2.dilate(solid, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))), np.uint8)


def _box_mask(box: Box, width: int, height: int) -> Pixels:
    mask = np.zeros((height, width), np.uint8)
    rows = slice(max(math.floor(box.y), 0), max(math.ceil(box.y + box.h), 1))
    columns = slice(max(math.floor(box.x), 0), max(math.ceil(box.x + box.w), 1))
    mask[rows, columns] = 255
    return mask


def _difference(first: Pixels, second: Pixels, mask: Pixels) -> float:
    """Mean absolute difference where ``mask`` is set; of the channels the mean."""
    return float(np.mean(cv2.mean(cv2.absdiff(first, second), mask=mask)[: 1 if first.ndim == 2 else 3]))


def _filled(
    image: Pixels,
    hole: tuple[slice, slice],
    source: tuple[slice, slice],
    rim: Pixels,
    alpha: NDArray[np.float32],
) -> Pixels:
    """``image`` with what lies at ``source`` blended into ``hole``, as bright as the rim."""
    channels = 1 if image.ndim == 2 else 3
    shift = np.subtract(cv2.mean(image[hole], mask=rim), cv2.mean(image[source], mask=rim))[:channels]
    filled = image.copy()
    weight = alpha if channels == 1 else alpha[..., None]
    patch = image[source] + shift.astype(np.float32)
    filled[hole] = np.clip(np.rint(image[hole] + (patch - image[hole]) * weight), 0, 255).astype(np.uint8)
    return filled
