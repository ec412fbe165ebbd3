"""What the two cameras make of a scene: light, exposure and noise in colour; radiance, noise and gain in thermal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.synthetic.noise import COARSE, Field, Pixels, texture
from duotrack.frames import Image

_NIGHT, _DUSK, _DAY = (np.array(rgb, np.float32) for rgb in ((0.70, 0.85, 1.20), (1.05, 0.92, 0.92), (1.03, 1.0, 0.97)))
_LEVELS = 1024
_SODIUM, _WHITE = (np.array(rgb, np.float32) for rgb in ((1.0, 0.78, 0.48), (0.92, 0.97, 1.0)))


@dataclass(frozen=True, slots=True)
class Registration:
    """Where a point of the colour frame lies in the thermal frame: scaled per axis, then moved, in pixels.

    There is no rotation, so that boxes stay exact.
    """

    scale_x: float = 1.0
    scale_y: float = 1.0
    x: float = 0.0
    y: float = 0.0

    @classmethod
    def draw(cls, rng: np.random.Generator, misalignment: float, width: int, height: int) -> Registration:
        """One whose largest error along an axis is ``misalignment`` pixels of a 640-pixel-wide frame."""
        limit = misalignment * width / 640
        stretch_x, stretch_y = rng.uniform(-0.4, 0.4, 2) * limit
        move_x, move_y = rng.uniform(-0.6, 0.6, 2) * limit
        return cls(
            1 + 2 * stretch_x / width, 1 + 2 * stretch_y / height, move_x - stretch_x, move_y - stretch_y
        )  # fmt: skip

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(2, 3), between pixel centres."""
        return np.array(
            [
                [self.scale_x, 0, self.x + (self.scale_x - 1) / 2],
                [0, self.scale_y, self.y + (self.scale_y - 1) / 2],
            ]
        )

    def to_thermal(self, box: Box, width: int, height: int) -> Box | None:
        """A box of the colour frame in the thermal frame, cut at its borders; None where nothing is left."""
        left, top = max(box.x * self.scale_x + self.x, 0.0), max(box.y * self.scale_y + self.y, 0.0)
        right = min((box.x + box.w) * self.scale_x + self.x, float(width))
        bottom = min((box.y + box.h) * self.scale_y + self.y, float(height))
        return Box(left, top, right - left, bottom - top) if right > left and bottom > top else None


