"""The path of a camera over a still picture, as homographies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.data.synthetic.noise import wander

Homographies: TypeAlias = NDArray[np.float64]
"""(..., 3, 3), from coordinates of a frame to those of the still, both continuous: pixel i covers i to i + 1."""


@dataclass(frozen=True, slots=True)
class Motion:
    """How the camera may move.

    Attributes:
        share: of the still's sides that a frame shows, before zoom.
        pan: share of the remaining room that the camera moves over; 0 keeps it in the middle.
        zoom: largest change of scale, as a natural logarithm.
        turn: largest rotation, in degrees.
        perspective: largest difference of scale between a frame's middle and its edges, as a share.
        period: the least and the largest time of the fastest swing, in frames; each path draws its own.
        misalignment: how far apart colour and thermal may be along each axis, in pixels of the frame.
    """

    share: float = 0.68
    pan: float = 1.0
    zoom: float = 0.15
    turn: float = 7.0
    perspective: float = 0.06
    period: tuple[float, float] = (40.0, 110.0)
    misalignment: float = 0.0


def camera_path(
    motion: Motion, frames: int, still: tuple[int, int], size: tuple[int, int], rng: Generator
) -> Homographies:
    """(frames, 3, 3): a smooth path of homographies under which every frame lies inside the still.

    Pan, zoom, rotation and perspective are sums of three sinusoids each, none faster than ``motion.period``.

    Args:
        still: width and height of the still.
        size: width and height of the frames.
    """
    period = rng.uniform(*motion.period)
    zoom, turn, tilt_x, tilt_y, pan_x, pan_y = (wander(rng, frames, period).astype(np.float64) for _ in range(6))
    scale = motion.share * min(still[0] / size[0], still[1] / size[1]) * np.exp(motion.zoom * zoom)
    angle = math.radians(motion.turn) * turn
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    linear = _stack(((cosine, -sine, 0), (sine, cosine, 0), (0, 0, 1)), frames)
    tilt_x, tilt_y = (2 * motion.perspective * tilt / side for tilt, side in zip((tilt_x, tilt_y), size, strict=True))
    tilted = _stack(((1, 0, 0), (0, 1, 0), (tilt_x, tilt_y, 1)), frames)
    centred = linear @ tilted @ _move(-size[0] / 2, -size[1] / 2, frames)
    corners = transform(centred, np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]], float))
    extent = corners.max(1) - corners.min(1)
    # One factor for the whole path: shrinking frame by frame would jerk.
    fitting = min(1.0, 0.999 * float((np.array(still) / extent).min()))
    shrink = np.diag((fitting, fitting, 1.0))
    room = np.array(still) - fitting * extent
    place = 0.5 + 0.5 * motion.pan * np.column_stack((pan_x, pan_y))
    origin = place * room - fitting * corners.min(1)
    return _move(origin[:, 0], origin[:, 1], frames) @ shrink @ centred


def transform(homographies: Homographies, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., N, 2): ``points`` (N, 2) under homographies (..., 3, 3)."""
    mapped = np.column_stack((points, np.ones(len(points)))) @ np.swapaxes(homographies, -1, -2)
    return np.asarray(mapped[..., :2] / mapped[..., 2:])


def between_pixel_centres(homography: Homographies) -> Homographies:
    """(3, 3): the same map for OpenCV, whose coordinates are those of pixel centres."""
    return np.asarray(_move(-0.5, -0.5, 1)[0] @ homography @ _move(0.5, 0.5, 1)[0])


def _move(x: float | NDArray[np.float64], y: float | NDArray[np.float64], frames: int) -> Homographies:
    return _stack(((1, 0, x), (0, 1, y), (0, 0, 1)), frames)


def _stack(rows: tuple[tuple[float | NDArray[np.float64], ...], ...], frames: int) -> Homographies:
    """(frames, 3, 3) from entries that are numbers, or (frames,) paths of them."""
    stacked = np.empty((frames, 3, 3))
    for i, row in enumerate(rows):
        for j, entry in enumerate(row):
            stacked[:, i, j] = entry
    return stacked
