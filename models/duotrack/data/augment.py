"""From an annotated image to a network crop: geometry by one affine warp, then photometric change per modality."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.data.images import Pixels, View


@dataclass(frozen=True, slots=True)
class CropJitter:
    """How far a crop may differ from the one that a perfect previous box would give.

    Attributes:
        center: largest shift of the crop against the target on each axis, in units of sqrt(w·h).
        scale: standard deviation of the logarithm of the crop's side.
        aspect: standard deviation of the logarithm of the horizontal against the vertical stretch.
        rotation: standard deviation in degrees.
    """

    center: float
    scale: float
    aspect: float
    rotation: float


TEMPLATE_JITTER = CropJitter(center=0.06, scale=0.06, aspect=0.0, rotation=0.0)
# A narrow spread of scales would teach that the target always fills a quarter of the crop, and a tracker that believes
# so never corrects the size of its box.
SEARCH_JITTER = CropJitter(center=1.35, scale=0.4, aspect=0.1, rotation=6.0)


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A network input under construction: colour (S, S, 3) or None, thermal (S, S) or None, and the box in the crop.

    ``box`` is cx, cy, w, h in units of the crop's side.
    """

    rgb: Pixels | None
    thermal: Pixels | None
    box: NDArray[np.float32]
    mask: Pixels | None = None


def crop_view(view: View, factor: float, size: int, jitter: CropJitter, flip: bool, rng: Generator) -> Crop:
    """Crop ``view`` around its target: ``factor`` times sqrt(w·h) wide before jitter, ``size`` pixels after."""
    box = view.box
    root = math.sqrt(box.area)
    # Half of the crops look as they do in a smooth track, the others as after a leap.
    spread = jitter.center if rng.random() < 0.6 else 0.35 * jitter.center
    cx, cy = (center + root * spread * rng.uniform(-1, 1) for center in box.center)
    side = factor * root * math.exp(jitter.scale * rng.normal())
    stretch = math.exp(jitter.aspect * rng.normal() / 2)
    angle = math.radians(jitter.rotation * rng.normal())
    scale_x, scale_y = size / side * stretch, size / side / stretch
    cosine, sine = math.cos(angle), math.sin(angle)
    linear = np.array([[scale_x * cosine, -scale_x * sine], [scale_y * sine, scale_y * cosine]])
    if flip:
        linear[0] *= -1
    offset = size / 2 - linear @ np.array([cx, cy])
    center = (linear @ np.array(box.center) + offset) / size
    # The extent of the ellipse inscribed in the box, turned: closer to a real silhouette than the turned corners.
    half = np.array([box.w, box.h]) / 2
    extent = 2 * np.sqrt(((linear * half) ** 2).sum(1)) / size
    to_crop = np.column_stack((linear, offset + linear @ np.array([0.5, 0.5]) - 0.5))
    return Crop(
        _warp(view.rgb, to_crop, size),
        _warp(view.thermal, to_crop, size),
        np.concatenate((center, extent)).astype(np.float32),
        _warp(view.mask, to_crop, size),
    )


def _warp(image: Pixels | None, to_crop: NDArray[np.float64], size: int) -> Pixels | None:
    if image is None:
        return None
    return cast("Pixels", cv2.warpAffine(image, to_crop, (size, size), flags=cv2.INTER_LINEAR))


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
        return ThermalStyle(
            mix=rng.dirichlet((1.5, 1.5, 1.5)).astype(np.float32),
            inverted=bool(rng.random() < 0.5),
            gamma=math.exp(0.45 * rng.normal()),
            blur=rng.uniform(0.0, 1.6),
            flatten=rng.uniform(0.35, 1.0),
            heat=rng.choice([0.0, rng.uniform(0.1, 0.5), -rng.uniform(0.1, 0.3)], p=[0.4, 0.45, 0.15]),
        )


