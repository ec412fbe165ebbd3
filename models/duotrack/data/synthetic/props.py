"""Things that stand: trees, bushes, posts, pillars, signs, parked vans; as patches whose foot is at (0, 0)."""

from __future__ import annotations

import math

import cv2
import numpy as np

from duotrack.data.synthetic.actor import Pose
from duotrack.data.synthetic.casting import cast
from duotrack.data.synthetic.figure import CELSIUS_PER_CODE, COLDEST, Colour, Patch, Placement, draw
from duotrack.data.synthetic.noise import TILE, Field, Pixels, texture


def tree(rng: np.random.Generator, height: float, air: float) -> Patch:
    """A tree of a height in pixels: ragged crown, lit from above, on a trunk."""
    h, w = _sides(height, height * rng.uniform(0.6, 0.95))
    y, x = _grid(h, w)
    conifer = rng.uniform() < 0.25
    if conifer:
        inside = 0.85 - y - 2.1 * np.abs(x) / np.maximum(y + 1.1, 0.1)
        inside = np.where(y > 0.62, -1.0, inside)
    else:
        inside = 1 - (x / 0.92) ** 2 - ((y + 0.28) / 0.7) ** 2
    crown = _leaves(rng, np.asarray(inside, np.float32), 0.5)
    colour: Colour = (74, 100, 54) if conifer else (112 + rng.uniform(-20, 30), 136 + rng.uniform(-15, 15), 62)
    trunk = np.abs(x + 0.04 * np.sin(4 * y)) < np.float32(0.075 * rng.uniform(0.8, 1.6)) * (1.2 + 0.5 * y)
    trunk &= y > -0.2
    leaf_light = 0.85 - 0.4 * y
    patch = _paint(rng, trunk, (86, 70, 56), 0.3, 1 - 0.6 * x, air + 1.5, 0.6)
    return _over(patch, _paint(rng, crown, colour, 0.42, leaf_light, air + 0.2, 0.9))


def bush(rng: np.random.Generator, height: float, air: float) -> Patch:
    h, w = _sides(height, height * rng.uniform(1.3, 2.4))
    y, x = _grid(h, w)
    mask = _leaves(rng, np.asarray(1 - x**2 - ((y - 1) / 1.75) ** 2, np.float32), 0.45)
    colour: Colour = (98 + rng.uniform(-15, 25), 124 + rng.uniform(-15, 15), 58)
    return _paint(rng, mask, colour, 0.42, 0.9 - 0.35 * y, air + 0.3, 0.9)


