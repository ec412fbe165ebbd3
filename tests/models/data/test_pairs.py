"""Training pairs: determinism by number, shapes, shares, and that labels say what is in the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import pytest
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Subset, default_collate

from duotrack.boxes import Box
from duotrack.data import augment
from duotrack.data.augment_plan import SEARCH_JITTER, CropJitter, Placement
from duotrack.data.figures import gather_figures
from duotrack.data.images import Sequence, ThermalFrame, View
from duotrack.data.pairs import Batchable, PairDataset, beside_target
from duotrack.data.sources import (
    PastedPairs,
    ScenePairs,
    SequencePairs,
    StillPairs,
    ThermalPairs,
)
from duotrack.errors import FrameError, SourceError
from duotrack.network import CropShapes, ModelSpec


def texture(seed: int, size: tuple[int, int] = (240, 320)) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 5, 250, cv2.NORM_MINMAX), np.uint8)


def sequence(seed: int, frames: int = 8) -> Sequence:
    boxes: list[Box | None] = [Box(40 + 10 * index, 60, 40, 50) for index in range(frames)]
    boxes[2] = None
    masks = []
    for box in boxes:
        mask = np.zeros((240, 320), np.uint8)
        if box is not None:
            mask[60:110, int(box.x) : int(box.x) + 40] = 255
        masks.append(mask)
    return Sequence(f"sequence{seed}", [texture(seed + index) for index in range(frames)], boxes, masks)


def every_source() -> dict[str, tuple[object, float]]:
    thermal = [ThermalFrame(texture(60)[..., 0].copy(), [Box(50, 60, 20, 40), Box(200, 100, 30, 30)])]
    segment = texture(70, (40, 50)), np.full((40, 50), 255, np.uint8)
    view = View(texture(80), texture(81)[..., 0].copy(), Box(100, 90, 40, 40))
    return {
        "sequences": (SequencePairs([sequence(0), sequence(10)]), 0.3),
        "stills": (StillPairs([(texture(50), None), (texture(51), texture(52)[..., 0].copy())]), 0.2),
        "pasted": (PastedPairs(gather_figures([sequence(20)], [segment]), [texture(55)]), 0.2),
        "thermal": (ThermalPairs(thermal), 0.2),
        "scenes": (ScenePairs([[view, view]]), 0.1),
    }


def dataset(
    sources: dict[str, tuple[object, float]],
    *,
    seed: int = 0,
    absent: float = 0.12,
    modality: Literal["both", "rgb", "thermal"] = "both",
) -> PairDataset:
    return PairDataset(
        sources,  # type: ignore[arg-type]
        [texture(90), texture(91)],
        length=1000,
        seed=seed,
        modality=modality,
        crops=CropShapes(template_size=64, search_size=128),
        absent=absent,
    )


def test_a_sample_depends_on_its_number_and_the_seed_alone() -> None:
    first, second = dataset(every_source()), dataset(every_source())
    forward = {number: first[number] for number in range(24)}
    for number in reversed(range(24)):
        again = second[number]
        for name, tensor in forward[number].items():
            assert torch.equal(tensor, again[name]), (number, name)  # type: ignore[literal-required]
    assert not torch.equal(forward[0]["search"], dataset(every_source(), seed=1)[0]["search"])
    assert len({sample["search"].numpy().tobytes() for sample in forward.values()}) == 24


def test_workers_give_the_same_samples() -> None:
    """The data set can be sent to a worker process, and what comes back is what it gives here."""
    samples, batch = dataset(every_source()), 4
    loader = DataLoader(Subset(samples, range(batch)), batch, num_workers=1, multiprocessing_context="forkserver")
    (received,) = list(loader)
    for name, tensor in default_collate([samples[number] for number in range(batch)]).items():
        assert torch.equal(received[name], tensor)


STILL = CropJitter(center=0, scale=0, aspect=0, rotation=0, turned=0)


def unmoved(count: int, crops: CropShapes) -> list[Batchable]:
    """Samples of a hot thing of 30 × 30 pixels, whose search crops lie exactly around it."""
    samples = PairDataset(
        {"hot": (HotThing(), 1.0)},
        [],
        length=count,
        seed=3,
        crops=crops,
        absent=0.0,
        jitter=STILL,
    )
    return [samples[number] for number in range(count)]


def test_both_crops_have_the_scale_that_the_network_wants() -> None:
    """The target's side is 1 / ``template_factor`` of the template crop's, and as many pixels in the search crop."""
    for factor in (2.0, 1.6):
        drawn = unmoved(40, CropShapes(template_size=64, search_size=112, template_factor=factor))
        sides = np.array(
            [[float(boxes[2:].prod()) ** 0.5 for boxes in (each["template_box"], each["search_box"])] for each in drawn]
        )
        assert np.median(sides[:, 0]) == pytest.approx(1 / factor, rel=0.03)  # templates are jittered all the same
        assert sides[:, 1] == pytest.approx(np.full(40, 64 / 112 / factor))


def test_search_crops_of_small_targets_are_as_wide_as_the_tracker_cuts_them() -> None:
    """The target of 30 pixels would be magnified 2.7 times in a crop of 84 pixels: 2.5 times, 224 make 89.6."""
    for widening in (1.0, 1.4):
        spec = ModelSpec("any", search_size=224, template_factor=1.6, search_factor=2.8, widening=widening)
        side = 30 * spec.search_factor_around(Box(0, 0, 30, 30))
        assert side == pytest.approx(84 if widening == 1 else 89.6)
        for sample in unmoved(20, CropShapes(search_size=224, template_factor=1.6, widening=widening)):
            assert sample["search_box"][2:].numpy() == pytest.approx(30 / side, rel=1e-5)


def test_a_source_may_have_a_jitter_of_its_own() -> None:
    sources = {"calm": (HotThing(), 1.0), "wild": (HotThing(590), 1.0)}
    samples = PairDataset(
        sources, [], length=80, seed=5, crops=CropShapes(), absent=0.0, jitter=STILL, jitters={"wild": CropJitter(1.0)}
    )
    plans: dict[int, list[NDArray[np.float32]]] = {width: [] for width in (600, 590)}
    for pair in map(samples.planned, range(len(samples))):
        plans[pair.search.size[0]].append(pair.plan.search.place.box)
    assert len(plans[600]) > 20
    assert np.abs(np.array(plans[600])[:, :2] - 0.5).max() < 1e-6
    assert np.abs(np.array(plans[590])[:, :2] - 0.5).mean() > 0.03


def test_samples_have_the_networks_shapes_and_ranges() -> None:
    samples = dataset(every_source())
    assert len(samples) == 1000
    for number in range(150):
        sample = samples[number]
        assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in sample.items()} == {  # type: ignore[attr-defined]
            "template": ((64, 64, 4), torch.uint8),
            "template_present": ((2,), torch.float32),
            "template_box": ((4,), torch.float32),
            "search": ((128, 128, 4), torch.uint8),
            "search_present": ((2,), torch.float32),
            "search_box": ((4,), torch.float32),
            "search_mask": ((32, 32), torch.uint8),
            "mask_known": ((), torch.float32),
            "present": ((), torch.float32),
        }
        assert float(sample["present"]) in (0.0, 1.0)
        for kind in ("template", "search"):
            has_rgb, has_thermal = sample[f"{kind}_present"].tolist()  # type: ignore[literal-required]
            assert has_rgb + has_thermal >= 1
            pixels = sample[kind]  # type: ignore[literal-required]
            if not has_rgb:
                assert not pixels[..., :3].any()
            if not has_thermal:
                assert not pixels[..., 3].any()
        if sample["present"]:
            assert bool(((sample["search_box"][:2] >= 0) & (sample["search_box"][:2] < 1)).all())
            assert bool((sample["search_box"][2:] > 0).all())
        if not sample["present"]:
            assert float(sample["mask_known"]) == 1
            assert not sample["search_mask"].any()
        if not sample["mask_known"]:
            assert not sample["search_mask"].any()
        # The template is hardly jittered: its target is near the middle and about half a side wide.
        assert bool(((sample["template_box"][:2] - 0.5).abs() < 0.1).all())
        w, h = sample["template_box"][2:].tolist()
        assert (w * h) ** 0.5 == pytest.approx(0.5, rel=0.35)


@pytest.mark.parametrize("absent", [0.0, 0.3])
def test_absent_targets_have_their_share(absent: float) -> None:
    """Those that were drawn, and the few whose jitter shows none of their centre: 4 deviations of the binomial."""
    samples = dataset(every_source(), absent=absent)
    count = 400
    share = np.mean([float(samples[number]["present"]) == 0 for number in range(count)])
    deviation = 4 * (absent * (1 - absent) / count) ** 0.5
    assert absent - deviation <= share <= absent + deviation + 0.04


def test_modalities_come_alone_and_together() -> None:
    """A still with both: 62 % both in both crops, else one of them; by the shares in ``_kept_modalities``."""
    both = StillPairs([(texture(0), texture(1)[..., 0].copy())])
    samples = dataset({"stills": (both, 1.0)})
    kinds = [
        (tuple(sample["template_present"].tolist()), tuple(sample["search_present"].tolist()))
        for sample in (samples[number] for number in range(500))
    ]
    expected = {
        ((1, 1), (1, 1)): 0.62,
        ((1, 0), (1, 0)): 0.12,
        ((0, 1), (0, 1)): 0.16,
        ((1, 1), (1, 0)): 0.05,
        ((1, 1), (0, 1)): 0.05,
    }
    assert set(kinds) == set(expected)
    for kind, share in expected.items():
        assert kinds.count(kind) / 500 == pytest.approx(share, abs=4 * (share * (1 - share) / 500) ** 0.5)


@pytest.mark.parametrize("modality", ["rgb", "thermal"])
def test_the_modality_to_train_on_is_in_every_crop(modality: Literal["rgb", "thermal"]) -> None:
    """Thermal is rendered for what has colour only, and lies where the box does; the other may come too."""
    rgb, thermal = texture(0), texture(1)[..., 0].copy()
    sources = {
        "both": (StillPairs([(rgb, thermal)]), 1.0),
        "colour": (StillPairs([(rgb, None)]), 1.0),
        "thermal": (ThermalPairs([ThermalFrame(thermal, [Box(60, 50, 30, 40)])]), 1.0),
    }
    plans = [dataset(sources, modality=modality).planned(number).plan for number in range(120)]
    kept = np.array([(plan.template.kept, plan.search.kept) for plan in plans])
    other, wanted = np.moveaxis(kept[..., :: 1 if modality == "thermal" else -1], -1, 0)
    assert wanted.all()
    assert 0.2 < other.mean() < 0.9
    if modality == "thermal":
        assert not any(plan.search.place.misaligned for plan in plans)


def test_sources_without_the_modality_to_train_on_are_refused() -> None:
    frame = ThermalFrame(texture(1)[..., 0].copy(), [Box(60, 50, 30, 40)])
    dark = dataset({"thermal": (ThermalPairs([frame]), 1.0)}, modality="rgb")
    with pytest.raises(SourceError, match="sample 7: 20 draws in a row lack the modality to train on, rgb"):
        dark[7]


@dataclass(frozen=True)
class Listener:
    """Notes how far into the samples it is asked."""

    heard: list[float]

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:
        self.heard.append(progress)
        return HotThing().draw(rng)


def test_sources_are_told_how_far_the_samples_are() -> None:
    source = Listener([])
    samples = dataset({"only": (source, 1.0)}, absent=0.0)
    for number in (0, 250, 1000, 4000):
        samples.planned(number)
    assert source.heard == [0.0, 0.25, 1.0, 1.0]


@pytest.mark.parametrize("shares", [(), (0.0,), (1.0, -0.5)])
def test_samples_need_sources(shares: tuple[float, ...]) -> None:
    with pytest.raises(SourceError, match="expected sources with shares of the samples, at least one above zero, got"):
        dataset({str(number): (HotThing(), share) for number, share in enumerate(shares)})


def test_sources_get_their_shares() -> None:
    """Four deviations of the binomial; a source without a share is never asked."""
    listeners = [Listener([]) for _ in range(3)]
    sources = {str(number): (listener, number * 0.5) for number, listener in enumerate(listeners)}
    samples = dataset(sources, absent=0.0)  # type: ignore[arg-type]
    for number in range(300):
        samples.planned(number)
    counts = [len(listener.heard) for listener in listeners]
    assert counts[0] == 0
    assert counts[1] / 300 == pytest.approx(1 / 3, abs=0.11)


@dataclass(frozen=True)
class Crooked:
    """Colour and thermal of two sizes."""

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:  # noqa: ARG002
        view = View(texture(0), texture(0, (120, 160))[..., 0].copy(), Box(10, 10, 30, 30))
        return view, view


def test_modalities_of_two_sizes_are_named() -> None:
    with pytest.raises(FrameError, match="expected colour, thermal and mask of one size, got 160x120, 320x240"):
        dataset({"crooked": (Crooked(), 1.0)}, absent=0.0).planned(0)


def test_some_samples_have_a_drifting_thermal_camera() -> None:
    """Of those that show both modalities; a crop that shows one alone is never off against its box."""
    samples = dataset({"stills": (StillPairs([(texture(0), texture(1)[..., 0].copy())]), 1.0)})
    drifting = {True: 0, False: 0}
    for number in range(600):
        plan = samples.planned(number).plan
        for crop in (plan.template, plan.search):
            if min(crop.kept) == 0:
                assert not crop.place.misaligned
        if min(plan.template.kept + plan.search.kept):
            drifting[plan.search.place.misaligned] += 1
            assert plan.search.place.misaligned == plan.template.place.misaligned
    assert drifting[True] / sum(drifting.values()) == pytest.approx(0.15, abs=0.08)


def test_without_occluders_targets_are_hidden_by_plain_ones() -> None:
    samples = PairDataset({"hot": (HotThing(), 1.0)}, [], length=200, seed=0, crops=CropShapes())
    occluders = [samples.planned(number).plan.search.occluder for number in range(200)]
    hidden = [number for number, occluder in enumerate(occluders) if occluder is not None]
    assert len(hidden) > 10
    for number in hidden[:5]:
        assert samples[number]["search"].any()


@dataclass(frozen=True)
class HotThing:
    """One hot square in a cold thermal frame of 600 × 600 or 200 × 200 pixels: easy to see whether it is there."""

    width: int = 600

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:  # noqa: ARG002
        thermal = np.full((self.width, self.width), 60, np.uint8)
        x, y = (int(place) for place in rng.integers(20, self.width - 50, 2))
        thermal[y : y + 30, x : x + 30] = 250
        view = View(None, thermal, Box(x, y, 30, 30))
        return view, view


def hot_samples(
    source: HotThing, count: int, absent: float
) -> list[tuple[bool, float, NDArray[np.bool_], NDArray[np.float32]]]:
    """For each sample: whether it is labelled present, how many pixels are hot, which, and the box."""
    samples = PairDataset(
        {"hot": (source, 1.0)},
        [np.full((64, 64, 3), 60, np.uint8)],
        length=count,
        seed=3,
        crops=CropShapes(),
        absent=absent,
    )
    found = []
    for number in range(count):
        sample = samples[number]
        thermal = sample["search"].numpy()[..., 3].astype(float)
        base = float(np.median(thermal[thermal > 0])) if thermal.any() else 0.0
        hot = cv2.medianBlur((thermal > base + 60).astype(np.uint8), 5) > 0
        found.append((bool(sample["present"]), float(hot.sum()), hot, sample["search_box"].numpy()))
    return found


def test_boxes_are_where_the_target_is() -> None:
    """The hot pixels' box against the sample's, for targets that are wholly in the crop, through all augmentation.

    Blur and rotation (the box is that of the inscribed ellipse, the square's own corners stick out) change edges by a
    few pixels, occlusion in one sample of seven hides some: so nine of ten must agree to 0.7.
    """
    overlaps = []
    for present, _, hot, box in hot_samples(HotThing(), 120, absent=0.0):
        inside = (box[:2] - box[2:] / 2 > 0).all() and (box[:2] + box[2:] / 2 < 1).all()
        if present and inside and hot.any():
            x, y, w, h = cv2.boundingRect(hot.astype(np.uint8))
            cx, cy, width, height = (float(value) * 256 for value in box)
            overlaps.append(Box(x, y, w, h).iou(Box.from_center(cx, cy, width, height)))
    assert len(overlaps) > 70
    assert np.mean(np.array(overlaps) > 0.7) > 0.85
    assert np.median(overlaps) > 0.85


def test_absent_samples_do_not_show_the_target() -> None:
    samples = [sample for sample in hot_samples(HotThing(), 60, absent=1.0) if not sample[0]]
    assert len(samples) == 60
    assert np.mean([size > 60 for _, size, _, _ in samples]) < 0.05


def test_beside_the_target_is_where_no_crop_shows_it() -> None:
    rng = np.random.default_rng(0)
    seen, moved_views = 0, 0
    for _ in range(300):
        view, _ = HotThing().draw(rng)
        moved = beside_target(view, CropShapes(), SEARCH_JITTER, rng)
        if moved is None:
            continue
        moved_views += 1
        assert (moved.box.w, moved.box.h) == (view.box.w, view.box.h)
        assert 0 <= moved.box.center[0] <= 600
        assert 0 <= moved.box.center[1] <= 600
        place = Placement.draw(moved.box, 4.0, 64, SEARCH_JITTER, False, rng)
        assert moved.thermal is not None
        seen += int((augment.warp(moved.thermal, place.to_crop, 64, place.factor) > 200).any())
    assert moved_views > 250
    assert seen / moved_views < 0.03


def test_beside_a_target_that_fills_the_picture_there_is_nothing() -> None:
    view = View(np.zeros((200, 200, 3), np.uint8), None, Box(40, 40, 120, 120))
    assert beside_target(view, CropShapes(), SEARCH_JITTER, np.random.default_rng(0)) is None
