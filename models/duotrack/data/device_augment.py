"""``AugmentPlan`` carried out in batches on any device: the pixels that ``augment`` gives, many samples at a time.

Computed in float32 with 8-bit rounding after every stage, as there; inside an autocast region too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from duotrack.boxes import Box
from duotrack.data.augment_plan import (
    MASK_CELL,
    NOISE_VALUES,
    AugmentPlan,
    ColourChange,
    CropPlan,
    SensorChange,
    ThermalChange,
    ThermalStyle,
    gaussian_radius,
    noise_table,
    reduction,
)
from duotrack.data.frame_bank import FrameBank, Patch, PatchBatch
from duotrack.data.images import Pixels, View
from duotrack.data.pairs import Batchable, PlannedPair

UNCHANGED_COLOUR = ColourChange(1.0, np.eye(3, dtype=np.float32), SensorChange())
UNCHANGED_THERMAL = ThermalChange(1.0, 0.0, SensorChange())


@dataclass(frozen=True, slots=True, eq=False)
class CropSource:
    """What a crop is made from: its plan, the frame's pixels, and those of its occluder's texture (None without)."""

    plan: CropPlan
    patch: Patch
    texture: Patch | None

    @staticmethod
    def read(view: View, plan: CropPlan, textures: Sequence[Pixels], bank: FrameBank) -> CropSource:
        """
        Args:
            textures: images (H, W, 3) to occlude with, by number: the data set's ``occluders``.
        """
        place, occluder, texture = plan.place, plan.occluder, None
        if occluder is not None and occluder.texture is not None:
            whole = _texture_view(textures[occluder.texture])
            to_crop = occluder.texture_to_crop(*whole.size, place.size)
            texture = bank.patch(whole, [to_crop], place.size, reduction(to_crop))
        patch = bank.patch(view, [place.to_crop, place.thermal_to_crop], place.size, place.factor)
        return CropSource(plan, patch, texture)


def _texture_view(image: Pixels) -> View:
    return View(image, None, Box(0, 0, image.shape[1], image.shape[0]))


@dataclass(frozen=True, slots=True, eq=False)
class PairSources:
    """A sample ready for the device; ``read`` is the host's whole share of the work."""

    plan: AugmentPlan
    template: CropSource
    search: CropSource
    mask_known: bool

    @staticmethod
    def read(pair: PlannedPair, textures: Sequence[Pixels], bank: FrameBank) -> PairSources:
        template, search = pair.plan.template, pair.plan.search
        numbers = [plan.occluder.texture for plan in (template, search) if plan.occluder is not None]
        used = [_texture_view(textures[number]) for number in numbers if number is not None]
        bank.note([pair.template, pair.search, *used])
        return PairSources(
            pair.plan,
            CropSource.read(pair.template, template, textures, bank),
            CropSource.read(pair.search, search, textures, bank),
            pair.mask_known,
        )


@torch.no_grad()
def augment_batch(pairs: Sequence[PairSources], bank: FrameBank) -> Batchable:
    """B samples on the bank's device: names, shapes and types are those of a collated list of ``PairDataset``'s.

    Crops of one kind must be of one size.
    """
    device = bank.device
    templates, searches = [pair.template for pair in pairs], [pair.search for pair in pairs]
    with torch.autocast(device.type, enabled=False):
        pixels, masks = _augmented(searches, bank)
        present = torch.tensor([float(pair.plan.present) for pair in pairs], device=device)
        covered = F.avg_pool2d(masks, MASK_CELL) * present[:, None, None]
        return {
            "template": augment_crops(templates, bank),
            "template_present": torch.tensor([source.plan.kept for source in templates], device=device),
            "template_box": _stacked([source.plan.place.box for source in templates], device),
            "search": pixels,
            "search_present": torch.tensor([source.plan.kept for source in searches], device=device),
            "search_box": _stacked([source.plan.place.box for source in searches], device),
            "search_mask": _eight_bits(covered).to(torch.uint8),
            "mask_known": torch.tensor([float(pair.mask_known) for pair in pairs], device=device),
            "present": present,
        }


def augment_crops(sources: Sequence[CropSource], bank: FrameBank) -> Tensor:
    """(B, S, S, 4) uint8: what ``augment_view`` gives for each, on the bank's device."""
    return _augmented(sources, bank)[0]


