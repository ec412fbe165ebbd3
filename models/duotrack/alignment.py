"""How far thermal lies from colour in a pair's pixels, where the cameras are not registered as they should be.

Colour and heat have edges in the same places, but an edge that is bright on one side in one may be dark there in the
other. So what is compared is the direction of edges without its sign: the gradient squared as a complex number, whose
angle is twice the gradient's (Bigün and Granlund 1987), with its length nearly taken off, for strong edges of one are
weak in the other. Both fields are correlated over the whole frame, half whitened; the place of the peak is the offset.

One offset holds for the whole frame. Cameras that stand apart see near things at another offset than far ones; then it
is that of most of the edges, and a target much nearer than those is not helped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import CropWindow
from duotrack.frames import FramePair

Offset = tuple[float, float]
"""Pixels right and down: what colour shows at (x, y), thermal shows at (x, y) plus this."""

LONGEST_SIDE = 192
"""Of the images that are compared, in pixels."""
REACH = 1 / 12
"""Largest offset along an axis, as a share of the longer side of the frame."""
WHITENING = 0.5
"""Power of the spectrum's length that is divided out; 1 would be phase correlation, which noise rules."""
CLEAR, DISTINCT = 5.0, 1.4
"""A peak's least height, in deviations of the correlation, and least ratio to the next one's."""
NEIGHBOURHOOD = 3
"""Cells around the peak that belong to it."""
EVERY = 10
"""Pairs from one estimate to the next."""
AGREEING = 4.0
"""Small pixels that an estimate may differ from the one before and be believed: as much as a drift is followed."""
SMALLEST = 1.5
"""Offset, in small pixels, from which on it is worth moving anything: beneath, cameras count as registered."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """What a track knows of its cameras.

    Attributes:
        offset: of thermal from colour, as far as it is sure.
        estimate: the last one, which the next may confirm; None where it was not clear.
        wait: pairs until the next one.
    """

    offset: Offset
    estimate: Offset | None
    wait: int

    @classmethod
    def start(cls, pair: FramePair) -> Alignment | None:
        """From the first pair, with whose offset the template is cut; None where that is not clear.

        Then the track goes without: thermal moved in the search and not in the template is worse than moved in neither.
        """
        found = estimate_offset(pair)
        return None if found is None else cls(_worth_moving(found, pair), found, EVERY)

    def follow(self, pair: FramePair) -> Alignment:
        """After the next pair: an estimate is believed when it agrees with the one before."""
        if pair.rgb is None or pair.thermal is None or self.wait > 1:
            return replace(self, wait=max(self.wait - 1, 1))
        found, before = estimate_offset(pair), self.estimate
        if found is None or before is None or math.dist(found, before) > AGREEING / _scale(pair):
            return replace(self, estimate=found, wait=EVERY)
        return Alignment(_worth_moving(found, pair), found, EVERY)

    def to_thermal(self, window: CropWindow) -> CropWindow:
        """The window of the thermal frame that shows what ``window`` of the colour frame does."""
        dx, dy = self.offset
        return replace(window, x=window.x + round(dx), y=window.y + round(dy))


def estimate_offset(pair: FramePair) -> Offset | None:
    """Thermal's offset from colour in pixels; None where a frame is missing, or there is no clear peak."""
    if pair.rgb is None or pair.thermal is None:
        return None
    scale = _scale(pair)
    size = max(1, round(pair.width * scale)), max(1, round(pair.height * scale))
    if min(size) < 2 * NEIGHBOURHOOD:
        return None
    colour, thermal = _small(pair.rgb[..., 1], size), _small(pair.thermal, size)
    reach = max(NEIGHBOURHOOD, round(REACH * max(size)))
    surface = _correlate(_edges(colour), _edges(thermal), min(reach, (min(size) - 1) // 2))
    peak = _clear_peak(surface)
    # Fourier transforms differ in the last digits with where in memory a frame lies; a track must not.
    return None if peak is None else (round(peak[0] / scale, 2), round(peak[1] / scale, 2))


def _correlate(colour: NDArray[np.float32], thermal: NDArray[np.float32], reach: int) -> NDArray[np.float64]:
    """(2 reach + 1, 2 reach + 1) correlation at offsets up to ``reach``, in deviations from its mean."""
    spectrum: NDArray[Any] = cv2.mulSpectrums(cv2.dft(thermal), cv2.dft(colour), 0, conjB=True)
    length = cv2.magnitude(spectrum[..., 0], spectrum[..., 1])
    spectrum /= (length**WHITENING + 1e-9)[..., None]
    whole = cv2.idft(spectrum)[..., 0]
    around = np.arange(-reach, reach + 1)
    part = whole[around[:, None], around[None, :]].astype(np.float64)
    return cast("NDArray[np.float64]", (part - part.mean()) / max(float(part.std()), 1e-12))


def _clear_peak(surface: NDArray[np.float64]) -> Offset | None:
    """The peak's offset, to a part of a cell; None where it is low, or another is nearly as high."""
    reach = surface.shape[0] // 2
    row, column = (int(v) for v in np.unravel_index(int(surface.argmax()), surface.shape))
    height = float(surface[row, column])
    others = surface.copy()
    rows = slice(max(row - NEIGHBOURHOOD, 0), row + NEIGHBOURHOOD + 1)
    others[rows, max(column - NEIGHBOURHOOD, 0) : column + NEIGHBOURHOOD + 1] = -np.inf
    if height < CLEAR or height < DISTINCT * float(others.max()):
        return None
    dx = _vertex(surface[row, max(column - 1, 0) : column + 2])
    dy = _vertex(surface[max(row - 1, 0) : row + 2, column])
    return column - reach + dx, row - reach + dy


def _vertex(values: NDArray[np.float64]) -> float:
    """Where a parabola through three values has its top, from the middle one; 0 at an end of the correlation."""
    if len(values) < 3:
        return 0.0
    left, middle, right = values.tolist()
    bend = left - 2 * middle + right
    return 0.5 * (left - right) / bend if bend < 0 else 0.0


def _edges(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h', w', 2) the squared gradient as real and imaginary part, nearly of length 1, faded towards the border."""
    soft = cv2.GaussianBlur(image, (0, 0), 1.0)
    gx, gy = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    real, imaginary = gx * gx - gy * gy, 2 * gx * gy
    square = gx * gx + gy * gy
    weight = 1 / (square + max(float(np.median(square)), 1e-6))  # beneath the median an edge is taken for noise
    height, width = image.shape
    fade = _fade(width, height)
    field = np.dstack([(part - part.mean()) * fade for part in (real * weight, imaginary * weight)])
    bottom, right = cv2.getOptimalDFTSize(height) - height, cv2.getOptimalDFTSize(width) - width
    return cast("NDArray[np.float32]", cv2.copyMakeBorder(field, 0, bottom, 0, right, cv2.BORDER_CONSTANT))


@cache
def _fade(width: int, height: int) -> NDArray[np.float32]:
    """The root of a Hann window: 0 at the border, and flat in the middle."""
    return cast("NDArray[np.float32]", np.sqrt(cv2.createHanningWindow((width, height), cv2.CV_32F)))


def _small(image: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    stride = max(1, image.shape[1] // (2 * size[0]))
    coarse = np.ascontiguousarray(image[::stride, ::stride])
    return cast("NDArray[np.float32]", cv2.resize(coarse, size, interpolation=cv2.INTER_AREA).astype(np.float32))


def _scale(pair: FramePair) -> float:
    return min(1.0, LONGEST_SIDE / max(pair.width, pair.height))


def _worth_moving(offset: Offset, pair: FramePair) -> Offset:
    return offset if math.hypot(*offset) * _scale(pair) >= SMALLEST else (0.0, 0.0)
