"""Frame pairs and the mapping of 16-bit thermal to 8 bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from duotrack.errors import FrameError
from duotrack.frames import FramePair, ThermalWindow

RGB = np.zeros((48, 64, 3), np.uint8)
THERMAL = np.zeros((48, 64), np.uint8)


@pytest.mark.parametrize(
    ("rgb", "thermal", "message"),
    [
        (None, None, "colour frame, a thermal frame, or both; got neither"),
        (RGB.astype(np.float32), None, "colour frame must be uint8, got float32"),
        (RGB.astype(np.uint16), None, "colour frame must be uint8, got uint16"),
        (RGB[..., 0], None, r"colour frame must have shape \(height, width, 3\), got \(48, 64\)"),
        (np.zeros((48, 64, 4), np.uint8), None, r"colour frame must have shape .* got \(48, 64, 4\)"),
        (np.zeros((0, 64, 3), np.uint8), None, r"colour frame is empty: shape \(0, 64, 3\)"),
        (RGB.tolist(), None, "colour frame must be a numpy array, got list"),
        (None, THERMAL.astype(np.float32), "thermal frame must be uint8 or uint16, got float32"),
        (None, THERMAL.astype(np.int16), "thermal frame must be uint8 or uint16, got int16"),
        (None, THERMAL[..., None], r"thermal frame must have shape \(height, width\), got \(48, 64, 1\)"),
        (None, np.zeros((48, 0), np.uint16), r"thermal frame is empty: shape \(48, 0\)"),
        (None, b"bytes", "thermal frame must be a numpy array, got bytes"),
        (RGB, np.zeros((64, 48), np.uint8), "same size, got 64x48 and 48x64"),
        (RGB, np.zeros((47, 64), np.uint16), "same size, got 64x48 and 64x47"),
    ],
)
def test_what_is_wrong_with_a_pair_is_named(rgb: object, thermal: object, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        FramePair(rgb, thermal)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pair", "text"),
    [
        (FramePair(RGB, THERMAL), "FramePair(64x48, rgb=uint8, thermal=uint8)"),
        (FramePair(RGB, None), "FramePair(64x48, rgb=uint8, thermal=missing)"),
        (FramePair(None, THERMAL.astype(np.uint16)), "FramePair(64x48, rgb=missing, thermal=uint16)"),
    ],
)
def test_either_modality_may_be_missing(pair: FramePair, text: str) -> None:
    assert (pair.width, pair.height) == (64, 48)
    assert repr(pair) == text


def noisy_scene(seed: int) -> NDArray[np.float64]:
    """Temperatures as a 14-bit camera counts them: a ramp of background, warm blocks, cold sky."""
    rng = np.random.default_rng(seed)
    scene = np.tile(np.linspace(7800, 8200, 160), (120, 1))
    scene[:30] -= 500
    for _ in range(6):
        top, left = rng.integers(0, 100), rng.integers(0, 140)
        scene[top : top + 20, left : left + 12] += rng.uniform(100, 500)
    return scene


def frame_of(scene: NDArray[np.float64], rng: np.random.Generator, noise: float = 4.0) -> NDArray[np.uint16]:
    return np.rint(scene + noise * rng.standard_normal(scene.shape)).astype(np.uint16)


@pytest.mark.parametrize("seed", range(3))
def test_a_still_noisy_scene_does_not_flicker(seed: int) -> None:
    """The same raw value gets the same grey, to one level, in each of 100 noisy frames."""
    scene, rng = noisy_scene(seed), np.random.default_rng(seed)
    raw = np.linspace(7300, 8700, 141).astype(np.uint16)
    window = ThermalWindow.of(frame_of(scene, rng))
    first = window.to_uint8(raw).astype(int)
    for _ in range(100):
        window = window.follow(frame_of(scene, rng))
        assert np.abs(window.to_uint8(raw).astype(int) - first).max() <= 1


def test_a_range_stretched_anew_for_each_frame_would_flicker() -> None:
    """The previous test's limit is one that the plain way (a window of each frame alone) does not keep."""
    scene, rng = noisy_scene(0), np.random.default_rng(0)
    raw = np.linspace(7300, 8700, 141).astype(np.uint16)
    greys = [ThermalWindow.of(frame_of(scene, rng)).to_uint8(raw).astype(int) for _ in range(100)]
    assert max(np.abs(grey - greys[0]).max() for grey in greys) > 1


