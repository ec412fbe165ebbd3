"""The tracker's steps, with a network that looks for a bright thing in the pixels it is given."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from duotrack import tracker as steps
from duotrack.alignment import EVERY
from duotrack.boxes import Box, CropWindow
from duotrack.errors import BoxError, FrameError, StateError
from duotrack.frames import FramePair, ThermalWindow
from duotrack.health import STALE, Fault, FaultKind
from duotrack.network import ModelSpec, Prediction, Template
from duotrack.redetection import sweep
from duotrack.state import STATE_VERSION
from duotrack.tracker import TargetState, Tracker, TrackerOptions, TrackerState, best_box, hann_window

if TYPE_CHECKING:
    from conftest import ExportedModel

SPEC = ModelSpec("brightest", uncertain_below=0.5, lost_below=0.2)


class BrightestBlob:
    """Finds the bounding box of all bright pixels of the crop, in colour, or in thermal where colour is missing.

    Its presence is the brightest value, so that a test can dim the target. Its features are only the brightest values
    of the template: a track on a dark template has nothing to find.
    """

    def __init__(self, spec: ModelSpec = SPEC) -> None:
        self.spec = spec
        self.encoded = 0

    def encode(self, template: Template) -> NDArray[np.float32]:
        self.encoded += 1
        return template.crop.max(axis=(1, 2)).astype(np.float32)

    def search(
        self, crop: NDArray[np.uint8], present: NDArray[np.float32], features: NDArray[np.float32]
    ) -> Prediction:
        grid = self.spec.grid
        assert crop.shape == (1, self.spec.search_size, self.spec.search_size, 4)
        assert present.shape == (1, 2)
        channel = 0 if present[0, 0] else 3
        image = crop[0, ..., channel]
        score_map = np.full((1, grid, grid), 1e-4, np.float32)
        box_map = np.full((1, 4, grid, grid), 0.5, np.float32)
        rows, columns = np.nonzero(image > 100)
        if not len(rows) or features[0, channel] < 100:
            return Prediction(score_map, box_map, np.array([image.max() / 255 / 2], np.float32))
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / image.shape[0]
        box = np.array([edges[0] + edges[2], edges[1] + edges[3], 2 * (edges[2] - edges[0]), 2 * (edges[3] - edges[1])])
        box_map[0] = (box / 2)[:, None, None]
        column, row = np.minimum((box[:2] / 2 * grid).astype(int), grid - 1)
        score_map[0, row, column] = 0.9
        return Prediction(score_map, box_map, np.array([image.max() / 255], np.float32))


def path(frame: int) -> Box:
    """A target that swerves and grows, at exact pixel positions."""
    x = 100 + 3 * frame + round(30 * math.sin(frame / 6))
    y = 90 + round(50 * math.sin(frame / 11))
    return Box(x, y, 30 + frame // 4, 24 + frame // 3)


def scene(box: Box | None, *, level: int = 220, bits: int = 8, modalities: str = "both") -> FramePair:
    rgb, thermal = np.full((240, 320, 3), 20, np.uint8), np.full((240, 320), 30, np.uint8)
    if box is not None:
        x, y, w, h = (int(value) for value in box.xywh)
        region = np.s_[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)]
        rgb[region], thermal[region] = level, level
    raw = thermal if bits == 8 else (7000 + 4 * thermal.astype(np.uint16)).astype(np.uint16)
    return FramePair(None if modalities == "thermal" else rgb, None if modalities == "rgb" else raw)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("modalities", ["both", "rgb", "thermal"])
def test_it_follows_a_bright_thing(modalities: str, bits: int) -> None:
    tracker = Tracker(BrightestBlob())
    first = tracker.init(scene(path(0), bits=bits, modalities=modalities), path(0))
    assert (first.box, first.score, first.state) == (path(0), 1.0, TargetState.TRACKING)
    for frame in range(1, 51):
        result = tracker.update(scene(path(frame), bits=bits, modalities=modalities))
        assert result.state is TargetState.TRACKING
        assert result.box.iou(path(frame)) > 0.7, frame
    # Half a crop pixel at either edge is all that the network's own grid of pixels may cost.
    assert result.box.iou(path(50)) > 0.9
    assert tracker.state.frame == 51


def test_a_modality_may_come_and_go() -> None:
    network = BrightestBlob()
    tracker = Tracker(network)
    tracker.init(scene(path(0), bits=16), path(0))
    window = tracker.state.thermal_window
    for frame in range(1, 31):
        modalities = "rgb" if 5 <= frame < 12 else "thermal" if 15 <= frame < 22 else "both"
        result = tracker.update(scene(path(frame), bits=16, modalities=modalities))
        assert result.box.iou(path(frame)) > 0.7, (frame, modalities)
        if modalities == "rgb":
            assert tracker.state.thermal_window == window
    assert network.encoded == 1  # the template is encoded once a session


def test_templates_are_cut_at_two_and_searches_at_four_times_the_box() -> None:
    """A 40 × 40 target fills half of a side of the template crop, and a quarter of the search crop's."""
    box = Box(100, 80, 40, 40)
    state = steps.init(SPEC, scene(box), box)
    assert state.template.shape == (128, 128, 4)
    assert state.template_box == (0.5, 0.5, 0.5, 0.5)
    assert (state.template[..., 0] > 120).sum() == pytest.approx(64 * 64, rel=0.02)
    region = steps.prepare(SPEC, state, scene(box))
    assert region.crop.shape == (256, 256, 4)
    assert (region.crop[..., 3] > 120).sum() == pytest.approx(64 * 64, rel=0.02)
    assert region.present == (True, True)


