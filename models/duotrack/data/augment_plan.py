"""What augmentation does to a training pair: everything random, drawn before any pixel is touched.

A plan says where each crop lies and how its pixels change. ``augment`` carries it out with numpy and OpenCV, one sample
at a time; ``device_augment`` with torch, in batches on any device. Both give the same pixels (the tests compare them
operation by operation), so a run may move between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.crops import COARSEST_BILINEAR

Affine = NDArray[np.float64]  # (2, 3), from and to pixel positions with whole numbers at pixel centres, as in OpenCV

NOISE_VALUES = 1 << 20
MASK_CELL = 4  # pixels of the search crop, on each axis, that share a value of the target's mask
LARGEST_OCCLUSION = 0.5  # of the target's box


@dataclass(frozen=True, slots=True)
class CropJitter:
    """How far a crop may differ from the one that a perfect previous box would give; by default, a search crop.

    Attributes:
        center: largest shift of the crop against the target on each axis, in units of sqrt(w·h).
        scale: standard deviation of the logarithm of the crop's side.
        aspect: standard deviation of the logarithm of the horizontal against the vertical stretch.
        rotation: standard deviation in degrees.
        turned: share of crops that are turned further, by any angle, small ones more often: as what a drone that turns
            sees below it, or as an acrobat.

    Raises:
        ValueError: a value is negative, or ``turned`` above 1.
    """

    center: float = 0.6
    scale: float = 0.2
    aspect: float = 0.05
    rotation: float = 4.0
    turned: float = 0.1

    def __post_init__(self) -> None:
        if min(self.center, self.scale, self.aspect, self.rotation, self.turned) < 0 or self.turned > 1:
            raise ValueError(f"expected distances and deviations of at least 0, and a share of at most 1, got {self}")


TEMPLATE_JITTER = CropJitter(center=0.06, scale=0.06, aspect=0.0, rotation=0.0, turned=0.0)
# A narrow spread of scales would teach that the target always fills a quarter of the crop, and a tracker that believes
# so never corrects the size of its box.
SEARCH_JITTER = CropJitter()
# Of targets that move by more than their size from one frame to the next, as from the air.
LEAPING_JITTER = CropJitter(center=1.25, scale=0.3, aspect=0.1, turned=0.3)


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where a crop of ``size`` × ``size`` pixels lies.

    Attributes:
        to_crop: from frame to crop.
        thermal_to_crop: the same for thermal; the very same array where the two cameras are aligned.
        factor: the frame is averaged over ``factor`` × ``factor`` pixels before sampling (``reduction``).
        box: (4,) float32, the target's cx, cy, w, h in units of the crop's side, as colour shows it.
    """

    size: int
    to_crop: Affine
    thermal_to_crop: Affine
    factor: int
    box: NDArray[np.float32]

    @property
    def misaligned(self) -> bool:
        return self.thermal_to_crop is not self.to_crop

    @staticmethod
    def draw(
        box: Box,
        factor: float,
        size: int,
        jitter: CropJitter,
        flip: bool,
        rng: Generator,
        drift: Drift | None = None,
        *,
        outline: NDArray[np.float64] | None = None,
    ) -> Placement:
        """A crop around ``box``: ``factor`` times sqrt(w·h) wide before jitter, ``size`` pixels after.

        Args:
            outline: (N, 2) x and y of the target's outline, where that is known: a turned crop's box goes around it.
                Without, it goes around the ellipse inscribed in ``box``: closer to a real silhouette than its corners.
        """
        root = math.sqrt(box.area)
        # Two of five crops look as they do in a smooth track, the others as after a leap.
        spread = jitter.center if rng.random() < 0.6 else 0.35 * jitter.center
        cx, cy = (center + root * spread * rng.uniform(-1, 1) for center in box.center)
        side = factor * root * math.exp(jitter.scale * rng.normal())
        stretch = math.exp(jitter.aspect * rng.normal() / 2)
        angle = math.radians(jitter.rotation * rng.normal())
        if rng.random() < jitter.turned:
            angle += math.pi * rng.random() ** 2 * (1 if rng.random() < 0.5 else -1)
        scale_x, scale_y = size / side * stretch, size / side / stretch
        cosine, sine = math.cos(angle), math.sin(angle)
        linear = np.array([[scale_x * cosine, -scale_x * sine], [scale_y * sine, scale_y * cosine]])
        if flip:
            linear[0] *= -1
        offset = size / 2 - linear @ np.array([cx, cy])
        if outline is None:
            center = (linear @ np.array(box.center) + offset) / size
            extent = 2 * np.sqrt(((linear * (np.array([box.w, box.h]) / 2)) ** 2).sum(1)) / size
        else:
            points = outline @ linear.T + offset
            low, high = points.min(0), points.max(0)
            center, extent = (low + high) / 2 / size, (high - low) / size
        to_crop = np.column_stack((linear, offset + linear @ np.array([0.5, 0.5]) - 0.5))
        return Placement(
            size,
            to_crop,
            to_crop if drift is None else drift.moved(to_crop, box),
            reduction(to_crop),
            np.concatenate((center, extent)).astype(np.float32),
        )


