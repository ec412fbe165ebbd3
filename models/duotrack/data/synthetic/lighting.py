"""Light that moves: the pools before vehicles, and the waves on water."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from duotrack.data.synthetic.noise import COARSE, Field
from duotrack.data.synthetic.plan import Plan
from duotrack.data.synthetic.tracks import FRAME_RATE, Track


def headlights(plan: Plan, track: Track, frame: int, size: tuple[int, int]) -> Field:
    """The pool of light before a vehicle, (h, w) for ``size`` (w, h) of the coarse grid."""
    ground, camera = plan.ground, plan.camera
    right, away = ground.to_metres(track.x[frame : frame + 1], track.row[frame : frame + 1])
    ahead, heading = track.actor.length / 2 + 4, float(track.heading[frame])
    x, row = ground.to_pixels(
        right + np.float32(ahead * math.cos(heading)), away + np.float32(ahead * math.sin(heading))
    )
    at = camera.matrix(frame) @ (float(x[0]), float(row[0]), 1.0) / COARSE
    long = 3.5 * float(ground.scale(row)[0] * camera.zoom[frame]) / COARSE
    flat = max(math.sin(float(ground.pitch(row)[0])), 0.15)
    dx = (np.arange(size[0], dtype=np.float32)[None, :] - float(at[0])) / long
    dy = (np.arange(size[1], dtype=np.float32)[:, None] - float(at[1])) / (long * flat)
    return np.asarray(1.2 * np.exp(-(dx * dx + dy * dy)), np.float32)


def ripples(frame: int, coarse: NDArray[np.float64], size: tuple[int, int]) -> Field:
    """Two trains of waves over the water, which drift against each other."""
    x = np.arange(size[0], dtype=np.float32)[None, :] - np.float32(coarse[0, 2])
    y = np.arange(size[1], dtype=np.float32)[:, None] - np.float32(coarse[1, 2])
    time = frame / FRAME_RATE
    first = np.sin(0.55 * y + 0.06 * x + 3.1 * time + 1.5 * np.sin(0.11 * x + 0.7 * time))
    second = np.sin(0.8 * y - 0.1 * x - 2.3 * time + 1.2 * np.sin(0.07 * x - 0.9 * time))
    return np.asarray(0.6 * first * second + 0.4 * first, np.float32)