@pytest.mark.parametrize(("side", "usual", "wider"), [(40, 160, 160), (28, 112, 112), (24, 96, 103), (16, 64, 96)])
def test_the_search_crop_of_a_small_target_shows_more(side: int, usual: int, wider: int) -> None:
    """At most 2.5 crop pixels a frame pixel, 256 for 102.4, as far as one and a half times the usual crop goes."""
    box = Box(100, 80, side, side)
    for widening, expected in ((1.0, usual), (0.5, usual), (1.5, wider)):
        spec = replace(SPEC, widening=widening)
        state = steps.init(spec, scene(box), box)
        assert steps.prepare(spec, state, scene(box)).window.side == expected
        assert state.template_box == (0.5, 0.5, 0.5, 0.5)  # templates stay as they are


def test_the_sweep_for_a_small_target_goes_by_its_wider_crops() -> None:
    """What is searched is as large as the sweep takes it to be, so that its places cover the frame."""
    box, spec = Box(100, 80, 16, 16), replace(SPEC, widening=1.5)
    state = replace(steps.init(spec, scene(box), box), vanished=box, unseen=spec.patience + 2)
    region = steps.prepare(spec, state, scene(None))
    _, zoom = sweep(box, 320, 240, 1.5 * spec.search_factor)
    assert region.elsewhere
    assert region.window.side == math.ceil(96 * zoom)


def test_the_pure_steps_are_what_the_tracker_does() -> None:
    network, tracker = BrightestBlob(), Tracker(BrightestBlob())
    tracker.init(scene(path(0)), path(0))
    state = steps.init(SPEC, scene(path(0)), path(0))
    features = network.encode(state.to_template())
    for frame in range(10):
        region = steps.prepare(SPEC, state, scene(path(frame)))
        prediction = network.search(region.crop[None], np.array([region.present], np.float32), features)
        if frame == 0:
            state = steps.calibrate(state, region, prediction)
            continue
        before = state.box
        state, result = steps.update(SPEC, state, region, prediction)
        assert result == tracker.update(scene(path(frame)))
        assert before == path(0) or before != state.box


def test_the_hann_window_is_ostracks() -> None:
    """``hann2d(centered=True)`` in OSTrack's ``lib/test/utils/hann.py``; torch has the same with the zeros left out."""
    single = 0.5 * (1 - np.cos((2 * math.pi / 17) * np.arange(1, 17)))
    assert np.allclose(hann_window(16), np.outer(single, single), atol=1e-7)
    of_torch = torch.hann_window(18, periodic=False, dtype=torch.float64)[1:-1].numpy()
    assert np.allclose(hann_window(16), np.outer(of_torch, of_torch), atol=1e-7)


def peaks(*cells: tuple[int, int, float]) -> Prediction:
    """Score peaks at (row, column); each cell's box has its own centre and a size that tells which cell it is."""
    score_map = np.zeros((1, 16, 16), np.float32)
    box_map = np.zeros((1, 4, 16, 16), np.float32)
    box_map[0, 0], box_map[0, 1] = (np.arange(16)[None, :] + 0.5) / 16, (np.arange(16)[:, None] + 0.5) / 16
    box_map[0, 2], box_map[0, 3] = 0.125, 0.25
    for row, column, score in cells:
        score_map[0, row, column] = score
    return Prediction(score_map, box_map, np.array([0.9], np.float32))