def _augmented(sources: Sequence[CropSource], bank: FrameBank) -> tuple[Tensor, Tensor]:
    """Crops as ``augment_crops`` gives them, and the targets' masks as they lie in them: (B, S, S), 0 to 255."""
    plans, device = [source.plan for source in sources], bank.device
    size = plans[0].place.size
    patches = PatchBatch.gather(bank, [source.patch for source in sources], [plan.place.factor for plan in plans])
    seen, inside = patches.sample(range(len(plans)), [plan.place.to_crop for plan in plans], size)
    thermal_seen, thermal_inside = seen, inside
    moved = [number for number, plan in enumerate(plans) if plan.place.misaligned]
    if moved:
        thermal_seen, thermal_inside = seen.clone(), inside.clone()
        again = patches.sample(moved, [plans[number].place.thermal_to_crop for number in moved], size)
        thermal_seen[moved], thermal_inside[moved] = again
    occluded = [number for number, plan in enumerate(plans) if plan.occluder is not None]
    if occluded:
        region, cover = _occluders([sources[number] for number in occluded], bank)
        for crops in (seen, thermal_seen) if moved else (seen,):
            crops[occluded] = torch.where(region, cover, crops[occluded])
    colour = change_colour(seen[:, :3], [plan.colour or UNCHANGED_COLOUR for plan in plans], inside)
    thermal = thermal_seen[:, 3]
    styled = [number for number, plan in enumerate(plans) if plan.style is not None]
    if styled:
        styles = [plan.style for plan in plans if plan.style is not None]
        thermal[styled] = render_thermal(thermal_seen[styled], styles) * thermal_inside[styled]
    thermal = change_thermal(thermal, [plan.thermal or UNCHANGED_THERMAL for plan in plans], thermal_inside)
    kept = torch.tensor([plan.kept for plan in plans], device=device)[..., None, None, None]
    pixels = torch.cat((colour * kept[:, 0], thermal[:, None] * kept[:, 1]), dim=1)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous(), seen[:, 4]


def _occluders(sources: Sequence[CropSource], bank: FrameBank) -> tuple[Tensor, Tensor]:
    """(n, 1, S, S) bool, where each occluder lies, and (n, 5, S, S), what crop and mask show there."""
    device, size = bank.device, sources[0].plan.place.size
    occluders = [source.plan.occluder for source in sources if source.plan.occluder is not None]
    flat = torch.from_numpy(np.stack([occluder.flat for occluder in occluders])).to(device).float()
    cover = F.pad(flat, (0, 1))[..., None, None].repeat(1, 1, size, size)
    textured = [number for number, source in enumerate(sources) if source.texture is not None]
    if textured:
        patches = [source.texture for source in sources if source.texture is not None]
        to_crops = [
            occluders[number].texture_to_crop(*patch.frame, size)
            for number, patch in zip(textured, patches, strict=True)
        ]
        gathered = PatchBatch.gather(bank, patches, [reduction(to_crop) for to_crop in to_crops])
        stretched, _ = gathered.sample(range(len(patches)), to_crops, size)
        stretched[:, 3] = stretched[:, 1]
        cover[textured] = stretched
    edges = [(it.left, it.left + it.width, it.top, it.top + it.height) for it in occluders]
    left, right, top, bottom = torch.tensor(edges, device=device).T[..., None]
    steps = torch.arange(size, device=device)
    columns, rows = (steps >= left) & (steps < right), (steps >= top) & (steps < bottom)
    return (rows[:, :, None] & columns[:, None])[:, None], cover


def render_thermal(crops: Tensor, styles: Sequence[ThermalStyle]) -> Tensor:
    """(B, S, S) thermal of (B, 5, S, S) crops with colour and mask."""
    device = crops.device
    mix = _stacked([style.mix for style in styles], device)
    numbers = [(style.inverted, style.gamma, style.flatten, style.heat) for style in styles]
    inverted, gamma, flatten, heat = torch.tensor(numbers, device=device).T[..., None, None]
    levels = _eight_bits(torch.einsum("bc,bchw->bhw", mix, crops[:, :3])) / 255
    levels = torch.where(inverted > 0, 1 - levels, levels)
    thermal = _eight_bits(255 * (0.5 + (levels**gamma - 0.5) * flatten))
    heated = [number for number, style in enumerate(styles) if style.heat]
    if heated:
        warm = _blurred(crops[heated, 4:], [1.0] * len(heated))[:, 0]
        thermal[heated] = _eight_bits(thermal[heated] + heat[heated] * warm)
    return _blurred(thermal[:, None], [style.blur for style in styles])[:, 0]