def saturated(grey: NDArray[np.uint8]) -> float:
    return float(np.mean((grey == 0) | (grey == 255)))


def test_it_follows_a_slow_drift() -> None:
    """A camera that warms by two counts a frame: at no time is more than 3 % of the picture black or white."""
    scene, rng = noisy_scene(1), np.random.default_rng(1)
    window = ThermalWindow.of(frame_of(scene, rng))
    for frame in range(1000):
        thermal = frame_of(scene + 2 * frame, rng)
        window = window.follow(thermal)
        if frame % 50 == 0:
            assert saturated(window.to_uint8(thermal)) < 0.03


@pytest.mark.parametrize("jump", [-5000, 1500, 20000])
def test_a_jump_of_the_calibration_is_caught_up_within_80_frames(jump: int) -> None:
    """Each step leaves nine tenths of the way, and the window has a tenth of the range R to spare on either side.

    So frame n is inside once |jump| · 0.9ⁿ ≤ 0.1 R: for the largest jump here (20 000 against R ≈ 1 200) after
    ln(167) / ln(1/0.9) ≈ 49 frames. 80 leaves room for the noise.
    """
    scene, rng = noisy_scene(2), np.random.default_rng(2)
    window = ThermalWindow.of(frame_of(scene, rng))
    for _ in range(80):
        window = window.follow(frame_of(scene + jump, rng))
    thermal = frame_of(scene + jump, rng)
    assert saturated(window.to_uint8(thermal)) < 0.02
    assert window.follow(thermal) == window


def test_a_picture_that_shrinks_to_part_of_the_range_gets_its_contrast_back() -> None:
    """A window far wider than the picture would leave it grey; followed, a picture fills half of the levels."""
    scene, rng = noisy_scene(0), np.random.default_rng(0)
    window = ThermalWindow(0, 65535)
    for _ in range(100):
        window = window.follow(frame_of(scene, rng))
    grey = window.to_uint8(frame_of(scene, rng))
    assert np.percentile(grey, 99.5) - np.percentile(grey, 0.5) > 120


thermal_frames = arrays.arrays(np.uint16, st.tuples(st.integers(1, 24), st.integers(1, 24)))


@given(thermal_frames, thermal_frames)
def test_the_mapping_keeps_the_order_of_temperatures(first: NDArray[np.uint16], second: NDArray[np.uint16]) -> None:
    window = ThermalWindow.of(first).follow(second)
    ramp = np.arange(0, 65536, 97, dtype=np.uint16)
    assert (np.diff(window.to_uint8(ramp).astype(int)) >= 0).all()
    assert window.high > window.low


@pytest.mark.parametrize("value", [0, 1, 8000, 65535])
@pytest.mark.parametrize("shape", [(120, 160), (1, 1), (3, 2)])
def test_a_constant_picture_is_mid_grey(value: int, shape: tuple[int, int]) -> None:
    thermal = np.full(shape, value, np.uint16)
    window = ThermalWindow.of(thermal)
    assert set(np.unique(window.to_uint8(thermal))) <= {127, 128}
    assert window.follow(thermal) == window


def test_the_window_is_the_percentiles_widened_by_a_tenth() -> None:
    """Values 0 … 10 000 evenly: percentiles 50 and 9 950, and 990 more on either side."""
    thermal = np.repeat(np.repeat(np.arange(0, 10001, 1, np.uint16)[:10000].reshape(100, 100), 4, 0), 4, 1)
    window = ThermalWindow.of(thermal)
    assert window.low == pytest.approx(50 - 990, abs=2)
    assert window.high == pytest.approx(9949 + 990, abs=2)
    assert window.to_uint8(np.array([0, 5000, 65535], np.uint16)).tolist() == pytest.approx([20, 127, 255], abs=1)
