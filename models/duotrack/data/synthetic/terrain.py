"""The ground as a picture: what lies where, its colour and its temperature."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.data.synthetic.config import View
from duotrack.data.synthetic.figure import Colour
from duotrack.data.synthetic.geometry import Ground
from duotrack.data.synthetic.noise import (
    COARSE,
    Field,
    Pixels,
    sample,
    texture,
)
from duotrack.data.synthetic.plan import Plan


class Surface(NamedTuple):
    """A ground material: colour, roughness of its colour, °C over the air by day and by night, and their spread."""

    colour: Colour
    rough: float
    day: float
    night: float
    spread: float


_SURFACES = (
    Surface((122, 136, 76), 0.18, 1.0, -1.5, 0.8),  # 0 grass
    Surface((112, 112, 115), 0.09, 4.5, 2.0, 0.5),  # 1 asphalt
    Surface((168, 162, 153), 0.09, 3.0, 0.8, 0.6),  # 2 paving
    Surface((150, 126, 97), 0.15, 2.2, -0.4, 0.9),  # 3 soil
    Surface((72, 98, 108), 0.24, -2.5, 1.5, 0.5),  # 4 water
    Surface((214, 212, 204), 0.07, 3.5, 1.4, 0.4),  # 5 marking
    Surface((172, 168, 160), 0.08, 3.2, 0.9, 0.4),  # 6 kerb
    Surface((130, 124, 117), 0.08, 2.8, 0.6, 0.4),  # 7 joint
    Surface((142, 92, 76), 0.13, 5.0, -1.0, 0.8),  # 8 roof tiles
    Surface((158, 160, 160), 0.08, 4.0, -2.0, 0.9),  # 9 flat roof
)
_GRASS, _ASPHALT, _PAVING, _SOIL, WATER, _MARKING, _KERB, _JOINT, _TILES, _ROOF = range(10)


def lay_out(plan: Plan, rng: np.random.Generator, right: Field, away: Field) -> Pixels:
    """Which surface is where: (H, W) uint8 of indices; ``right`` and ``away`` are metres that broadcast together."""
    view: View = plan.view
    if view == "aerial":
        view = "street" if plan.kind in ("vehicle", "cyclist") else ("park", "plaza", "street")[int(rng.integers(3))]
    painter = {"street": _street, "park": _park, "plaza": _plaza, "water": _lake}[view]
    index = painter(plan, rng, right, away)
    if plan.ground.overhead:
        _roofs(rng, index, right, away)
    return index


def _street(plan: Plan, rng: np.random.Generator, right: Field, away: Field) -> Pixels:
    index = _fill(right, away, _GRASS if rng.uniform() < 0.5 else _PAVING)
    half, walk = rng.uniform(3.5, 5.5), rng.uniform(2.2, 4)
    centre = half / 2 if plan.kind in ("vehicle", "cyclist") else half + 1.6
    z = away - np.float32(centre) + 0 * right
    index[np.abs(z) < half + walk] = _PAVING
    joints = (np.mod(right, 1.2) < 0.05) & (np.abs(z) < half + walk)
    index[joints & _resolved(plan.ground, away, 0.05)] = _JOINT
    index[np.abs(z) < half + 0.18] = _KERB
    index[np.abs(z) < half] = _ASPHALT
    dash, gap = rng.uniform(2, 4), rng.uniform(2, 5)
    index[(np.abs(z) < 0.09) & (np.mod(right, dash + gap) < dash)] = _MARKING
    index[np.abs(np.abs(z) - half + 0.35) < 0.07] = _MARKING
    crossing = rng.uniform(-12, 12)
    index[(np.abs(right - crossing) < 1.7) & (np.abs(z) < half - 0.5) & (np.mod(z, 1.0) < 0.5)] = _MARKING
    return index


def _park(_: Plan, rng: np.random.Generator, right: Field, away: Field) -> Pixels:
    index = _fill(right, away, _GRASS)
    bare = _cloud(rng, right, away, 9.0) > rng.uniform(0.9, 1.6)
    index[bare] = _SOIL
    bend, wave, offset = rng.uniform(1, 3), rng.uniform(6, 14), rng.uniform(-1, 2)
    way = np.abs(away - offset - bend * np.sin(right / wave + rng.uniform(0, 6)))
    index[way < rng.uniform(1.0, 2.0)] = _SOIL if rng.uniform() < 0.5 else _PAVING
    return index


def _plaza(plan: Plan, rng: np.random.Generator, right: Field, away: Field) -> Pixels:
    index = _fill(right, away, _PAVING)
    side, band = rng.uniform(0.8, 2.0), rng.uniform(6, 10)
    joints = (np.mod(right, side) < 0.045) | (np.mod(away, side) < 0.045)
    index[joints & _resolved(plan.ground, away, 0.045)] = _JOINT
    index[(np.mod(right, band) < 0.4) | (np.mod(away, band) < 0.4)] = _KERB
    for _ in range(5):
        x, z, r = rng.uniform(-25, 25), rng.uniform(6, 30) * rng.choice([-1, 1]), rng.uniform(2, 5)
        distance = np.hypot(right - x, away - z)
        index[distance < r + 0.25] = _KERB
        index[distance < r] = _GRASS
    return index


def _lake(_: Plan, rng: np.random.Generator, right: Field, away: Field) -> Pixels:
    index = _fill(right, away, WATER)
    shore = rng.uniform(40, 160) + 4 * _cloud(rng, right, away, 30.0)
    index[away > shore] = _SOIL
    index[away > shore + 8] = _GRASS
    return index


def _roofs(rng: np.random.Generator, index: Pixels, right: Field, away: Field) -> None:
    """Buildings from above, away from where the target moves."""
    for side in (-1, 1):
        x = -60.0
        while x < 60:
            w, depth, gap = rng.uniform(7, 16), rng.uniform(8, 14), rng.uniform(1.5, 8)
            z = side * (rng.uniform(13, 16) + depth / 2)
            inside = (np.abs(right - x - w / 2) < w / 2) & (np.abs(away - z) < depth / 2)
            index[inside] = _TILES if rng.uniform() < 0.5 else _ROOF
            x += w + gap


def ground_picture(
    plan: Plan, rng: np.random.Generator, index: Pixels, right: Field, away: Field, scale: Field, day: float
) -> tuple[Pixels, Field]:
    """Colour (H, W, 3) uint8 and temperature (H, W) in °C of the ground."""
    tint = rng.uniform(0.95, 1.05, (len(_SURFACES), 3))
    palette = np.array([surface.colour for surface in _SURFACES]) * tint * rng.uniform(0.85, 1.1)
    rough = np.array([surface.rough for surface in _SURFACES], np.float32)[index]
    squash = 2.5 if plan.view == "water" else 1.0
    grain = np.zeros(index.shape, np.float32)
    for texels, slope, weight in ((2.3, 1.0, 0.7), (11.0, 0.7, 0.6), (40.0, 0.4, 0.6)):
        fade = np.clip(scale / texels - 0.35, 0, 1) * np.float32(weight)
        shift = rng.uniform(200, 900, 2)
        grain += fade * sample(texture(slope), right * texels + shift[0], (away * squash) * texels + shift[1])
    broad = _cloud(rng, right, away, 12.0)
    tone = np.clip(1 + rough * (grain + 0.6 * broad), 0.25, 1.9)
    colour = palette.astype(np.float32)[index] * tone[..., None]
    colour[..., 0] *= 1 + 0.5 * rough * broad
    if not plan.ground.overhead:
        haze = np.clip(1 - scale / plan.ground.density * 5, 0, 0.55)[..., None]
        colour += (np.array([188, 196, 204], np.float32) - colour) * haze
    warmth = [surface.night + day * (surface.day - surface.night) for surface in _SURFACES]
    spread = np.array([surface.spread for surface in _SURFACES], np.float32)
    celsius = np.float32(plan.air) + np.array(warmth, np.float32)[index] + spread[index] * (0.6 * grain + 0.6 * broad)
    return np.clip(colour, 0, 255).astype(np.uint8), celsius


def still_picture(still: Pixels, rng: np.random.Generator, width: int, height: int, air: float) -> tuple[Pixels, Field]:
    """A photograph as the world; its temperatures follow its tones by a smooth curve that differs between scenes."""
    ratio = max(width / still.shape[1], height / still.shape[0])
    size = max(width, math.ceil(still.shape[1] * ratio)), max(height, math.ceil(still.shape[0] * ratio))
    scaled = cv2.resize(still, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC)
    y, x = int(rng.integers(size[1] - height + 1)), int(rng.integers(size[0] - width + 1))
    colour: Pixels = np.ascontiguousarray(scaled[y : y + height, x : x + width], np.uint8)
    tones = cv2.cvtColor(cv2.GaussianBlur(colour, (0, 0), 1.5), cv2.COLOR_RGB2GRAY)
    knots = air + rng.uniform(-6, 6, 6)
    curve = np.interp(np.arange(256), np.linspace(0, 255, 6), knots).astype(np.float32)
    return colour, curve[tones]


def _fill(right: Field, away: Field, surface: int) -> Pixels:
    return np.full(np.broadcast_shapes(right.shape, away.shape), surface, np.uint8)


def _resolved(ground: Ground, away: Field, metres: float) -> NDArray[np.bool_]:
    """Where something so thin is still more than half a pixel wide."""
    _, rows = ground.to_pixels(np.zeros_like(away), away)
    return np.asarray(ground.scale(rows) * metres > 0.5)


def _cloud(rng: np.random.Generator, right: Field, away: Field, size: float) -> Field:
    """Smooth patches on the ground, some ``size`` metres wide, of unit deviation."""
    shape = np.broadcast_shapes(right.shape, away.shape)
    texels, shift = 64 / size, rng.uniform(300, 900, 2)
    coarse_right, coarse_away = (np.broadcast_to(axis, shape)[::COARSE, ::COARSE] for axis in (right, away))
    values = sample(texture(1.7), coarse_right * texels + shift[0], coarse_away * texels + shift[1])
    return np.asarray(cv2.resize(values, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)
