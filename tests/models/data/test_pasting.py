"""Cut-outs and their pasting: where they land, what they hide, how warm they are, and which poses go together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from duotrack.boxes import Box, mask_box
from duotrack.data.figures import Cutout, Figures, cut, gather_figures, recoloured, sequence_figures, tinted
from duotrack.data.images import Sequence, View
from duotrack.data.pasting import Heat, Stance, beside, crowd, lay, lay_heat, place
from duotrack.errors import SourceError


def block(width: int, height: int, colour: tuple[int, int, int] = (200, 40, 40)) -> Cutout:
    return Cutout(np.full((height, width, 3), colour, np.uint8), np.full((height, width), 255, np.uint8))


def sequence(sides: list[int]) -> Sequence:
    """A square whose side is given for every frame; 0 hides it."""
    frames = [np.full((100, 100, 3), 7, np.uint8) for _ in sides]
    masks = [np.zeros((100, 100), np.uint8) for _ in sides]
    for frame, mask, side in zip(frames, masks, sides, strict=True):
        frame[10 : 10 + side, 20 : 20 + side] = 250
        mask[10 : 10 + side, 20 : 20 + side] = 255
    return Sequence("square", frames, [mask_box(mask) for mask in masks], masks)


def test_cutting_keeps_the_bounds_of_the_mask() -> None:
    square = sequence([30])
    assert square.masks is not None
    cutout = cut(square.frames[0], square.masks[0])
    assert cutout is not None
    assert cutout.rgb.shape == (30, 30, 3)
    assert cutout.rgb.min() == 250
    assert cut(square.frames[0], np.zeros((100, 100), np.uint8)) is None


def test_poses_run_forth_and_back() -> None:
    figure = sequence_figures(sequence([30, 31, 32, 33]))[0]
    sides = [figure.pose(index).mask.shape[0] for index in range(-3, 10)]
    assert sides == [33, 32, 31, 30, 31, 32, 33, 32, 31, 30, 31, 32, 33]


@pytest.mark.parametrize(
    ("sides", "lengths"),
    [
        ([30] * 9, [9]),
        ([30] * 5 + [0] + [30] * 4, [5, 4]),  # hidden
        ([30] * 5 + [60] * 6, [5, 6]),  # a leap
        ([30] * 3 + [0] + [30] * 4, [4]),  # too short
        ([0] * 9, []),
    ],
)
def test_a_figure_is_a_run_of_like_poses(sides: list[int], lengths: list[int]) -> None:
    assert [len(figure) for figure in sequence_figures(sequence(sides))] == lengths


def test_slow_growth_ends_a_run_too() -> None:
    sides = [round(20 * 1.05**index) for index in range(30)]
    runs = sequence_figures(sequence(sides))
    assert len(runs) >= 3
    for run in runs:
        assert run.pose(len(run) - 1).root / run.pose(0).root < 1.6


def test_scraps_are_no_objects_and_without_any_there_is_an_error() -> None:
    image, line = np.zeros((80, 80, 3), np.uint8), np.zeros((80, 80), np.uint8)
    line[10:14, 5:75] = 255
    with pytest.raises(SourceError, match="no objects to paste: expected a sequence with masks or a segment"):
        gather_figures([Sequence("bare", [image], [Box(1, 1, 20, 20)])], [(image, line)])
    line[10:40] = 255
    figures = gather_figures([], [(image, line)])
    assert (len(figures.moving), len(figures.still)) == (0, 1)
    assert len(Figures([], figures.still).draw(np.random.default_rng(0))) == 1


@pytest.mark.parametrize("scale", [2.0, 1.0, 0.5, 0.3])
@pytest.mark.parametrize("turn", [0.0, 20.0])
def test_a_patch_lies_where_its_stance_says(scale: float, turn: float) -> None:
    """Its centroid and area against geometry; the turned block's box against OpenCV's rotated rectangle."""
    stance = Stance(101.3, 77.8, scale, turn)
    patch = place(block(60, 40), stance, 240, 160)
    assert patch is not None
    mask = patch.mask(240, 160).astype(float) / 255
    rows, columns = np.mgrid[:160, :240] + 0.5
    assert mask.sum() == pytest.approx(60 * 40 * scale**2, rel=0.04)
    assert (mask * columns).sum() / mask.sum() == pytest.approx(101.3, abs=0.15)
    assert (mask * rows).sum() / mask.sum() == pytest.approx(77.8, abs=0.15)
    corners = cv2.boxPoints(((101.3, 77.8), (60 * scale, 40 * scale), -turn))
    box = mask_box(mask > 0.1)
    assert box is not None
    expected = Box(*corners.min(0).tolist(), *np.ptp(corners, axis=0).tolist())
    assert np.abs(np.subtract(box.xywh, expected.xywh)).max() < 3


def test_patches_are_cut_at_the_border_and_none_beyond_it() -> None:
    patch = place(block(40, 40), Stance(0, 50, 1.0), 100, 100)
    assert patch is not None
    box = mask_box(patch.mask(100, 100) > 127)
    assert box is not None
    assert box.iou(Box(0, 30, 20, 40)) > 0.9
    assert place(block(40, 40), Stance(-60, 50, 1.0), 100, 100) is None


def test_mirroring_swaps_left_and_right() -> None:
    cutout = block(40, 40)
    cutout.rgb[:, 20:] = (0, 0, 255)
    for mirrored, side in ((False, 40), (True, 60)):
        canvas = np.zeros((100, 100, 3), np.uint8)
        patch = place(cutout, Stance(50, 50, 1.0, 0.0, mirrored), 100, 100)
        assert patch is not None
        lay(canvas, patch)
        assert canvas[50, side].tolist() == [200, 40, 40]
        assert canvas[50, 100 - side].tolist() == [0, 0, 255]


def test_what_stands_behind_shows_only_where_it_is_not_covered() -> None:
    canvas, front = np.full((60, 60, 3), 9, np.uint8), np.zeros((60, 60), np.uint8)
    front[:, :30] = 255
    patch = place(block(40, 40), Stance(30, 30, 1.0), 60, 60)
    assert patch is not None
    lay(canvas, patch, behind=front)
    assert (canvas[:, :30] == 9).all()
    assert canvas[30, 40].tolist() == [200, 40, 40]


@pytest.mark.parametrize("around", [5.0, 60.0, 128.0, 250.0])
def test_heat_stands_out_from_what_is_around(around: float) -> None:
    rng = np.random.default_rng(0)
    warmer = 0
    for _ in range(100):
        heat, thermal = Heat.draw(around, rng), np.full((120, 120), around, np.uint8)
        patch = place(block(60, 60, (128, 128, 128)), Stance(60, 60, 1.0), 120, 120)
        assert patch is not None
        lay_heat(thermal, patch, heat)
        inside = float(thermal[40:80, 40:80].mean())
        assert abs(inside - around) > 15
        assert (thermal[:10] == np.uint8(around)).all()
        warmer += inside > around
    assert warmer == 100 if around == 5 else warmer == 0 if around == 250 else 50 < warmer < 95


def test_beside_is_between_the_distances_asked_for() -> None:
    rng, box = np.random.default_rng(0), Box(100, 100, 60, 20)
    for _ in range(200):
        cx, cy = beside(box, 30, 40, (1.0, 1.5), rng)
        x, y = abs(cx - box.center[0]) / 45, abs(cy - box.center[1]) / 30
        assert 1 - 1e-9 <= max(x, y) <= 1.5 + 1e-9
        assert box.iou(Box.from_center(cx, cy, 30, 40)) < 1e-9


def masked_view(thermal: bool) -> tuple[View, NDArray[np.bool_]]:
    rgb, mask = np.full((200, 200, 3), 90, np.uint8), np.zeros((200, 200), np.uint8)
    rgb[80:120, 80:120], mask[80:120, 80:120] = (20, 200, 20), 255
    heat = np.where(mask > 0, 220, 60).astype(np.uint8) if thermal else None
    return View(rgb, heat, Box(80, 80, 40, 40), mask, "green"), mask > 0


@pytest.mark.parametrize("masked", [True, False])
def test_a_crowd_leaves_the_target_as_visible_as_it_was(masked: bool) -> None:
    view, target = masked_view(thermal=True)
    view = view if masked else View(view.rgb, view.thermal, view.box, None, "green")
    assert view.rgb is not None
    assert view.thermal is not None
    for seed in range(20):
        crowded = crowd(view, block(50, 50), np.random.default_rng(seed))
        assert crowded.rgb is not None
        assert crowded.thermal is not None
        np.testing.assert_array_equal(crowded.rgb[target], view.rgb[target])
        np.testing.assert_array_equal(crowded.thermal[target], view.thermal[target])
        assert (crowded.box, crowded.scene) == (view.box, view.scene)
        found = mask_box((np.abs(crowded.rgb.astype(int) - (200, 40, 40)).max(-1) < 30) & ~target)
        assert found is not None
        assert max(np.abs(np.subtract(found.center, view.box.center))) < 2.6 * 40  # near: a search crop shows it
        warm = (crowded.thermal > 150) & ~target
        assert warm.sum() > 300  # about as warm as the target, where the block is
    assert (view.rgb[~target] == 90).all()


def test_a_target_that_fills_the_picture_gets_no_crowd() -> None:
    view = View(np.zeros((100, 100, 3), np.uint8), None, Box(0, 0, 100, 100))
    assert crowd(view, block(50, 50), np.random.default_rng(0)) is view


def test_twins_differ_in_colour_and_lookalikes_do_not() -> None:
    rng = np.random.default_rng(0)
    cutout = Cutout(rng.integers(0, 120, (40, 40, 3), np.uint8), np.full((40, 40), 255, np.uint8))
    like = Cutout(rng.integers(100, 200, (30, 50, 3), np.uint8), np.full((30, 50), 255, np.uint8))
    again = recoloured(cutout, like)
    np.testing.assert_allclose(again.rgb.mean((0, 1)), like.rgb.mean((0, 1)), atol=2)
    np.testing.assert_allclose(again.rgb.std((0, 1)), like.rgb.std((0, 1)), atol=3)
    shifts = [np.abs(tinted(like, rng).rgb.mean((0, 1)) / like.rgb.mean((0, 1)) - 1).max() for _ in range(50)]
    assert np.median(shifts) > 0.15
