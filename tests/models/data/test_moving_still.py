"""Moving stills: labels against the pixels, colour and thermal together, pasted objects, and frames on demand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from duotrack.boxes import Box, mask_box
from duotrack.data.figures import Figure, Figures
from duotrack.data.homography import Motion, transform
from duotrack.data.movers import Mover, Surroundings, draw_mover
from duotrack.data.moving_still import SEEN, MovingStill, move_still
from duotrack.data.pasting import Heat
from duotrack.data.regions import ellipse
from duotrack.errors import SourceError

WIDTH, HEIGHT = 320, 240
RED = (230, 20, 20)


def grass(seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(60, 140, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 40, 140, cv2.NORM_MINMAX), np.uint8)


def blocks(colour: tuple[int, int, int] = RED) -> Figures:
    image = np.full((50, 40, 3), colour, np.uint8)
    return Figures([], [Figure([image], [np.full((50, 40), 255, np.uint8)], "block")])


def red(rgb: NDArray[np.uint8] | None) -> NDArray[np.bool_]:
    assert rgb is not None
    return (rgb[..., 0] > 150) & (rgb[..., 1] < 60)


def with_block(seed: int = 0, **options: object) -> MovingStill:
    still = {"figures": blocks(), "paste_target": True, "frames": 60} | options
    return move_still(grass(1), grass(2)[..., 0].copy(), seed=seed, name="grass", **still)  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_frames_in_any_order() -> None:
    first, second = with_block(3, distractors=2), with_block(3, distractors=2)
    forward = [first[index] for index in range(0, 60, 7)]
    backward = [second[index] for index in reversed(range(0, 60, 7))][::-1]
    for one, other in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(one.pair.rgb, other.pair.rgb)  # type: ignore[arg-type]
        np.testing.assert_array_equal(one.pair.thermal, other.pair.thermal)  # type: ignore[arg-type]
        assert (one.box, one.visibility) == (other.box, other.visibility)
    assert not np.array_equal(with_block(4)[0].pair.rgb, forward[0].pair.rgb)  # type: ignore[arg-type]
    assert len({frame.pair.rgb.tobytes() for frame in forward}) == len(forward)  # type: ignore[union-attr]


def test_it_is_a_sequence() -> None:
    still = with_block()
    assert (len(still), still.name, still.size) == (60, "grass", (218, 163))
    assert repr(still) == "MovingStill('grass', 60 frames 218x163, target a pasted object)"
    assert len(list(still[10:30:5])) == 4
    assert still[-1].box == still[59].box
    with pytest.raises(IndexError, match="frame 60 of grass, which has 60 frames"):
        still[60]
    frame = with_block(size=(640, 360))[0]
    assert (frame.pair.width, frame.pair.height) == (640, 360)


def test_a_pasted_target_is_where_its_box_and_mask_say() -> None:
    compared = 0
    for seed in range(6):
        still = with_block(seed)
        assert still.visibility(0) > 0.9
        for index in range(0, 60, 6):
            frame = still[index]
            if frame.box is None:
                continue
            assert frame.mask is not None
            found = mask_box(red(frame.pair.rgb))
            assert found is not None
            assert np.abs(np.subtract(found.xywh, frame.box.xywh)).max() <= 2
            assert red(frame.pair.rgb)[frame.mask > 250].all()
            compared += 1
    assert compared > 50


def test_a_region_keeps_its_content() -> None:
    """A red ellipse is painted where the region lies in the still; in every frame it is where the box says."""
    compared = 0
    for seed in range(8):
        bare = move_still(grass(1), None, seed=seed, name="bare", frames=60)
        assert not isinstance(bare.target, Mover)
        painted = grass(1)
        cv2.fillPoly(painted, [np.rint((bare.target - 0.5) * 16).astype(np.int32)], RED, shift=4)
        still = MovingStill("red", painted, None, bare.size, bare.homographies, bare.offset, bare.target, (), (), "red")
        for index in range(0, 60, 10):
            frame = still[index]
            assert frame.visibility == pytest.approx(bare.visibility(index))
            if frame.box is None:
                continue
            found = mask_box(red(frame.pair.rgb))
            assert found is not None
            assert np.abs(np.subtract(found.xywh, frame.box.xywh)).max() <= 3  # OpenCV paints the outline's pixels too
            compared += 1
    assert compared > 30


def test_the_box_in_frame_0_is_drawn_in_frame_0() -> None:
    """The region's outline in the first frame is the ellipse of an upright box there, whatever the camera does."""
    still = move_still(grass(1), None, seed=5, name="still", frames=5, motion=Motion(turn=20, perspective=0.1))
    assert not isinstance(still.target, Mover)
    box = still[0].box
    assert box is not None
    outline = transform(np.linalg.inv(still.homographies[0]), still.target)
    np.testing.assert_allclose(outline, ellipse(box), atol=1e-3)