def test_the_window_prefers_what_is_near() -> None:
    """Of two equal peaks the one nearer to the centre wins; a far one needs a score that outweighs the window.

    Window values, by the formula: row and column 8 have 0.5 (1 − cos(2π·9/17)) = 0.9915, column 12 0.4539, 3 0.4539.
    """
    window = CropWindow(0, 0, 160, 256)  # ten frame pixels a cell
    assert best_box(peaks((8, 8, 0.5), (8, 13, 0.5)), window).center == pytest.approx((85, 85))
    assert best_box(peaks((8, 8, 0.44), (8, 12, 0.90)), window).center == pytest.approx((85, 85))
    assert best_box(peaks((8, 8, 0.40), (8, 12, 0.90)), window).center == pytest.approx((125, 85))


def test_a_peak_becomes_a_box_in_the_frame() -> None:
    window = CropWindow(-40, 100, 320, 256)
    box = best_box(peaks((4, 10, 0.8)), window)
    center = (-40 + 10.5 / 16 * 320, 100 + 4.5 / 16 * 320)
    assert box.center == pytest.approx(center)
    assert (box.w, box.h) == pytest.approx((40, 80))


@pytest.mark.parametrize(("row", "column"), [(7, 6), (0, 5), (15, 15)])
def test_cells_beside_the_peak_have_a_say(row: int, column: int) -> None:
    """Each by its score's square; written as a loop. Cells outside the map, or two cells off, have none."""
    rng = np.random.default_rng(3)
    score_map = rng.uniform(0.1, 0.5, (1, 16, 16)).astype(np.float32)
    score_map[0, row, column] = 0.9
    box_map = rng.uniform(0.2, 0.8, (1, 4, 16, 16)).astype(np.float32)
    total, mean = 0.0, np.zeros(4)
    for y in range(16):
        for x in range(16):
            if max(abs(y - row), abs(x - column)) <= 1:
                weight = float(score_map[0, y, x]) ** 2
                total, mean = total + weight, mean + weight * box_map[0, :, y, x].astype(float)
    cx, cy, w, h = mean / total * 100
    prediction = Prediction(score_map, box_map, np.array([0.9], np.float32))
    found = best_box(prediction, CropWindow(0, 0, 100, 256), windowed=False)
    assert found.xywh == pytest.approx((cx - w / 2, cy - h / 2, w, h))


def test_a_score_map_of_zeros_has_a_box() -> None:
    empty = Prediction(np.zeros((1, 16, 16), np.float32), np.full((1, 4, 16, 16), 0.5, np.float32), np.zeros(1))
    assert best_box(empty, CropWindow(0, 0, 160, 256)).xywh == pytest.approx((40, 40, 80, 80))


@pytest.mark.parametrize(
    ("presence", "target"),
    [
        (0.95, "tracking"),
        (0.5, "tracking"),
        (0.49, "uncertain"),
        (0.2, "uncertain"),
        (0.19, "coasting"),
        (0.0, "coasting"),
    ],
)
def test_presence_decides_the_state(presence: float, target: str) -> None:
    state = steps.init(SPEC, scene(path(0)), path(0))
    region = steps.prepare(SPEC, state, scene(path(0)))
    seen = peaks((8, 9, 0.9))
    prediction = Prediction(seen.score_map, seen.box_map, np.array([presence], np.float64))
    after, result = steps.update(SPEC, state, region, prediction)
    assert result.state == target
    assert result.score == presence
    assert after.frame == 2
    assert (after.box == path(0)) == (target == "coasting")
    assert after.unseen == (target == "coasting")


def test_presence_becomes_a_probability_by_the_models_calibration() -> None:
    """0.9 has logit ln 9: times 2, less 3 ln 3, is ln 3, the logit of 0.75. Without calibration nothing changes."""
    spec = replace(SPEC, presence_scale=2.0, presence_bias=-3 * math.log(3))
    assert steps.probability(0.9, spec) == pytest.approx(0.75)
    assert steps.probability(0.9, SPEC) == 0.9
    assert 0 <= steps.probability(0.0, spec) < steps.probability(1.0, spec) <= 1
    state = steps.init(spec, scene(path(0)), path(0))
    seen = peaks((8, 9, 0.9))
    prediction = Prediction(seen.score_map, seen.box_map, np.array([0.6], np.float32))
    _, result = steps.update(spec, state, steps.prepare(spec, state, scene(path(0))), prediction)
    assert result.score == pytest.approx(1 / (1 + 27 / 1.5**2), rel=1e-5)
    assert result.state is TargetState.COASTING


