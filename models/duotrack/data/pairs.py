"""Training samples: a template crop and a search crop of one target, drawn from weighted sources by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

import numpy as np
import torch
from numpy.random import Generator
from torch.utils.data import Dataset

from duotrack.boxes import Box
from duotrack.data.augment import augment_view, search_mask
from duotrack.data.augment_plan import (
    SEARCH_JITTER,
    TEMPLATE_JITTER,
    AugmentPlan,
    ColourChange,
    CropJitter,
    CropPlan,
    Drift,
    Occluder,
    Placement,
    ThermalChange,
    ThermalStyle,
)
from duotrack.data.images import Pixels, View
from duotrack.data.sources import PairSource, draw_absent
from duotrack.errors import FrameError, SourceError
from duotrack.network import CropShapes

Modality = Literal["both", "rgb", "thermal"]

TRIES = 20  # samples that are drawn for one whose views have the wanted modality
MISALIGNED = 0.15  # share of the samples whose thermal camera is off against the colour one


class Batchable(TypedDict):
    """One training sample; shapes are those of ``Student.forward`` and ``tracking_loss`` without the batch axis.

    ``search_mask`` is (S / 4, S / 4) uint8, how much of each 4 × 4 pixels of the search crop the target covers, from 0
    to 255; it counts where ``mask_known`` is 1. That it covers nothing is known wherever the target is absent.
    """

    template: torch.Tensor
    template_present: torch.Tensor
    template_box: torch.Tensor
    search: torch.Tensor
    search_present: torch.Tensor
    search_box: torch.Tensor
    search_mask: torch.Tensor
    mask_known: torch.Tensor
    present: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PlannedPair:
    """A sample before any of its pixels was touched."""

    template: View
    search: View
    plan: AugmentPlan

    @property
    def mask_known(self) -> bool:
        """Whether it is known which pixels of the search crop are the target's: all or none of them, at least."""
        return self.search.mask is not None or not self.plan.present


class PairDataset(Dataset[Batchable]):
    """Samples by number: the same seed and number give the same sample, on any machine and in any order.

    Args:
        sources: each with its share of the samples; a source is told how far into the samples it is drawn.
        crops: of the network to be trained.
        modality: ``rgb`` or ``thermal``, where every crop must have it: thermal is rendered for all that lack it, and
            views without colour are drawn again.
        occluders: images (H, W, 3) that pieces are cut from to hide targets; with none, what hides them has one colour.
        absent: share of samples whose search crop shows something else (they teach presence).
        jitter: of the search crops.
        jitters: of those of some sources, by their names, in place of ``jitter``.

    Raises:
        SourceError: there is no source to draw from, or a share is negative.
    """

    def __init__(
        self,
        sources: dict[str, tuple[PairSource, float]],
        occluders: Sequence[Pixels],
        *,
        length: int,
        seed: int,
        crops: CropShapes,
        modality: Modality = "both",
        absent: float = 0.28,
        jitter: CropJitter = SEARCH_JITTER,
        jitters: Mapping[str, CropJitter] = {},
    ) -> None:
        shares = {name: share for name, (_, share) in sources.items()}
        if not any(shares.values()) or min(shares.values()) < 0:
            raise SourceError(f"expected sources with shares of the samples, at least one above zero, got {shares}")
        self._modality = modality
        self._crops = crops
        self._sources = [(source, jitters.get(name, jitter)) for name, (source, _) in sources.items()]
        self._limits = np.cumsum(list(shares.values())) / sum(shares.values())
        self._occluders = occluders
        self._length = length
        self._seed = seed
        self._absent = absent

    def __len__(self) -> int:
        return self._length

    @property
    def occluders(self) -> Sequence[Pixels]:
        """Images by the number that ``Occluder.texture`` gives."""
        return self._occluders

    @property
    def sources(self) -> Sequence[PairSource]:
        """What samples are drawn from."""
        return [source for source, _ in self._sources]

    def __getitem__(self, index: int) -> Batchable:
        pair = self.planned(index)
        template, search = pair.plan.template, pair.plan.search
        return {
            "template": torch.from_numpy(augment_view(pair.template, template, self._occluders)),
            "template_present": torch.tensor(template.kept),
            "template_box": torch.from_numpy(template.place.box),
            "search": torch.from_numpy(augment_view(pair.search, search, self._occluders)),
            "search_present": torch.tensor(search.kept),
            "search_box": torch.from_numpy(search.place.box),
            "search_mask": torch.from_numpy(search_mask(pair.search if pair.plan.present else None, search)),
            "mask_known": torch.tensor(float(pair.mask_known)),
            "present": torch.tensor(float(pair.plan.present)),
        }

    def planned(self, index: int) -> PlannedPair:
        """Sample ``index`` as views and a plan: a function of the seed and the number alone.

        Raises:
            FrameError: colour and thermal of a view, or its mask, are of different sizes.
            SourceError: one of many views after another lacks the modality that every crop must have.
        """
        rng = np.random.default_rng((self._seed, index))
        progress = min(1.0, index / self._length)
        for _ in range(TRIES):
            pair = self._drawn(rng, progress)
            if _shows(pair.plan.template, self._modality) and _shows(pair.plan.search, self._modality):
                return pair
        raise SourceError(f"sample {index}: {TRIES} draws in a row lack the modality to train on, {self._modality}")

    def _drawn(self, rng: Generator, progress: float) -> PlannedPair:
        present = rng.random() >= self._absent
        source, jitter = self._source(rng)
        template, search = (
            source.draw(rng, progress) if present else self._without_target(source, jitter, rng, progress)
        )
        _require_one_size(template)
        _require_one_size(search)
        plan = draw_plan(template, search, self._crops, jitter, len(self._occluders), rng, self._modality)
        return PlannedPair(template, search, replace(plan, present=present and plan.present))

    def _without_target(
        self, source: PairSource, jitter: CropJitter, rng: Generator, progress: float
    ) -> tuple[View, View]:
        """A template view, and a search view that lacks its target: taken out, beside it, or of another scene."""
        kind = rng.random()
        emptied = draw_absent(source, rng, progress) if kind < 0.75 else None
        if emptied is not None:
            return emptied
        template, search = source.draw(rng, progress)
        elsewhere = beside_target(search, self._crops, jitter, rng) if kind < 0.88 else None
        return template, elsewhere or self._other_scene(template, rng, progress)

    def _other_scene(self, view: View, rng: Generator, progress: float) -> View:
        """A view of another scene; black where none can be found."""
        for _ in range(8):
            other = self._source(rng)[0].draw(rng, progress)[1]
            if other.scene != view.scene:
                return other
        black = [None if image is None else np.zeros_like(image) for image in (view.rgb, view.thermal)]
        return View(black[0], black[1], view.box)

    def _source(self, rng: Generator) -> tuple[PairSource, CropJitter]:
        chosen = np.searchsorted(self._limits, rng.random(), side="right")
        return self._sources[min(int(chosen), len(self._sources) - 1)]


