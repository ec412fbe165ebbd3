"""Crops against bilinear interpolation written out in numpy, and against OSTrack's pad and resize."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from duotrack.boxes import CropWindow
from duotrack.crops import COARSEST_BILINEAR, beyond_frame, crop_pair, resample, resample_reference
from duotrack.frames import FramePair, ThermalWindow

HEIGHT, WIDTH = 120, 160


def smooth_image(channels: int, *, blur: float = 2.0, seed: int = 0) -> NDArray[np.uint8]:
    """Noise as soft as a camera's picture, over the full range from 0 to 255."""
    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, channels), dtype=np.uint8)
    soft = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), blur), None, 0, 255, cv2.NORM_MINMAX)
    return np.asarray(soft.reshape(HEIGHT, WIDTH, channels).squeeze(), np.uint8)


IMAGES = {
    "colour": smooth_image(3),
    "uint8": smooth_image(1, seed=1),
    "uint16": (smooth_image(1, seed=2).astype(np.uint16) * 257),
}


def bilinear(image: NDArray[np.generic], window: CropWindow) -> NDArray[np.float64]:
    """Sample the image, continued with zeros without end, at the centres of the crop's pixels."""
    border = window.side + 2
    padded = np.zeros((HEIGHT + 2 * border, WIDTH + 2 * border, *image.shape[2:]))
    padded[border:-border, border:-border] = image
    centers = (np.arange(window.size) + 0.5) / window.scale - 0.5

    def along(start: int, limit: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        places = np.clip(centers + start + border, 0, limit - 1.001)
        return np.floor(places).astype(int), places - np.floor(places)

    x, fx = along(window.x, padded.shape[1])
    y, fy = along(window.y, padded.shape[0])
    fx, fy = fx.reshape(1, -1, *[1] * (image.ndim - 2)), fy.reshape(-1, 1, *[1] * (image.ndim - 2))
    upper = padded[np.ix_(y, x)] * (1 - fx) + padded[np.ix_(y, x + 1)] * fx
    lower = padded[np.ix_(y + 1, x)] * (1 - fx) + padded[np.ix_(y + 1, x + 1)] * fx
    return np.asarray(upper * (1 - fy) + lower * fy)


fine_windows = st.builds(
    CropWindow, st.integers(-150, WIDTH), st.integers(-150, HEIGHT), st.integers(8, 128), st.sampled_from([64, 128])
)


@pytest.mark.parametrize("kind", IMAGES)
@given(window=fine_windows)
@settings(max_examples=60, deadline=None)
def test_the_bilinear_range_is_bilinear(kind: str, window: CropWindow) -> None:
    image = IMAGES[kind]
    level = 257 if kind == "uint16" else 1
    difference = np.abs(resample(image, window).astype(float) - bilinear(image, window)) / level
    assert difference.max() <= 2


@pytest.mark.parametrize("kind", IMAGES)
@given(window=fine_windows)
@settings(max_examples=60, deadline=None)
def test_the_bilinear_range_is_pad_and_resize(kind: str, window: CropWindow) -> None:
    """All but the crop's outermost pixels: there ``cv2.resize`` repeats its border, where the frame really goes on."""
    image = IMAGES[kind]
    level = 257 if kind == "uint16" else 1
    ring = int(np.ceil(window.scale / 2))
    inner = np.s_[ring : window.size - ring, ring : window.size - ring]
    fast, plain = resample(image, window)[inner], resample_reference(image, window)[inner]
    assert fast.dtype == plain.dtype
    assert (np.abs(fast.astype(float) - plain.astype(float)) / level).max() <= 2


coarse_windows = st.integers(140, 900).flatmap(
    lambda side: st.builds(
        CropWindow,
        st.integers(-side + 40, WIDTH - 40),
        st.integers(-side + 40, HEIGHT - 40),
        st.just(side),
        st.just(64),
    )
)


def well_inside(window: CropWindow) -> NDArray[np.bool_]:
    """Crop pixels that are at least three of their own widths inside the frame and the crop."""
    start, stop = np.arange(window.size) - 3, np.arange(window.size) + 4
    side = 1 / window.scale
    x = (window.x + start * side >= 0) & (window.x + stop * side <= WIDTH) & (start >= 0) & (stop <= window.size)
    y = (window.y + start * side >= 0) & (window.y + stop * side <= HEIGHT) & (start >= 0) & (stop <= window.size)
    return np.asarray(y[:, None] & x[None, :])


@given(window=coarse_windows)
@settings(max_examples=80, deadline=None)
def test_the_averaged_range_keeps_every_pixel_at_its_place(window: CropWindow) -> None:
    """A linear ramp comes through any symmetric averaging unchanged, so only a shift could change it.

    The ramps rise by 250 over the frame; a shift of half a crop pixel would show as 2 levels or more.
    """
    assert window.scale < COARSEST_BILINEAR
    inside = well_inside(window)
    centers = (np.arange(window.size) + 0.5) / window.scale
    for axis, (length, start) in enumerate([(HEIGHT, window.y), (WIDTH, window.x)]):
        ramp = np.linspace(0, 250 * 256, length)  # uint16: finer than the 8-bit rounding
        image = np.ascontiguousarray(np.broadcast_to(ramp[:, None] if axis == 0 else ramp, (HEIGHT, WIDTH)))
        expected = (centers + start - 0.5) * 250 * 256 / (length - 1)
        expected = np.broadcast_to(expected[:, None] if axis == 0 else expected, (window.size, window.size))
        crop = resample(image.astype(np.uint16), window)
        assert (np.abs(crop - expected) / 256)[inside].max(initial=0) < 0.05


@pytest.mark.parametrize("kind", ["colour", "uint8", "uint16"])
@given(window=coarse_windows)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_the_averaged_range_is_close_to_pad_and_average(kind: str, window: CropWindow) -> None:
    """Both average, over windows of slightly different widths: whole factors against the exact scale.

    On a scene smooth over two crop pixels that leaves a mean difference of a few levels of 255 inside the frame
    (at most 2.9 in 1,500 random windows), and over the whole crop, where the fast way drops less than a crop pixel at
    the frame's right and bottom, 1.8. Half a pixel's shift of the frame would make either several times larger.
    """
    soft = cv2.GaussianBlur(smooth_image(3, seed=4), (0, 0), 2 / window.scale)
    stretched = cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX)
    image = stretched if kind == "colour" else stretched[..., 0].astype(kind) * (257 if kind == "uint16" else 1)
    level = 257 if kind == "uint16" else 1
    difference = np.abs(resample(image, window).astype(float) - resample_reference(image, window).astype(float)) / level
    inside = well_inside(window)
    if inside.sum() >= 20:
        assert difference[inside].mean() < 4
    assert difference.mean() < 2.5


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("start", [(500, 0), (0, 500), (-1000, 0), (0, -1000), (WIDTH, HEIGHT), (-64, -64)])
def test_outside_the_frame_all_is_zero(kind: str, start: tuple[int, int]) -> None:
    crop = resample(IMAGES[kind], CropWindow(*start, 64, 128))
    assert crop.shape == (128, 128, *IMAGES[kind].shape[2:])
    # A pixel centre half a pixel outside still sees half of the frame's last pixel.
    inner = crop[2:-2, 2:-2]
    assert not inner.any()