def test_while_lost_the_box_holds_and_the_target_is_found_again() -> None:
    tracker = Tracker(BrightestBlob())
    tracker.init(scene(path(0)), path(0))
    last = tracker.update(scene(path(1))).box
    states = []
    for _ in range(5):
        result = tracker.update(scene(None))
        states.append(result.state)
        assert result.box.xywh == pytest.approx(last.xywh)
        assert result.score < SPEC.lost_below
    assert states == ["coasting", "coasting", "lost", "lost", "lost"]  # after three frames without it
    found = [tracker.update(scene(path(3))) for _ in range(4)]  # at once, or after a second look
    assert found[-1].state is TargetState.TRACKING
    assert found[-1].box.iou(path(3)) > 0.7
    assert tracker.update(scene(None)).state is TargetState.COASTING  # counted anew


def test_a_target_that_leaves_keeps_ten_pixels_in_the_frame() -> None:
    tracker = Tracker(BrightestBlob())
    tracker.init(scene(Box(280, 100, 30, 30)), Box(280, 100, 30, 30))
    for x in range(284, 325, 4):
        box = tracker.update(scene(Box(x, 100, 30, 30))).box
        assert box.x <= 310
        assert box.w >= 10
        assert box.x + box.w <= 320
        if x == 316:  # four of its pixels are left
            assert box.x == pytest.approx(310)
    assert (box.x, box.w) == pytest.approx((300, 20), abs=0.2)  # not seen: as wide as it was, around where it was


def test_frames_of_another_size_are_refused_and_change_nothing() -> None:
    tracker = Tracker(BrightestBlob())
    tracker.init(scene(path(0)), path(0))
    before = tracker.state
    with pytest.raises(FrameError, match="320x240, got 100x50"):
        tracker.update(FramePair(np.zeros((50, 100, 3), np.uint8), None))
    assert tracker.state is before
    assert tracker.update(scene(path(1))).box.iou(path(1)) > 0.7


def test_nothing_works_before_init() -> None:
    tracker = Tracker(BrightestBlob())
    with pytest.raises(StateError, match=r"not been started: call init"):
        tracker.update(scene(path(0)))
    with pytest.raises(StateError, match="not been started"):
        _ = tracker.state


def test_a_failed_init_leaves_the_track_as_it_was() -> None:
    tracker = Tracker(BrightestBlob())
    with pytest.raises(BoxError, match="centre outside the 320x240 image"):
        tracker.init(scene(path(0)), Box(400, 0, 10, 10))
    with pytest.raises(StateError):
        _ = tracker.state
    tracker.init(scene(path(0)), path(0))
    before = tracker.state
    with pytest.raises(BoxError):
        tracker.init(scene(path(0)), Box(400, 0, 10, 10))
    assert tracker.state is before
    assert tracker.update(scene(path(1))).box.iou(path(1)) > 0.7


def test_init_starts_anew() -> None:
    tracker = Tracker(BrightestBlob())
    tracker.init(scene(path(0)), path(0))
    tracker.update(scene(path(1)))
    tracker.init(scene(Box(20, 20, 16, 16)), Box(20, 20, 16, 16))
    assert tracker.state.frame == 1
    assert tracker.update(scene(Box(22, 21, 16, 16))).box.iou(Box(22, 21, 16, 16)) > 0.7


def assert_equal_states(first: TrackerState, second: TrackerState) -> None:
    for field in fields(TrackerState):
        ours, theirs = getattr(first, field.name), getattr(second, field.name)
        if field.name == "template":
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs)
        elif field.name == "motion" and ours is not None:
            assert np.array_equal(ours.thumbnail, theirs.thumbnail)
            assert (ours.source, ours.velocity, ours.errors) == (theirs.source, theirs.velocity, theirs.errors)
        else:
            assert ours == theirs, field.name
            assert type(ours) is type(theirs), field.name


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("modalities", ["both", "rgb", "thermal"])
def test_a_state_comes_back_from_bytes_in_every_field(modalities: str, bits: int) -> None:
    tracker = Tracker(BrightestBlob())
    tracker.init(scene(path(0), bits=bits, modalities=modalities), path(0))
    for frame in range(1, 8):
        tracker.update(scene(path(frame), bits=bits, modalities=modalities))
    state = tracker.state
    assert (state.thermal_window is not None) == (bits == 16 and modalities != "rgb")
    data = state.to_bytes()
    assert len(data) - 65536 - 192 * 144 in range(1, 800)  # the template's pixels, the thumbnail's, and numbers
    assert_equal_states(TrackerState.from_bytes(data), state)