def draw_plan(
    template: View,
    search: View,
    crops: CropShapes,
    jitter: CropJitter,
    textures: int,
    rng: Generator,
    modality: Modality = "both",
) -> AugmentPlan:
    """Everything random about the crops of two views; ``present`` says whether the target's centre is in the search.

    Args:
        jitter: of the search crop.
        textures: how many images there are to occlude with.
        modality: one that both crops keep, where the views have it.
    """
    flip = bool(rng.random() < 0.5)
    # Boxes are those of colour, beside which thermal would lie.
    drift = Drift.draw(rng) if rng.random() < MISALIGNED and modality != "thermal" else None
    style = ThermalStyle.draw(rng) if rng.random() < (1 if modality == "thermal" else 0.45) else None
    keep_template, keep_search = (
        (keep[0] or modality == "rgb", keep[1] or modality == "thermal") for keep in _kept_modalities(rng)
    )
    template_kept, search_kept = _kept(template, style, keep_template), _kept(search, style, keep_search)
    # Boxes are those of colour: thermal alone is not moved away from them.
    template_drift = drift if all(template_kept) else None
    search_drift = drift if all(search_kept) else None
    template_place = Placement.draw(
        template.box, crops.template_factor, crops.template_size, TEMPLATE_JITTER, flip, rng, template_drift
    )
    search_flip = flip ^ bool(rng.random() < 0.08)
    search_place = Placement.draw(
        search.box,
        crops.search_factor_around(search.box),
        crops.search_size,
        jitter,
        search_flip,
        rng,
        search_drift,
        outline=search.outline(),
    )
    occluder = Occluder.draw(search_place.box, crops.search_size, textures, rng) if rng.random() < 0.15 else None
    cx, cy = search_place.box[:2]
    return AugmentPlan(
        _crop_plan(template, template_place, template_kept, style, None, rng),
        _crop_plan(search, search_place, search_kept, style, occluder, rng),
        bool(0 <= cx < 1 and 0 <= cy < 1),
    )


def _crop_plan(
    view: View,
    place: Placement,
    kept: tuple[bool, bool],
    style: ThermalStyle | None,
    occluder: Occluder | None,
    rng: Generator,
) -> CropPlan:
    colour, thermal = ColourChange.draw(rng), ThermalChange.draw(rng)
    return CropPlan(
        place,
        colour if kept[0] else None,
        thermal if kept[1] else None,
        style if kept[1] and view.thermal is None else None,
        occluder,
    )


def _kept(view: View, style: ThermalStyle | None, keep: tuple[bool, bool]) -> tuple[bool, bool]:
    """Whether a crop shows colour, and thermal: a view that would lose its only modality keeps it."""
    has_rgb, has_thermal = view.rgb is not None, view.thermal is not None or style is not None
    return has_rgb and (keep[0] or not has_thermal), has_thermal and (keep[1] or not has_rgb)


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


def _shows(plan: CropPlan, modality: Modality) -> bool:
    return modality == "both" or plan.kept[0 if modality == "rgb" else 1] > 0


def _require_one_size(view: View) -> None:
    sizes = {image.shape[:2] for image in (view.rgb, view.thermal, view.mask) if image is not None}
    if len(sizes) != 1:
        found = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise FrameError(f"expected colour, thermal and mask of one size, got {found or 'a view without an image'}")


def beside_target(view: View, crops: CropShapes, jitter: CropJitter, rng: Generator) -> View | None:
    """The same image with its box moved to where no search crop around it shows the target; None where it cannot."""
    width, height = view.size
    box, root = view.box, view.box.area**0.5
    # Of a large search crop, in target sizes.
    half_side = crops.search_factor_around(box) / 2 * np.exp(2 * jitter.scale)
    clearance = (half_side + jitter.center + 0.5) * root
    for _ in range(6):
        cx, cy = rng.uniform(0, width), rng.uniform(0, height)
        if max(abs(cx - box.center[0]) - box.w / 2, abs(cy - box.center[1]) - box.h / 2) > clearance:
            return replace(view, box=Box.from_center(cx, cy, box.w, box.h))
    return None
