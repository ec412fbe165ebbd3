"""Objects pasted before a moving still: their paths, and how they look in colour and in thermal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.data import pasting
from duotrack.data.figures import Figure
from duotrack.data.images import Pixels
from duotrack.data.pasting import Heat, Patch, Stance
from duotrack.data.synthetic.noise import Field, wander

REACH = 0.38
"""How far a mover's middle goes from the frame's, in frame sides."""


@dataclass(frozen=True, slots=True, eq=False)
class Mover:
    """A pasted object.

    Attributes:
        x, y: (frames,) its middle, in pixels of the frame.
        scale: (frames,) frame pixels per pixel of the cut-out.
        turn: (frames,) in degrees.
        first: its pose in frame 0; later frames show the poses that follow.
        light: factor on its colours, for a scene darker or brighter than the one it was cut from.
    """

    figure: Figure
    x: Field
    y: Field
    scale: Field
    turn: Field
    first: int
    mirrored: bool
    light: float
    heat: Heat

    def patch(self, frame: int, shift: NDArray[np.float64], width: int, height: int) -> Patch | None:
        """How it lies in a frame whose picture is moved by ``shift`` (2,) pixels; None where it lies outside."""
        x, y = (np.array([self.x[frame], self.y[frame]], float) + shift).tolist()
        stance = Stance(x, y, float(self.scale[frame]), float(self.turn[frame]), self.mirrored)
        patch = pasting.place(self.figure.pose(self.first + frame), stance, width, height)
        if patch is None:
            return None
        return Patch(cast("Pixels", cv2.convertScaleAbs(patch.rgb, alpha=self.light)), patch.alpha, patch.region)

    def area(self, frame: int) -> float:
        """Of its whole silhouette, in pixels of the frame."""
        mask = self.figure.pose(self.first + frame).mask
        return float(mask.sum(dtype=np.int64)) / 255 * float(self.scale[frame]) ** 2


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Mean grey values of the scene, in colour and in thermal, that a pasted object is lit by and stands out from."""

    colour: float
    thermal: float


def draw_mover(
    figure: Figure,
    surroundings: Surroundings,
    frames: int,
    size: tuple[int, int],
    rng: Generator,
    *,
    near: Mover | None = None,
) -> Mover:
    """An object on a smooth path over frames of ``size`` (width, height).

    Args:
        near: a mover that it stays about and crosses, about as large and as warm.
    """
    width, height = size
    first = int(rng.integers(len(figure)))
    cutout = figure.pose(first)
    period = rng.uniform(45, 130)
    path_x, path_y, growth, turn = (wander(rng, frames, period) for _ in range(4))
    if near is None:
        side = min(size) * math.exp(rng.uniform(math.log(0.1), math.log(0.4)))
        scale = np.float32(side / cutout.root) * np.exp(np.float32(0.25) * growth)
        x, y = width * (0.5 + np.float32(REACH) * path_x), height * (0.5 + np.float32(REACH) * path_y)
        heat = Heat.draw(surroundings.thermal, rng)
    else:
        root = near.figure.pose(near.first).root / cutout.root
        scale = near.scale * np.float32(root * math.exp(0.15 * rng.normal()))
        side = float(scale[0]) * cutout.root
        # Beside the other most of the time, in its place now and then.
        x, y = near.x + np.float32(2.6 * side) * path_x, near.y + np.float32(1.6 * side) * path_y
        heat = Heat.near(near.heat.level, rng)
    # Half of the way to the scene's brightness: an object at night is darker than by day, but seldom black.
    luma = float(np.mean(cv2.mean(cutout.rgb, mask=cutout.mask)[:3]))
    light = float(np.clip(math.sqrt((surroundings.colour + 10) / (luma + 10)), 0.3, 1.6))
    mirrored = bool(rng.random() < 0.5)
    return Mover(figure, x, y, scale, np.float32(7) * turn, first, mirrored, light, heat)