def test_a_resumed_track_goes_on_bitwise_as_the_unbroken_one() -> None:
    unbroken = Tracker(BrightestBlob())
    unbroken.init(scene(path(0), bits=16), path(0))
    results = [unbroken.update(scene(path(frame), bits=16)) for frame in range(1, 40)]
    tracker = Tracker(BrightestBlob())
    tracker.init(scene(path(0), bits=16), path(0))
    for frame in range(1, 40):
        if frame % 7 == 0:
            data = tracker.state.to_bytes()
            tracker = Tracker(BrightestBlob())
            tracker.resume(TrackerState.from_bytes(data))
        assert tracker.update(scene(path(frame), bits=16)) == results[frame - 1]
    assert_equal_states(tracker.state, unbroken.state)


def test_a_resumed_track_runs_on_torch_too(exported: ExportedModel) -> None:
    tracker = Tracker(exported.network)
    tracker.init(scene(path(0)), path(0))
    data = tracker.state.to_bytes()
    expected = tracker.update(scene(path(1)))
    tracker.resume(TrackerState.from_bytes(data))
    assert tracker.update(scene(path(1))) == expected


def test_a_state_of_another_model_is_refused() -> None:
    tracker = Tracker(BrightestBlob())
    tracker.init(scene(path(0)), path(0))
    other = Tracker(BrightestBlob(ModelSpec("other")))
    with pytest.raises(StateError, match=r"from model 'brightest', this tracker runs 'other'"):
        other.resume(tracker.state)
    with pytest.raises(StateError, match="not been started"):
        other.update(scene(path(1)))


STATE = steps.init(SPEC, scene(path(0), bits=16), path(0)).to_bytes()
HEADER_END = 10 + struct.unpack_from("<I", STATE, 6)[0]
RECORD: dict[str, Any] = json.loads(STATE[10:HEADER_END])


def with_header(header: bytes) -> bytes:
    return b"DTST" + struct.pack("<HI", STATE_VERSION, len(header)) + header + STATE[HEADER_END:]


class WideBlob(BrightestBlob):
    """Draws every box half as wide again and a fifth of its width to the right."""

    def search(
        self, crop: NDArray[np.uint8], present: NDArray[np.float32], features: NDArray[np.float32]
    ) -> Prediction:
        true = super().search(crop, present, features)
        box_map = true.box_map.copy()
        box_map[:, 0] += 0.2 * box_map[:, 2]
        box_map[:, 2] *= 1.5
        return Prediction(true.score_map, box_map, true.presence)


def test_a_habit_of_the_network_is_taken_off_its_boxes() -> None:
    tracker, blind = Tracker(WideBlob()), Tracker(WideBlob())
    for each in (tracker, blind):
        each.init(scene(path(0)), path(0))
    uncalibrated = replace(blind.state, calibration=steps.Calibration())
    overlaps: dict[str, list[float]] = {"calibrated": [], "blind": []}
    for frame in range(1, 20):
        blind.resume(uncalibrated if frame == 1 else blind.state)
        overlaps["blind"].append(blind.update(scene(path(frame))).box.iou(path(frame)))
        overlaps["calibrated"].append(tracker.update(scene(path(frame))).box.iou(path(frame)))
    assert np.mean(overlaps["calibrated"]) > 0.85
    assert np.mean(overlaps["blind"]) < 0.7


def test_calibration_undoes_what_it_measured() -> None:
    predicted, true = Box(12, 9, 30, 18), Box(10, 10, 20, 20)
    corrected = steps.Calibration.between(predicted, true).correct(predicted)
    assert corrected.xywh == pytest.approx(true.xywh)
    scaled = steps.Calibration.between(predicted, true).correct(Box(24, 18, 60, 36))
    assert scaled.xywh == pytest.approx((20, 20, 40, 40))


def test_a_first_answer_elsewhere_calibrates_nothing() -> None:
    assert steps.Calibration.between(Box(100, 100, 20, 20), Box(10, 10, 20, 20)) == steps.Calibration()


