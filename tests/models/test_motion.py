"""Camera motion against known warps, and which expectation wins in which kind of video."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.frames import FramePair
from duotrack.motion import Expectation, Forecast, Motion, camera_motion, expect, learn

WIDTH, HEIGHT = 320, 240


def ground(seed: int = 0) -> NDArray[np.uint8]:
    """A large textured ground with detail of several sizes."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.integers(0, 256, (900 // size, 1200 // size)).astype(np.float32), (1200, 900)) / math.sqrt(count)
        for count, size in enumerate((60, 20, 8), 1)
    ]
    return cv2.normalize(sum(layers), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


GROUND = ground()


def view(x: float, y: float, *, angle: float = 0.0, zoom: float = 1.0) -> NDArray[np.uint8]:
    """What a camera sees whose upper left corner is at (x, y) of the ground, turned and zoomed about its middle."""
    turn = cv2.getRotationMatrix2D((WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5), angle, zoom)
    to_view = turn @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1.0]])
    return np.asarray(cv2.warpAffine(GROUND, to_view, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR), np.uint8)


def pair(image: NDArray[np.uint8], target: tuple[float, float] | None = None, bits: int = 8) -> FramePair:
    """A frame of both modalities, with a bright square of 24 pixels at ``target``."""
    shown = image.copy()
    if target is not None:
        x, y = (round(value) for value in target)
        shown[y : y + 24, x : x + 24] = 255
    thermal = shown if bits == 8 else (shown.astype(np.uint16) * 8 + 7000)
    return FramePair(np.repeat(shown[..., None], 3, 2) if bits == 8 else None, thermal)


def through(forecast_from: Motion, frames: list[tuple[FramePair, Box]], box: Box) -> tuple[Motion, Forecast]:
    """Motion's memory after frames in which the target was found at the given boxes, and the last forecast."""
    motion = forecast_from
    for frame, found in frames:
        forecast = expect(motion, frame, box, None)
        motion, box = learn(forecast, found), found
    return motion, forecast


@pytest.mark.parametrize(
    ("moved", "angle", "zoom"),
    [((0, 0), 0, 1), ((3, -2), 0, 1), ((40, 25), 0, 1), ((-70, 30), 0, 1), ((5, 5), 4, 1.0), ((0, 0), 0, 1.08)],
)
def test_camera_motion_is_the_warp_between_two_views(moved: tuple[float, float], angle: float, zoom: float) -> None:
    before, after = view(400, 300), view(400 + moved[0], 300 + moved[1], angle=angle, zoom=zoom)
    found = camera_motion(before, after)
    assert found is not None
    turn = cv2.getRotationMatrix2D((WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5), angle, zoom)
    expected = turn @ np.array([[1, 0, -moved[0]], [0, 1, -moved[1]], [0, 0, 1.0]])
    corners = np.array([[60, 60, 1], [260, 60, 1], [160, 180, 1.0]])
    np.testing.assert_allclose(corners @ found.T, corners @ expected.T, atol=0.4)


def test_jumps_of_a_quarter_of_the_frame_are_found_in_all_directions() -> None:
    rng = np.random.default_rng(5)
    for _ in range(60):
        x, y = rng.uniform(150, 600), rng.uniform(150, 400)
        moved = np.array([rng.uniform(-WIDTH, WIDTH), rng.uniform(-HEIGHT, HEIGHT)]) / 4
        found = camera_motion(view(x, y), view(x + moved[0], y + moved[1]))
        assert found is not None
        np.testing.assert_allclose(found[:, 2] + found[:, :2] @ [160, 120] - [160, 120], -moved, atol=0.4)


@pytest.mark.parametrize("angle", [-60, -25, 25, 60, 120])
def test_a_camera_that_turns_is_followed(angle: float) -> None:
    """Beyond what optical flow can: its windows are compared without being turned."""
    before, after = view(400, 300), view(420, 310, angle=angle)
    found = camera_motion(before, after)
    assert found is not None
    turn = cv2.getRotationMatrix2D((WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5), angle, 1)
    expected = turn @ np.array([[1, 0, -20], [0, 1, -10], [0, 0, 1.0]])
    corners = np.array([[120, 80, 1], [200, 80, 1], [160, 160, 1.0]])
    np.testing.assert_allclose(corners @ found.T, corners @ expected.T, atol=1.5)


