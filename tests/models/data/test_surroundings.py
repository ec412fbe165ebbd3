"""A still within another picture: the target stays whole and where its box says, and nothing is left black."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from duotrack.boxes import Box
from duotrack.data.images import View
from duotrack.data.sources import ObjectPairs, OutlinedStill
from duotrack.data.surroundings import REACH, TARGET_SIDES, Surroundings

RED, BLUE = (240, 10, 10), (10, 10, 200)


def still(width: int, height: int, ellipse: tuple[int, int, int, int], *, thermal: bool = False) -> View:
    """Grey, with a red ellipse: centre x, y and half its width and height."""
    x, y, half_width, half_height = ellipse
    rgb, mask = np.full((height, width, 3), 120, np.uint8), np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (x, y), (half_width, half_height), 0, 0, 360, 255, -1)
    rgb[mask > 0] = RED
    box = Box.from_center(x + 0.5, y + 0.5, 2 * half_width + 1, 2 * half_height + 1)
    return View(rgb, np.where(mask > 0, np.uint8(230), np.uint8(90)) if thermal else None, box, mask, "still")


AROUND = View(np.full((200, 300, 3), BLUE, np.uint8), np.full((200, 300), 50, np.uint8), Box(0, 0, 9, 9))


def red(rgb: np.ndarray) -> np.ndarray:
    return np.asarray((rgb[..., 0] > 150) & (rgb[..., 1] < 80))


@pytest.mark.parametrize(
    ("width", "height", "ellipse"),
    [(500, 375, (250, 190, 160, 120)), (90, 70, (30, 30, 20, 14)), (200, 300, (100, 150, 99, 149))],
    ids=["fills its picture", "small", "from edge to edge"],
)
def test_the_target_stays_whole_and_where_its_box_says(width: int, height: int, ellipse: tuple) -> None:
    view, rng = still(width, height, ellipse, thermal=True), np.random.default_rng(0)
    for _ in range(20):
        larger = Surroundings.draw(view, rng).apply(view, AROUND)
        assert larger.rgb is not None
        assert larger.thermal is not None
        assert larger.mask is not None
        assert larger.scene == "still"
        assert larger.size == (larger.thermal.shape[1], larger.thermal.shape[0])
        rows, columns = np.nonzero(red(larger.rgb))
        found = Box(columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert larger.box.iou(found) > 0.93
        inside = larger.mask == 255
        assert np.abs(larger.rgb[inside].astype(int) - RED).max() <= 2  # not blended with what is around
        assert np.abs(larger.thermal[inside].astype(int) - 230).max() <= 2
        assert larger.rgb.max(2).min() > 100  # nothing is black


def test_a_search_region_around_the_target_is_full() -> None:
    view, rng = still(500, 375, (250, 190, 200, 150)), np.random.default_rng(1)
    reaches = []
    for _ in range(50):
        larger = Surroundings.draw(view, rng).apply(view, AROUND)
        (width, height), (cx, cy), side = larger.size, larger.box.center, math.sqrt(larger.box.area)
        reaches += [cx / side, cy / side, (width - cx) / side, (height - cy) / side]
        assert TARGET_SIDES[0] - 1 <= side <= TARGET_SIDES[1] + 1
    assert REACH[0] - 0.05 <= min(reaches) < REACH[0] + 0.5
    assert REACH[1] - 0.5 < max(reaches) <= REACH[1] + 0.05


def test_what_is_small_is_not_enlarged_and_what_is_wide_is_not_cut() -> None:
    view, rng = still(300, 40, (150, 20, 10, 8)), np.random.default_rng(2)
    for _ in range(20):
        larger = Surroundings.draw(view, rng).apply(view, AROUND)
        assert (larger.box.w, larger.box.h) == pytest.approx((view.box.w, view.box.h))
        assert larger.size[0] >= 300


@pytest.mark.parametrize("target", [True, False])
@pytest.mark.parametrize("around", [True, False])
def test_thermal_is_only_where_both_have_it(target: bool, around: bool) -> None:
    view = still(200, 150, (100, 75, 60, 40), thermal=target)
    other = View(AROUND.rgb, AROUND.thermal if around else None, AROUND.box)
    larger = Surroundings.draw(view, np.random.default_rng(3)).apply(view, other)
    assert (larger.thermal is not None) == (target and around)
    assert larger.rgb is not None


def outlined(view: View, colour: tuple[int, int, int]) -> OutlinedStill:
    assert view.rgb is not None
    assert view.mask is not None
    rgb = view.rgb.copy()
    rgb[view.mask == 0] = colour
    return OutlinedStill(rgb, view.thermal, (view.mask > 0).astype(np.uint8))


def test_the_stated_share_of_objects_is_surrounded() -> None:
    first = outlined(still(200, 150, (100, 75, 60, 40)), (120, 120, 120))
    second = outlined(still(220, 150, (100, 75, 50, 40)), (20, 200, 20))
    source, rng = ObjectPairs([first, second], bent=0.0, crowded=0.0, surrounded=0.6), np.random.default_rng(4)
    green_and_grey = []
    for _ in range(200):
        _, view = source.draw(rng)
        assert view.rgb is not None
        grey = (np.ptp(view.rgb, axis=2) < 20).sum() > 50
        green = ((view.rgb[..., 1] > 150) & (view.rgb[..., 0] < 90)).sum() > 50
        green_and_grey.append(grey and green)
    assert 0.5 < np.mean(green_and_grey) < 0.7


def test_an_object_with_thermal_has_thermal_around_it_or_nothing() -> None:
    """Of the two stills, only one has thermal: there is nothing to put around it."""
    with_thermal = outlined(still(200, 150, (100, 75, 60, 40), thermal=True), (120, 120, 120))
    without = outlined(still(220, 150, (100, 75, 50, 40)), (20, 200, 20))
    source, rng = ObjectPairs([with_thermal, without], bent=0.0, crowded=0.0, surrounded=1.0), np.random.default_rng(5)
    for _ in range(60):
        for view in source.draw(rng):
            if view.scene == id(with_thermal.rgb):
                assert view.thermal is not None
                assert view.size[0] <= 200
