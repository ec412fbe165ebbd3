"""Thermal that is not registered to colour: moved, scaled or turned against it, from the first frame on.

Boxes are in colour's pixels, so it is the thermal frame that changes. What it shows beyond its old edge is mirrored
there: nobody knows what the camera would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.data.synthetic.noise import stream
from duotrack.evaluation.corruptions.corruption import Corruption, Modality, remade
from duotrack.evaluation.sequences import BenchmarkPairs
from duotrack.frames import FramePair, Image

Affine: TypeAlias = NDArray[np.float64]
"""(2, 3), from a pixel centre of the thermal frame as it was to where it comes to lie."""

BOTH: tuple[Modality, ...] = ("rgb", "thermal")


def misaligned(sequence: BenchmarkPairs, first: FramePair, pixels: float, seed: int) -> BenchmarkPairs:  # noqa: ARG001
    """Thermal is moved by so many pixels, in one direction."""
    x, y = _direction(sequence, seed)
    return _with_thermal(sequence, lambda index: _move(x * pixels, y * pixels))  # noqa: ARG005


def drifting(sequence: BenchmarkPairs, first: FramePair, pixels: float, seed: int) -> BenchmarkPairs:  # noqa: ARG001
    """Thermal moves away steadily: not at all in the first frame, by so many pixels in the last."""
    x, y = _direction(sequence, seed)
    step = pixels / max(len(sequence.boxes) - 1, 1)
    return _with_thermal(sequence, lambda index: _move(x * step * index, y * step * index))


def scaled(sequence: BenchmarkPairs, first: FramePair, factor: float, seed: int) -> BenchmarkPairs:  # noqa: ARG001
    """Thermal shows everything larger by a factor, about the middle of the frame."""
    matrix = _about_middle(first, 0, factor)
    return _with_thermal(sequence, lambda index: matrix)  # noqa: ARG005


def turned(sequence: BenchmarkPairs, first: FramePair, degrees: float, seed: int) -> BenchmarkPairs:
    """Thermal is turned about the middle of the frame, one way or the other."""
    way = stream(seed, "rotation", sequence.name).choice((-1, 1))
    matrix = _about_middle(first, way * degrees, 1)
    return _with_thermal(sequence, lambda index: matrix)  # noqa: ARG005


def _with_thermal(sequence: BenchmarkPairs, matrix: Callable[[int], Affine]) -> BenchmarkPairs:
    def make(index: int) -> FramePair:
        pair = sequence.pair(index)
        if pair.thermal is None:
            return pair
        size = pair.width, pair.height
        # Cubic, since a bilinear sample between pixels would blur as well.
        warped = cv2.warpAffine(pair.thermal, matrix(index), size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        return FramePair(pair.rgb, cast("Image", warped))

    return remade(sequence, make)


def _direction(sequence: BenchmarkPairs, seed: int) -> tuple[float, float]:
    angle = stream(seed, "misalignment", sequence.name).uniform(0, 2 * math.pi)
    return math.cos(angle), math.sin(angle)


def _move(x: float, y: float) -> Affine:
    return np.array([[1, 0, x], [0, 1, y]], np.float64)


def _about_middle(pair: FramePair, degrees: float, factor: float) -> Affine:
    middle = (pair.width - 1) / 2, (pair.height - 1) / 2
    return cast("Affine", cv2.getRotationMatrix2D(middle, degrees, factor))


REGISTRATION = {
    "misalignment": Corruption(
        title="misalignment",
        unit="px",
        severities=(2, 4, 8, 16, 32),
        largest=256,
        does="Thermal is moved against colour by so many pixels, in a direction drawn for the sequence.",
        apply=misaligned,
        needs=BOTH,
    ),
    "misalignment-drift": Corruption(
        title="drifting misalignment",
        unit="px",
        severities=(4, 8, 16, 32),
        largest=256,
        does="Thermal is registered in the first frame and moves away steadily, by so many pixels up to the last.",
        apply=drifting,
        needs=BOTH,
    ),
    "scale": Corruption(
        title="scale between modalities",
        unit="times",
        severities=(1.02, 1.05, 1.1, 1.15, 1.2),
        neutral=1.0,
        largest=2.0,
        does="Thermal shows everything larger by this factor, about the middle of the frame.",
        apply=scaled,
        needs=BOTH,
    ),
    "rotation": Corruption(
        title="rotation between modalities",
        unit="degrees",
        severities=(1, 2, 5, 10, 15),
        largest=45,
        does="Thermal is turned about the middle of the frame, one way or the other as drawn for the sequence.",
        apply=turned,
        needs=BOTH,
    ),
}
