"""Augmentation in batches against the reference, plan by plan; and how batches come to be."""

from __future__ import annotations

import gc
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator
from numpy.typing import NDArray
from torch.utils.data import default_collate

from duotrack.boxes import Box
from duotrack.data.augment import augment_view
from duotrack.data.augment_plan import (
    NOISE_VALUES,
    SEARCH_JITTER,
    ColourChange,
    CropJitter,
    CropPlan,
    Drift,
    Occluder,
    Placement,
    SensorChange,
    ThermalChange,
    ThermalStyle,
    motion_kernel,
)
from duotrack.data.device_augment import CropSource, augment_crops
from duotrack.data.device_batches import DeviceBatches
from duotrack.data.frame_bank import FrameBank
from duotrack.data.images import Pixels, View
from duotrack.data.pairs import PairDataset
from duotrack.errors import SourceError
from duotrack.network import CropShapes

STILL = CropJitter(center=0, scale=0, aspect=0, rotation=0, turned=0)
SAME_COLOUR = ColourChange(1.0, np.eye(3, dtype=np.float32), SensorChange())
SAME_THERMAL = ThermalChange(1.0, 0.0, SensorChange())
GREY = ThermalStyle(np.full(3, 1 / 3, np.float32), inverted=False, gamma=1.0, blur=0.0, flatten=1.0, heat=0.0)


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


def picture(seed: int, size: tuple[int, int] = (240, 320)) -> Pixels:
    """Colour noise with detail of about two pixels, from dark to bright: rougher than most photographs."""
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX), np.uint8)


def filmed(box: Box, size: tuple[int, int] = (240, 320)) -> View:
    mask = np.zeros(size, np.uint8)
    x, y, w, h = (int(value) for value in box.xywh)
    mask[y : y + h, x : x + w] = 255
    return View(picture(0, size), picture(1, size)[..., 0].copy(), box, mask)


TEXTURES = [picture(8, (90, 130)), picture(9, (800, 700))]
MIDDLE = filmed(Box(130, 90, 50, 40))
CORNER = filmed(Box(2, 5, 40, 50))
LARGE = filmed(Box(300, 180, 230, 200), (480, 640))


def place(view: View, jitter: CropJitter = STILL, flip: bool = False, drift: Drift | None = None) -> Placement:
    return Placement.draw(view.box, 4.0, 128, jitter, flip, np.random.default_rng(0), drift)


def on_device(cases: list[tuple[View, CropPlan]], device: torch.device, capacity: int = 0) -> NDArray[np.uint8]:
    bank = FrameBank(device, capacity)
    sources = [CropSource.read(view, plan, TEXTURES, bank) for view, plan in cases]
    return augment_crops(sources, bank).cpu().numpy()


def colour(sensor: SensorChange | None = None, **changes: object) -> ColourChange:
    return replace(SAME_COLOUR, sensor=sensor or SensorChange(), **changes)  # type: ignore[arg-type]


def thermal(sensor: SensorChange | None = None, **changes: object) -> ThermalChange:
    return replace(SAME_THERMAL, sensor=sensor or SensorChange(), **changes)  # type: ignore[arg-type]


def both(sensor: SensorChange) -> tuple[ColourChange, ThermalChange]:
    return colour(sensor), thermal(replace(sensor, noise_start=(sensor.noise_start + 999_999) % NOISE_VALUES))