def test_a_target_that_leaves_has_no_box() -> None:
    """Visibility against the share of a region's area inside the frame, from clipped polygons."""
    still = with_block(0, frames=200)
    assert isinstance(still.target, Mover)
    away = np.linspace(100, 400, 200, dtype=np.float32)
    mover = Mover(
        still.target.figure,
        away,
        np.full(200, 80, np.float32),
        np.ones(200, np.float32),
        np.zeros(200, np.float32),
        0,
        False,
        1.0,
        still.target.heat,
    )
    leaving = MovingStill(
        "leaving", still.rgb, None, still.size, still.homographies, still.offset, mover, (), (), "leaving"
    )
    for index in range(0, 200, 5):
        share = float(np.clip((still.size[0] - (away[index] - 20)) / 40, 0, 1))
        frame = leaving[index]
        assert frame.visibility == pytest.approx(share, abs=0.04)
        if abs(share - SEEN) > 0.05:
            assert (frame.box is not None) == (share > SEEN)
            assert (leaving.view(index) is not None) == (share > SEEN)


def test_what_covers_the_target_counts_against_it() -> None:
    """A blue block of the same size passes before the red one; before the region of a still, any mover does."""
    still = with_block(0)
    red_block = still.target
    assert isinstance(red_block, Mover)
    blue = blocks((20, 20, 230)).still[0]
    over = Mover(
        blue, red_block.x, red_block.y, red_block.scale, red_block.turn, 0, False, 1.0, red_block.heat
    )  # exactly over the target
    parts = (still.name, still.rgb, still.thermal, still.size, still.homographies, still.offset)
    covered = MovingStill(*parts, red_block, (), (over,), "x")[0]
    assert covered.box is None
    assert covered.visibility < 0.05
    assert not red(covered.pair.rgb).any()
    free = MovingStill(*parts, red_block, (over,), (), "x")[0]
    assert free.visibility > 0.9
    assert free.box is not None
    found = mask_box(red(free.pair.rgb))
    assert found is not None
    assert found.iou(free.box) > 0.8
    region = ellipse(Box(float(red_block.x[0]) - 4, float(red_block.y[0]) - 4, 8, 8))
    hidden = MovingStill(*parts, transform(still.homographies[0], region), (over,), (), "x")[0]
    assert hidden.box is None


def test_motion_from_frame_to_frame_is_smooth() -> None:
    for seed in range(3):
        still = with_block(seed, frames=100)
        centers = np.array([frame.box.center for frame in still if frame.box is not None and frame.visibility > 0.95])
        steps = np.abs(np.diff(centers, axis=0)).max(1)
        assert np.percentile(steps, 90) < 14
        assert np.percentile(np.abs(np.diff(centers, 2, axis=0)).max(1), 90) < 3


def test_colour_and_thermal_move_together() -> None:
    """With thermal equal to the green channel, a frame's thermal is its green; misaligned, it is that, shifted."""
    rgb = grass(1)
    aligned = move_still(rgb, rgb[..., 1].copy(), seed=0, name="still", frames=30)
    for index in (0, 10, 29):
        pair = aligned[index].pair
        np.testing.assert_array_equal(pair.rgb[..., 1], pair.thermal)  # type: ignore[index,arg-type]
    moved = move_still(rgb, rgb[..., 1].copy(), seed=0, name="still", frames=30, motion=Motion(misalignment=4))
    assert 0.5 < np.abs(moved.offset).max() <= 4
    for index in (0, 29):
        pair = moved[index].pair
        assert pair.rgb is not None
        assert pair.thermal is not None
        # The thermal frame shows at p what the colour frame shows at p + offset.
        back = np.column_stack((np.eye(2), -moved.offset))
        expected = cv2.warpAffine(pair.rgb[..., 1], back, moved.size)[6:-6, 6:-6].astype(float)
        thermal = pair.thermal[6:-6, 6:-6]
        assert np.abs(expected - thermal).mean() < 1.5
        assert np.abs(pair.rgb[6:-6, 6:-6, 1].astype(float) - thermal).mean() > 4


