"""The paths of the camera and of the target, made for each other."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from duotrack.data.synthetic.actor import Actor
from duotrack.data.synthetic.config import SceneConfig
from duotrack.data.synthetic.geometry import Camera, Ground
from duotrack.data.synthetic.noise import Field, wander
from duotrack.data.synthetic.tracks import FRAME_RATE


def draw_paths(
    draw: Callable[[str], np.random.Generator],
    config: SceneConfig,
    ground: Ground,
    actor: Actor,
    outside: Field,
    side: Field,
) -> tuple[Camera, Field, Field]:
    """The camera, and the target's foot in the panorama.

    A fixed camera waits for what the target does; one that follows is led by it. In both, the place of the target
    in the frame is what the schedule of exits asks for.
    """
    rng, n, width, height = draw("paths"), config.frames, config.width, config.height
    step = actor.speed * ground.density / FRAME_RATE * rng.uniform(0.7, 1.2)
    depth = _depth(config, ground, actor)
    fixed = rng.uniform() < 0.35 and not ground.overhead
    zoom = 1 + np.float32(0.02 if fixed else 0.13) * wander(rng, n, 110)
    roll = np.float32(0.004 if fixed else 0.03) * wander(rng, n, 70)
    if ground.overhead:
        roll = roll + np.float32(rng.uniform(0, 2 * math.pi)) + np.float32(0.35) * wander(rng, n, 160)

    reach = 0.3 * width if fixed else 0.8 * width
    x = np.float32(reach) * wander(rng, n, max(2.2 * reach / step, 60))
    row = np.float32(depth) * wander(rng, n, max(2.2 * depth / (step * max(math.sin(ground.tilt), 0.2)), 80))
    beyond = 0.5 + 0.75 * actor.size * ground.density * 1.3 / width + 0.05
    centre_x, centre_row = x, row - _rise(ground, actor, row)
    if fixed:
        place_x = np.asarray(x / width * zoom, np.float32)
        place_y = np.asarray((row / height + 0.03) * zoom * 0.9, np.float32)
    else:
        room = max(0.4 - 0.5 * actor.size * ground.density / width, 0.05)
        calm = max(75.0, 36 * room * width / (actor.size * ground.density))  # small targets would jump about
        place_x = np.float32(room) * wander(rng, n, calm)
        place_y = np.float32(0.14) * wander(rng, n, calm) + 0.04
    place_x = np.asarray(place_x + (side * np.float32(beyond) - place_x) * outside, np.float32)

    c, s = np.cos(roll) / zoom, np.sin(roll) / zoom
    offset_x, offset_row = c * place_x * width + s * place_y * height, c * place_y * height - s * place_x * width
    if fixed and not _too_fast(place_x * width, step):
        shift = float(_rise(ground, actor, np.zeros(1, np.float32))[0])
        camera_x, camera_row = np.zeros(n, np.float32), np.full(n, -shift, np.float32)
        x = np.asarray(offset_x, np.float32)
        row = np.asarray(np.clip(offset_row, -1.3 * depth, 1.3 * depth), np.float32)
    else:
        camera_x, camera_row = centre_x - offset_x, centre_row - offset_row
    shake = (0.0006 if fixed else 0.003) * width * rng.uniform(0.3, 1.3)
    camera = Camera(
        x=np.asarray(camera_x + np.float32(shake) * _tremor(rng, n), np.float32),
        row=np.asarray(camera_row + np.float32(shake) * _tremor(rng, n), np.float32),
        zoom=np.asarray(zoom, np.float32),
        roll=np.asarray(roll + np.float32(shake / width / 3) * _tremor(rng, n), np.float32),
        width=width,
        height=height,
    )
    return camera, x, row


def _depth(config: SceneConfig, ground: Ground, actor: Actor) -> float:
    """How far the target's row may leave home, in pixels; vehicles keep to their lane."""
    if actor.kind == "vehicle":
        return 1.2 * ground.density * math.sin(ground.tilt)
    if ground.overhead:
        return 0.35 * config.height
    return min(0.16 * config.height, -0.28 * ground.horizon)


def _rise(ground: Ground, actor: Actor, rows: Field) -> Field:
    """How far the middle of the body is above its foot, in pixels."""
    middle = actor.altitude + actor.height / 2
    return np.asarray(middle * ground.scale(rows) * np.cos(ground.pitch(rows)), np.float32)


def _too_fast(path: Field, step: float) -> bool:
    return bool(np.abs(np.diff(path)).max(initial=0) > 3.5 * step)


def _tremor(rng: np.random.Generator, n: int) -> Field:
    return wander(rng, n, 14) + np.float32(0.6) * wander(rng, n, 5)