@pytest.mark.parametrize(
    "start",
    [
        (-1000, 0),
        (0, -1000),
        (500, 0),
        (0, 500),
        (WIDTH, HEIGHT),
    ],
)
def test_outside_the_frame_all_is_zero_in_the_averaged_range(start: tuple[int, int]) -> None:
    assert not resample(IMAGES["colour"], CropWindow(*start, 640, 128)).any()


def test_a_window_that_is_the_frame_copies_it() -> None:
    square = np.ascontiguousarray(IMAGES["colour"][:, :HEIGHT])
    assert np.array_equal(resample(square, CropWindow(0, 0, HEIGHT, HEIGHT)), square)


def test_the_crop_has_colour_then_thermal() -> None:
    window = CropWindow(10, 5, 64, 128)
    crop = crop_pair(FramePair(IMAGES["colour"], IMAGES["uint8"]), window, None)
    assert crop.shape == (128, 128, 4)
    assert crop.dtype == np.uint8
    assert np.abs(crop[..., :3] - bilinear(IMAGES["colour"], window)).max() <= 1
    assert np.abs(crop[..., 3] - bilinear(IMAGES["uint8"], window)).max() <= 1


@pytest.mark.parametrize("missing", ["rgb", "thermal"])
def test_a_missing_modality_is_zero_and_leaves_the_other(missing: str) -> None:
    window = CropWindow(-20, 5, 64, 128)
    both = crop_pair(FramePair(IMAGES["colour"], IMAGES["uint8"]), window, None)
    rgb = None if missing == "rgb" else IMAGES["colour"]
    thermal = None if missing == "thermal" else IMAGES["uint8"]
    crop = crop_pair(FramePair(rgb, thermal), window, None)
    absent, kept = (np.s_[..., :3], np.s_[..., 3]) if missing == "rgb" else (np.s_[..., 3], np.s_[..., :3])
    assert not crop[absent].any()
    assert np.array_equal(crop[kept], both[kept])


