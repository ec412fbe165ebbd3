"""What stands between the camera and the target: placed where the target will pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from duotrack.data.synthetic import props
from duotrack.data.synthetic.figure import Patch
from duotrack.data.synthetic.geometry import Camera
from duotrack.data.synthetic.noise import Pixels
from duotrack.data.synthetic.plan import Plan


@dataclass(frozen=True, slots=True, eq=False)
class Occluder:
    """A standing thing in the foreground.

    Attributes:
        patch: its picture, in panorama pixels.
        row: the row of its foot, which orders it among the actors; infinite for what hangs above them.
        parallax: how many times faster than the ground it passes when the camera moves.
        frame: when it is before the target.
    """

    patch: Patch
    row: float
    parallax: float
    frame: int

    def seen(self, camera: Camera, frame: int) -> Patch | None:
        """Its part inside the frame."""
        matrix = camera.matrix(frame)
        extra = self.parallax - 1
        move = (camera.x[self.frame] - camera.x[frame], camera.row[self.frame] - camera.row[frame])
        shift = np.array([self.patch.x + extra * float(move[0]), self.patch.y + extra * float(move[1])])
        matrix[:, 2] += matrix[:, :2] @ shift
        h, w = self.patch.alpha.shape
        corners = np.array([[0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1]]) @ matrix.T
        left, top = (max(math.floor(v), 0) for v in corners.min(axis=0))
        right = min(math.ceil(float(corners[:, 0].max())), camera.width)
        bottom = min(math.ceil(float(corners[:, 1].max())), camera.height)
        if left >= right or top >= bottom:
            return None
        matrix[:, 2] -= (left, top)
        size = (right - left, bottom - top)
        surface: Pixels = np.asarray(cv2.warpAffine(self.patch.surface, matrix, size), np.uint8)
        alpha: Pixels = np.asarray(cv2.warpAffine(self.patch.alpha, matrix, size), np.uint8)
        return Patch(left, top, surface, alpha)


def place_occluders(plan: Plan, rng: np.random.Generator) -> tuple[Occluder, ...]:
    """One for each occlusion of the plan, and now and then leaves close to the camera."""
    placed = [_before(plan, rng, frame) for frame in plan.occlusions]
    if plan.occlusions and not plan.ground.overhead and rng.uniform() < 0.3:
        placed.append(_close_leaves(plan, rng))
    return tuple(placed)


def _before(plan: Plan, rng: np.random.Generator, frame: int) -> Occluder:
    ground, track = plan.ground, plan.target
    actor = track.actor
    foot_x, foot_row = track.x[frame : frame + 1], track.row[frame : frame + 1]
    if ground.overhead:
        size = actor.size * ground.density
        if rng.uniform() < 0.6:
            patch = props.canopy(rng, size * rng.uniform(1.1, 2.0), plan.air)
        else:
            wide = min(max(size * rng.uniform(0.6, 1.3), 8), 0.18 * plan.camera.height)
            patch = props.deck(rng, wide, 3 * plan.camera.height, plan.air)
        return Occluder(_moved(patch, float(foot_x[0]), float(foot_row[0])), math.inf, 1.0, frame)
    right, away = ground.to_metres(foot_x, foot_row)
    gap = min(1.6 if actor.kind in ("vehicle", "boat") else 0.6, 0.3 * ground.distance)
    x, row = ground.to_pixels(right, away - np.float32(gap))
    scale = float(ground.scale(row)[0])
    patch = _standing(plan, rng, scale)
    return Occluder(_moved(patch, float(x[0]), float(row[0])), float(row[0]), 1.0, frame)


def _standing(plan: Plan, rng: np.random.Generator, scale: float) -> Patch:
    """Something that hides the target in part or wholly, ``scale`` pixels per metre."""
    actor, air = plan.target.actor, plan.air
    top = (actor.altitude * 1.3 + actor.height) * scale
    wide = actor.length * scale
    choice = rng.uniform()
    if actor.altitude or plan.view == "water" or choice < 0.3:
        broad = wide * rng.uniform(0.5, 1.3) if actor.kind not in ("vehicle", "boat") else wide * rng.uniform(0.12, 0.4)
        return props.pillar(rng, broad, top * rng.uniform(1.3, 2.0), air)
    if choice < 0.5:
        return props.tree(rng, max(rng.uniform(4, 7) * scale, 3.3 * top), air)
    if choice < 0.72:
        return props.bush(rng, top * rng.uniform(0.7, 1.1), air)
    if choice < 0.85 and actor.kind in ("person", "animal", "cyclist"):
        tilt = math.atan(-plan.ground.horizon / plan.ground.focal)
        return props.parked_van(rng, scale, tilt, air) or props.bush(rng, top, air)
    return props.sign(rng, max(wide, 0.5 * top) * rng.uniform(0.9, 1.5), top * rng.uniform(1.15, 1.5), air)


def _close_leaves(plan: Plan, rng: np.random.Generator) -> Occluder:
    """A bush out of focus at the lower edge of some frame, passing faster than the ground."""
    camera, frame = plan.camera, int(rng.integers(len(plan.daylight)))
    height = camera.height * rng.uniform(0.2, 0.45)
    patch = props.bush(rng, height, plan.air)
    softness = camera.height / 160
    surface = np.asarray(cv2.GaussianBlur(patch.surface, (0, 0), softness), np.uint8)
    alpha = np.asarray(cv2.GaussianBlur(patch.alpha, (0, 0), softness), np.uint8)
    x = float(camera.x[frame]) + rng.uniform(-0.5, 0.5) * camera.width
    row = float(camera.row[frame]) + 0.62 * camera.height
    blurred = Patch(patch.x, patch.y, surface, alpha)
    return Occluder(_moved(blurred, x, row), math.inf, rng.uniform(1.4, 1.8), frame)


def _moved(patch: Patch, x: float, row: float) -> Patch:
    return Patch(patch.x + round(x), patch.y + round(row), patch.surface, patch.alpha)