def canopy(rng: np.random.Generator, diameter: float, air: float) -> Patch:
    """A crown seen from above; its foot is its centre."""
    h, w = _sides(diameter, diameter)
    y, x = _grid(h, w)
    mask = _leaves(rng, np.asarray(1 - x**2 - y**2, np.float32), 0.4)
    colour: Colour = (104 + rng.uniform(-15, 25), 130 + rng.uniform(-15, 15), 62)
    light = 0.95 - 0.3 * (x + y) - 0.25 * (x**2 + y**2)
    patch = _paint(rng, mask, colour, 0.4, light, air + 0.3, 0.9)
    return Patch(patch.x, -h // 2, patch.surface, patch.alpha)


def deck(rng: np.random.Generator, width: float, length: float, air: float) -> Patch:
    """A footbridge seen from above, across the frame's rows; its foot is its centre."""
    h, w = _sides(length, width)
    _, x = _grid(h, w)
    patch = _paint(
        rng, np.ones((h, w), bool), (136, 132, 126), 0.08, np.where(np.abs(x) > 0.88, 0.6, 1.0), air + 5, 0.4
    )
    return Patch(patch.x, -h // 2, patch.surface, patch.alpha)


def pillar(rng: np.random.Generator, width: float, height: float, air: float) -> Patch:
    """A round column of concrete, brick red or timber."""
    h, w = _sides(height, width)
    _, x = _grid(h, w)
    colour: Colour = ((150, 147, 140), (134, 88, 70), (112, 92, 68))[int(rng.integers(3))]
    light = 1.02 - 0.3 * x - 0.35 * x**2
    return _paint(rng, np.ones((h, w), bool), colour, 0.12, light, air + rng.uniform(1, 4), 0.5)


def sign(rng: np.random.Generator, width: float, height: float, air: float) -> Patch:
    """A panel on two legs, with bands of colour and something like lettering."""
    h, w = _sides(height, width)
    y, x = _grid(h, w)
    panel = y < 0.25
    legs = (y >= 0.25) & (np.abs(np.abs(x) - 0.7) < max(0.06, 1.2 / w))
    base: Colour = ((206, 204, 196), (48, 84, 132), (150, 52, 44), (58, 98, 70))[int(rng.integers(4))]
    patch = _paint(rng, panel, base, 0.06, 1 - 0.05 * x, air + rng.uniform(2, 6), 0.3)
    gaps = cv2.resize(texture(0.4)[8:9, 8:40], (w, 1), interpolation=cv2.INTER_NEAREST) > 0.9
    letters = panel & (np.sin(y * 38) > 0.2) & (np.abs(x) < 0.8) & ~gaps
    ink: Colour = (40, 40, 46) if base[0] > 180 else (225, 225, 220)
    patch = _over(patch, _paint(rng, letters, ink, 0.05, np.ones_like(x), air + 4, 0.1))
    return _over(patch, _paint(rng, legs, (110, 112, 116), 0.1, np.ones_like(x), air + 1, 0.1))


def lamp_post(rng: np.random.Generator, height: float, air: float) -> Patch:
    h, w = _sides(height, max(0.22 * height, 5))
    y, x = _grid(h, w)
    column = np.abs(x) < max(0.07, 1.0 / w)
    arm = (y < -0.97) & (x > 0)
    head = (y < -0.93) & (x > 0.45)
    patch = _paint(rng, column | arm, (84, 88, 92), 0.08, 1 - 0.3 * x, air + 1, 0.2)
    return _over(patch, _paint(rng, head, (236, 228, 200), 0.02, np.ones_like(x), air + 12, 0.2))


def parked_van(rng: np.random.Generator, density: float, tilt: float, air: float) -> Patch | None:
    """A vehicle that stands; ``density`` in pixels per metre."""
    actor = cast("vehicle", rng, air)
    heading = float(rng.choice([0.0, math.pi])) + rng.uniform(-0.15, 0.15)
    placement = Placement(0.0, 0.0, density, heading, tilt)
    return draw(actor.body.figure(Pose(rng.uniform(0, 2), 0.0, 0.0)), placement, actor.detail, actor.size / 2)


def paste(colour: Pixels, celsius: Field, patch: Patch, heat: float = 0.0) -> None:
    """Lay a patch over a colour (H, W, 3) and a temperature image (H, W) in °C, in place; ``heat`` warms it."""
    clipped = patch.clip(celsius.shape[1], celsius.shape[0])
    if clipped is None:
        return
    rows = slice(clipped.y, clipped.y + clipped.alpha.shape[0])
    columns = slice(clipped.x, clipped.x + clipped.alpha.shape[1])
    rest = cv2.bitwise_not(clipped.alpha)
    under = np.ascontiguousarray(colour[rows, columns])
    dimmed = cv2.multiply(under, cv2.merge((rest, rest, rest)), scale=1 / 255)
    colour[rows, columns] = cv2.add(dimmed, np.ascontiguousarray(clipped.surface[..., :3]))
    share = rest.astype(np.float32) * np.float32(1 / 255)
    drawn = clipped.surface[..., 3].astype(np.float32) * np.float32(CELSIUS_PER_CODE)
    drawn += np.float32(COLDEST + heat) * (1 - share)
    celsius[rows, columns] = celsius[rows, columns] * share + drawn


def _sides(height: float, width: float) -> tuple[int, int]:
    return min(max(round(height), 3), 3000), min(max(round(width), 3), 3000)


def _grid(h: int, w: int) -> tuple[Field, Field]:
    """Rows (h, 1) and columns (1, w) from -1 to 1."""
    return np.linspace(-1, 1, h, dtype=np.float32)[:, None], np.linspace(-1, 1, w, dtype=np.float32)[None, :]


def _noise(rng: np.random.Generator, h: int, w: int, slope: float, span: int) -> Field:
    """A cut of ``span`` texels of a texture, stretched over (h, w)."""
    y, x = (int(v) for v in rng.integers(0, TILE - span, 2))
    cut = texture(slope)[y : y + span, x : x + span]
    return np.asarray(cv2.resize(cut, (w, h), interpolation=cv2.INTER_CUBIC), np.float32)


def _leaves(rng: np.random.Generator, inside: Field, ragged: float) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    h, w = inside.shape
    edge = 0.7 * _noise(rng, h, w, 1.1, 90) + 0.35 * _noise(rng, h, w, 0.5, 220)
    return np.asarray(inside + ragged * edge > 0.18)


def _paint(
    rng: np.random.Generator,
    mask: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
    colour: Colour,
    contrast: float,
    light: Field,
    celsius: float,
    spread: float,
) -> Patch:
    """A patch of one textured material where ``mask`` is set."""
    h, w = np.broadcast_shapes(mask.shape, light.shape)
    mask = np.broadcast_to(mask, (h, w))
    grain = 0.6 * _noise(rng, h, w, 0.9, 150) + 0.5 * _noise(rng, h, w, 0.3, min(TILE - 2, max(h, w)))
    alpha: Pixels = np.asarray(cv2.blur(np.where(mask, np.uint8(255), np.uint8(0)), (2, 2)), np.uint8)
    tone = np.clip(light * (1 + contrast * grain), 0.12, 1.7) * (alpha * np.float32(1 / 255))
    code = (celsius + spread * grain - COLDEST) / CELSIUS_PER_CODE * (alpha * np.float32(1 / 255))
    surface = np.empty((h, w, 4), np.uint8)
    for channel in range(3):
        surface[..., channel] = np.minimum(tone * np.float32(colour[channel]), 255)
    surface[..., 3] = np.clip(code, 0, 255)
    return Patch(-(w // 2), -h, surface, alpha)


def _over(below: Patch, above: Patch) -> Patch:
    rest = (255 - above.alpha.astype(np.float32)) / 255
    surface = below.surface * rest[..., None] + above.surface
    alpha = below.alpha * rest + above.alpha
    return Patch(below.x, below.y, np.clip(surface, 0, 255).astype(np.uint8), np.clip(alpha, 0, 255).astype(np.uint8))
