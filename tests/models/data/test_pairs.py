"""Training pairs: determinism by number, shapes, shares, and that labels say what is in the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data import augment
from duotrack.data.augment import SEARCH_JITTER
from duotrack.data.images import Sequence, ThermalFrame, View
from duotrack.data.pairs import PairDataset, beside_target
from duotrack.data.sources import (
    PastedPairs,
    ScenePairs,
    SequencePairs,
    StillPairs,
    ThermalPairs,
    local_sources,
    random_box,
    render_scenes,
)
from duotrack.errors import SourceError


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
        "pasted": (PastedPairs([sequence(20)], [segment], [texture(55)]), 0.2),
        "thermal": (ThermalPairs(thermal), 0.2),
        "scenes": (ScenePairs([[view, view]]), 0.1),
    }


def dataset(sources: dict[str, tuple[object, float]], *, seed: int = 0, absent: float = 0.12) -> PairDataset:
    return PairDataset(
        sources,  # type: ignore[arg-type]
        [texture(90), texture(91)],
        length=1000,
        seed=seed,
        template_size=64,
        search_size=128,
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


@dataclass(frozen=True)
class HotThing:
    """One hot square in a cold thermal frame of 600 × 600 or 200 × 200 pixels: easy to see whether it is there."""

    width: int = 600

    def draw(self, rng: Generator) -> tuple[View, View]:
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
        {"hot": (source, 1.0)}, [np.full((64, 64, 3), 60, np.uint8)], length=count, seed=3, absent=absent
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
        moved = beside_target(view, rng)
        if moved is None:
            continue
        moved_views += 1
        assert (moved.box.w, moved.box.h) == (view.box.w, view.box.h)
        assert 0 <= moved.box.center[0] <= 600
        assert 0 <= moved.box.center[1] <= 600
        crop = augment.crop_view(moved, 4.0, 64, SEARCH_JITTER, False, rng)
        assert crop.thermal is not None
        seen += int((crop.thermal > 200).any())
    assert moved_views > 250
    assert seen / moved_views < 0.03


def test_beside_a_target_that_fills_the_picture_there_is_nothing() -> None:
    view = View(np.zeros((200, 200, 3), np.uint8), None, Box(40, 40, 120, 120))
    assert beside_target(view, np.random.default_rng(0)) is None


def test_frames_of_a_pair_are_near_and_visible() -> None:
    rng, long = np.random.default_rng(0), sequence(0, frames=40)
    frames = {id(frame): index for index, frame in enumerate(long.frames)}
    source, gaps = SequencePairs([long], largest_gap=7), set()
    for _ in range(300):
        views = source.draw(rng)
        first, second = (frames[id(view.rgb)] for view in views)
        gaps.add(second - first)
        for index, view in zip((first, second), views, strict=True):
            assert index != 2  # where the target is absent
            assert view.box == long.boxes[index]
            assert view.mask is not None
    assert gaps == set(range(-7, 8))


def test_random_boxes_lie_in_the_picture_and_vary() -> None:
    rng = np.random.default_rng(0)
    boxes = [random_box(320, 200, rng) for _ in range(500)]
    for box in boxes:
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.w <= 320 + 1e-9
        assert box.y + box.h <= 200 + 1e-9
    sides = np.sqrt([box.area for box in boxes]) / 200
    assert sides.min() < 0.15
    assert sides.max() > 0.5
    shapes = np.log([box.w / box.h for box in boxes])
    assert shapes.std() > 0.4


def test_a_pasted_target_is_in_its_box() -> None:
    """A white cut-out over black, without others to hide it: the white pixels' box is the view's."""
    white = np.full((40, 60, 3), 255, np.uint8), np.full((40, 60), 255, np.uint8)
    source = PastedPairs([], [white], [np.zeros((100, 100, 3), np.uint8)])
    rng, compared = np.random.default_rng(0), 0
    for _ in range(60):
        view, _ = source.draw(rng)
        assert view.rgb is not None
        assert view.mask is not None
        assert view.rgb.shape == (320, 320, 3)
        x, y, w, h = cv2.boundingRect((view.mask > 127).astype(np.uint8))
        assert view.box == Box(x, y, w, h)
        assert view.rgb[view.mask > 250].min() > 200
        count, _ = cv2.connectedComponents((view.rgb[..., 0] > 127).astype(np.uint8))
        if count == 2:  # the background, and this cut-out alone
            compared += 1
            found = Box(*cv2.boundingRect((view.rgb[..., 0] > 127).astype(np.uint8)))
            assert found.iou(view.box) > 0.85 or found.area > view.box.area
    assert compared > 10


def test_rendered_scenes_have_views_of_one_target() -> None:
    scenes = list(render_scenes(1, seed=5, backgrounds=[texture(0)]))
    assert len(scenes) == 1
    assert 1 <= len(scenes[0]) <= 20
    for view in scenes[0]:
        assert view.size == (320, 240)
        assert view.rgb is not None
        assert view.thermal is not None
        assert view.thermal.dtype == np.uint8


def test_local_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "rgb-sequences").mkdir()
    with pytest.raises(SourceError, match=r"training data folder .*rgb-stills does not exist"):
        local_sources(tmp_path, scenes=0, seed=0)