@dataclass(frozen=True, slots=True)
class Drift:
    """How the thermal camera is off against the colour one, seen from the target: small, and the same in both crops.

    Attributes:
        x, y: shift in units of sqrt(w·h) of the target.
        scale: relative size of what thermal shows.
        angle: in radians.
    """

    x: float
    y: float
    scale: float
    angle: float

    @staticmethod
    def draw(rng: Generator) -> Drift:
        # In a crop of the usual scale the target is 64 pixels wide: 1.6 pixels of shift, and 4 at most.
        x, y = np.clip(0.025 * rng.normal(size=2), -0.0625, 0.0625).tolist()
        return Drift(x, y, math.exp(0.008 * rng.normal()), math.radians(0.4 * rng.normal()))

    def moved(self, to_crop: Affine, box: Box) -> Affine:
        """``to_crop`` of a frame whose every point was moved like this around the centre of ``box``."""
        center = np.array(box.center) - 0.5
        cosine, sine = self.scale * math.cos(self.angle), self.scale * math.sin(self.angle)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        shift = center - turn @ center + math.sqrt(box.area) * np.array([self.x, self.y])
        return np.column_stack((to_crop[:, :2] @ turn, to_crop[:, :2] @ shift + to_crop[:, 2]))


def reduction(to_crop: Affine) -> int:
    """Frame pixels, on each axis, to average into one before sampling: as serving does (``crops.resample``).

    Blocks begin at the frame's corner wherever the crop is; what does not fill a block at the other end is left out.
    """
    scale = math.sqrt(abs(to_crop[0, 0] * to_crop[1, 1] - to_crop[0, 1] * to_crop[1, 0]))
    return 1 if scale >= COARSEST_BILINEAR else int(1 / scale)


def reduced(to_crop: Affine, factor: int) -> Affine:
    """``to_crop`` from the frame averaged over ``factor`` × ``factor`` pixels."""
    if factor == 1:
        return to_crop
    linear = to_crop[:, :2]
    return np.column_stack((linear * factor, to_crop[:, 2] + linear.sum(1) * (factor - 1) / 2))


def inverse(to_crop: Affine) -> Affine:
    """From crop to frame."""
    return np.asarray(cv2.invertAffineTransform(to_crop), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class SensorChange:
    """What optics and sensor add, after everything else.

    Attributes:
        blur: standard deviation of a Gaussian in pixels; 0 for none.
        motion: (n, n) float32, n odd: a motion blur's kernel; None for none.
        noise: standard deviation in grey levels; 0 for none.
        noise_start: where in ``noise_table`` the noise begins; it goes on row by row, the channels of a pixel together,
            and from the table's end to its beginning.
    """

    blur: float = 0.0
    motion: NDArray[np.float32] | None = None
    noise: float = 0.0
    noise_start: int = 0

    @staticmethod
    def draw(rng: Generator) -> SensorChange:
        chance = rng.random()
        return SensorChange(
            blur=rng.uniform(0.5, 2.0) if chance < 0.15 else 0.0,
            motion=motion_kernel(rng) if 0.15 <= chance < 0.25 else None,
            noise=rng.uniform(2, 12) if rng.random() < 0.3 else 0.0,
            noise_start=int(rng.integers(NOISE_VALUES)),
        )


def gaussian_radius(sigma: float) -> int:
    """Pixels on either side that a Gaussian blur takes in."""
    return math.ceil(3 * sigma)


def motion_kernel(rng: Generator) -> NDArray[np.float32]:
    """(n, n) of sum 1: a line of 3 to 11 pixels through the middle, at any angle."""
    length = int(rng.integers(3, 12))
    side = length | 1
    kernel = np.zeros((side, side), np.float32)
    kernel[side // 2, :length] = 1
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), rng.uniform(0, 180), 1)
    kernel = np.asarray(cv2.warpAffine(kernel, turn, (side, side)), np.float32)
    return kernel / np.float32(kernel.sum())


@lru_cache(maxsize=1)
def noise_table() -> NDArray[np.float32]:
    """(2²⁰,) fixed standard normal values: noise that numpy and any device read alike, whatever their generators."""
    table = np.random.default_rng(20240325).standard_normal(NOISE_VALUES, np.float32)
    table.setflags(write=False)
    return table


@dataclass(frozen=True, slots=True, eq=False)
class ColourChange:
    """Exposure, contrast, white balance, saturation: what differs between two moments of a camera.

    A pixel becomes ``matrix`` · (mean + ``contrast`` · (pixel − mean)), with the mean over the crop and its channels.
    """

    contrast: float
    matrix: NDArray[np.float32]
    sensor: SensorChange

    @staticmethod
    def draw(rng: Generator) -> ColourChange:
        gain = np.exp(0.25 * rng.normal() + 0.08 * rng.normal(size=3))
        contrast = math.exp(0.2 * rng.normal())
        kind = rng.random()
        saturation = 0.0 if kind < 0.12 else rng.uniform(0.3, 1.5) if kind < 0.47 else 1.0
        mix = np.full((3, 3), (1 - saturation) / 3) + np.eye(3) * saturation
        night = rng.uniform(0.12, 0.5) if rng.random() < 0.12 else 1.0
        return ColourChange(contrast, (night * mix * gain).astype(np.float32), SensorChange.draw(rng))

    def affine(self, mean: float) -> NDArray[np.float32]:
        """(3, 4): the change as one map of a pixel, given the crop's mean."""
        return np.column_stack((self.matrix * self.contrast, self.matrix.sum(1) * (mean * (1 - self.contrast))))


