"""The world as one wide picture in colour and in temperature, painted once and then only warped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.data.synthetic import props
from duotrack.data.synthetic.backdrop import paint_backdrop
from duotrack.data.synthetic.figure import Patch
from duotrack.data.synthetic.noise import (
    COARSE,
    Field,
    Pixels,
)
from duotrack.data.synthetic.plan import Plan
from duotrack.data.synthetic.terrain import WATER, ground_picture, lay_out, still_picture


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Everything that does not move.

    Attributes:
        left, top: panorama coordinates of the pictures' corner.
        colour: (H, W, 3) uint8, in white light.
        thermal: (H, W) uint16, apparent temperature in 0.01 K.
        lamps: (H / 4, W / 4) float32, light of street lamps and windows, 1 where it is full.
        water: (H / 4, W / 4) float32, 1 where there is water, or None.
    """

    left: int
    top: int
    colour: Pixels
    thermal: NDArray[np.uint16]
    lamps: Field
    water: Field | None


def build_world(plan: Plan, rng: np.random.Generator, backgrounds: Sequence[Pixels] = ()) -> World:
    """Paint the world that the plan's camera sees."""
    left, top, right, bottom = plan.camera.bounds()
    width, height = right - left, bottom - top
    x = np.arange(left, right, dtype=np.float32)[None, :]
    rows = np.arange(top, bottom, dtype=np.float32)[:, None]
    day = float(plan.daylight.mean())

    right_m, away_m = plan.ground.to_metres(x, rows)
    index = lay_out(plan, rng, right_m, away_m)
    colour, celsius = ground_picture(plan, rng, index, right_m, away_m, plan.ground.scale(rows), day)
    lamps = np.zeros((math.ceil(height / COARSE), math.ceil(width / COARSE)), np.float32)
    water = _coarse(index == WATER) if plan.view == "water" else None
    if backgrounds:
        still = backgrounds[int(rng.integers(len(backgrounds)))]
        colour, celsius = still_picture(still, rng, width, height, plan.air + 3 * day)
    elif plan.ground.horizon > top:
        paint_backdrop(plan, rng, colour, celsius, lamps, (left, top), day)
        if water is not None:
            water[: max(0, int(plan.ground.horizon - top) // COARSE + 1)] = 0
    _scatter(plan, rng, colour, celsius, (left, top))
    _street_lamps(plan, rng, lamps, right_m, away_m)
    colour = np.asarray(cv2.GaussianBlur(colour, (3, 3), 0.6), np.uint8)
    kelvin = np.clip((celsius + 273.15) * 100, 0, 65535)
    return World(left, top, colour, kelvin.astype(np.uint16), lamps, water)


def _scatter(plan: Plan, rng: np.random.Generator, colour: Pixels, celsius: Field, corner: tuple[int, int]) -> None:
    """Trees, bushes and parked cars behind everyone's paths (or beside them, from above), the farthest first."""
    ground = plan.ground
    if plan.view == "water":
        return
    width = celsius.shape[1] / ground.density
    tracks = (plan.target, *plan.distractors, *plan.bystanders)
    nearest = max(float(ground.to_metres(track.x, track.row)[1].max()) for track in tracks) + 1.5
    count = int(rng.integers(4, 12))
    if ground.overhead:
        aways = rng.uniform(6, 16, count) * rng.choice([-1, 1], count)
    else:
        nearest = max(nearest, 12.0 if plan.view == "street" else 0.0)
        aways = np.sort(nearest + rng.uniform(0, 22, count) ** 1.2)[::-1]
    for away in aways:
        right = rng.uniform(-0.5, 0.5) * width * (1 + max(away, 0) / max(ground.distance, 20))
        x, row = ground.to_pixels(np.array([right], np.float32), np.array([away], np.float32))
        scale = float(ground.scale(row)[0])
        patch = _prop(plan, rng, scale, float(ground.pitch(row)[0]))
        if patch is None or max(patch.alpha.shape) > 3 * plan.camera.height:
            continue
        at_x, at_row = round(float(x[0])) - corner[0], round(float(row[0])) - corner[1]
        _ground_shade(colour, patch, at_x, at_row, ground.overhead)
        placed = Patch(patch.x + at_x, patch.y + at_row, patch.surface, patch.alpha)
        props.paste(colour, celsius, placed)


def _prop(plan: Plan, rng: np.random.Generator, scale: float, tilt: float) -> Patch | None:
    choice = rng.uniform()
    if plan.ground.overhead:
        if choice < 0.3:
            return props.parked_van(rng, scale, tilt, plan.air)
        return props.canopy(rng, rng.uniform(3, 7) * scale, plan.air)
    if choice < 0.15 and plan.view == "street":
        return props.parked_van(rng, scale, tilt, plan.air)
    if choice < 0.6:
        return props.tree(rng, rng.uniform(4, 9) * scale, plan.air)
    if choice < 0.9:
        return props.bush(rng, rng.uniform(0.7, 1.6) * scale, plan.air)
    return props.lamp_post(rng, rng.uniform(4.5, 6.5) * scale, plan.air)


def _ground_shade(colour: Pixels, patch: Patch, x: int, row: int, overhead: bool) -> None:
    """Darken the ground around the foot of something that stands there."""
    h, w = patch.alpha.shape
    if overhead:
        shade: Pixels = np.full(colour.shape[:2], 255, np.uint8)
        cv2.ellipse(shade, (x + w // 8, row + h // 8), (2 * w // 5, 2 * h // 5), 0, 0, 360, 165, -1)
        soft = cv2.blur(shade, (9, 9))
        colour[:] = cv2.multiply(colour, cv2.merge((soft, soft, soft)), scale=1 / 255)
        return
    half, flat = max(w // 2, 2), max(w // 10, 1)
    box = max(row - flat, 0), min(row + flat, colour.shape[0]), max(x - half, 0), min(x + half, colour.shape[1])
    if box[0] < box[1] and box[2] < box[3]:
        y = (np.arange(box[0], box[1], dtype=np.float32)[:, None] - row) / flat
        across = (np.arange(box[2], box[3], dtype=np.float32)[None, :] - x) / half
        dark = 1 - 0.45 * np.clip(1 - y**2 - across**2, 0, 1)
        colour[box[0] : box[1], box[2] : box[3]] = colour[box[0] : box[1], box[2] : box[3]] * dark[..., None]


def _street_lamps(plan: Plan, rng: np.random.Generator, lamps: Field, right: Field, away: Field) -> None:
    """Add pools of light on the ground, and a faint glow over all that is near them."""
    if plan.view == "water":
        return
    shape = np.broadcast_shapes(right.shape, away.shape)
    x, z = (np.broadcast_to(axis, shape)[::COARSE, ::COARSE] for axis in (right, away))
    spacing, radius = rng.uniform(9, 17), rng.uniform(3.0, 5.0)
    near, far = -0.6 * plan.ground.distance, 30.0
    for lane in (rng.uniform(1.5, 4), rng.uniform(-9, -5), rng.uniform(12, 16)):
        if near < lane < far:
            across = np.mod(x + rng.uniform(0, spacing), spacing) - spacing / 2
            squared = across**2 + (z - lane) ** 2
            lamps += np.exp(-squared / (2 * radius**2)) + 0.15 * np.exp(-squared / (20 * radius**2))
    np.minimum(lamps, 1.0, out=lamps)


def _coarse(mask: NDArray[np.bool_]) -> Field:
    return mask[::COARSE, ::COARSE].astype(np.float32)
