"""Training crops: the box that is given against where the target's pixels really are, and what renders change."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from duotrack.boxes import Box, CropWindow
from duotrack.crops import resample_reference
from duotrack.data import augment
from duotrack.data.augment import SEARCH_JITTER, TEMPLATE_JITTER, Crop, CropJitter, ThermalStyle
from duotrack.data.images import View

STILL = CropJitter(center=0, scale=0, aspect=0, rotation=0)


def found_box(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Centre and size, in units of the crop's side, of the pixels that are set."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    return np.array([x + w / 2, y + h / 2, w, h]) / mask.shape[0]


def rectangle_view(box: Box) -> View:
    rgb, thermal = np.zeros((300, 400, 3), np.uint8), np.zeros((300, 400), np.uint8)
    x, y, w, h = (int(value) for value in box.xywh)
    rgb[y : y + h, x : x + w] = 200
    thermal[y : y + h, x : x + w] = 200
    mask = (thermal > 0).astype(np.uint8) * 255
    return View(rgb, thermal, box, mask)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("jitter", [STILL, CropJitter(center=0.8, scale=0.2, aspect=0.1, rotation=0)])
def test_the_box_is_where_the_pixels_are(flip: bool, jitter: CropJitter) -> None:
    """Half of a crop pixel at either edge, in colour, thermal and mask; with shift, scale, stretch and flip."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        box = Box(
            int(rng.integers(120, 200)), int(rng.integers(90, 150)), *(int(side) for side in rng.integers(24, 70, 2))
        )
        crop = augment.crop_view(rectangle_view(box), 4.0, 256, jitter, flip, rng)
        assert crop.rgb is not None
        assert crop.thermal is not None
        assert crop.mask is not None
        for pixels in (crop.rgb[..., 1] > 100, crop.thermal > 100, crop.mask > 127):
            assert np.abs(found_box(pixels) - crop.box).max() * 256 <= 1.01


def test_a_flip_mirrors_left_and_right() -> None:
    view = rectangle_view(Box(150, 100, 40, 40))
    assert view.rgb is not None
    view.rgb[100:140, 170:190, 1:] = 0  # the right half is red only
    for flip, right in ((False, slice(140, 156)), (True, slice(100, 116))):
        crop = augment.crop_view(view, 4.0, 256, STILL, flip, np.random.default_rng(0))
        assert crop.rgb is not None
        assert (crop.rgb[110:140, right] == (200, 0, 0)).all()


@pytest.mark.parametrize("flip", [False, True])
def test_a_turned_box_is_that_of_the_ellipse_in_it(flip: bool) -> None:
    rng = np.random.default_rng(1)
    jitter = CropJitter(center=0.5, scale=0.1, aspect=0.15, rotation=25)
    for _ in range(30):
        w, h = (int(side) * 2 for side in rng.integers(15, 40, 2))
        rows, columns = np.mgrid[:300, :400] + 0.5
        ellipse = ((columns - 200) / (w / 2)) ** 2 + ((rows - 150) / (h / 2)) ** 2 <= 1
        view = View(None, ellipse.astype(np.uint8) * 200, Box.from_center(200, 150, w, h))
        crop = augment.crop_view(view, 4.0, 256, jitter, flip, rng)
        assert crop.thermal is not None
        assert np.abs(found_box(crop.thermal > 100) - crop.box).max() * 256 < 3


def test_a_crop_without_jitter_is_the_trackers() -> None:
    """What training sees of a perfectly placed box is what ``CropWindow`` gives the network in service."""
    rng = np.random.default_rng(2)
    image = cv2.GaussianBlur(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8), (0, 0), 3)
    box = Box(180, 130, 32, 32)
    for factor, size in ((2.0, 128), (4.0, 256)):
        crop = augment.crop_view(View(image, None, box), factor, size, STILL, False, rng)
        window = CropWindow.around(box, factor, size)
        assert crop.rgb is not None
        inner = np.s_[2:-2, 2:-2]
        reference = resample_reference(image, window)
        assert np.abs(crop.rgb[inner].astype(int) - reference[inner].astype(int)).max() <= 2
        assert crop.box.tolist() == pytest.approx(window.to_crop(box))


def test_jitter_is_as_large_as_it_says() -> None:
    """Shift: at most ``center`` roots, in four of ten crops at most 0.35 of that. Scale: its logarithm's deviation."""
    rng, view = np.random.default_rng(3), rectangle_view(Box(180, 130, 40, 40))
    jitter = CropJitter(center=1.35, scale=0.22, aspect=0, rotation=0)
    boxes = np.array([augment.crop_view(view, 4.0, 16, jitter, False, rng).box for _ in range(1500)])
    side = 40 / boxes[:, 2]  # of the crop, in frame pixels
    shift = np.abs(boxes[:, :2] - 0.5) * side[:, None] / 40
    assert shift.max() <= 1.35
    assert shift.max() > 1.3
    assert np.mean(shift.max(1) > 0.35 * 1.35) == pytest.approx(0.6 * (1 - 0.35**2), abs=0.05)
    assert np.log(side / 160).std() == pytest.approx(0.22, rel=0.1)
    assert np.log(side / 160).mean() == pytest.approx(0, abs=0.03)