@dataclass(frozen=True, slots=True, eq=False)
class ThermalChange:
    """What differs between two moments of a thermal camera with automatic gain.

    A pixel becomes mean + ``contrast`` · (pixel − mean) + ``offset``, in grey levels, with the mean over the crop.
    """

    contrast: float
    offset: float
    sensor: SensorChange

    @staticmethod
    def draw(rng: Generator) -> ThermalChange:
        return ThermalChange(math.exp(0.3 * rng.normal()), 18 * rng.normal(), SensorChange.draw(rng))


@dataclass(frozen=True, slots=True, eq=False)
class ThermalStyle:
    """One way to render thermal from colour: which channels, which polarity, how soft, how warm the target is."""

    mix: NDArray[np.float32]
    inverted: bool
    gamma: float
    blur: float
    flatten: float
    heat: float

    @staticmethod
    def draw(rng: Generator) -> ThermalStyle:
        kind = rng.random()
        return ThermalStyle(
            mix=rng.dirichlet((1.5, 1.5, 1.5)).astype(np.float32),
            inverted=bool(rng.random() < 0.5),
            gamma=math.exp(0.45 * rng.normal()),
            blur=rng.uniform(0.3, 1.6) if rng.random() < 0.8 else 0.0,
            flatten=rng.uniform(0.35, 1.0),
            heat=0.0 if kind < 0.4 else rng.uniform(0.1, 0.5) if kind < 0.85 else -rng.uniform(0.1, 0.3),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Occluder:
    """A rectangle in front of the target, in both modalities; in whole crop pixels, and inside the crop.

    Attributes:
        texture: number of the image that it is a piece of (thermal shows its green), or None.
        flat: (4,) uint8, the colour and thermal value of one without texture.
    """

    left: int
    top: int
    width: int
    height: int
    texture: int | None
    flat: NDArray[np.uint8]

    @property
    def region(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    @staticmethod
    def draw(box: NDArray[np.float32], size: int, textures: int, rng: Generator) -> Occluder | None:
        """One that covers at most half of ``box``; None where it would lie beside the crop.

        Args:
            box: cx, cy, w, h in units of the crop's side.
            textures: how many images there are to choose from.
        """
        share_x, share_y = rng.uniform(0.25, 0.8, size=2)
        excess = math.sqrt(max(1.0, share_x * share_y / LARGEST_OCCLUSION))
        cx, cy, w, h = (box * size).tolist()
        # Rounded down, so that a rectangle of half the box stays one.
        width, height = int(w * share_x / excess), int(h * share_y / excess)
        left = int(cx + rng.uniform(-0.6, 0.6) * w - width / 2)
        top = int(cy + rng.uniform(-0.6, 0.6) * h - height / 2)
        right, bottom = min(left + width, size), min(top + height, size)
        left, top = max(left, 0), max(top, 0)
        flat = rng.integers(0, 256, 4, dtype=np.uint8)
        texture = int(rng.integers(textures)) if textures and rng.random() < 0.8 else None
        if right <= left or bottom <= top:
            return None
        return Occluder(left, top, right - left, bottom - top, texture, flat)

    def texture_to_crop(self, width: int, height: int, size: int) -> Affine:
        """Stretches the image so that its outermost pixels' centres are those of the crop."""
        scale_x, scale_y = (size - 1) / max(width - 1, 1), (size - 1) / max(height - 1, 1)
        return np.array([[scale_x, 0.0, 0.0], [0.0, scale_y, 0.0]])


@dataclass(frozen=True, slots=True, eq=False)
class CropPlan:
    """Everything that happens to one crop, in this order: cut out, occluded, thermal rendered, pixels changed.

    Attributes:
        colour: None where the crop has no colour, or loses it.
        thermal: None where the crop has no thermal, or loses it.
        style: how thermal is rendered from colour; None where it was filmed or is not there.
    """

    place: Placement
    colour: ColourChange | None
    thermal: ThermalChange | None
    style: ThermalStyle | None = None
    occluder: Occluder | None = None

    @property
    def kept(self) -> tuple[float, float]:
        """Whether the crop shows colour, and thermal: 0 or 1 each."""
        return float(self.colour is not None), float(self.thermal is not None)


@dataclass(frozen=True, slots=True, eq=False)
class AugmentPlan:
    """Both crops of a pair, and whether the search crop shows the target's centre."""

    template: CropPlan
    search: CropPlan
    present: bool