@pytest.mark.parametrize(("rate", "expected"), [(0.0, (20.0, 10.0)), (1.0, (80.0, 10.0)), (0.5, (40.0, 10.0))])
def test_size_follows_in_logarithms(rate: float, expected: tuple[float, float]) -> None:
    box = steps.follow_size(Box(0, 0, 20, 10), Box(50, 50, 80, 10), rate)
    assert (box.w, box.h) == pytest.approx(expected)
    assert box.center == pytest.approx(Box(50, 50, 80, 10).center)


def test_the_form_is_magic_version_record_pixels() -> None:
    """Written out here because other versions, and other programs, have to find the version and the record."""
    assert STATE[:4] == b"DTST"
    assert struct.unpack_from("<H", STATE, 4) == (4,)
    assert RECORD["model"] == "brightest"
    assert RECORD["box"] == list(path(0).xywh)
    assert len(STATE) - HEADER_END == 128 * 128 * 4 + 192 * 144
    assert_equal_states(
        TrackerState.from_bytes(with_header(json.dumps(RECORD).encode())), TrackerState.from_bytes(STATE)
    )


@pytest.mark.parametrize("version", [0, 3, 65535])
def test_another_version_is_refused_by_number(version: int) -> None:
    data = STATE[:4] + struct.pack("<H", version) + STATE[6:]
    with pytest.raises(StateError, match=f"has version {version}, this DuoTrack reads version 4"):
        TrackerState.from_bytes(data)


@given(st.integers(0, len(STATE) - 1))
@example(0)
@example(9)
@example(10)
@example(HEADER_END - 1)
@example(HEADER_END)
@example(len(STATE) - 1)
def test_a_truncated_state_is_refused(length: int) -> None:
    with pytest.raises(StateError, match=r"not a tracker state|damaged"):
        TrackerState.from_bytes(STATE[:length])


def test_a_state_with_something_behind_it_is_refused() -> None:
    with pytest.raises(StateError, match="damaged"):
        TrackerState.from_bytes(STATE + b"\0")


@given(st.binary(max_size=200))
def test_garbage_is_no_state(garbage: bytes) -> None:
    with pytest.raises(StateError, match="DTST"):
        TrackerState.from_bytes(garbage if garbage[:4] != b"DTST" else b"x" + garbage)


@given(st.binary(max_size=200))
def test_garbage_behind_the_magic_is_no_state(garbage: bytes) -> None:
    with pytest.raises(StateError):
        TrackerState.from_bytes(b"DTST\x03\x00" + garbage)