MATRIX = np.array([[1.3, 0.1, 0], [0.2, 0.7, -0.1], [0, 0.3, 0.9]], np.float32)
FLAT = Occluder(40, 30, 50, 30, None, np.array([250, 20, 130, 70], np.uint8))
COLOUR_ONLY = replace(MIDDLE, thermal=None)
LINE = motion_kernel(np.random.default_rng(3))
OPERATIONS: dict[str, tuple[View, CropPlan]] = {
    "a crop": (MIDDLE, CropPlan(place(MIDDLE), SAME_COLOUR, SAME_THERMAL)),
    "a jittered and flipped one": (MIDDLE, CropPlan(place(MIDDLE, SEARCH_JITTER, True), SAME_COLOUR, SAME_THERMAL)),
    "over the frame's corner": (CORNER, CropPlan(place(CORNER, SEARCH_JITTER), SAME_COLOUR, SAME_THERMAL)),
    "shrunk": (LARGE, CropPlan(place(LARGE, CropJitter(0.3, 0, 0.1, 10, 0)), SAME_COLOUR, SAME_THERMAL)),
    "a drifting thermal camera": (
        MIDDLE,
        CropPlan(place(MIDDLE, drift=Drift(0.06, -0.04, 1.02, 0.02)), SAME_COLOUR, SAME_THERMAL),
    ),
    "contrast about the mean": (CORNER, CropPlan(place(CORNER), colour(contrast=1.4), thermal(contrast=0.6))),
    "gain and saturation": (MIDDLE, CropPlan(place(MIDDLE), colour(matrix=MATRIX), SAME_THERMAL)),
    "night": (MIDDLE, CropPlan(place(MIDDLE), colour(matrix=MATRIX * np.float32(0.15)), SAME_THERMAL)),
    "thermal offset": (MIDDLE, CropPlan(place(MIDDLE), SAME_COLOUR, thermal(offset=-40.0))),
    "little blur": (MIDDLE, CropPlan(place(MIDDLE), *both(SensorChange(blur=0.5)))),
    "much blur": (CORNER, CropPlan(place(CORNER), *both(SensorChange(blur=1.9)))),
    "motion": (CORNER, CropPlan(place(CORNER), *both(SensorChange(motion=LINE)))),
    "noise": (MIDDLE, CropPlan(place(MIDDLE), *both(SensorChange(noise=11.0, noise_start=NOISE_VALUES - 500)))),
    "a plain occluder": (MIDDLE, CropPlan(place(MIDDLE), SAME_COLOUR, SAME_THERMAL, None, FLAT)),
    "a small image as occluder": (
        MIDDLE,
        CropPlan(place(MIDDLE), SAME_COLOUR, SAME_THERMAL, None, replace(FLAT, texture=0)),
    ),
    "a large image as occluder": (
        MIDDLE,
        CropPlan(place(MIDDLE), SAME_COLOUR, SAME_THERMAL, None, replace(FLAT, texture=1)),
    ),
    "rendered thermal": (
        COLOUR_ONLY,
        CropPlan(place(MIDDLE), SAME_COLOUR, SAME_THERMAL, replace(GREY, inverted=True, gamma=1.6, flatten=0.6)),
    ),
    "rendered thermal, soft": (COLOUR_ONLY, CropPlan(place(MIDDLE), None, SAME_THERMAL, replace(GREY, blur=1.4))),
    "rendered thermal, warm": (
        COLOUR_ONLY,
        CropPlan(place(MIDDLE), SAME_COLOUR, SAME_THERMAL, replace(GREY, heat=0.4), FLAT),
    ),
    "rendered thermal, drifting": (
        COLOUR_ONLY,
        CropPlan(
            place(MIDDLE, drift=Drift(0.06, -0.04, 1, 0)), SAME_COLOUR, SAME_THERMAL, replace(GREY, heat=-0.2), FLAT
        ),
    ),
    "colour alone": (MIDDLE, CropPlan(place(MIDDLE), SAME_COLOUR, None)),
    "thermal alone": (MIDDLE, CropPlan(place(MIDDLE), None, SAME_THERMAL)),
}


def check_agreement(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """Both compute the same stages with 8 bits between them, so they may differ where a value lies between two levels.

    OpenCV has fixed-point weights in places (a 1024th in colour, a 256th in blur, older versions a 32nd of a pixel in
    position), which moves few pixels by more than one level; along the frame's edge, which is a step from black, and
    where a dark pixel is raised to a small power, by several.
    """
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.mean() <= 0.3
    assert np.quantile(difference, 0.99) <= 2
    assert difference.max() <= 8


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_alone_is_the_references(operation: str, device: torch.device) -> None:
    """And not merely by doing nothing: each changes the crop by more than what is allowed here."""
    view, plan = OPERATIONS[operation]
    expected = augment_view(view, plan, TEXTURES)
    check_agreement(on_device([(view, plan)], device)[0], expected)
    style = None if view.thermal is not None else GREY
    nothing = augment_view(view, CropPlan(place(view), SAME_COLOUR, SAME_THERMAL, style), [])
    assert operation in ("a crop", "shrunk") or np.abs(expected.astype(int) - nothing.astype(int)).mean() > 0.4


def test_operations_of_one_batch_do_not_mix(device: torch.device) -> None:
    """Every operation in one batch, twice and from both ends: each sample as it is alone."""
    cases = list(OPERATIONS.values())
    for order in (cases, cases[::-1]):
        for found, (view, plan) in zip(on_device(order, device), order, strict=True):
            check_agreement(found, augment_view(view, plan, TEXTURES))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), flip=st.booleans(), size=st.sampled_from([64, 128]))
