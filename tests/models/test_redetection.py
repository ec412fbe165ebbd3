"""The sweep covers the frame whatever the target's size, and a lost target is found at the other end of it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import cycle

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.frames import FramePair
from duotrack.network import ModelSpec, Prediction, Template
from duotrack.redetection import LARGEST, MOST_PLACES, next_place, sweep
from duotrack.state import TrackerState
from duotrack.tracker import TargetState, Tracker, TrackerOptions

FACTOR = 4.0


@pytest.mark.parametrize("size", [(320, 240), (640, 480), (1920, 1080), (240, 320)])
@pytest.mark.parametrize("side", [16, 40, 90, 200])
def test_the_sweep_covers_the_frame(size: tuple[int, int], side: int) -> None:
    """Every point is at least a quarter of a region's side inside some region, or at the frame's edge."""
    width, height = size
    places, zoom = sweep(Box(50, 60, side, side), width, height, FACTOR)
    assert 1 <= len(places) <= MOST_PLACES
    assert 1 <= zoom <= LARGEST
    if zoom == LARGEST:
        return  # the frame is too large to be swept in reasonable time with so small a target
    half = FACTOR * side * zoom / 2
    for x in np.linspace(0, width, 33):
        for y in np.linspace(0, height, 33):
            assert any(abs(x - cx) <= half + 1e-6 and abs(y - cy) <= half + 1e-6 for cx, cy in places)


def test_near_places_come_first() -> None:
    box = Box(280, 200, 20, 20)
    places, _ = sweep(box, 320, 240, FACTOR)
    distances = [math.dist(place, box.center) for place in places]
    assert distances == sorted(distances)
    assert len(places) > 5


def test_of_three_frames_one_goes_to_the_guess_one_to_where_it_vanished_and_one_sweeps() -> None:
    guess, vanished = Box(40, 150, 20, 30), Box(100, 100, 20, 30)
    turns = [next_place(guess, vanished, 320, 240, FACTOR, frame) for frame in range(120)]
    assert turns[::3] == [(guess, False)] * 40
    assert all(elsewhere for _, elsewhere in turns[1::3] + turns[2::3])
    back = [place for place, _ in turns[1::3]]
    assert all(place.center == pytest.approx(vanished.center) for place in back)
    widths = [place.w for place in back]
    assert widths[0] == pytest.approx(20 * 1.03)
    assert widths == sorted(widths)
    assert widths[-1] == pytest.approx(20 * LARGEST)
    swept = [place.center for place, _ in turns[2::3]]
    places, _ = sweep(vanished, 320, 240, FACTOR)
    assert swept[: len(places)] == [pytest.approx(place) for place in places]
    assert swept[len(places)] == swept[0]  # and from the beginning again


def test_a_loss_may_last_for_days() -> None:
    vanished = Box(100, 100, 20, 30)
    place, _ = next_place(vanished, vanished, 320, 240, FACTOR, 10**7)  # four days at 30 frames a second
    assert (place.w, place.h) == (pytest.approx(20 * LARGEST), pytest.approx(30 * LARGEST))


@pytest.mark.parametrize("side", [1e-9, 1, 7])
@pytest.mark.parametrize("corner", [(0, 0), (2000, 1200), (3830, 2150)])
def test_of_a_sweep_too_long_the_nearest_places_are_taken(side: float, corner: tuple[int, int]) -> None:
    """As from the whole grid, without making it: a box of a billionth of a pixel would have 1e23 places."""
    box = Box(*corner, side, side)
    places, zoom = sweep(box, 3840, 2160, FACTOR)
    assert (len(places), zoom) == (MOST_PLACES, LARGEST)
    if side < 1:
        assert max(math.dist(place, box.center) for place in places) < 10 * side * FACTOR
        return
    step = FACTOR * side * LARGEST / 2
    grid = [
        [FACTOR * side + (length - 2 * FACTOR * side) * index / (count - 1) for index in range(count)]
        for length, count in ((size, 1 + math.ceil((size - 2 * step) / step)) for size in (3840, 2160))
    ]
    distances = sorted(math.dist((x, y), box.center) for x in grid[0] for y in grid[1])[:MOST_PLACES]
    assert [math.dist(place, box.center) for place in places] == pytest.approx(distances)


class Square:
    """Sees a bright square wholly inside the crop, with a given presence, and nothing else."""

    def __init__(self, *presence: float) -> None:
        self.spec = ModelSpec("square", lost_below=0.2, found_above=0.8)
        self._presence = cycle(presence)

    def encode(self, template: Template) -> NDArray[np.float32]:
        return template.crop[:, 0, 0].astype(np.float32)

    def search(
        self,
        crop: NDArray[np.uint8],
        present: NDArray[np.float32],  # noqa: ARG002 - the interface's names
        features: NDArray[np.float32],  # noqa: ARG002
    ) -> Prediction:
        score_map, box_map = np.full((1, 16, 16), 1e-4, np.float32), np.full((1, 4, 16, 16), 0.5, np.float32)
        rows, columns = np.nonzero(crop[0, ..., 0] > 128)
        if not len(rows) or min(np.ptp(columns), np.ptp(rows)) < 33:  # a part of it is not it
            return Prediction(score_map, box_map, np.array([0.01], np.float32))
        x1, y1, x2, y2 = columns.min() / 256, rows.min() / 256, (columns.max() + 1) / 256, (rows.max() + 1) / 256
        box_map[0] = np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])[:, None, None]
        score_map[0, int((y1 + y2) * 8), int((x1 + x2) * 8)] = 0.9
        return Prediction(score_map, box_map, np.array([next(self._presence)], np.float32))


def frame(place: tuple[int, int] | None) -> FramePair:
    image = np.full((240, 320, 3), 20, np.uint8)
    if place is not None:
        image[place[1] : place[1] + 20, place[0] : place[0] + 20] = 220
    return FramePair(image, None)


@pytest.mark.parametrize(
    ("presence", "options", "found"),
    [
        (0.95, TrackerOptions(), True),
        (0.6, TrackerOptions(), False),  # good enough to go on with, not to jump across the frame
        (0.95, TrackerOptions(redetection=False), False),
    ],
)
def test_a_lost_target_is_found_at_the_other_end_of_the_frame(
    presence: float, options: TrackerOptions, found: bool
) -> None:
    tracker = Tracker(Square(presence), options)
    tracker.init(frame((20, 20)), Box(20, 20, 20, 20))
    for _ in range(6):
        result = tracker.update(frame(None))
    assert result.state is TargetState.LOST
    states = []
    for _ in range(60):
        result = tracker.update(frame((270, 190)))
        states.append(result.state)
        if result.state is not TargetState.LOST:
            break
        assert result.box.iou(Box(20, 20, 20, 20)) > 0.9  # the sweep does not show in the results
    assert (states[-1] is not TargetState.LOST) == found
    if found:
        assert result.box.iou(Box(270, 190, 20, 20)) > 0.5
        assert tracker.update(frame((268, 188))).box.iou(Box(268, 188, 20, 20)) > 0.5


def test_what_is_not_seen_again_in_the_next_frame_is_not_the_target() -> None:
    """Something that looks like it in one frame of two: the track stays where it was, and the state says lost."""
    tracker = Tracker(Square(0.95, 0.5), TrackerOptions())
    tracker.init(frame((20, 20)), Box(20, 20, 20, 20))  # the network's first answer
    tracker.update(frame((20, 20)))  # and its second
    for _ in range(6):
        tracker.update(frame(None))
    held = 0
    for _ in range(90):
        result = tracker.update(frame((270, 190)))
        assert result.state is TargetState.LOST
        assert result.box.iou(Box(20, 20, 20, 20)) > 0.9
        held += tracker.state.held is not None
    assert held >= 2
    stored = TrackerState.from_bytes(tracker.state.to_bytes())
    for name in ("held", "whole", "vanished"):
        assert getattr(stored, name) == getattr(tracker.state, name)


def test_a_target_that_vanishes_keeps_the_size_it_had_when_it_was_whole() -> None:
    """It leaves at the frame's edge, which cuts its box; when it is back, it is looked for at its whole size."""
    tracker = Tracker(Square(0.95), TrackerOptions(motion=False))
    tracker.init(frame((260, 100)), Box(260, 100, 20, 20))
    for x in range(262, 300, 2):
        assert tracker.update(frame((x, 100))).state is TargetState.TRACKING
    state = replace(tracker.state, box=Box(310, 100, 10, 20))
    assert state.whole == pytest.approx((20, 20), abs=1)
    tracker.resume(state)
    for _ in range(12):
        tracker.update(frame(None))
    vanished = tracker.state.vanished
    assert vanished is not None
    assert vanished.center == pytest.approx((315, 110), abs=1)
    assert (vanished.w, vanished.h) == tracker.state.whole == pytest.approx((20, 20), abs=1)
    back = [tracker.update(frame((280, 100))).box for _ in range(9)]
    assert back[-1].iou(Box(280, 100, 20, 20)) > 0.7
    assert tracker.state.vanished is None


def test_the_place_where_a_target_vanished_moves_with_the_camera() -> None:
    texture = np.random.default_rng(0).integers(0, 90, (300, 500, 1), np.uint8)
    texture = np.repeat(cv2.resize(cv2.resize(texture, (100, 60)), (500, 300))[..., None], 3, axis=2)
    tracker = Tracker(Square(0.95), TrackerOptions())
    first = np.ascontiguousarray(texture[:240, :320])
    first[100:120, 100:120] = 220
    tracker.init(FramePair(first, None), Box(100, 100, 20, 20))
    for step in range(1, 11):  # the camera turns right, 4 pixels a frame; what was at 110 is 40 pixels further left
        tracker.update(FramePair(np.ascontiguousarray(texture[:240, 4 * step : 4 * step + 320]), None))
    vanished = tracker.state.vanished
    assert vanished is not None
    assert vanished.center == pytest.approx((70, 110), abs=5)