def change_colour(colour: Tensor, changes: Sequence[ColourChange], inside: Tensor) -> Tensor:
    """Each sample's change applied to (B, 3, S, S); zero where not ``inside`` (B, S, S)."""
    matrix = _stacked([change.matrix for change in changes], colour.device)
    contrast = torch.tensor([change.contrast for change in changes], device=colour.device)[:, None]
    shift = matrix.sum(2) * (_mean(colour, inside[:, None])[:, None] * (1 - contrast))
    changed = torch.einsum("bdc,bchw->bdhw", matrix * contrast[..., None], colour) + shift[..., None, None]
    return _sensed(_eight_bits(changed), [change.sensor for change in changes]) * inside[:, None]


def change_thermal(thermal: Tensor, changes: Sequence[ThermalChange], inside: Tensor) -> Tensor:
    """Each sample's change applied to (B, S, S); zero where not ``inside`` (B, S, S)."""
    numbers = [(change.contrast, change.offset) for change in changes]
    contrast, offset = torch.tensor(numbers, device=thermal.device).T[..., None, None]
    mean = _mean(thermal[:, None], inside[:, None])[:, None, None]
    changed = _eight_bits((thermal - mean) * contrast + mean + offset)
    return _sensed(changed[:, None], [change.sensor for change in changes])[:, 0] * inside


def _mean(images: Tensor, inside: Tensor) -> Tensor:
    """(B,): the mean of (B, C, S, S) over its channels and where ``inside`` (B, 1, S, S)."""
    count = (inside.sum((1, 2, 3)) * images.shape[1]).clamp(min=1)
    return (images * inside).sum((1, 2, 3)) / count


def _sensed(images: Tensor, sensors: Sequence[SensorChange]) -> Tensor:
    images = _blurred(images, [sensor.blur for sensor in sensors])
    moving = [number for number, sensor in enumerate(sensors) if sensor.motion is not None]
    if moving:
        kernels = [sensor.motion for sensor in sensors if sensor.motion is not None]
        radius = max(len(kernel) for kernel in kernels) // 2
        same = [np.pad(kernel, radius - len(kernel) // 2) for kernel in kernels]
        images = images.clone()
        images[moving] = _eight_bits(_filtered(images[moving], _stacked(same, images.device)))
    noisy = [number for number, sensor in enumerate(sensors) if sensor.noise]
    if noisy:
        chosen = [sensors[number] for number in noisy]
        _, channels, height, width = images.shape
        starts = torch.tensor([sensor.noise_start for sensor in chosen], device=images.device)[:, None]
        steps = torch.arange(channels * height * width, device=images.device)
        noise = _noise_on(images.device)[(starts + steps) % NOISE_VALUES]
        noise = noise.view(len(noisy), height, width, channels).permute(0, 3, 1, 2)
        strength = torch.tensor([sensor.noise for sensor in chosen], device=images.device)[:, None, None, None]
        images = images.clone()
        images[noisy] = _eight_bits(images[noisy] + noise * strength)
    return images


def _blurred(images: Tensor, sigmas: Sequence[float]) -> Tensor:
    soft = [number for number, sigma in enumerate(sigmas) if sigma]
    if not soft:
        return images
    largest = max(gaussian_radius(sigmas[number]) for number in soft)
    sigma = torch.tensor([sigmas[number] for number in soft], device=images.device)[:, None]
    radius = torch.tensor([gaussian_radius(sigmas[number]) for number in soft], device=images.device)[:, None]
    steps = torch.arange(-largest, largest + 1, device=images.device)
    # Each of its own radius, so that a sample does not depend on what else is in its batch.
    kernel = torch.exp(-(steps**2) / (2 * sigma**2)) * (steps.abs() <= radius)
    kernel = kernel / kernel.sum(1, keepdim=True)
    images = images.clone()
    images[soft] = _eight_bits(_filtered(_filtered(images[soft], kernel[:, :, None]), kernel[:, None]))
    return images


def _filtered(images: Tensor, kernels: Tensor) -> Tensor:
    """Each of (n, C, S, S) correlated with its own of (n, h, w) kernels, h and w odd; borders reflect."""
    count, channels, *sides = images.shape
    height, width = kernels.shape[1:]
    padded = F.pad(images.reshape(1, -1, *sides), (width // 2, width // 2, height // 2, height // 2), mode="reflect")
    weights = kernels.repeat_interleave(channels, 0)[:, None]
    return F.conv2d(padded, weights, groups=count * channels).view(images.shape)


@lru_cache(maxsize=4)
def _noise_on(device: torch.device) -> Tensor:
    return torch.tensor(noise_table(), device=device)


def _stacked(arrays: Sequence[np.typing.NDArray[np.float32]], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).to(device)


def _eight_bits(images: Tensor) -> Tensor:
    return images.round().clamp_(0, 255)