def test_the_same_seed_gives_the_same_crop() -> None:
    view = rectangle_view(Box(150, 100, 40, 60))
    first, second = (augment.crop_view(view, 4.0, 64, SEARCH_JITTER, True, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(first.rgb, second.rgb)
    assert np.array_equal(first.box, second.box)


def test_an_absent_modality_stays_absent() -> None:
    view = rectangle_view(Box(150, 100, 40, 60))
    crop = augment.crop_view(
        View(None, view.thermal, view.box), 2.0, 64, TEMPLATE_JITTER, False, np.random.default_rng(0)
    )
    assert crop.rgb is None
    assert crop.mask is None
    assert crop.thermal is not None


PLAIN = ThermalStyle(
    mix=np.array([0.2, 0.5, 0.3], np.float32), inverted=False, gamma=1.7, blur=0.0, flatten=0.6, heat=0.0
)


def ramp_crop() -> Crop:
    """All greys from 1 to 255, each four pixels wide."""
    grey = np.repeat(np.arange(1, 256, dtype=np.uint8), 4)[None].repeat(8, 0)
    return Crop(np.repeat(grey[..., None], 3, 2), None, np.array([0.5, 0.5, 0.2, 0.2], np.float32))


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.7])
def test_rendered_thermal_rises_or_falls_with_brightness(inverted: bool, gamma: float) -> None:
    thermal = augment.render_thermal(ramp_crop(), replace(PLAIN, inverted=inverted, gamma=gamma))
    steps = np.diff(thermal[0].astype(int))
    assert ((-steps if inverted else steps) >= 0).all()
    grey = np.arange(1, 256)[[0, 100, 254]] / 255
    expected = 255 * (0.5 + 0.6 * ((1 - grey if inverted else grey) ** gamma - 0.5))
    assert thermal[0, ::4][[0, 100, 254]].tolist() == pytest.approx(expected.tolist(), abs=1.5)


def test_rendered_thermal_mixes_the_channels() -> None:
    rgb = np.zeros((8, 8, 3), np.uint8)
    rgb[...] = (100, 200, 50)
    crop = Crop(rgb, None, np.array([0.5, 0.5, 0.2, 0.2], np.float32))
    thermal = augment.render_thermal(crop, replace(PLAIN, gamma=1.0, flatten=1.0))
    assert (np.abs(thermal.astype(int) - (0.2 * 100 + 0.5 * 200 + 0.3 * 50)) <= 1).all()


def test_a_warm_target_is_warmer_where_its_mask_is() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    crop = Crop(np.full((64, 64, 3), 100, np.uint8), None, np.array([0.5, 0.5, 0.3, 0.3], np.float32), mask)
    thermal = augment.render_thermal(crop, replace(PLAIN, heat=0.3)).astype(int)
    assert thermal[25:35, 25:35].mean() - thermal[50:, 50:].mean() == pytest.approx(0.3 * 255, abs=2)


def test_beyond_the_frame_everything_stays_zero() -> None:
    rng = np.random.default_rng(5)
    image = rng.integers(30, 256, (100, 100, 3), dtype=np.uint8)
    crop = augment.crop_view(View(image, image[..., 0].copy(), Box(0, 0, 40, 40)), 4.0, 128, STILL, False, rng)
    assert crop.rgb is not None
    assert crop.thermal is not None
    beyond = np.zeros((128, 128), bool)
    beyond[:47] = beyond[:, :47] = True  # 60 frame pixels on the left and above, less one for the soft border
    for _ in range(20):
        assert not augment.disturb_colour(crop.rgb, rng)[beyond].any()
        assert not augment.disturb_thermal(crop.thermal, rng)[beyond].any()
        assert not augment.render_thermal(crop, ThermalStyle.draw(rng))[beyond].any()
    inside = augment.disturb_colour(crop.rgb, rng)[60:, 60:]
    assert (inside > 0).any(-1).mean() > 0.8


def test_disturbances_differ_and_keep_shape_and_type() -> None:
    rng = np.random.default_rng(6)
    image = cv2.GaussianBlur(rng.integers(1, 256, (64, 64, 3), dtype=np.uint8), (0, 0), 2)
    kinds = ((augment.disturb_colour, image), (augment.disturb_thermal, np.ascontiguousarray(image[..., 0])))
    for disturb, source in kinds:
        before = source.copy()
        variants = [disturb(source, rng) for _ in range(10)]
        assert np.array_equal(source, before)
        assert len({variant.tobytes() for variant in variants}) == 10
        for variant in variants:
            assert variant.shape == source.shape
            assert variant.dtype == np.uint8
            # Structure survives: what is brighter than its surroundings stays so.
            assert np.corrcoef(variant.ravel(), source.ravel())[0, 1] > 0.5


def test_an_occluder_covers_part_of_the_target_in_both_modalities() -> None:
    texture = np.full((128, 128, 3), 255, np.uint8)
    rng, shares = np.random.default_rng(7), []
    for _ in range(200):
        box = np.array([0.5, 0.5, 0.5, 0.4], np.float32)
        crop = Crop(np.zeros((128, 128, 3), np.uint8), np.zeros((128, 128), np.uint8), box)
        augment.occlude(crop, texture, rng)
        assert crop.rgb is not None
        assert crop.thermal is not None
        covered = crop.thermal == 255
        assert np.array_equal(covered, crop.rgb[..., 0] == 255)
        shares.append(covered[39:89, 32:96].mean())
    assert max(shares) <= 0.65  # 0.8 of the width times 0.8 of the height
    assert 0.1 < np.mean(shares) < 0.35


def test_an_occluder_at_the_border_of_the_crop_is_cut_off() -> None:
    texture, rng = np.full((64, 64, 3), 255, np.uint8), np.random.default_rng(8)
    for center in (-0.3, 0.0, 1.0, 1.4):
        crop = Crop(np.zeros((64, 64, 3), np.uint8), None, np.array([center, center, 0.2, 0.2], np.float32))
        augment.occlude(crop, texture, rng)
        assert crop.rgb is not None
        assert crop.rgb.shape == (64, 64, 3)
        if abs(center - 0.5) > 0.8:
            assert not crop.rgb.any()
