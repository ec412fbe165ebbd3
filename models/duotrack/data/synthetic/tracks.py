"""Where an actor is, which way it faces and how it steps, over all frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from duotrack.data.synthetic.actor import Actor, Pose
from duotrack.data.synthetic.figure import Placement
from duotrack.data.synthetic.geometry import Camera, Ground
from duotrack.data.synthetic.noise import Field

FRAME_RATE = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One actor's path on the ground, over all frames: panorama foot (x, row), and what follows from it."""

    actor: Actor
    x: Field
    row: Field
    scale: Field
    pitch: Field
    heading: Field
    travelled: Field
    pace: Field
    lift: Field

    @classmethod
    def along(cls, actor: Actor, ground: Ground, x: Field, row: Field, lift: Field) -> Track:
        right, away = ground.to_metres(x, row)
        step_x, step_z = _steps(right), _steps(away)
        steps = np.hypot(step_x, step_z)
        if actor.reverses:
            headings, signed = _lane_headings(step_x, step_z)
        else:
            headings, signed = _headings(step_x, step_z, actor.agility / FRAME_RATE), steps
        return cls(
            actor=actor,
            x=x,
            row=row,
            scale=ground.scale(row),
            pitch=ground.pitch(row),
            heading=headings,
            travelled=np.cumsum(signed, dtype=np.float32),
            pace=np.asarray(steps * FRAME_RATE / actor.speed, np.float32),
            lift=lift,
        )

    def pose(self, frame: int) -> Pose:
        return Pose(float(self.travelled[frame]), float(self.pace[frame]), frame / FRAME_RATE)

    def placement(self, frame: int, camera: Camera) -> Placement:
        """Where the actor stands in the frame."""
        x, y = camera.matrix(frame) @ (float(self.x[frame]), float(self.row[frame]), 1.0)
        return Placement(
            x=float(x),
            y=float(y),
            scale=float(self.scale[frame] * camera.zoom[frame]),
            heading=float(self.heading[frame]),
            pitch=float(self.pitch[frame]),
            roll=float(camera.roll[frame]),
            lift=float(self.lift[frame]),
        )


def _steps(path: Field) -> Field:
    return np.asarray(np.gradient(path), np.float32) if len(path) > 1 else np.zeros_like(path)


def _lane_headings(step_x: Field, step_z: Field) -> tuple[Field, Field]:
    """Directions along a lane, and the metres of each step: what drives back keeps its direction."""
    forward = -1.0 if float(step_x.sum()) < 0 else 1.0
    slope = np.clip(step_z / np.maximum(np.abs(step_x), 0.02), -0.4, 0.4)
    sway = np.convolve(np.pad(slope, 12, mode="edge"), np.full(25, 1 / 25), mode="valid")
    along = np.asarray(forward * step_x, np.float32)
    return np.asarray((0.0 if forward > 0 else math.pi) + forward * sway * np.tanh(along / 0.05), np.float32), along


def _headings(step_x: Field, step_z: Field, limit: float) -> Field:
    """Directions of motion, turned towards by at most ``limit`` radians a frame; who stands keeps its direction."""
    wanted = np.arctan2(step_z, step_x)
    moving = np.hypot(step_x, step_z) > 0.004
    headings = np.empty(len(wanted), np.float32)
    heading = float(wanted[0])
    for i, (goal, moves) in enumerate(zip(wanted.tolist(), moving.tolist(), strict=True)):
        if moves:
            error = (goal - heading + math.pi) % (2 * math.pi) - math.pi
            heading += min(max(0.25 * error, -limit), limit)
        headings[i] = heading
    return headings
