"""The ground plane and the camera over it.

Panorama pixels: the world is one wide picture, at a zoom of 1 as large as in the frame; its origin is where the
target's foot is at home, x to the right and rows down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duotrack.data.synthetic.noise import Field


@dataclass(frozen=True, slots=True)
class Ground:
    """The ground plane in panorama pixels, seen in perspective or straight from above.

    Attributes:
        focal: focal length in pixels; unused from above.
        tilt: how far the camera looks down at home, in radians; π/2 is from above.
        density: pixels per metre at home.
    """

    focal: float
    tilt: float
    density: float

    @property
    def overhead(self) -> bool:
        return self.tilt > 1.5

    @property
    def horizon(self) -> float:
        """The row of the horizon; minus infinity from above."""
        return -math.inf if self.overhead else -self.focal * math.tan(self.tilt)

    @property
    def distance(self) -> float:
        """Metres along the ground from the camera's foot to home (0 from above)."""
        return 0.0 if self.overhead else self.focal / self.density

    def scale(self, rows: Field) -> Field:
        """Pixels per metre at ground rows: proportional to the distance below the horizon."""
        if self.overhead:
            return np.full_like(rows, self.density)
        return np.asarray(self.density * np.maximum(rows - self.horizon, 2.0) / -self.horizon, np.float32)

    def pitch(self, rows: Field) -> Field:
        if self.overhead:
            return np.full_like(rows, self.tilt)
        return np.asarray(np.arctan((rows - self.horizon) / self.focal), np.float32)

    def to_metres(self, x: Field, rows: Field) -> tuple[Field, Field]:
        """Panorama pixels to metres (X right, Z away) from home."""
        scale = self.scale(rows)
        if self.overhead:
            return np.asarray(x / scale, np.float32), np.asarray(-rows / scale, np.float32)
        return np.asarray(x / scale, np.float32), np.asarray(self.focal / scale - self.distance, np.float32)

    def to_pixels(self, right: Field, away: Field) -> tuple[Field, Field]:
        """The inverse of ``to_metres``."""
        if self.overhead:
            return right * self.density, -away * self.density
        scale = self.focal / np.maximum(away + self.distance, 0.1)
        rows = self.horizon - self.horizon * scale / self.density
        return np.asarray(right * scale, np.float32), np.asarray(rows, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """Where the camera looks, over all frames: panorama centre (x, row), zoom and roll in radians, each (n,)."""

    x: Field
    row: Field
    zoom: Field
    roll: Field
    width: int
    height: int

    def matrix(self, frame: int) -> NDArray[np.float64]:
        """(2, 3): panorama pixels to frame pixels."""
        zoom, roll = float(self.zoom[frame]), float(self.roll[frame])
        c, s = zoom * math.cos(roll), zoom * math.sin(roll)
        x, row = float(self.x[frame]), float(self.row[frame])
        return np.array([[c, -s, self.width / 2 - c * x + s * row], [s, c, self.height / 2 - s * x - c * row]])

    def bounds(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of all that is ever in view, in panorama pixels, with a margin."""
        c, s = np.abs(np.cos(self.roll)), np.abs(np.sin(self.roll))
        half_x = (c * self.width + s * self.height) / self.zoom / 2 + 8
        half_y = (s * self.width + c * self.height) / self.zoom / 2 + 8
        low = math.floor(float((self.x - half_x).min())), math.floor(float((self.row - half_y).min()))
        high = math.ceil(float((self.x + half_x).max())), math.ceil(float((self.row + half_y).max()))
        return *low, *high
