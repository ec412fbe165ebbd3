"""What uncooled thermal cameras do: they are noisy, and they stand still while the shutter is closed to calibrate."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.data.synthetic.noise import stream
from duotrack.evaluation.corruptions.corruption import Corruption, remade
from duotrack.evaluation.corruptions.grain import grain
from duotrack.evaluation.sequences import BenchmarkPairs
from duotrack.frames import FramePair, Image, ThermalWindow

RANDOM, COLUMNS, PIXELS = 0.8, 0.5, 0.33
"""Shares of the noise's deviation: from frame to frame, and the fixed pattern's; their squares add up to 1."""
CALIBRATION = 90
"""Frames from one calibration to the next; cameras take minutes, but sequences are short."""
FIRST_CALIBRATION = 30
"""The first is within so many frames."""


def noisy(sequence: BenchmarkPairs, first: FramePair, grey_levels: float, seed: int) -> BenchmarkPairs:
    """Thermal with noise of so many grey levels; a grey level of 16-bit frames is 1/255 of the first one's range."""
    assert first.thermal is not None
    deviation = np.float32(grey_levels * counts_per_grey_level(first.thermal))
    rng = stream(seed, "thermal-noise", sequence.name, "pattern")
    columns, pixels = rng.standard_normal((1, first.width), np.float32), grain(rng, (first.height, first.width))
    pattern = np.asarray(deviation * (np.float32(COLUMNS) * columns + np.float32(PIXELS) * pixels), np.float32)

    def make(index: int) -> FramePair:
        pair = sequence.pair(index)
        if pair.thermal is None:
            return pair
        noise = grain(stream(seed, "thermal-noise", sequence.name, index), pair.thermal.shape)
        added = cv2.scaleAdd(noise, float(RANDOM * deviation), pattern)
        depth = cv2.CV_8U if pair.thermal.dtype == np.uint8 else cv2.CV_16U
        return FramePair(pair.rgb, cast("Image", cv2.add(pair.thermal, added, dtype=depth)))

    return remade(sequence, make)


def counts_per_grey_level(thermal: Image) -> float:
    """How many raw counts make one of 256 grey levels; 1 for an 8-bit frame."""
    if thermal.dtype == np.uint8:
        return 1.0
    window = ThermalWindow.of(cast("NDArray[np.uint16]", thermal))
    return (window.high - window.low) / 255


def freezing(sequence: BenchmarkPairs, first: FramePair, frames: float, seed: int) -> BenchmarkPairs:  # noqa: ARG001
    """Every ``CALIBRATION`` frames, a thermal frame is repeated so many times."""
    start = int(stream(seed, "thermal-freeze", sequence.name).integers(FIRST_CALIBRATION))

    def make(index: int) -> FramePair:
        pair, since = sequence.pair(index), (index - start) % CALIBRATION
        if index <= start or not 0 < since <= frames:
            return pair
        frozen = sequence.pair(index - since).thermal
        return pair if frozen is None else FramePair(pair.rgb, frozen)

    return remade(sequence, make)


THERMAL_CAMERA = {
    "thermal-noise": Corruption(
        title="thermal noise",
        unit="grey levels",
        severities=(4, 8, 16, 32, 48),
        largest=255,
        does="Thermal gets noise of this standard deviation: random, and a fixed pattern of columns and pixels.",
        apply=noisy,
        needs=("thermal",),
    ),
    "thermal-freeze": Corruption(
        title="thermal freeze",
        unit="frames",
        severities=(5, 10, 20, 40, 80),
        largest=CALIBRATION - 1,
        whole=True,
        does=f"Every {CALIBRATION} frames thermal stands still for so many frames, as when a shutter calibrates.",
        apply=freezing,
        needs=("thermal",),
    ),
}
