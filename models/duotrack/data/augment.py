"""From an annotated image to a network crop as an ``AugmentPlan`` says, with numpy and OpenCV: the reference.

Pixels are rounded to 8 bits after every stage, which keeps OpenCV on its fast paths and says exactly what
``device_augment`` has to reproduce.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.data.augment_plan import (
    MASK_CELL,
    Affine,
    ColourChange,
    CropPlan,
    Occluder,
    SensorChange,
    ThermalChange,
    ThermalStyle,
    gaussian_radius,
    inverse,
    noise_table,
    reduced,
    reduction,
)
from duotrack.data.images import Pixels, View

Inside = NDArray[np.bool_] | None  # (S, S), where a crop shows the frame; None where it does everywhere


def augment_view(view: View, plan: CropPlan, textures: Sequence[Pixels]) -> Pixels:
    """The network's input: (S, S, 4) uint8, R, G, B and thermal; a modality that is not kept is zero.

    Args:
        textures: (H, W, 3) images, by the number that ``Occluder.texture`` gives.
    """
    place = plan.place
    pixels = np.zeros((place.size, place.size, 4), np.uint8)
    inside = inside_frame(place.to_crop, view.size, place.size, place.factor)
    if plan.colour is not None and view.rgb is not None:
        rgb = _crop(view.rgb, place.to_crop, plan, textures)
        pixels[..., :3] = change_colour(rgb, plan.colour, inside)
    if plan.thermal is not None:
        if place.misaligned:
            inside = inside_frame(place.thermal_to_crop, view.size, place.size, place.factor)
        if view.thermal is not None:
            thermal = _crop(view.thermal, place.thermal_to_crop, plan, textures)
        else:
            assert view.rgb is not None
            assert plan.style is not None
            if plan.colour is None or place.misaligned:
                rgb = _crop(view.rgb, place.thermal_to_crop, plan, textures)
            mask = None
            if view.mask is not None and plan.style.heat:
                mask = warp(view.mask, place.thermal_to_crop, place.size, place.factor)
                if plan.occluder is not None:
                    mask[plan.occluder.region] = 0
            thermal = render_thermal(rgb, mask, plan.style, inside)
        pixels[..., 3] = change_thermal(thermal, plan.thermal, inside)
    return pixels


def search_mask(view: View | None, plan: CropPlan) -> Pixels:
    """How much of each ``MASK_CELL`` × ``MASK_CELL`` pixels of a crop the target covers: (S / 4, S / 4), 0 to 255.

    Zeros for a view without a mask, and for None. What does not fill a cell at the crop's right and lower edge is left
    out.
    """
    place, side = plan.place, plan.place.size // MASK_CELL
    if view is None or view.mask is None:
        return np.zeros((side, side), np.uint8)
    mask = warp(view.mask, place.to_crop, place.size, place.factor)
    if plan.occluder is not None:
        mask[plan.occluder.region] = 0
    whole = mask[: side * MASK_CELL, : side * MASK_CELL]
    means = whole.reshape(side, MASK_CELL, side, MASK_CELL).mean((1, 3), np.float32)
    return _eight_bits(means)


def _crop(image: Pixels, to_crop: Affine, plan: CropPlan, textures: Sequence[Pixels]) -> Pixels:
    crop = warp(image, to_crop, plan.place.size, plan.place.factor)
    if plan.occluder is not None:
        occlude(crop, plan.occluder, textures)
    return crop


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of a frame averaged over ``factor`` × ``factor`` pixels, in pixels of that smaller frame."""

    left: int
    top: int
    width: int
    height: int
    factor: int

    @staticmethod
    def under(to_crop: Affine, frame: tuple[int, int], size: int, factor: int) -> Window:
        """What a crop of ``size`` × ``size`` reads of a ``frame`` (width, height); empty where it lies beside it."""
        ends = np.array([[0, size - 1, 0, size - 1], [0, 0, size - 1, size - 1], [1, 1, 1, 1]])
        corners = inverse(reduced(to_crop, factor)) @ ends
        limit = np.array(frame) // factor
        # A bilinear sample reads the next pixel too; one more is for rounding.
        first = np.clip(np.floor(corners.min(1)) - 1, 0, limit).astype(int)
        last = np.clip(np.floor(corners.max(1)) + 3, first, limit).astype(int)
        width, height = (last - first).tolist()
        return Window(int(first[0]), int(first[1]), width, height, factor)

    def cut(self, image: Pixels) -> Pixels:
        """The frame pixels that it averages; a view of ``image``."""
        rows = slice(self.top * self.factor, (self.top + self.height) * self.factor)
        return image[rows, self.left * self.factor : (self.left + self.width) * self.factor]


def warp(image: Pixels, to_crop: Affine, size: int, factor: int) -> Pixels:
    """A (size, size) crop of an (H, W) or (H, W, 3) image averaged down by ``factor``: bilinear, zero outside."""
    if factor > 1:
        window = Window.under(to_crop, (image.shape[1], image.shape[0]), size, factor)
        if not window.width or not window.height:
            return np.zeros((size, size, *image.shape[2:]), np.uint8)
        smaller = cv2.resize(window.cut(image), (window.width, window.height), interpolation=cv2.INTER_AREA)
        image, to_crop = cast("Pixels", smaller), reduced(to_crop, factor)
        to_crop = np.column_stack((to_crop[:, :2], to_crop @ (window.left, window.top, 1)))
    return cast("Pixels", cv2.warpAffine(image, to_crop, (size, size), flags=cv2.INTER_LINEAR))


