"""Colours and textures of actors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np

from duotrack.data.synthetic.figure import Colour
from duotrack.data.synthetic.noise import TILE, Pixels, texture

Pattern: TypeAlias = Literal["plain", "stripes", "checks", "patches"]


def mix(a: Colour, b: Colour, share: float) -> Colour:
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def cloth(rng: np.random.Generator) -> Colour:
    """Clothes are mostly dark, grey or muted, seldom bright."""
    hue, value = rng.uniform(0, 2 * math.pi), rng.uniform(35, 215)
    chroma = rng.uniform(0, 0.55) ** 1.5
    return _tint(hue, value, chroma)


def paint(rng: np.random.Generator) -> Colour:
    """Paint is white, grey or black in six cases of ten."""
    grey = rng.uniform() < 0.6
    return _tint(rng.uniform(0, 2 * math.pi), rng.uniform(40, 225), 0.03 if grey else rng.uniform(0.3, 0.6))


def _tint(hue: float, value: float, chroma: float) -> Colour:
    r, g, b = (value * (1 + chroma * math.cos(hue - third)) for third in (0, 2 * math.pi / 3, 4 * math.pi / 3))
    return (min(r, 245), min(g, 245), min(b, 245))


def detail_texture(
    rng: np.random.Generator,
    still: Pixels | None,
    strength: float,
    patterns: Sequence[Pattern] = get_args(Pattern),
    size: int = 96,
) -> Pixels:
    """A texture around 128: cut from the colour ``still``, or patterned cloth, patches or paint."""
    x, y = (int(v) for v in rng.integers(0, TILE - size, 2))
    if still is not None:
        side = min(still.shape[:2])
        rows, columns = (np.linspace(0, side - 1, size).astype(int) for _ in range(2))
        cut = still[rows][:, columns].astype(np.float32)
        ratio = 0.25 + 0.75 * cut / max(float(cut.mean()), 16.0)
        return np.asarray(np.clip(128 * ratio, 20, 255).astype(np.uint8))
    grain = texture(1.2)[y : y + size, x : x + size] + 0.5 * texture(0.4)[y : y + size, x : x + size]
    pattern = patterns[int(rng.integers(len(patterns)))]
    if pattern == "stripes":
        grain = grain * 0.5 + 1.6 * np.sign(np.sin(np.arange(size) * rng.uniform(0.3, 0.8)))[:, None]
    elif pattern == "checks":
        wave = np.sign(np.sin(np.arange(size) * rng.uniform(0.25, 0.6)))
        grain = grain * 0.5 + 0.9 * (wave[:, None] + wave[None, :])
    elif pattern == "patches":
        grain = grain * 0.5 + 1.8 * np.sign(texture(1.8)[y : y + size, x : x + size])
    tones = 128 * (1 + strength * grain[..., None] * rng.uniform(0.7, 1.3, 3).astype(np.float32))
    return np.asarray(np.clip(tones, 20, 250).astype(np.uint8))
