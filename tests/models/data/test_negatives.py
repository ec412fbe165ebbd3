"""The target taken out: it is gone in both modalities, what stands beside it is not, and doubtful cases are refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.images import View
from duotrack.data.negatives import without_target

RED, BLUE = (220, 30, 30), (30, 30, 220)


def lawn(seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(60, 130, (200, 260, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 2), np.uint8)


def scene(x: int, y: int, *, masked: bool) -> View:
    """A red disc of 40 pixels, hot, and a blue one to its right, cold."""
    rgb, thermal = lawn(0), lawn(1)[..., 0].copy()
    mask = np.zeros((200, 260), np.uint8)
    for image, colours in ((rgb, (RED, BLUE)), (thermal, (240, 10))):
        for colour, cx in zip(colours, (x, x + 60), strict=True):
            cv2.circle(image, (cx, y), 20, colour, -1)
    cv2.circle(mask, (x, y), 20, 255, -1)
    return View(rgb, thermal, Box(x - 20, y - 20, 41, 41), mask if masked else None, "lawn")


def counts(view: View) -> tuple[int, int, int, int]:
    """Pixels that are red, blue, hot, cold."""
    assert view.rgb is not None
    assert view.thermal is not None
    red, blue = (np.abs(view.rgb.astype(int) - colour).max(-1) < 60 for colour in (RED, BLUE))
    return int(red.sum()), int(blue.sum()), int((view.thermal > 180).sum()), int((view.thermal < 40).sum())


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("x", "y"), [(100, 100), (22, 40), (150, 178), (4, 100)])
def test_the_target_is_gone_and_its_neighbour_is_not(x: int, y: int, masked: bool) -> None:
    view = scene(x, y, masked=masked)
    before = counts(view)
    for seed in range(5):
        emptied = without_target(view, np.random.default_rng(seed))
        assert emptied is not None
        red, blue, hot, cold = counts(emptied)
        assert red <= 0.02 * before[0]
        assert hot <= 0.02 * before[2]
        assert blue >= before[1]
        assert cold >= before[3]
        assert (emptied.box, emptied.mask, emptied.scene) == (view.box, None, "lawn")
    assert counts(view) == before


def test_both_modalities_show_the_same_place() -> None:
    """With thermal equal to the green channel, it is after, too."""
    view = scene(100, 100, masked=True)
    assert view.rgb is not None
    emptied = without_target(View(view.rgb, view.rgb[..., 1].copy(), view.box, view.mask), np.random.default_rng(0))
    assert emptied is not None
    assert emptied.rgb is not None
    np.testing.assert_array_equal(emptied.rgb[..., 1], emptied.thermal)


def test_far_from_the_target_nothing_changes() -> None:
    view = scene(100, 100, masked=True)
    emptied = without_target(view, np.random.default_rng(0))
    assert emptied is not None
    assert emptied.rgb is not None
    far = np.ones((200, 260), bool)
    far[68:134, 68:134] = False
    np.testing.assert_array_equal(emptied.rgb[far], view.rgb[far])  # type: ignore[index]


def test_a_target_without_surroundings_stays() -> None:
    view = View(lawn(0), None, Box(20, 20, 220, 160))
    assert without_target(view, np.random.default_rng(0)) is None


def test_lawn_on_a_lawn_cannot_be_absent() -> None:
    smooth = np.full((200, 260, 3), 90, np.uint8) + np.random.default_rng(0).integers(0, 8, (200, 260, 3), np.uint8)
    assert without_target(View(smooth, None, Box(100, 80, 40, 40)), np.random.default_rng(0)) is None


def test_one_modality_alone() -> None:
    view = scene(100, 100, masked=True)
    for rgb, thermal in ((view.rgb, None), (None, view.thermal)):
        emptied = without_target(View(rgb, thermal, view.box), np.random.default_rng(0))
        assert emptied is not None
        assert (emptied.rgb is None, emptied.thermal is None) == (rgb is None, thermal is None)