@given(st.lists(st.tuples(st.integers(4, HEADER_END - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes_give_a_state_error_or_a_state(changes: list[tuple[int, int]]) -> None:
    data = bytearray(STATE)
    for place, value in changes:
        data[place] = value
    try:
        state = TrackerState.from_bytes(bytes(data))
    except StateError:
        return
    assert isinstance(state.box, Box)  # never half-read


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@given(json_values)
def test_any_other_record_is_damaged(value: object) -> None:
    with pytest.raises(StateError, match="damaged"):
        TrackerState.from_bytes(with_header(json.dumps(value).encode()))


@pytest.mark.parametrize("name", list(RECORD))
def test_a_record_without_one_of_its_fields_is_damaged(name: str) -> None:
    record = {key: value for key, value in RECORD.items() if key != name}
    with pytest.raises(StateError, match=f"damaged.*{name}"):
        TrackerState.from_bytes(with_header(json.dumps(record).encode()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("box", [1, 2, 3]),
        ("box", [1, 2, 0, 4]),
        ("box", [1, 2, math.nan, 4]),
        ("box", ["a", 2, 3, 4]),
        ("size", [320]),
        ("size", 320),
        ("template_shape", [128, 128, 3]),
        ("template_shape", [128, 128, "4"]),
        ("template_shape", [10**30, 1, 1]),
        ("thermal_window", [1]),
        ("thermal_window", 3),
        ("motion", None),
        ("motion", [[144, 192], "rgb", [0, 0]]),
        ("motion", [[144, 191], "rgb", [0, 0], [0, 0, 0]]),
    ],
)
def test_a_value_of_the_wrong_shape_is_damage(name: str, value: object) -> None:
    with pytest.raises(StateError, match="damaged"):
        TrackerState.from_bytes(with_header(json.dumps(RECORD | {name: value}).encode()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", 5),
        ("size", ["320", "240"]),
        ("size", [0, -240]),
        ("template_shape", [65536]),
        ("template_shape", [64, 256, 4]),
        ("template_box", [0.5]),
        ("template_present", []),
        ("thermal_window", ["low", "high"]),
        ("thermal_window", [5.0, 5.0]),
        ("thermal_window", [math.nan, math.inf]),
        ("frame", "two"),
        ("frame", None),
        ("calibration", [0.0, 0.0, 1e9, 0.0]),
        ("unseen", -1),
        ("unseen", 0.5),
        ("motion", [[144, 192], "sonar", [0, 0], [0, 0, 0]]),
        ("motion", [[144, 192], "rgb", [0, math.inf], [0, 0, 0]]),
        ("motion", [[144, 192], "rgb", [0, 0], [0, 0, "0"]]),
        ("health", [None]),
        ("health", [[1, 0], None]),
        ("health", [[1, 0, 0], None]),
        ("health", [[1, -1, False], None]),
        ("health", [None, {"fingerprint": 1}]),
        ("alignment", [[0.0, 0.0], None]),
        ("alignment", [[0.0, math.inf], None, 0]),
        ("alignment", [None, None, 0]),
        ("alignment", [[0.0, 0.0], [1.0], 0]),
        ("alignment", [[0.0, 0.0], None, -1]),
        ("alignment", [[0.0, 0.0], None, True]),
    ],
)
def test_a_value_of_the_wrong_type_is_damage(name: str, value: object) -> None:
    with pytest.raises(StateError, match="damaged"):
        TrackerState.from_bytes(with_header(json.dumps(RECORD | {name: value}).encode()))


@pytest.mark.parametrize(
    "header",
    [
        json.dumps(RECORD | {"box": [1, 2, 10**400, 4]}).encode(),
        b"[" * 100_000,
    ],
    ids=["a coordinate beyond floats", "deep nesting"],
)
def test_no_other_error_type_escapes(header: bytes) -> None:
    with pytest.raises(StateError):
        TrackerState.from_bytes(with_header(header))


def test_a_monstrous_box_is_refused_at_the_start() -> None:
    with pytest.raises(BoxError):
        steps.init(SPEC, scene(None), Box(-5e199, -5e199, 1e200, 1e200))


@pytest.mark.parametrize("box", [Box(-4e5, -4e5, 8e5 + 200, 8e5 + 200), Box(100, 100, 1e-9, 1e-9), Box(0, 0, 320, 1)])
def test_unlikely_boxes_still_make_a_track(box: Box) -> None:
    tracker = Tracker(BrightestBlob())
    tracker.init(scene(path(0)), box)
    result = tracker.update(scene(path(0)))
    assert all(math.isfinite(value) for value in result.box.xywh)


def test_a_window_that_knows_no_16_bit_frame_yet_starts_with_the_first() -> None:
    tracker = Tracker(BrightestBlob())
    tracker.init(scene(path(0), modalities="rgb"), path(0))
    assert tracker.state.thermal_window is None
    pair = scene(path(1), bits=16)
    tracker.update(pair)
    assert tracker.state.thermal_window == ThermalWindow.of(np.asarray(pair.thermal, np.uint16))


def test_a_black_colour_frame_is_as_one_that_is_missing() -> None:
    """The network here looks at colour where it is present: black frames would leave it without a target."""
    results: dict[str, list[steps.TrackResult]] = {}
    for kind in ("black", "missing"):
        tracker = Tracker(BrightestBlob())
        tracker.init(scene(path(0)), path(0))
        results[kind] = []
        for frame in range(1, 12):
            thermal = scene(path(frame)).thermal
            black = np.zeros((240, 320, 3), np.uint8) if kind == "black" else None
            results[kind].append(tracker.update(FramePair(black, thermal)))
    assert [each.box for each in results["black"]] == [each.box for each in results["missing"]]
    assert results["black"][-1].box.iou(path(11)) > 0.7
    assert results["black"][0].faults == (Fault("rgb", FaultKind.BLANK, ignored=True),)
    assert results["missing"][0].faults == (Fault("rgb", FaultKind.MISSING, ignored=True),)


def test_without_health_a_black_frame_is_taken_for_a_picture() -> None:
    tracker = Tracker(BrightestBlob(), TrackerOptions(health=False))
    tracker.init(scene(path(0)), path(0))
    result = tracker.update(FramePair(np.zeros((240, 320, 3), np.uint8), scene(path(1)).thermal))
    assert result.state is TargetState.COASTING
    assert result.faults == ()
    assert tracker.state.health is None
    assert_equal_states(TrackerState.from_bytes(tracker.state.to_bytes()), tracker.state)


def test_a_track_that_starts_on_a_black_frame_has_no_template_of_it() -> None:
    pair = FramePair(scene(path(0)).rgb, np.zeros((240, 320), np.uint8))
    tracker = Tracker(BrightestBlob())
    assert tracker.init(pair, path(0)).faults == (Fault("thermal", FaultKind.BLANK, ignored=True),)
    assert tracker.state.template_present == (True, False)
    region = steps.prepare(SPEC, tracker.state, scene(path(1)))
    assert region.present == (True, True)


def test_a_frozen_colour_camera_is_left_out_when_stale_also_by_a_resumed_track() -> None:
    frozen = scene(path(0)).rgb
    tracker = Tracker(BrightestBlob())
    tracker.init(scene(path(0)), path(0))
    for frame in range(1, 20):
        tracker = resumed(tracker)
        result = tracker.update(FramePair(frozen, scene(path(frame)).thermal))
        assert result.faults == (Fault("rgb", FaultKind.FROZEN, ignored=frame >= STALE),)
    assert result.box.iou(path(19)) > 0.7  # where thermal has gone on to
    assert tracker.update(scene(path(20))).faults == ()


def test_a_black_16_bit_frame_does_not_move_the_thermal_window() -> None:
    tracker = Tracker(BrightestBlob())
    tracker.init(scene(path(0), bits=16), path(0))
    window = tracker.state.thermal_window
    tracker.update(FramePair(scene(path(1)).rgb, np.zeros((240, 320), np.uint16)))
    assert tracker.state.thermal_window == window


def resumed(tracker: Tracker) -> Tracker:
    other = Tracker(BrightestBlob())
    other.resume(TrackerState.from_bytes(tracker.state.to_bytes()))
    return other


def textured(dx: int, dy: int, target: Box) -> FramePair:
    """A textured ground with a bright target, in thermal moved by (dx, dy)."""
    noise = np.random.default_rng(0).integers(0, 90, (60, 80)).astype(np.uint8)
    ground = np.repeat(np.repeat(noise, 4, 0), 4, 1)
    x, y, w, h = (int(value) for value in target.xywh)
    ground[y : y + h, x : x + w] = 220
    thermal = np.roll(ground, (dy, dx), (0, 1))
    return FramePair(np.repeat(ground[..., None], 3, 2), thermal)


@pytest.mark.parametrize(("dx", "dy"), [(18, -9), (-12, 16)])
def test_thermal_that_is_shifted_is_cut_where_the_target_is(dx: int, dy: int) -> None:
    box = Box(150, 110, 30, 24)
    options = TrackerOptions(alignment=True)
    state = steps.init(SPEC, textured(dx, dy, box), box, options)
    assert state.alignment is not None
    assert state.alignment.offset == pytest.approx((dx, dy), abs=1)
    for crop in (state.template, steps.prepare(SPEC, state, textured(dx, dy, box)).crop):
        colour, thermal = (np.argwhere(crop[..., channel] > 150).mean(axis=0) for channel in (0, 3))
        assert thermal == pytest.approx(colour, abs=1.5 * crop.shape[0] / 62)  # a pixel and a half of the frame
    unaligned = steps.init(SPEC, textured(dx, dy, box), box, TrackerOptions(alignment=False))
    assert unaligned.alignment is None
    shifted = steps.prepare(SPEC, unaligned, textured(dx, dy, box)).crop
    assert np.argwhere(shifted[..., 3] > 150).mean(axis=0) != pytest.approx(colour, abs=20)


def test_the_box_stays_in_colours_coordinates_while_colour_is_away() -> None:
    box = Box(150, 110, 30, 24)
    tracker = Tracker(BrightestBlob(), TrackerOptions(alignment=True))
    tracker.init(textured(16, 8, box), box)
    for _ in range(5):
        tracker = resumed(tracker)
        alone = FramePair(None, textured(16, 8, box).thermal)
        found = tracker.update(alone).box
    assert found.center == pytest.approx(box.center, abs=2)
    assert tracker.state.alignment is not None
    assert tracker.state.alignment.wait == EVERY - 5
    assert_equal_states(TrackerState.from_bytes(tracker.state.to_bytes()), tracker.state)
