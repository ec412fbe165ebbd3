"""The camera's path: points against OpenCV, frames inside the still, smoothness, and what each setting moves."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from duotrack.data.homography import Motion, between_pixel_centres, camera_path, transform

STILL, SIZE, FRAMES = (640, 480), (400, 300), 200
CORNERS = np.array([[0, 0], [SIZE[0], 0], [SIZE[0], SIZE[1]], [0, SIZE[1]]], float)
LIVELY = Motion(zoom=0.5, turn=20, perspective=0.15)
CALM = Motion(pan=0, zoom=0, turn=0, perspective=0)


def test_points_are_transformed_as_by_opencv() -> None:
    path = camera_path(LIVELY, 20, STILL, SIZE, np.random.default_rng(0))
    points = np.random.default_rng(1).uniform(0, 300, (30, 2))
    for homography, mapped in zip(path, transform(path, points), strict=True):
        np.testing.assert_allclose(mapped, cv2.perspectiveTransform(points[None], homography)[0], atol=1e-9)


@pytest.mark.parametrize("size", [SIZE, (300, 300), (160, 400), (1280, 720)])
@pytest.mark.parametrize("motion", [Motion(), LIVELY])
def test_frames_lie_inside_the_still(motion: Motion, size: tuple[int, int]) -> None:
    """Also where the wish for zoom and rotation leaves no room; and the camera uses the room that there is."""
    corners = np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]], float)
    for seed in range(8):
        seen = transform(camera_path(motion, FRAMES, STILL, size, np.random.default_rng(seed)), corners)
        assert seen.min() >= -1e-6
        assert (seen <= np.array(STILL) + 1e-6).all()


def test_a_calm_camera_shows_the_middle_of_the_still() -> None:
    path = camera_path(replace(CALM, share=0.5), 10, STILL, (320, 240), np.random.default_rng(0))
    np.testing.assert_allclose(path, np.tile([[1, 0, 160], [0, 1, 120], [0, 0, 1]], (10, 1, 1)), atol=1e-9)


def test_every_setting_moves_what_it_says() -> None:
    def path(motion: Motion) -> np.ndarray:
        return camera_path(motion, 400, STILL, SIZE, np.random.default_rng(4))

    panned = path(replace(CALM, pan=1))
    np.testing.assert_allclose(np.ptp(panned[:, :2, :2], axis=0), 0, atol=1e-12)
    assert np.ptp(panned[:, 0, 2]) > 0.4 * (STILL[0] - SIZE[0])
    scales = np.log(np.sqrt(np.linalg.det(path(replace(CALM, zoom=0.1))[:, :2, :2])))
    assert 0.1 < np.ptp(scales) <= 0.2 + 1e-9
    turned = path(replace(CALM, turn=8))
    angles = np.degrees(np.arctan2(turned[:, 1, 0], turned[:, 0, 0]))
    assert 4 < np.abs(angles).max() <= 8
    assert np.abs(path(replace(CALM, perspective=0.1))[:, 2, 0]).max() * SIZE[0] / 2 == pytest.approx(0.07, abs=0.03)


def test_motion_is_smooth_and_no_faster_than_its_period() -> None:
    """The corners' acceleration against that of a sinusoid as wide as the still at the shortest period."""
    motion = Motion(period=(40, 40))
    for seed in range(6):
        corners = transform(camera_path(motion, FRAMES, STILL, SIZE, np.random.default_rng(seed)), CORNERS)
        speed, jerk = np.diff(corners, axis=0), np.diff(corners, 2, axis=0)
        assert np.abs(speed).max() < 2 * np.pi / 40 * 320
        assert np.abs(jerk).max() < (2 * np.pi / 40) ** 2 * 320
        assert np.abs(speed).max() > 0.5  # it does move


def test_opencv_samples_pixel_centres() -> None:
    """A frame that shows the still at half size has in each pixel the middle of the four that it covers."""
    halved = np.diag([2.0, 2.0, 1.0])
    still = np.arange(64, dtype=np.uint8).reshape(8, 8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    frame = cv2.warpPerspective(still, between_pixel_centres(halved), (4, 4), flags=flags)
    expected = still.reshape(4, 2, 4, 2).mean((1, 3))
    np.testing.assert_allclose(frame, expected, atol=0.51)