@dataclass(frozen=True, slots=True, eq=False)
class ColourCamera:
    """The light that falls on a scene, and the camera that sees it.

    Attributes:
        moon: brightness of the darkest night, as a share of noon.
        lamp_tint: colour of the street lamps.
        grain: (H + 64, W + 64, 3) uint8 noise around 128, of deviation 32.
        vignette: (H / 4, W / 4, 1) share of the light that reaches each place.
        gamma: (256, ) uint8 tone curve.
    """

    moon: float
    lamp_tint: Field
    grain: Pixels
    vignette: Field
    gamma: Pixels
    blur: float
    noise: float

    @classmethod
    def draw(cls, rng: np.random.Generator, width: int, height: int) -> ColourCamera:
        tint = _WHITE + (_SODIUM - _WHITE) * np.float32(rng.uniform())
        fine = rng.normal(0, 26, (height + 64, width + 64, 3)).astype(np.float32)
        coarse = rng.normal(0, 22, ((height + 64) // 2, (width + 64) // 2, 3)).astype(np.float32)
        fine += cv2.resize(coarse, (width + 64, height + 64), interpolation=cv2.INTER_LINEAR)
        y = np.linspace(-1, 1, math.ceil(height / COARSE), dtype=np.float32)[:, None, None]
        x = np.linspace(-1, 1, math.ceil(width / COARSE), dtype=np.float32)[None, :, None]
        steps = np.arange(256, dtype=np.float32) / 255
        contrast = rng.uniform(0.0, 0.5)
        curve = steps + contrast * (steps * steps * (3 - 2 * steps) - steps)
        return cls(
            moon=rng.uniform(0.12, 0.24),
            lamp_tint=np.asarray(tint * rng.uniform(0.4, 0.8), np.float32),
            grain=np.clip(fine + 128, 0, 255).astype(np.uint8),
            vignette=np.asarray(1 - np.float32(rng.uniform(0, 0.18)) * (x * x + y * y), np.float32),
            gamma=np.clip(curve * 255, 0, 255).astype(np.uint8),
            blur=rng.uniform(0.4, 0.8),
            noise=rng.uniform(0.7, 1.3),
        )

    def ambient(self, daylight: float, shade: float) -> Field:
        """Light of sky and sun, (3,), 1 at noon."""
        if daylight < 0.35:
            colour, level = (
                _NIGHT + (_DUSK - _NIGHT) * (daylight / 0.35),
                self.moon + (0.5 - self.moon) * daylight / 0.35,
            )
        else:
            share = (daylight - 0.35) / 0.65
            colour, level = _DUSK + (_DAY - _DUSK) * share, 0.5 + 0.75 * share
        return np.asarray(colour * np.float32(level * (shade if daylight > 0.35 else 1.0)), np.float32)

    @staticmethod
    def lamp_level(daylight: float) -> float:
        """How bright street lamps are, 0 by day to 1 by night."""
        return min(max((0.5 - daylight) / 0.25, 0.0), 1.0)

    def expose(self, albedo: Pixels, light: Field, daylight: float, rng: np.random.Generator) -> Pixels:
        """The colour image of ``albedo`` (H, W, 3) under ``light`` (H / 4, W / 4, 3)."""
        height, width = albedo.shape[:2]
        light = light * self.vignette
        peak = max(float(light.max()), 1e-3)
        scaled = (light * (255 / peak)).astype(np.uint8)
        full = cv2.resize(scaled, (width, height), interpolation=cv2.INTER_LINEAR)
        lit = cv2.multiply(albedo, full, scale=peak / 255)
        soft = cv2.GaussianBlur(cv2.LUT(lit, self.gamma), (3, 3), self.blur)
        strength = self.noise * (1.6 + 4.5 * (1 - min(daylight / 0.4, 1.0))) / 32
        y, x = (int(v) for v in rng.integers(0, 64, 2))
        grain = np.ascontiguousarray(self.grain[y : y + height, x : x + width])
        return np.asarray(cv2.addWeighted(soft, 1.0, grain, strength, -128 * strength), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class ThermalCamera:
    """An uncooled thermal camera of 0.01 K a count.

    Attributes:
        registration: where it looks, against the colour camera.
        netd: deviation of its noise from frame to frame, in counts.
        pattern: (H, W) float32, its fixed pattern in counts: columns, pixels, and a slow shading.
        grain: (H + 64, W + 64) float32 noise of unit deviation.
        blur: deviation of its lens blur, in pixels.
        plateau: percentiles of the counts that the gain control stretches between.
        equalised: how much it follows the histogram rather than the counts, 0 to 1.
    """

    registration: Registration
    netd: float
    pattern: Field
    grain: Field
    blur: float
    plateau: tuple[float, float]
    equalised: float

    @classmethod
    def draw(cls, rng: np.random.Generator, misalignment: float, width: int, height: int) -> ThermalCamera:
        columns = rng.normal(0, rng.uniform(2, 9), (1, width))
        pixels = rng.normal(0, rng.uniform(2, 6), (height, width))
        shading = cv2.resize(texture(2.0)[:256, :256], (width, height), interpolation=cv2.INTER_LINEAR)
        return cls(
            registration=Registration.draw(rng, misalignment, width, height),
            netd=rng.uniform(4, 14),
            pattern=np.asarray(columns + pixels + rng.uniform(5, 20) * shading, np.float32),
            grain=rng.standard_normal((height + 64, width + 64), np.float32),
            blur=rng.uniform(0.5, 1.1) * width / 640 + 0.25,
            plateau=(rng.uniform(0.2, 1.0), rng.uniform(99.6, 100)),
            equalised=rng.uniform(0, 0.6),
        )

    def read(self, celsius: Field, rng: np.random.Generator) -> Field:
        """Counts (H, W) float32 for apparent temperatures (H, W) in the colour camera's pixels."""
        height, width = celsius.shape
        seen = cv2.GaussianBlur(celsius, (5, 5), self.blur)
        if self.registration != Registration():
            # 16-bit warps are far faster than float ones, and a count is a tenth of the noise.
            counts = np.clip(seen * 100 + 27315, 0, 65535).astype(np.uint16)
            seen = cv2.warpAffine(counts, self.registration.matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
            measured = seen.astype(np.float32)
        else:
            measured = np.asarray(seen, np.float32) * np.float32(100) + np.float32(27315)
        y, x = (int(v) for v in rng.integers(0, 64, 2))
        measured += self.pattern
        measured += np.float32(self.netd) * self.grain[y : y + height, x : x + width]
        return measured

    def deliver(self, counts: Field, bits: int) -> Image:
        """Raw counts as uint16; or as uint8 after gain control, between linear and plateau equalisation."""
        if bits == 16:
            return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
        low, high = (float(v) for v in np.percentile(counts[::4, ::4], self.plateau))
        margin = max(200.0 - (high - low), 0.0) / 2  # a flat scene is not stretched into pure noise
        low, high = low - margin, high + margin
        scaled = (counts - np.float32(low)) * np.float32((_LEVELS - 1) / (high - low))
        level = np.clip(scaled, 0, _LEVELS - 1).astype(np.uint16)
        histogram = np.bincount(level[::4, ::4].ravel(), minlength=_LEVELS).astype(np.float64)
        capped = np.minimum(histogram, 4 * histogram.sum() / _LEVELS)
        equal = np.cumsum(capped) / capped.sum()
        curve = (1 - self.equalised) * np.linspace(0, 1, _LEVELS) + self.equalised * equal
        return np.asarray((8 + 240 * curve).astype(np.uint8)[level], np.uint8)