def test_a_point_lands_where_the_plan_and_the_box_say(seed: int, flip: bool, size: int) -> None:
    """A bright spot in the box's centre, in colour and in thermal: within half a pixel in both ways of making crops."""
    rng = np.random.default_rng(seed)
    x, y, w, h = *rng.integers(60, 180, 2).tolist(), *rng.uniform(12, 60, 2).tolist()
    spot = np.zeros((240, 240), np.uint8)
    spot[y, x] = 255
    spot = np.asarray(cv2.normalize(cv2.GaussianBlur(spot, (0, 0), 2.5), None, 0, 255, cv2.NORM_MINMAX), np.uint8)
    view = View(np.repeat(spot[..., None], 3, 2), spot, Box.from_center(x + 0.5, y + 0.5, w, h))
    where = Placement.draw(view.box, 4.0, size, replace(SEARCH_JITTER, rotation=20), flip, rng)
    plan = CropPlan(where, SAME_COLOUR, SAME_THERMAL)
    target = where.box[:2] * size
    if (np.abs(target - size / 2) > size / 2 - 12).any():  # partly beyond the crop: no centre to be measured
        return
    assert (where.to_crop @ (x, y, 1) + 0.5).tolist() == pytest.approx(target.tolist(), abs=1e-3)
    centers = np.arange(size) + 0.5
    for pixels in (augment_view(view, plan, []), on_device([(view, plan)], torch.device("cpu"))[0]):
        for channel in (0, 3):
            mass = pixels[..., channel].astype(float)
            found = (mass.sum(0) @ centers / mass.sum(), mass.sum(1) @ centers / mass.sum())
            assert np.abs(np.array(found) - target).max() < 0.5


def test_beyond_the_frame_everything_is_zero(device: torch.device) -> None:
    """The very pixels that the reference leaves black, whatever is done to the others; black ones inside included."""
    rng, cases = np.random.default_rng(0), []
    for number in range(24):
        view = CORNER if number % 2 else replace(CORNER, rgb=np.zeros_like(CORNER.rgb))
        change = replace(ThermalChange.draw(rng), offset=60.0, sensor=SensorChange())
        cases.append((view, CropPlan(place(view, SEARCH_JITTER, bool(number % 3)), ColourChange.draw(rng), change)))
    found = on_device(cases, device)
    expected = np.stack([augment_view(view, plan, []) for view, plan in cases])
    assert np.array_equal(found[..., 3] > 0, expected[..., 3] > 0)
    black = ~(expected[..., 3] > 0)
    assert 0.05 < black.mean() < 0.95
    assert not found[black].any()


def test_crops_beside_their_frame_are_black(device: torch.device) -> None:
    """And those of frames with less than one pixel of the crop."""
    beside = Placement.draw(Box(900, 900, 40, 40), 4.0, 64, STILL, False, np.random.default_rng(0))
    shrunk = Placement.draw(Box(9000, 9000, 400, 400), 4.0, 64, STILL, False, np.random.default_rng(0))
    tiny = View(picture(3, (5, 4)), None, Box(0, 0, 4, 4))
    over = Placement.draw(Box(-400, -400, 800, 800), 4.0, 64, STILL, False, np.random.default_rng(0))
    cases = [
        (MIDDLE, CropPlan(beside, SAME_COLOUR, SAME_THERMAL)),
        (MIDDLE, CropPlan(shrunk, SAME_COLOUR, SAME_THERMAL)),
        (tiny, CropPlan(over, SAME_COLOUR, None)),
    ]
    for found, (view, plan) in zip(on_device(cases, device), cases, strict=True):
        assert not found.any()
        assert not augment_view(view, plan, []).any()