def inside_frame(to_crop: Affine, frame: tuple[int, int], size: int, factor: int) -> Inside:
    """Where the centres of a crop's pixels lie inside a ``frame`` (width, height) that is averaged by ``factor``."""
    width, height = frame[0] // factor, frame[1] // factor
    (ax, bx, cx), (ay, by, cy) = inverse(reduced(to_crop, factor)).astype(np.float32)
    numbers = np.arange(size, dtype=np.float32)
    ends = numbers[[0, -1]]
    corners_x, corners_y = np.add.outer(bx * ends + cx, ax * ends), np.add.outer(by * ends + cy, ay * ends)
    if corners_x.min() >= 0 and corners_x.max() <= width - 1 and corners_y.min() >= 0 and corners_y.max() <= height - 1:
        return None
    x, y = np.add.outer(bx * numbers + cx, ax * numbers), np.add.outer(by * numbers + cy, ay * numbers)
    return np.asarray((x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5))


def occlude(crop: Pixels, occluder: Occluder, textures: Sequence[Pixels]) -> None:
    """Draw ``occluder`` into a colour (S, S, 3) or thermal (S, S) crop, in place."""
    if occluder.texture is None:
        crop[occluder.region] = occluder.flat[:3] if crop.ndim == 3 else occluder.flat[3]
        return
    size, texture = crop.shape[0], textures[occluder.texture]
    to_crop = occluder.texture_to_crop(texture.shape[1], texture.shape[0], size)
    stretched = warp(texture, to_crop, size, reduction(to_crop))
    piece = stretched[occluder.region]
    crop[occluder.region] = piece if crop.ndim == 3 else piece[..., 1]


def render_thermal(rgb: Pixels, mask: Pixels | None, style: ThermalStyle, inside: Inside) -> Pixels:
    """A thermal stand-in (S, S) from a colour crop: a monotone map of a channel mix, softened, with the target warmed.

    Args:
        mask: (S, S) of 0 to 255, where the target is; None where that is not known.
    """
    grey = cast("Pixels", cv2.transform(rgb, style.mix[None]))
    levels = np.arange(256, dtype=np.float32) / 255
    if style.inverted:
        levels = 1 - levels
    curve = _eight_bits(255 * (0.5 + (levels ** np.float32(style.gamma) - 0.5) * np.float32(style.flatten)))
    thermal = cast("Pixels", cv2.LUT(grey, curve))
    if style.heat and mask is not None:
        warm = cv2.GaussianBlur(mask, (7, 7), 1.0)
        thermal = cast("Pixels", cv2.addWeighted(thermal, 1.0, warm, style.heat, 0.0))
    return _blank(_blurred(thermal, style.blur), inside)


def change_colour(rgb: Pixels, change: ColourChange, inside: Inside) -> Pixels:
    """``change`` applied to (S, S, 3)."""
    mean = float(np.mean(cv2.mean(rgb, None if inside is None else inside.astype(np.uint8))[:3]))
    changed = cast("Pixels", cv2.transform(rgb, change.affine(mean)))
    return _blank(_sensed(changed, change.sensor), inside)


def change_thermal(thermal: Pixels, change: ThermalChange, inside: Inside) -> Pixels:
    """``change`` applied to (S, S)."""
    mean = cv2.mean(thermal, None if inside is None else inside.astype(np.uint8))[0]
    levels = np.arange(256, dtype=np.float32)
    curve = _eight_bits((levels - mean) * change.contrast + mean + change.offset)
    return _blank(_sensed(cast("Pixels", cv2.LUT(thermal, curve)), change.sensor), inside)


def _sensed(image: Pixels, sensor: SensorChange) -> Pixels:
    image = _blurred(image, sensor.blur)
    if sensor.motion is not None:
        image = cast("Pixels", cv2.filter2D(image, -1, sensor.motion))
    if sensor.noise:
        values = noise_table()[sensor.noise_start : sensor.noise_start + image.size]
        if values.size < image.size:
            values = np.resize(np.roll(noise_table(), -sensor.noise_start), image.size)
        noise = values.reshape(image.shape) * np.float32(sensor.noise)
        image = cast("Pixels", cv2.add(image, noise, dtype=cv2.CV_8U))
    return image


def _blurred(image: Pixels, sigma: float) -> Pixels:
    if not sigma:
        return image
    side = 2 * gaussian_radius(sigma) + 1
    return cast("Pixels", cv2.GaussianBlur(image, (side, side), sigma))


def _eight_bits(values: NDArray[np.floating]) -> Pixels:
    return np.asarray(np.rint(np.clip(values, 0, 255)), np.uint8)


def _blank(image: Pixels, inside: Inside) -> Pixels:
    """Zero beyond the frame."""
    if inside is None:
        return image
    return cast("Pixels", cv2.copyTo(image, inside.astype(np.uint8)))