def test_pasted_objects_are_misaligned_as_the_still_is() -> None:
    dark = np.full((HEIGHT, WIDTH), 20, np.uint8)
    still = move_still(
        grass(1), dark, seed=2, name="s", frames=20, figures=blocks(), paste_target=True, motion=Motion(misalignment=6)
    )
    assert np.abs(still.offset).max() > 1.5
    for index in range(0, 20, 5):
        frame = still[index]
        assert frame.box is not None
        assert frame.pair.thermal is not None
        level = (20 + int(np.median(frame.pair.thermal[frame.pair.thermal > 40]))) / 2
        hot = mask_box(frame.pair.thermal > level)
        assert hot is not None
        np.testing.assert_allclose(np.subtract(hot.center, frame.box.center), -still.offset, atol=1.2)


def test_a_plate_lacks_the_target_and_nothing_else() -> None:
    still = with_block(2, distractors=0)
    frame, plate, view = still[8], still.plate(8), still.view(8)
    assert plate is not None
    assert view is not None
    assert frame.mask is not None
    assert not red(plate.rgb).any()
    assert red(view.rgb).any()
    assert (plate.box, plate.scene, plate.mask) == (frame.box, "grass", None)
    around = cv2.dilate(frame.mask, np.ones((25, 25), np.uint8)) == 0
    np.testing.assert_array_equal(plate.rgb[around], view.rgb[around])  # type: ignore[index]
    np.testing.assert_array_equal(plate.thermal[around], view.thermal[around])  # type: ignore[index]
    assert move_still(grass(1), None, seed=0, name="region", frames=3).plate(0) is None


def test_a_companion_is_near_and_about_as_large_and_as_warm() -> None:
    size, surroundings = (400, 300), Surroundings(100, 100)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        lead = draw_mover(blocks().still[0], surroundings, 100, size, rng)
        other = draw_mover(blocks().still[0], surroundings, 100, size, rng, near=lead)
        side = 45 * float(lead.scale[0])
        assert np.hypot(other.x - lead.x, other.y - lead.y).max() < 5 * side
        np.testing.assert_allclose(np.log(other.scale / lead.scale), 0, atol=0.6)
        assert abs(other.heat.level - lead.heat.level) < 60


def test_an_object_is_lit_as_its_surroundings() -> None:
    dark, bright = (
        draw_mover(blocks((120, 120, 120)).still[0], Surroundings(level, 100), 5, (200, 200), np.random.default_rng(0))
        for level in (10, 120)
    )
    assert dark.light < 0.5
    assert bright.light == pytest.approx(1.0, abs=0.01)


def test_what_cannot_be_moved_is_named() -> None:
    with pytest.raises(SourceError, match=r"still a: expected colour, thermal, or both .* got neither"):
        move_still(None, None, seed=0, name="a")
    with pytest.raises(SourceError, match=r"got \(240, 320, 3\) and \(120, 160\)"):
        move_still(grass(1), np.zeros((120, 160), np.uint8), seed=0, name="a")
    with pytest.raises(SourceError, match="still a: there is nothing to paste: expected figures"):
        move_still(grass(1), None, seed=0, name="a", distractors=1)


def test_a_thermal_still_alone() -> None:
    still = move_still(None, grass(2)[..., 0].copy(), seed=0, name="t", frames=5, figures=blocks(), paste_target=True)
    frame = still[0]
    assert frame.pair.rgb is None
    assert frame.pair.thermal is not None
    assert frame.box is not None


def test_heat_is_that_of_the_mover() -> None:
    still = with_block(0)
    assert isinstance(still.target, Mover)
    frame = still[0]
    assert frame.mask is not None
    assert frame.pair.thermal is not None
    heat = still.target.heat
    assert isinstance(heat, Heat)
    inner = cv2.erode(frame.mask, np.ones((7, 7), np.uint8)) > 250
    grey = 0.299 * 230 + 0.587 * 20 + 0.114 * 20
    expected = np.clip(heat.level + heat.detail * (still.target.light * grey - 128), 1, 255)
    assert frame.pair.thermal[inner].mean() == pytest.approx(expected, abs=3 + abs(heat.slope) / 4)
