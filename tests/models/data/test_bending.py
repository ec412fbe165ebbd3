"""Bends: masks go with pixels, amounts are as stated, and what is far from the object stays about where it is."""

from __future__ import annotations

import cv2
import numpy as np

from duotrack.boxes import Box, mask_box
from duotrack.data.bending import STRENGTH, Bend, bent_cutout, bent_view
from duotrack.data.figures import Cutout
from duotrack.data.images import View

BOX = Box(100, 60, 80, 50)


def test_a_bend_moves_by_its_strength_around_the_middle() -> None:
    """Of many bends, the object's middle stays on average and moves by about the stated deviation."""
    rng = np.random.default_rng(0)
    row, column = 85, 140
    moves = []
    for _ in range(400):
        bend = Bend.draw(320, 240, BOX, rng)
        assert bend.x.shape == bend.y.shape == (240, 320)
        moves.append((bend.x[row, column] - column, bend.y[row, column] - row))
    spread = np.std(moves, axis=0) / np.sqrt(BOX.area)
    assert np.abs(np.mean(moves, axis=0)).max() < 0.3
    # Cubic interpolation between knots moves a point by 0.6 to 1 of what the knots move.
    assert (spread > 0.5 * STRENGTH).all()
    assert (spread < 1.3 * STRENGTH).all()


def test_without_strength_only_stretch_and_lean_remain() -> None:
    class Still(np.random.Generator):
        def normal(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            size = kwargs.get("size") if not args else (args[2] if len(args) > 2 else None)
            return 0.0 if size is None else np.zeros(size)  # type: ignore[call-overload]

    bend = Bend.draw(32, 24, Box(4, 4, 9, 9), Still(np.random.PCG64(0)))
    columns, rows = np.meshgrid(np.arange(32), np.arange(24))
    np.testing.assert_allclose(bend.x, columns, atol=1e-5)
    np.testing.assert_allclose(bend.y, rows, atol=1e-5)


def test_mask_colour_and_thermal_bend_alike() -> None:
    mask = np.zeros((240, 320), np.uint8)
    cv2.ellipse(mask, (140, 85), (40, 25), 0, 0, 360, 255, -1)
    view = View(np.dstack([mask] * 3), mask.copy(), BOX, mask, "a")
    bent = bent_view(view, np.random.default_rng(3))
    assert bent is not None
    assert bent.rgb is not None
    assert bent.mask is not None
    assert bent.thermal is not None
    assert np.array_equal(bent.rgb[..., 1], bent.mask)
    assert np.array_equal(bent.thermal, bent.mask)
    assert bent.box == mask_box(bent.mask)
    assert not np.array_equal(bent.mask, mask)


def test_a_cutout_is_not_cut_by_the_room_that_it_has() -> None:
    """Bent, it keeps its area, and nothing of it lies at the edge of the room around it."""
    mask = np.full((50, 80), 255, np.uint8)
    rgb = np.full((50, 80, 3), 90, np.uint8)
    areas = []
    for seed in range(30):
        bent = bent_cutout(Cutout(rgb, mask), np.random.default_rng(seed))
        assert bent.rgb.shape[:2] == bent.mask.shape
        inside = bent.mask[1:-1, 1:-1].sum(dtype=np.int64)
        assert inside > 0.985 * bent.mask.sum(dtype=np.int64)
        areas.append(inside / mask.sum(dtype=np.int64))
    assert abs(np.mean(areas) - 1) < 0.05