def test_a_frame_that_is_one_pixel_in_its_crop_is_shown(device: torch.device) -> None:
    view = View(picture(3, (3, 2)), None, Box(0, 0, 2, 3))
    over = Placement.draw(Box(-20.25, -19.75, 40, 40), 4.0, 64, STILL, False, np.random.default_rng(0))
    plan = CropPlan(over, SAME_COLOUR, None)
    (found,) = on_device([(view, plan)], device)
    assert found[..., :3].any(-1).sum() == 1
    check_agreement(found, augment_view(view, plan, []))


def test_autocast_changes_nothing(device: torch.device) -> None:
    samples, bank = dataset(Footage()), FrameBank(device, 0)
    plain = list(DeviceBatches(samples, bank, batch=8, stop=8))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        cast = list(DeviceBatches(samples, bank, batch=8, stop=8))
    for name, tensor in plain[0].items():
        assert torch.equal(tensor, cast[0][name])  # type: ignore[literal-required]


@dataclass(frozen=True)
class Footage:
    """Frames that stay: with and without thermal, with and without masks, of two sizes, targets of all sizes."""

    views: list[View] = field(
        default_factory=lambda: [
            MIDDLE,
            CORNER,
            LARGE,
            COLOUR_ONLY,
            replace(MIDDLE, rgb=None),
            replace(LARGE, thermal=None, mask=None),
        ]
    )

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:  # noqa: ARG002
        view = self.views[rng.integers(len(self.views))]
        side = math.exp(rng.uniform(math.log(20), math.log(150)))
        box = Box.from_center(*(rng.uniform(0.2, 0.8, 2) * view.size).tolist(), side, 0.8 * side)
        return replace(view, box=box), replace(view, box=box)


@dataclass(frozen=True)
class Composed:
    """A new frame every time."""

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:  # noqa: ARG002
        view = View(picture(int(rng.integers(1000))), None, Box(100, 90, 40, 40))
        return view, view


def dataset(*sources: object) -> PairDataset:
    named = {str(number): (source, 1.0) for number, source in enumerate(sources)}
    return PairDataset(named, TEXTURES, length=1000, seed=4, crops=CropShapes(template_size=64, search_size=128))  # type: ignore[arg-type]


def test_batches_are_the_data_sets_samples(device: torch.device) -> None:
    """Everything at once, drawn as in training: names, shapes, types, order; boxes and presence to the last bit."""
    samples, bank = dataset(Footage(), Composed()), FrameBank(device, 1 << 20)
    batches = list(DeviceBatches(samples, bank, batch=16, start=32, stop=32 + 70))
    assert len(batches) == len(DeviceBatches(samples, bank, batch=16, start=32, stop=32 + 70)) == 4
    assert len(bank) > 3
    for number, batch in enumerate(batches):
        expected = default_collate([samples[32 + 16 * number + index] for index in range(16)])
        assert list(batch) == list(expected)
        for name, tensor in expected.items():
            found = batch[name]  # type: ignore[literal-required]
            assert found.device.type == device.type
            assert (found.shape, found.dtype) == (tensor.shape, tensor.dtype), name
            if name in ("template", "search"):
                for sample, reference in zip(found.cpu().numpy(), tensor.numpy(), strict=True):
                    check_agreement(sample, reference)
            elif name == "search_mask":
                assert (found.cpu().int() - tensor.int()).abs().max() <= 1  # means of values that were rounded, or not
            else:
                assert torch.equal(found.cpu(), tensor), name
    assert any(bool(batch["search_mask"].any()) for batch in batches)
    assert torch.cat([batch["mask_known"] for batch in batches]).unique().tolist() == [0.0, 1.0]


def test_where_frames_are_kept_changes_no_pixel(device: torch.device) -> None:
    """All frames sent along, all in the bank after the first rounds, and a bank with room for two: bit for bit."""
    samples = dataset(Footage())
    runs = [
        list(DeviceBatches(samples, FrameBank(device, capacity), batch=12, stop=48, workers=workers))
        for capacity, workers in ((0, 1), (1 << 21, 3), (2 * 240 * 320, 1))
    ]
    for run in runs[1:]:
        for batch, expected in zip(run, runs[0], strict=True):
            assert torch.equal(batch["search"], expected["search"])
            assert torch.equal(batch["template"], expected["template"])


