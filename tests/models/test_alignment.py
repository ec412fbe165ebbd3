"""Offsets that were made, and must be found: on generated scenes, on real pairs, and nowhere where there is none."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import duotrack.data
from duotrack.alignment import EVERY, LONGEST_SIDE, SMALLEST, Alignment, estimate_offset
from duotrack.boxes import CropWindow
from duotrack.data.synthetic import Scene, SceneConfig
from duotrack.frames import FramePair

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
CONFIG = SceneConfig(width=320, height=240, frames=4, seed=2**41 + 7100, light="day", misalignment=0)
SCENE = [frame.pair for frame in Scene(CONFIG)]
SMALL_PIXEL = 320 / LONGEST_SIDE


def moved(pair: FramePair, dx: float, dy: float) -> FramePair:
    """What colour shows at (x, y), thermal shows at (x + dx, y + dy)."""
    assert pair.thermal is not None
    matrix, size = np.array([[1, 0, dx], [0, 1, dy]], np.float64), (pair.width, pair.height)
    return FramePair(pair.rgb, cv2.warpAffine(pair.thermal, matrix, size, borderMode=cv2.BORDER_REFLECT))


@given(st.floats(-24, 24), st.floats(-24, 24))
def test_an_offset_up_to_a_twelfth_of_the_frame_is_found(dx: float, dy: float) -> None:
    found = estimate_offset(moved(SCENE[0], dx, dy))
    assert found is not None
    assert math.dist(found, (dx, dy)) < 1.2 * SMALL_PIXEL


def test_hot_and_cold_may_be_exchanged_and_values_have_16_bits() -> None:
    """The edges are the same; only an estimate that minds their sign, or their height, differs."""
    pair = moved(SCENE[1], 12, -7)
    assert pair.thermal is not None
    plain = estimate_offset(pair)
    inverted = estimate_offset(FramePair(pair.rgb, np.asarray(255 - pair.thermal, np.uint8)))
    raw = estimate_offset(FramePair(pair.rgb, pair.thermal.astype(np.uint16) * 9 + 7000))
    assert plain is not None
    assert inverted == pytest.approx(plain, abs=0.02)
    assert raw == pytest.approx(plain, abs=0.3)


def noise(seed: int) -> NDArray[np.uint8]:
    smooth = cv2.GaussianBlur(np.random.default_rng(seed).normal(128, 60, (240, 320)).astype(np.float32), (0, 0), 3)
    return np.asarray(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX), np.uint8)


def test_frames_that_have_nothing_in_common_give_no_offset() -> None:
    for seed in range(12):
        pair = FramePair(np.repeat(noise(seed)[..., None], 3, 2), noise(100 + seed))
        assert estimate_offset(pair) is None
    plain = FramePair(np.full((240, 320, 3), 9, np.uint8), SCENE[0].thermal)
    assert estimate_offset(plain) is None


def test_one_modality_alone_has_no_offset() -> None:
    alone = FramePair(SCENE[0].rgb, None)
    assert estimate_offset(alone) is None
    assert Alignment.start(alone) is None


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (40, 5), (17, 31), (64, 64)])
def test_small_frames_are_no_error(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    pair = FramePair(
        rng.integers(0, 256, (*size, 3), np.uint8).astype(np.uint8),
        rng.integers(0, 256, size, np.uint8).astype(np.uint8),
    )
    found = estimate_offset(pair)
    assert found is None or max(map(abs, found)) <= max(3, max(size) / 12) + 1


def start(pair: FramePair) -> Alignment:
    alignment = Alignment.start(pair)
    assert alignment is not None
    return alignment


def follow(alignment: Alignment, pair: FramePair, count: int) -> Alignment:
    for _ in range(count):
        alignment = alignment.follow(pair)
    return alignment


def test_a_track_starts_with_what_its_first_pair_shows() -> None:
    assert start(moved(SCENE[0], 15, -6)).offset == pytest.approx((15, -6), abs=SMALL_PIXEL)


def test_registered_cameras_stay_as_they_are() -> None:
    """Beneath ``SMALLEST`` an offset moves nothing: an estimate has errors of its own."""
    alignment = start(SCENE[0])
    assert alignment.estimate is not None
    for index in range(3 * EVERY):
        alignment = alignment.follow(moved(SCENE[index % 4], 0.4 * SMALLEST * SMALL_PIXEL, 0))
        assert alignment.offset == (0.0, 0.0)
    assert alignment.to_thermal(CropWindow(3, 4, 50, 128)) == CropWindow(3, 4, 50, 128)


def test_a_new_offset_is_believed_when_a_second_estimate_confirms_it() -> None:
    alignment, pair = start(SCENE[0]), moved(SCENE[1], 16, 8)
    alignment = follow(alignment, pair, 2 * EVERY - 1)
    assert alignment.offset == (0.0, 0.0)
    alignment = alignment.follow(pair)
    assert alignment.offset == pytest.approx((16, 8), abs=SMALL_PIXEL)


def test_an_estimate_that_nothing_confirms_changes_nothing() -> None:
    alignment = start(SCENE[0])
    for dx in (20, -20, 20, -20):
        alignment = follow(alignment, moved(SCENE[0], dx, 0), EVERY)
        assert alignment.offset == (0.0, 0.0)


def test_a_drift_is_followed() -> None:
    alignment = start(SCENE[0])
    for frame in range(1, 41):
        alignment = alignment.follow(moved(SCENE[frame % 4], 0.5 * frame, 0))
    assert alignment.offset == pytest.approx((20, 0), abs=SMALL_PIXEL)


def test_the_offset_is_kept_while_a_modality_is_missing() -> None:
    alignment = follow(start(moved(SCENE[0], 15, 0)), FramePair(None, SCENE[0].thermal), 3 * EVERY)
    assert alignment.offset == pytest.approx((15, 0), abs=SMALL_PIXEL)
    back = alignment.follow(SCENE[0])
    assert back.wait == EVERY  # the first whole pair is looked at


def test_the_window_moves_by_whole_pixels_with_thermal() -> None:
    assert Alignment((4.6, -7.4), None, 0).to_thermal(CropWindow(10, 20, 50, 128)) == CropWindow(15, 13, 50, 128)


@pytest.fixture(scope="module")
def real_pairs() -> list[tuple[str, FramePair]]:
    folder = SHARED / "data" / "rgbt-pairs"
    if not folder.is_dir():
        pytest.skip(f"no real pairs: {folder} does not exist")
    split = json.loads((Path(duotrack.data.__file__).parent / "validation_split.json").read_text(encoding="utf-8"))
    pairs = []
    for path in sorted(folder.glob("*/visible/*.jpg")):
        name = f"{path.parts[-3]}/{path.stem}"
        if name in split["validation"]["rgbt-pairs"]:
            continue
        colour, thermal = cv2.imread(str(path)), cv2.imread(str(path.parents[1] / "infrared" / path.name), 0)
        pairs.append((name, FramePair(np.ascontiguousarray(colour[..., ::-1]), thermal)))
    return pairs[::5]


def test_real_pairs_are_found_or_left_alone(real_pairs: list[tuple[str, FramePair]]) -> None:
    """Moved by up to 7 % of the longer side. Pairs are registered to some 2 small pixels by those who made them."""
    rng = np.random.default_rng(4)
    found = wrong = 0
    for _, pair in real_pairs:
        longest = max(pair.width, pair.height)
        dx, dy = rng.uniform(-0.07, 0.07, 2) * longest
        offset = estimate_offset(moved(pair, dx, dy))
        if offset is not None:
            found += 1
            wrong += math.dist(offset, (dx, dy)) > 2.5 * longest / LONGEST_SIDE
    assert found > 0.8 * len(real_pairs)
    assert wrong <= 0.02 * len(real_pairs)