@pytest.mark.parametrize(
    "window",
    [CropWindow(10, 5, 64, 128), CropWindow(-30, 80, 100, 128), CropWindow(-60, -80, 300, 128)],
    ids=["inside", "over the border", "averaged"],
)
def test_16_bit_thermal_is_mapped_through_the_window(window: CropWindow) -> None:
    """Where the crop shows the frame: the raw value at that place, mapped by the formula; where it does not: zero.

    Zero outside matters because raw zero, at the window's low end, would otherwise be whatever the window makes of it.
    """
    thermal = (7000 + IMAGES["uint8"].astype(np.uint16) * 8).astype(np.uint16)
    mapping = ThermalWindow(-9000, 10000)
    crop = crop_pair(FramePair(None, thermal), window, mapping)[..., 3].astype(float)
    outside = np.zeros((128, 128), bool)
    places = (np.arange(128) + 0.5) * window.side / 128
    outside[(places + window.y < 0) | (places + window.y >= HEIGHT)] = True
    outside[:, (places + window.x < 0) | (places + window.x >= WIDTH)] = True
    assert (crop[outside] == 0).all()
    if window.scale >= COARSEST_BILINEAR:
        inner = ~cv2.dilate(outside.astype(np.uint8), np.ones((5, 5))).astype(bool)
        expected = (bilinear(thermal, window) + 9000) * 255 / 19000
        assert np.abs(crop - expected)[inner].max() <= 1
    else:
        assert crop[~outside].mean() == pytest.approx((thermal.mean() + 9000) * 255 / 19000, abs=3)


@given(st.builds(CropWindow, st.integers(-300, 300), st.integers(-300, 300), st.integers(1, 600), st.just(64)))
def test_beyond_frame_is_where_a_picture_of_ones_has_less_than_half(window: CropWindow) -> None:
    """Half of a pixel's light is missing exactly where its centre passes the border, in the bilinear range."""
    pair = FramePair(None, np.full((HEIGHT, WIDTH), 255, np.uint8))
    outside = beyond_frame(pair, window)
    if window.scale >= COARSEST_BILINEAR:
        light = bilinear(np.full((HEIGHT, WIDTH), 1.0), window)
        assert (light[outside] <= 0.5 + 1e-9).all()
        assert (light[~outside] >= 0.25 - 1e-9).all()  # a corner: half on each axis
    side = window.side / 64
    columns = sum(0 <= window.x + (column + 0.5) * side < WIDTH for column in range(64))
    rows = sum(0 <= window.y + (row + 0.5) * side < HEIGHT for row in range(64))
    assert (~outside).sum() == columns * rows