def render_thermal(crop: Crop, style: ThermalStyle) -> Pixels:
    """A thermal stand-in from a colour crop: a monotone map of a channel mix, softened, with the target warmed."""
    assert crop.rgb is not None
    grey: NDArray[np.float32] = cv2.transform(crop.rgb.astype(np.float32), style.mix[None]) / np.float32(255)
    if style.inverted:
        grey = 1 - grey
    grey = 0.5 + (np.clip(grey, 0, 1) ** np.float32(style.gamma) - 0.5) * np.float32(style.flatten)
    if style.heat and crop.mask is not None:
        warm = cv2.GaussianBlur(crop.mask, (0, 0), 1.0).astype(np.float32)
        grey = grey + np.float32(style.heat / 255) * warm
    if style.blur > 0.3:
        grey = cast("NDArray[np.float32]", cv2.GaussianBlur(grey, (0, 0), style.blur))
    thermal = np.clip(grey * 255, 0, 255).astype(np.uint8)
    thermal[~inside_frame(crop.rgb)] = 0
    return thermal


def inside_frame(rgb: Pixels) -> NDArray[np.bool_]:
    """(H, W) where a colour crop shows the frame: beyond it every channel is zero."""
    return (rgb[..., 0] | rgb[..., 1] | rgb[..., 2]) > 0


def disturb_colour(image: Pixels, rng: Generator) -> Pixels:
    """Exposure, contrast, white balance, saturation, blur, noise: what differs between two moments of a camera."""
    inside = inside_frame(image)[..., None]
    out = image.astype(np.float32)
    gain = np.exp(0.25 * rng.normal() + 0.08 * rng.normal(size=3)).astype(np.float32)
    mean = out.mean()
    out = (out - mean) * np.float32(math.exp(0.2 * rng.normal())) + mean
    out *= gain
    saturation = rng.choice([0.0, rng.uniform(0.3, 1.5), 1.0], p=[0.12, 0.35, 0.53])
    if saturation != 1:
        mix = np.full((3, 3), (1 - saturation) / 3) + np.eye(3) * saturation
        out = cast("NDArray[np.float32]", cv2.transform(out, mix))
    if rng.random() < 0.12:  # night
        out *= np.float32(rng.uniform(0.12, 0.5))
    return _finish(out, inside, rng)


def disturb_thermal(image: Pixels, rng: Generator) -> Pixels:
    """Gain, offset, blur and noise, as differ between two moments of a thermal camera with automatic gain."""
    inside = image > 0
    out = image.astype(np.float32)
    mean = out.mean()
    out = (out - mean) * np.float32(math.exp(0.3 * rng.normal())) + mean + np.float32(18 * rng.normal())
    return _finish(out, inside, rng)


def _finish(image: NDArray[np.float32], inside: NDArray[np.bool_], rng: Generator) -> Pixels:
    chance = rng.random()
    if chance < 0.15:
        image = cast("NDArray[np.float32]", cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.0)))
    elif chance < 0.25:
        image = cast("NDArray[np.float32]", cv2.filter2D(image, -1, _motion_kernel(rng)))
    if rng.random() < 0.3:
        image = image + rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(2, 12))
    return (np.clip(image, 0, 255) * inside).astype(np.uint8)


def _motion_kernel(rng: Generator) -> NDArray[np.float32]:
    length = int(rng.integers(3, 12))
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1 / length
    turn = cv2.getRotationMatrix2D(((length - 1) / 2, (length - 1) / 2), rng.uniform(0, 180), 1)
    kernel = cast("NDArray[np.float32]", cv2.warpAffine(kernel, turn, (length, length)))
    return kernel / max(float(kernel.sum()), 1e-6)


def occlude(crop: Crop, texture: Pixels, rng: Generator) -> None:
    """Cover up to half of the target with a piece of another image, in place, in both modalities."""
    size = texture.shape[0]
    cx, cy, w, h = crop.box * size
    width, height = w * rng.uniform(0.25, 0.8), h * rng.uniform(0.25, 0.8)
    left = int(cx + rng.uniform(-0.6, 0.6) * w - width / 2)
    top = int(cy + rng.uniform(-0.6, 0.6) * h - height / 2)
    region = np.s_[max(top, 0) : max(top + int(height), 0), max(left, 0) : max(left + int(width), 0)]
    if crop.rgb is not None:
        crop.rgb[region] = texture[region]
    if crop.thermal is not None:
        crop.thermal[region] = texture[region][..., 1]
