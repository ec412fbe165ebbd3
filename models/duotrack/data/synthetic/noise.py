"""Seeded randomness: independent streams, smooth signals over time, and textures with a power-law spectrum."""

from __future__ import annotations

import zlib
from functools import cache
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Field: TypeAlias = NDArray[np.float32]
Pixels: TypeAlias = NDArray[np.uint8]

TILE = 512

COARSE = 4
"""Light and broad patches are smooth: their maps have one pixel for 4 × 4 of the picture."""


def stream(seed: int, *labels: str | int) -> np.random.Generator:
    """A generator for one purpose, so that a draw added for one thing leaves all the others as they were."""
    keys = [zlib.crc32(label.encode()) if isinstance(label, str) else label for label in labels]
    return np.random.default_rng([seed, *keys])


def wander(rng: np.random.Generator, frames: int, period: float) -> Field:
    """A smooth signal (frames,) within [-1, 1], a sum of three sinusoids; its fastest takes ``period`` frames."""
    time = np.arange(frames, dtype=np.float32)
    signal = np.zeros(frames, np.float32)
    for weight, stretch in ((0.5, 2.3), (0.3, 1.5), (0.2, 1.0)):
        length = period * stretch * rng.uniform(0.9, 1.2)
        signal += np.float32(weight) * np.sin(np.float32(2 * np.pi) * (time / np.float32(length) + rng.uniform()))
    return signal.astype(np.float32)


def plateau(frames: int, start: float, rise: float, hold: float) -> Field:
    """A bump (frames,) in [0, 1]: up over ``rise`` frames from ``start``, 1 for ``hold`` frames, down again."""
    time = np.arange(frames, dtype=np.float32)
    up = np.clip((time - start) / rise, 0, 1)
    down = np.clip((start + 2 * rise + hold - time) / rise, 0, 1)
    ramp = np.minimum(up, down)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)


@cache
def texture(slope: float, variant: int = 0) -> Field:
    """A periodic texture (TILE, TILE) of zero mean and unit deviation, whose amplitude falls as frequency^-slope.

    Slope 0 is white noise, 1 looks like soil or plaster, 2 like clouds. The tiles are the same in every scene;
    a scene reads them at its own offsets.
    """
    rng = stream(variant, "texture", round(slope * 100))
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE))) * frequency**-slope
    tile = np.fft.irfft2(spectrum, s=(TILE, TILE))
    tile = (tile / tile.std()).astype(np.float32)
    tile.flags.writeable = False
    return np.asarray(tile, np.float32)


def sample(tile: Field, columns: Field, rows: Field) -> Field:
    """The value of a periodic ``tile`` at the nearest texel, at coordinates in texels that broadcast together."""
    x = columns.astype(np.int32) & (TILE - 1)
    y = rows.astype(np.int32) & (TILE - 1)
    return np.asarray(tile[y, x], np.float32)


def stretched(rng: np.random.Generator, h: int, w: int, slope: float, size: float) -> Field:
    """A texture over (h, w) pixels whose features are some ``size`` pixels wide."""
    texels, shift = 64 / size, rng.uniform(0, TILE, 2)
    x = np.arange(w, dtype=np.float32)[None, :] * np.float32(texels) + np.float32(shift[0])
    y = np.arange(h, dtype=np.float32)[:, None] * np.float32(texels) + np.float32(shift[1])
    if texels >= 1:
        return sample(texture(slope), x, y)
    step = max(int(1 / texels), 1)
    values = sample(texture(slope), x[:, ::step], y[::step])
    return np.asarray(cv2.resize(values, (w, h), interpolation=cv2.INTER_CUBIC), np.float32)
