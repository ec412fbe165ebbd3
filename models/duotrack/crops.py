"""Square crops of a frame pair, resampled to the network's input size."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import CropWindow
from duotrack.frames import FramePair, ThermalWindow

# Below this scale a bilinear sample skips pixels, and the frame is averaged down by a whole factor first.
COARSEST_BILINEAR = 0.5


def crop_pair(pair: FramePair, window: CropWindow, thermal_window: ThermalWindow | None) -> NDArray[np.uint8]:
    """The network's input: (size, size, 4) uint8, R, G, B and thermal; an absent modality is zero.

    Args:
        thermal_window: maps 16-bit thermal values to 8 bits; not needed for an 8-bit frame.
    """
    crop = np.zeros((window.size, window.size, 4), np.uint8)
    if pair.rgb is not None:
        crop[..., :3] = resample(pair.rgb, window)
    if pair.thermal is not None:
        thermal = resample(pair.thermal, window)
        if thermal.dtype == np.uint16:
            assert thermal_window is not None
            thermal = np.where(beyond_frame(pair, window), np.uint8(0), thermal_window.to_uint8(thermal))
        crop[..., 3] = thermal
    return crop


def resample(image: NDArray[Any], window: CropWindow) -> NDArray[Any]:
    """``window`` of an (H, W) or (H, W, 3) image at ``window.size``: bilinear with pixel centres aligned, zero outside.

    What ``resample_reference`` gives by padding and resizing, without the padded copy. Only in the outermost row of
    frame pixels, when enlarging, do they differ: there this goes on to the neighbour beyond the window, which the
    resizing does not see.
    """
    left, top, scale = float(window.x), float(window.y), window.scale
    if scale < COARSEST_BILINEAR:
        if _misses(image, window):
            return np.zeros((window.size, window.size, *image.shape[2:]), image.dtype)
        image, left, top, factor = _average_down(image, window)
        scale *= factor
    # cv2 puts pixel centres at whole numbers: half a pixel is added on one side and taken on the other.
    to_crop = np.array([[scale, 0, (0.5 - left) * scale - 0.5], [0, scale, (0.5 - top) * scale - 0.5]])
    return cast("NDArray[Any]", cv2.warpAffine(image, to_crop, (window.size, window.size), flags=cv2.INTER_LINEAR))


def _misses(image: NDArray[Any], window: CropWindow) -> bool:
    """Whether the window lies wholly beside the image."""
    height, width = image.shape[:2]
    beside = window.x >= width or window.x + window.side <= 0
    return beside or window.y >= height or window.y + window.side <= 0


def _average_down(image: NDArray[Any], window: CropWindow) -> tuple[NDArray[Any], float, float, int]:
    """The part of the image under the window, averaged over factor × factor pixels; and the window's place in it."""
    factor = int(1 / window.scale)
    height, width = image.shape[:2]
    left, right = max(window.x, 0), min(window.x + window.side, width)
    top, bottom = max(window.y, 0), min(window.y + window.side, height)
    columns, rows = max((right - left) // factor, 1), max((bottom - top) // factor, 1)
    part = image[top : top + rows * factor, left : left + columns * factor]
    small = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    return cast("NDArray[Any]", small), (window.x - left) / factor, (window.y - top) / factor, factor


def resample_reference(image: NDArray[Any], window: CropWindow) -> NDArray[Any]:
    """The plain form of ``resample`` (OSTrack's ``sample_target``): cut, pad with zeros, resize."""
    height, width = image.shape[:2]
    padded = np.zeros((window.side, window.side, *image.shape[2:]), image.dtype)
    left, right = max(window.x, 0), min(window.x + window.side, width)
    top, bottom = max(window.y, 0), min(window.y + window.side, height)
    if left < right and top < bottom:
        padded[top - window.y : bottom - window.y, left - window.x : right - window.x] = image[top:bottom, left:right]
    interpolation = cv2.INTER_AREA if window.scale < COARSEST_BILINEAR else cv2.INTER_LINEAR
    return cast("NDArray[Any]", cv2.resize(padded, (window.size, window.size), interpolation=interpolation))


def beyond_frame(pair: FramePair, window: CropWindow) -> NDArray[np.bool_]:
    """(size, size) where the crop's pixel centres lie outside the frame."""
    centers = (np.arange(window.size) + 0.5) / window.scale
    columns, rows = centers + window.x, centers + window.y
    outside_x = (columns < 0) | (columns >= pair.width)
    outside_y = (rows < 0) | (rows >= pair.height)
    return outside_y[:, None] | outside_x[None, :]