def test_a_run_that_goes_on_gets_the_samples_it_would_have_got() -> None:
    samples, device = dataset(Footage()), torch.device("cpu")
    whole = list(DeviceBatches(samples, FrameBank(device, 1 << 20), batch=8, stop=32))
    rest = list(DeviceBatches(samples, FrameBank(device, 1 << 20), batch=8, start=16, stop=32))
    assert len(rest) == 2
    for batch, expected in zip(rest, whole[2:], strict=True):
        assert torch.equal(batch["search"], expected["search"])


def find(bank: FrameBank, view: View) -> bool:
    """Whether the bank has the frame on the device when it comes in a sample."""
    bank.note([view, view])
    return bank.patch(view, [place(MIDDLE).to_crop], 128, 1).pixels is None


def test_a_frame_is_taken_in_when_it_is_seen_again(device: torch.device) -> None:
    bank = FrameBank(device, 2 * 240 * 320)
    assert [find(bank, MIDDLE) for _ in range(3)] == [False, True, True]
    assert find(bank, replace(MIDDLE, box=Box(0, 0, 5, 5)))  # another target of the same frame
    assert [find(bank, COLOUR_ONLY) for _ in range(2)] == [False, True]  # another frame: without its thermal
    assert [find(bank, CORNER) for _ in range(3)] == [False, False, False]  # there is no room
    assert len(bank) == 2
    assert find(bank, MIDDLE)


def test_a_frame_is_given_up_with_its_arrays() -> None:
    bank = FrameBank(torch.device("cpu"), 240 * 320)
    for seed in range(5):
        view = View(picture(seed), None, Box(10, 10, 20, 20))
        assert [find(bank, view) for _ in range(2)] == [False, True]
        assert len(bank) == 1
        del view
        gc.collect()
        assert len(bank) == 0


def test_composed_frames_take_no_room() -> None:
    bank = FrameBank(torch.device("cpu"), 1 << 20)
    list(DeviceBatches(dataset(Composed()), bank, batch=8, stop=32))
    gc.collect()
    assert len(bank) <= len(TEXTURES)


def test_a_frame_in_use_keeps_its_room() -> None:
    """A source may drop a frame between the reading of a sample and its batch."""
    bank = FrameBank(torch.device("cpu"), 240 * 320)
    view = View(picture(0), None, Box(130, 90, 50, 40))
    assert [find(bank, view) for _ in range(2)] == [False, True]
    plan = CropPlan(place(view), SAME_COLOUR, None)
    expected, source = augment_view(view, plan, []), CropSource.read(view, plan, [], bank)
    del view
    gc.collect()
    other = View(picture(1), None, Box(130, 90, 50, 40))
    assert [find(bank, other) for _ in range(2)] == [False, False]
    check_agreement(augment_crops([source], bank)[0].numpy(), expected)
    del source
    gc.collect()
    assert find(bank, other)


def test_views_of_a_mapped_file_are_one_frame(tmp_path: Path) -> None:
    (tmp_path / "frames.bin").write_bytes(np.stack((picture(0), picture(1))).tobytes())
    mapped = np.asarray(np.memmap(tmp_path / "frames.bin", np.uint8, "r"))
    bank = FrameBank(torch.device("cpu"), 1 << 20)
    count = 240 * 320 * 3

    def frame(number: int) -> View:
        return View(mapped[number * count : (number + 1) * count].reshape(240, 320, 3), None, Box(10, 10, 20, 20))

    assert [find(bank, frame(number)) for number in (0, 1, 0, 0, 1)] == [False, False, True, True, True]


@dataclass(frozen=True)
class Broken:
    """Cannot be read from its tenth sample on."""

    drawn: Iterator[int] = field(default_factory=lambda: iter(range(9)))

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:
        if next(self.drawn, None) is None:
            raise SourceError("cannot read image 10.jpg")
        return Footage().draw(rng, progress)


def test_what_goes_wrong_in_a_thread_is_raised_and_threads_end() -> None:
    samples = dataset(Broken())
    with pytest.raises(SourceError, match=r"10\.jpg"):
        list(DeviceBatches(samples, FrameBank(torch.device("cpu"), 0), batch=4, workers=2))
    batches = iter(DeviceBatches(dataset(Footage()), FrameBank(torch.device("cpu"), 0), batch=4, workers=2))
    next(batches)
    del batches
    gc.collect()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("augment")]
