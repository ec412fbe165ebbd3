"""What rises over the horizon: the sky, hills, trees, and houses across the road."""

from __future__ import annotations

import cv2
import numpy as np

from duotrack.data.synthetic.figure import Colour
from duotrack.data.synthetic.noise import (
    COARSE,
    Field,
    Pixels,
    stretched,
)
from duotrack.data.synthetic.plan import Plan


def paint_backdrop(
    plan: Plan,
    rng: np.random.Generator,
    colour: Pixels,
    celsius: Field,
    lamps: Field,
    corner: tuple[int, int],
    day: float,
) -> None:
    """The sky, and before it hills, trees or houses."""
    height, width = celsius.shape
    horizon = int(plan.ground.horizon - corner[1])
    base = min(max(horizon + 2, 1), height)
    rise = np.linspace(1, 0, base, dtype=np.float32)[:, None]
    zenith, low = np.array([96, 138, 198], np.float32), np.array([206, 214, 222], np.float32)
    overcast = rng.uniform()
    zenith = zenith + (np.array([178, 184, 190], np.float32) - zenith) * overcast
    sky = low + (zenith - low) * np.minimum(rise * base / (0.8 * plan.camera.height), 1)[..., None]
    clouds = stretched(rng, base, width, 2.0, 0.45 * plan.camera.height)
    cover = np.clip(0.5 * clouds + 0.6 * overcast - 0.1, 0, 1)[..., None]
    colour[:base] = np.clip(sky + (np.array([232, 234, 236], np.float32) - sky) * cover * 0.8, 0, 255)
    celsius[:base] = plan.air - 24 + 12 * overcast + 8 * cover[..., 0] + 7 * (1 - rise)

    far = plan.camera.height * rng.uniform(0.03, 0.1)
    _ridge(rng, colour, celsius, base, far, (112, 126, 118), 0.1, plan.air - 1, smooth=True)
    if plan.view == "street":
        _houses(plan, rng, colour, celsius, lamps, corner, day)
    else:
        tall = plan.camera.height * rng.uniform(0.06, 0.16)
        _ridge(rng, colour, celsius, base + 1, tall, (70, 88, 50), 0.4, plan.air + 0.3, smooth=False)


def _ridge(
    rng: np.random.Generator, colour: Pixels, celsius: Field, base: int, tall: float, tone: Colour, contrast: float,
    temperature: float, smooth: bool,
) -> None:  # fmt: skip
    """A line of hills, or with a ragged edge of trees, standing on row ``base``."""
    top = max(0, int(base - 2.2 * tall))
    width = celsius.shape[1]
    if base - top < 3:
        return
    profile = tall * (1 + 0.3 * stretched(rng, 1, width, 1.6, 300 if smooth else 90))
    above = (base - np.arange(top, base, dtype=np.float32))[:, None]
    inside = profile - above
    leaves = stretched(rng, base - top, width, 0.8, 40)
    if not smooth:
        inside = inside + 0.16 * tall * leaves
    mask = inside > 0
    shade = np.clip((0.75 + 0.35 * above / tall) * (1 + contrast * leaves), 0.2, 1.6)
    drawn = np.minimum(np.array(tone, np.float32) * shade[..., None], 255).astype(np.uint8)
    np.copyto(colour[top:base], drawn, where=mask[..., None])
    np.copyto(celsius[top:base], np.float32(temperature) + np.float32(0.6) * leaves, where=mask)


def _houses(
    plan: Plan,
    rng: np.random.Generator,
    colour: Pixels,
    celsius: Field,
    lamps: Field,
    corner: tuple[int, int],
    day: float,
) -> None:
    """A row of house fronts across the road, with windows of which some are lit."""
    distance = np.array([rng.uniform(16, 26)], np.float32)
    _, rows = plan.ground.to_pixels(np.zeros(1, np.float32), distance)
    scale = float(plan.ground.scale(rows)[0])
    base = min(int(rows[0]) - corner[1], celsius.shape[0])
    x, width = -rng.uniform(0, 8) * scale, celsius.shape[1]
    while x < width and base > 4:
        w, h = rng.uniform(7, 17) * scale, rng.uniform(5.5, 16) * scale
        if rng.uniform() < 0.82:
            _house(rng, colour, celsius, lamps, (int(x), int(base - h), int(x + w), base), scale, plan.air, day)
        x += w + (rng.uniform(0.5, 5) * scale if rng.uniform() < 0.4 else 0)


def _house(
    rng: np.random.Generator, colour: Pixels, celsius: Field, lamps: Field, box: tuple[int, int, int, int],
    scale: float, air: float, day: float,
) -> None:  # fmt: skip
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], celsius.shape[1]), box[3]
    if right - left < 4 or bottom - top < 4:
        return
    front = np.array(
        ((176, 166, 150), (152, 108, 88), (186, 182, 174), (140, 142, 146))[int(rng.integers(4))], np.float32
    )
    grain = stretched(rng, bottom - top, right - left, 0.7, 60)
    colour[top:bottom, left:right] = np.clip(front * rng.uniform(0.8, 1.1) * (1 + 0.07 * grain[..., None]), 0, 255)
    celsius[top:bottom, left:right] = air + 1.5 + 3 * day + rng.uniform(-0.7, 0.7) + 0.35 * grain
    cv2.rectangle(colour, (left, box[1]), (right - 1, box[1] + max(1, int(0.25 * scale))), (94, 88, 84), -1)
    storey, bay, tall, wide = 3.0 * scale, rng.uniform(2.0, 3.2) * scale, 1.5 * scale, rng.uniform(0.9, 1.5) * scale
    for y in np.arange(box[3] - 2.4 * scale, box[1] + 0.5 * scale, -storey):
        for x in np.arange(box[0] + 0.6 * scale, box[2] - wide, bay):
            corners = (int(x), int(y)), (int(x + wide), int(y + tall))
            lit = rng.uniform() < 0.34 - 0.3 * day
            cv2.rectangle(colour, *corners, (206, 178, 120) if lit else (64, 74, 86), -1)
            cv2.rectangle(colour, *corners, (196, 194, 188), max(1, int(0.08 * scale)))
            cv2.rectangle(celsius, *corners, air + (3.5 if lit else -1.5), -1)
            if lit:
                small = [(cx // COARSE, cy // COARSE) for cx, cy in corners]
                cv2.rectangle(lamps, small[0], small[1], 0.75, -1)