def test_what_is_hidden_does_not_count() -> None:
    """Four fifths of the frame's corners are on a thing that moves by itself; without hiding it, it wins."""
    big = Box(20, 20, 280, 170)
    before, after = view(400, 300), view(408, 300)
    rng = np.random.default_rng(1)
    thing = cv2.resize(rng.integers(0, 256, (30, 50)).astype(np.uint8), (270, 160), interpolation=cv2.INTER_NEAREST)
    before[25:185, 25:295] = thing
    after[29:189, 28:298] = thing
    hidden = camera_motion(before, after, big)
    assert hidden is not None
    assert hidden[:, 2] == pytest.approx([-8, 0], abs=0.5)
    seen = camera_motion(before, after)
    assert seen is not None
    assert seen[:, 2] == pytest.approx([3, 4], abs=0.5)


def test_what_shows_nothing_or_another_scene_has_no_motion() -> None:
    plain = np.full((144, 192), 90, np.uint8)
    assert camera_motion(plain, plain) is None
    assert camera_motion(GROUND[:144, :192], ground(5)[300:444, 500:692]) is None
    assert camera_motion(GROUND[:144, :192], GROUND[:100, :192]) is None


@pytest.mark.parametrize("bits", [8, 16])
def test_after_a_jump_of_the_camera_the_target_is_expected_where_the_ground_went(bits: int) -> None:
    box = Box(200, 150, 24, 24)
    motion = Motion.start(pair(view(400, 300), (200, 150), bits), None)
    forecast = expect(motion, pair(view(480, 330), (120, 120), bits), box, None)
    assert forecast.box.center == pytest.approx((132, 132), abs=1.5)
    assert (forecast.box.w, forecast.box.h) == (24, 24)


def test_a_target_that_a_camera_follows_is_expected_to_stay_in_the_image() -> None:
    """The camera pans with the target, unsteadily: the ground runs through the image, the target does not."""
    box = Box(150, 110, 24, 24)
    pans = np.cumsum([0, 9, 2, 14, 3, 12, 1, 10, 4])
    frames = [(pair(view(300 + x, 300), (150, 110)), box) for x in pans[1:].tolist()]
    motion, forecast = through(Motion.start(pair(view(300, 300), (150, 110)), None), frames, box)
    image, ground, _ = motion.errors
    assert image < 0.05 < ground
    assert forecast.box.center == pytest.approx(box.center, abs=0.1)


def test_a_target_with_a_steady_pace_is_expected_ahead() -> None:
    still = view(400, 300)
    boxes = [Box(60 + 16 * step, 110, 24, 24) for step in range(12)]
    frames = [(pair(still, (box.x, box.y)), box) for box in boxes[1:]]
    motion, _ = through(Motion.start(pair(still, (60, 110)), None), frames, boxes[0])
    assert motion.velocity == pytest.approx((16, 0), abs=0.5)
    ahead = expect(motion, pair(still, (252, 110)), boxes[-1], None)
    assert ahead.box.center == pytest.approx((60 + 16 * 12 + 12, 122), abs=1.0)
    assert motion.errors[Expectation.PACE] < motion.errors[Expectation.GROUND]


@pytest.mark.parametrize("side", [24, 80])
def test_a_small_move_does_not_move_the_search(side: int) -> None:
    """Twenty pixels: most of a small target's side, a quarter of a large one's. What is remembered is the same."""
    box = Box(150, 110, side, side)
    motion = Motion.start(pair(view(400, 300)), None)
    forecast = expect(motion, pair(view(420, 300)), box, None)
    shift = forecast.centers[Expectation.GROUND] - forecast.centers[Expectation.IMAGE]
    assert shift == pytest.approx((-20, 0), abs=0.5)
    cx, cy = box.center
    assert forecast.box.center == pytest.approx((cx - 20 if side == 24 else cx, cy), abs=0.5)


def test_a_zoom_grows_the_box_and_noise_of_scale_does_not() -> None:
    box = Box(150, 110, 24, 24)
    motion = Motion.start(pair(view(400, 300)), None)
    zoomed = expect(motion, pair(view(400, 300, zoom=1.3)), box, None)
    assert zoomed.box.w == pytest.approx(24 * 1.3, rel=0.05)
    assert expect(motion, pair(view(400, 300, zoom=1.03)), box, None).box.w == 24


def test_another_modality_tells_nothing_about_the_camera() -> None:
    both = pair(view(400, 300))
    alone = FramePair(None, pair(view(440, 300)).thermal)
    box = Box(200, 150, 24, 24)
    forecast = expect(Motion.start(both, None), alone, box, None)
    assert forecast.box == box
    assert forecast.motion.source == "thermal"


def test_a_forecast_stays_in_the_frame() -> None:
    motion = Motion.start(pair(view(400, 300)), None)
    forecast = expect(motion, pair(view(480, 300)), Box(20, 100, 24, 24), None)
    assert forecast.box.x + forecast.box.w >= 10
