"""Training samples: a template crop and a search crop of one target, drawn from weighted sources by number."""

from __future__ import annotations

from typing import TypedDict, cast

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch.utils.data import Dataset

from duotrack.boxes import Box
from duotrack.data import augment
from duotrack.data.augment import SEARCH_JITTER, TEMPLATE_JITTER, Crop, ThermalStyle
from duotrack.data.images import Pixels, View
from duotrack.data.sources import PairSource


class Batchable(TypedDict):
    """One training sample; shapes are those of ``Student.forward`` and ``tracking_loss`` without the batch axis."""

    template: torch.Tensor
    template_present: torch.Tensor
    template_box: torch.Tensor
    search: torch.Tensor
    search_present: torch.Tensor
    search_box: torch.Tensor
    present: torch.Tensor


class PairDataset(Dataset[Batchable]):
    """Samples by number: the same seed and number give the same sample, on any machine and in any order.

    Args:
        sources: each with its share of the samples.
        absent: share of samples whose search crop shows something else (they teach presence).
    """

    def __init__(
        self,
        sources: dict[str, tuple[PairSource, float]],
        occluders: list[Pixels],
        *,
        length: int,
        seed: int,
        template_size: int = 128,
        search_size: int = 256,
        absent: float = 0.12,
    ) -> None:
        self._sources = [source for source, _ in sources.values()]
        weights = np.array([weight for _, weight in sources.values()])
        self._weights = weights / weights.sum()
        self._occluders = occluders
        self._length = length
        self._seed = seed
        self._sizes = template_size, search_size
        self._absent = absent

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Batchable:
        rng = np.random.default_rng((self._seed, index))
        template_view, search_view = self._draw(rng)
        present = rng.random() >= self._absent
        if not present:
            elsewhere = beside_target(search_view, rng) if rng.random() < 0.5 else None
            search_view = elsewhere or self._draw_other(template_view, rng)
        flip = bool(rng.random() < 0.5)
        template_size, search_size = self._sizes
        template = augment.crop_view(template_view, 2.0, template_size, TEMPLATE_JITTER, flip, rng)
        search = augment.crop_view(search_view, 4.0, search_size, SEARCH_JITTER, flip ^ bool(rng.random() < 0.08), rng)
        if rng.random() < 0.15:
            texture = self._occluders[rng.integers(len(self._occluders))]
            augment.occlude(search, cast("Pixels", cv2.resize(texture, (search_size, search_size))), rng)
        style = ThermalStyle.draw(rng) if rng.random() < 0.45 else None
        template, search = _with_thermal(template, style), _with_thermal(search, style)
        keep_template, keep_search = _kept_modalities(rng)
        template_pixels, template_present = _stack(template, keep_template, template_size, rng)
        search_pixels, search_present = _stack(search, keep_search, search_size, rng)
        return {
            "template": template_pixels,
            "template_present": template_present,
            "template_box": torch.from_numpy(template.box),
            "search": search_pixels,
            "search_present": search_present,
            "search_box": torch.from_numpy(search.box),
            "present": torch.tensor(float(present and _center_inside(search))),
        }

    def _draw_other(self, view: View, rng: Generator) -> View:
        """A view of another scene; black where none can be found."""
        for _ in range(8):
            other = self._draw(rng)[1]
            if other.scene != view.scene:
                return other
        black = [None if image is None else np.zeros_like(image) for image in (view.rgb, view.thermal)]
        return View(black[0], black[1], view.box)

    def _draw(self, rng: Generator) -> tuple[View, View]:
        return self._sources[rng.choice(len(self._sources), p=self._weights)].draw(rng)


def beside_target(view: View, rng: Generator) -> View | None:
    """The same image with its box moved to where no search crop around it shows the target; None where it cannot."""
    width, height = view.size
    box, root = view.box, view.box.area**0.5
    half_side = 2 * np.exp(2 * SEARCH_JITTER.scale)  # of a large search crop, in target sizes
    clearance = (half_side + SEARCH_JITTER.center + 0.5) * root
    for _ in range(6):
        cx, cy = rng.uniform(0, width), rng.uniform(0, height)
        if max(abs(cx - box.center[0]) - box.w / 2, abs(cy - box.center[1]) - box.h / 2) > clearance:
            return View(view.rgb, view.thermal, Box.from_center(cx, cy, box.w, box.h))
    return None


def _center_inside(crop: Crop) -> bool:
    return bool(0 <= crop.box[0] < 1 and 0 <= crop.box[1] < 1)


def _with_thermal(crop: Crop, style: ThermalStyle | None) -> Crop:
    if style is None or crop.rgb is None or crop.thermal is not None:
        return crop
    return Crop(crop.rgb, augment.render_thermal(crop, style), crop.box, crop.mask)


def _kept_modalities(rng: Generator) -> tuple[tuple[bool, bool], tuple[bool, bool]]:
    """Which of colour and thermal the template and the search crop keep, where they have both."""
    chance = rng.random()
    if chance < 0.62:
        return (True, True), (True, True)
    if chance < 0.74:
        return (True, False), (True, False)
    if chance < 0.90:
        return (False, True), (False, True)
    if chance < 0.95:
        return (True, True), (True, False)
    return (True, True), (False, True)


def _stack(crop: Crop, keep: tuple[bool, bool], size: int, rng: Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Photometric change, then the four channels of the network's input and what is present in them."""
    keep_rgb = crop.rgb is not None and (keep[0] or crop.thermal is None)
    keep_thermal = crop.thermal is not None and (keep[1] or crop.rgb is None)
    pixels = np.zeros((size, size, 4), np.uint8)
    if keep_rgb and crop.rgb is not None:
        pixels[..., :3] = augment.disturb_colour(crop.rgb, rng)
    if keep_thermal and crop.thermal is not None:
        pixels[..., 3] = augment.disturb_thermal(crop.thermal, rng)
    return torch.from_numpy(pixels), torch.tensor([float(keep_rgb), float(keep_thermal)])
