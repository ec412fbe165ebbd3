"""Colour frames as they would be in less light: fewer photons, more gain, and what that does to 8 bits.

A frame's values are taken as light of gamma 2.2, and turned into electrons of a small video sensor whose pixel holds
``FULL_WELL``. With s stops less light there are 2^-s times as many; their number varies as photons do (its variance is
its mean), and reading adds ``READ_NOISE``. Gain makes up for half of the stops, so that the picture gets darker and
noisier. A 12-bit converter and the gamma follow. Colour filters and noise reduction are left out.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.data.synthetic.noise import stream
from duotrack.evaluation.corruptions.corruption import Corruption, remade
from duotrack.evaluation.corruptions.grain import grain
from duotrack.evaluation.sequences import BenchmarkPairs
from duotrack.frames import FramePair

GAMMA = 2.2
FULL_WELL = 4000.0
"""Electrons in a pixel that is just white."""
READ_NOISE = 4.0
"""Deviation, in electrons."""
CODES = 4095
"""The converter's largest value."""


def electrons(stops: float) -> NDArray[np.float64]:
    """(256,) electrons that each grey value of the frame stands for, with so many stops less light."""
    return np.asarray(FULL_WELL * 2.0**-stops * (np.arange(256) / 255) ** GAMMA)


def darkened(sequence: BenchmarkPairs, first: FramePair, stops: float, seed: int) -> BenchmarkPairs:  # noqa: ARG001
    """Colour with so many stops less light; each frame has noise of its own."""
    count = electrons(stops)
    to_codes = CODES / FULL_WELL * 2 ** (stops / 2)
    mean = (count * to_codes).astype(np.float32)
    deviation = (np.sqrt(count + READ_NOISE**2) * to_codes).astype(np.float32)
    developed = np.rint(255 * (np.arange(CODES + 1) / CODES) ** (1 / GAMMA)).astype(np.uint8)

    def make(index: int) -> FramePair:
        pair = sequence.pair(index)
        if pair.rgb is None:
            return pair
        noise = grain(stream(seed, "low-light", sequence.name, index), pair.rgb.shape)
        codes = cv2.add(cv2.LUT(pair.rgb, mean), cv2.multiply(cv2.LUT(pair.rgb, deviation), noise), dtype=cv2.CV_16U)
        return FramePair(developed[np.minimum(codes, CODES)], pair.thermal)

    return remade(sequence, make)


LOW_LIGHT = {
    "low-light": Corruption(
        title="low light",
        unit="stops",
        severities=(2, 4, 6, 8, 10),
        largest=14,
        does="Colour gets 2 to the power of so many times less light; gain makes up for half of the stops.",
        apply=darkened,
        needs=("rgb",),
    )
}
