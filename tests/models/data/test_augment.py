"""Training crops: the box that is given against where the target's pixels really are, and what renders change."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from duotrack.boxes import Box, CropWindow, mask_box
from duotrack.crops import resample, resample_reference
from duotrack.data import augment
from duotrack.data.augment import augment_view
from duotrack.data.augment_plan import (
    NOISE_VALUES,
    SEARCH_JITTER,
    TEMPLATE_JITTER,
    ColourChange,
    CropJitter,
    CropPlan,
    Drift,
    Occluder,
    Placement,
    SensorChange,
    ThermalChange,
    ThermalStyle,
    motion_kernel,
    noise_table,
)
from duotrack.data.images import Pixels, View

STILL = CropJitter(center=0, scale=0, aspect=0, rotation=0, turned=0)
SAME_COLOUR = ColourChange(1.0, np.eye(3, dtype=np.float32), SensorChange())
SAME_THERMAL = ThermalChange(1.0, 0.0, SensorChange())


def crop_view(view: View, place: Placement) -> tuple[Pixels, Pixels]:
    """Colour and thermal of a crop whose pixels are not changed."""
    plan = CropPlan(
        place,
        SAME_COLOUR if view.rgb is not None else None,
        SAME_THERMAL if view.thermal is not None else None,
    )
    pixels = augment_view(view, plan, [])
    return pixels[..., :3], pixels[..., 3]


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


def smooth_noise(seed: int, size: tuple[int, int] = (300, 400), sigma: float = 3) -> Pixels:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), sigma), None, 5, 250, cv2.NORM_MINMAX), np.uint8)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("jitter", [STILL, CropJitter(center=0.8, scale=0.2, aspect=0.1, rotation=0, turned=0)])
def test_the_box_is_where_the_pixels_are(flip: bool, jitter: CropJitter) -> None:
    """Half of a crop pixel at either edge, in colour, thermal and mask; with shift, scale, stretch and flip."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        box = Box(
            int(rng.integers(120, 200)), int(rng.integers(90, 150)), *(int(side) for side in rng.integers(24, 70, 2))
        )
        view, place = rectangle_view(box), Placement.draw(box, 4.0, 256, jitter, flip, rng)
        rgb, thermal = crop_view(view, place)
        assert view.mask is not None
        mask = augment.warp(view.mask, place.to_crop, 256, place.factor)
        for pixels in (rgb[..., 1] > 100, thermal > 100, mask > 127):
            assert np.abs(found_box(pixels) - place.box).max() * 256 <= 1.01


@pytest.mark.parametrize("side", [24, 90, 140])
def test_the_box_is_where_the_pixels_are_when_the_crop_shrinks(side: int) -> None:
    """Targets of up to nine times the crop's scale: an edge is then off by up to a pixel, from averaging."""
    rng = np.random.default_rng(side)
    for _ in range(20):
        box = Box(int(rng.integers(100, 140)), int(rng.integers(60, 90)), side, side)
        place = Placement.draw(box, 4.0, 64, CropJitter(0.5, 0.2, 0.1, 0, 0), bool(rng.random() < 0.5), rng)
        rgb, thermal = crop_view(rectangle_view(box), place)
        for pixels in (rgb[..., 1] > 100, thermal > 100):
            assert np.abs(found_box(pixels) - place.box).max() * 64 <= 1.51


def test_a_flip_mirrors_left_and_right() -> None:
    view = rectangle_view(Box(150, 100, 40, 40))
    assert view.rgb is not None
    view.rgb[100:140, 170:190, 1:] = 0  # the right half is red only
    for flip, right in ((False, slice(140, 156)), (True, slice(100, 116))):
        place = Placement.draw(view.box, 4.0, 256, STILL, flip, np.random.default_rng(0))
        assert (crop_view(view, place)[0][110:140, right] == (200, 0, 0)).all()


def test_the_stated_share_of_crops_is_turned_by_any_angle() -> None:
    rng, box = np.random.default_rng(3), Box(100, 100, 40, 40)
    angles = []
    for _ in range(1000):
        matrix = Placement.draw(box, 4.0, 256, CropJitter(0, 0, 0, 0, turned=0.3), False, rng).to_crop
        angles.append(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    sizes = np.abs(angles)
    turned = sizes > 1e-9
    assert turned.mean() == pytest.approx(0.3, abs=0.05)
    assert np.median(sizes[turned]) == pytest.approx(45, abs=10)
    assert sizes.max() > 150
    assert np.mean(np.array(angles)[turned] > 0) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turned", [0.0, 1.0])
def test_a_turned_box_is_that_of_the_ellipse_in_it(flip: bool, turned: float) -> None:
    rng = np.random.default_rng(1)
    jitter = CropJitter(center=0.5, scale=0.1, aspect=0.15, rotation=25, turned=turned)
    for _ in range(30):
        w, h = (int(side) * 2 for side in rng.integers(15, 40, 2))
        rows, columns = np.mgrid[:300, :400] + 0.5
        ellipse = ((columns - 200) / (w / 2)) ** 2 + ((rows - 150) / (h / 2)) ** 2 <= 1
        view = View(None, ellipse.astype(np.uint8) * 200, Box.from_center(200, 150, w, h))
        place = Placement.draw(view.box, 4.0, 256, jitter, flip, rng)
        assert np.abs(found_box(crop_view(view, place)[1] > 100) - place.box).max() * 256 < 3


@pytest.mark.parametrize("flip", [False, True])
def test_a_turned_box_goes_around_the_outline_where_that_is_known(flip: bool) -> None:
    """A triangle, whose box is not that of the ellipse, and not around the same centre."""
    rng = np.random.default_rng(2)
    jitter = CropJitter(center=0.5, scale=0.1, aspect=0.15, rotation=25, turned=1.0)
    mask = np.zeros((300, 400), np.uint8)
    cv2.fillPoly(mask, [np.array([(170, 120), (240, 130), (180, 200)])], 255)
    box = mask_box(mask)
    assert box is not None
    view = View(None, mask, box, mask)
    for _ in range(30):
        place = Placement.draw(view.box, 4.0, 256, jitter, flip, rng, outline=view.outline())
        assert np.abs(found_box(crop_view(view, place)[1] > 127) - place.box).max() * 256 < 3


def test_an_outline_is_known_where_the_box_is_that_of_the_mask() -> None:
    view = rectangle_view(Box(150, 100, 40, 30))
    outline = view.outline()
    assert outline is not None
    assert outline.min(0).tolist() == [150, 100]
    assert outline.max(0).tolist() == [190, 130]
    assert replace(view, mask=None).outline() is None
    assert replace(view, mask=np.zeros_like(view.mask)).outline() is None
    assert replace(view, box=Box(150, 100, 40, 60)).outline() is None  # half of it is hidden


def test_a_crop_without_jitter_is_the_trackers() -> None:
    """What training sees of a perfectly placed box is what ``CropWindow`` gives the network in service."""
    image, box = smooth_noise(2), Box(180, 130, 32, 32)
    for factor, size in ((2.0, 128), (4.0, 256)):
        place = Placement.draw(box, factor, size, STILL, False, np.random.default_rng(2))
        window = CropWindow.around(box, factor, size)
        rgb, _ = crop_view(View(image, None, box), place)
        inner = np.s_[2:-2, 2:-2]
        reference = resample_reference(image, window)
        assert np.abs(rgb[inner].astype(int) - reference[inner].astype(int)).max() <= 2
        assert place.box.tolist() == pytest.approx(window.to_crop(box))


@pytest.mark.parametrize("shrink", [2.5, 3.0, 5.0])
def test_a_crop_that_shrinks_is_averaged_as_in_service(shrink: float) -> None:
    """On fine noise, where plain bilinear sampling keeps a multiple of the contrast that averaging leaves.

    Blocks begin at the frame's corner here and at the window's in serving, so pixels are compared where they agree.
    """
    image, size = smooth_noise(4, (400, 400), sigma=0.6), 32
    side = int(size * shrink / 4)
    factor = int(shrink)
    left = (200 - 2 * side) // factor * factor + 2 * side - side // 2
    box = Box(left, left, side, side)
    place = Placement.draw(box, 4.0, size, STILL, False, np.random.default_rng(0))
    window = CropWindow.around(box, 4.0, size)
    rgb, _ = crop_view(View(image, None, box), place)
    inner = np.s_[2:-2, 2:-2]
    served = resample(image, window)[inner].astype(float)
    plain = cv2.warpAffine(image, place.to_crop, (size, size), flags=cv2.INTER_LINEAR)[inner].astype(float)
    assert np.abs(rgb[inner] - served).mean() < 0.35 * np.abs(plain - served).mean()
    assert rgb[inner].std() == pytest.approx(served.std(), rel=0.1)


def test_jitter_is_as_large_as_it_says() -> None:
    """Shift: at most ``center`` roots, in four of ten crops at most 0.35 of that. Scale: its logarithm's deviation."""
    rng, box = np.random.default_rng(3), Box(180, 130, 40, 40)
    jitter = CropJitter(center=1.35, scale=0.22, aspect=0, rotation=0, turned=0)
    boxes = np.array([Placement.draw(box, 4.0, 16, jitter, False, rng).box for _ in range(1500)])
    side = 40 / boxes[:, 2]  # of the crop, in frame pixels
    shift = np.abs(boxes[:, :2] - 0.5) * side[:, None] / 40
    assert shift.max() <= 1.35
    assert shift.max() > 1.3
    assert np.mean(shift.max(1) > 0.35 * 1.35) == pytest.approx(0.6 * (1 - 0.35**2), abs=0.05)
    assert np.log(side / 160).std() == pytest.approx(0.22, rel=0.1)
    assert np.log(side / 160).mean() == pytest.approx(0, abs=0.03)


def test_the_same_seed_gives_the_same_crop() -> None:
    view = rectangle_view(Box(150, 100, 40, 60))
    first, second = (Placement.draw(view.box, 4.0, 64, SEARCH_JITTER, True, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(crop_view(view, first)[0], crop_view(view, second)[0])
    assert np.array_equal(first.box, second.box)


def test_a_modality_that_is_not_kept_is_zero() -> None:
    view = rectangle_view(Box(150, 100, 40, 60))
    place = Placement.draw(view.box, 2.0, 64, TEMPLATE_JITTER, False, np.random.default_rng(0))
    colour = augment_view(view, CropPlan(place, SAME_COLOUR, None), [])
    thermal = augment_view(view, CropPlan(place, None, SAME_THERMAL), [])
    assert colour[..., :3].any()
    assert not colour[..., 3].any()
    assert not thermal[..., :3].any()
    assert thermal[..., 3].any()


@pytest.mark.parametrize("flip", [False, True])
def test_a_drift_moves_thermal_against_colour_alike_in_both_crops(flip: bool) -> None:
    """By its shift in units of the target's size: 3 and −2 pixels in a crop that shows the target 64 pixels wide."""
    view, drift = rectangle_view(Box(150, 100, 40, 40)), Drift(3 / 64, -2 / 64, 1.0, 0.0)
    for factor, size in ((2.0, 128), (4.0, 256)):
        place = Placement.draw(view.box, factor, size, STILL, flip, np.random.default_rng(0), drift)
        rgb, thermal = crop_view(view, place)
        moved = (found_box(thermal > 100) - found_box(rgb[..., 0] > 100)) * size
        assert moved.tolist() == pytest.approx([-3 if flip else 3, -2, 0, 0], abs=0.51)
        assert np.abs(found_box(rgb[..., 0] > 100) - place.box).max() * size <= 1.01


def test_drifts_are_small() -> None:
    """Anywhere in a search crop of the usual scale, thermal is off by some pixels: 1 to 3 of 256 mostly, never 16."""
    rng, box = np.random.default_rng(0), Box(100, 100, 64, 64)
    points = np.array([[0, 255, 0, 255, 128], [0, 0, 255, 255, 128], [1, 1, 1, 1, 1]])
    plain = Placement.draw(box, 4.0, 256, STILL, False, rng)
    frame_points = cv2.invertAffineTransform(plain.to_crop) @ points
    off = []
    for _ in range(300):
        moved = Drift.draw(rng).moved(plain.to_crop, box)
        off.append(np.hypot(*(moved @ np.vstack((frame_points, np.ones(5))) - points[:2])))
    assert np.median(off) < 4
    assert np.max(off) < 16
    assert 1 < np.median(np.array(off)[:, 4]) < 3


PLAIN = ThermalStyle(
    mix=np.array([0.2, 0.5, 0.3], np.float32), inverted=False, gamma=1.7, blur=0.0, flatten=0.6, heat=0.0
)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.7])
def test_rendered_thermal_rises_or_falls_with_brightness(inverted: bool, gamma: float) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 4)[None].repeat(8, 0)  # all greys, each four pixels wide
    thermal = augment.render_thermal(
        np.repeat(ramp[..., None], 3, 2), None, replace(PLAIN, inverted=inverted, gamma=gamma), None
    )
    steps = np.diff(thermal[0].astype(int))
    assert ((-steps if inverted else steps) >= 0).all()
    grey = np.arange(256)[[0, 100, 255]] / 255
    expected = 255 * (0.5 + 0.6 * ((1 - grey if inverted else grey) ** gamma - 0.5))
    assert thermal[0, ::4][[0, 100, 255]].tolist() == pytest.approx(expected.tolist(), abs=1.5)


def test_rendered_thermal_mixes_the_channels() -> None:
    rgb = np.zeros((8, 8, 3), np.uint8)
    rgb[...] = (100, 200, 50)
    thermal = augment.render_thermal(rgb, None, replace(PLAIN, gamma=1.0, flatten=1.0), None)
    assert (np.abs(thermal.astype(int) - (0.2 * 100 + 0.5 * 200 + 0.3 * 50)) <= 1).all()


@pytest.mark.parametrize("heat", [0.3, -0.2])
def test_a_warm_target_is_warmer_where_its_mask_is(heat: float) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    rgb = np.full((64, 64, 3), 100, np.uint8)
    thermal = augment.render_thermal(rgb, mask, replace(PLAIN, heat=heat), None).astype(int)
    assert thermal[25:35, 25:35].mean() - thermal[50:, 50:].mean() == pytest.approx(heat * 255, abs=2)


def test_what_hides_the_target_is_not_warm() -> None:
    view = rectangle_view(Box(180, 130, 40, 40))
    place = Placement.draw(view.box, 4.0, 256, STILL, False, np.random.default_rng(0))
    occluder = Occluder(96, 96, 32, 64, None, np.full(4, 200, np.uint8))  # the left half, as bright as the target
    style = replace(PLAIN, heat=0.3)
    plan = CropPlan(place, None, SAME_THERMAL, style, occluder)
    thermal = augment_view(View(view.rgb, None, view.box, view.mask), plan, [])[..., 3].astype(int)
    assert thermal[110:150, 140:156].mean() - thermal[110:150, 100:120].mean() == pytest.approx(0.3 * 255, abs=3)


@pytest.mark.parametrize("flip", [False, True])
def test_a_mask_lies_where_its_box_does(flip: bool) -> None:
    """Of a rectangle: what each 4 × 4 pixels have of it, by the areas' overlap, to what bilinear sampling blurs."""
    view = rectangle_view(Box(180, 130, 40, 56))
    place = Placement.draw(view.box, 4.0, 256, CropJitter(0.3, 0.1, 0.1, 0, 0), flip, np.random.default_rng(3))
    mask = augment.search_mask(view, CropPlan(place, SAME_COLOUR, SAME_THERMAL))
    cx, cy, w, h = (place.box * 64).tolist()
    cells = np.arange(64)

    def covered(low: float, high: float) -> NDArray[np.float64]:
        return np.clip(np.minimum(high, cells + 1) - np.maximum(low, cells), 0, 1)

    expected = 255 * np.outer(covered(cy - h / 2, cy + h / 2), covered(cx - w / 2, cx + w / 2))
    assert mask.shape == (64, 64)
    assert mask.dtype == np.uint8
    assert np.abs(mask - expected).max() < 60  # at the edges: half a frame's pixel is 0.8 of the crop's
    assert np.abs(mask - expected).mean() < 1.0
    assert (mask[expected == 255] == 255).mean() > 0.8


def test_what_hides_the_target_is_not_in_its_mask() -> None:
    view = rectangle_view(Box(180, 130, 40, 40))
    place = Placement.draw(view.box, 4.0, 256, STILL, False, np.random.default_rng(0))
    occluder = Occluder(96, 96, 32, 64, None, np.full(4, 200, np.uint8))  # the left half
    plan = CropPlan(place, SAME_COLOUR, SAME_THERMAL, None, occluder)
    mask = augment.search_mask(view, plan)
    assert not mask[24:40, 24:32].any()
    assert (mask[26:38, 34:38] == 255).all()
    assert not augment.search_mask(None, plan).any()
    assert not augment.search_mask(replace(view, mask=None), plan).any()


def test_a_crop_of_no_whole_cells_has_a_mask_of_those_that_are() -> None:
    """As with patches of 14 pixels, on which no mask can be learnt: the samples must not fail for it."""
    view = rectangle_view(Box(180, 130, 40, 40))
    crops = [Placement.draw(view.box, 4.0, size, STILL, False, np.random.default_rng(0)) for size in (98, 96)]
    odd, even = (augment.search_mask(view, CropPlan(place, SAME_COLOUR, SAME_THERMAL)) for place in crops)
    assert odd.shape == even.shape == (24, 24)
    assert abs(float(odd.mean()) - float(even.mean())) < 4


def corner_view() -> tuple[View, Placement, NDArray[np.bool_]]:
    """A target in the frame's corner, a crop around it, and where the crop surely shows what is beyond the frame."""
    image = np.random.default_rng(5).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    view = View(image, image[..., 0].copy(), Box(0, 0, 40, 40))
    beyond = np.zeros((128, 128), bool)
    beyond[:48] = beyond[:, :48] = True  # 60 frame pixels on the left and above
    return view, Placement.draw(view.box, 4.0, 128, STILL, False, np.random.default_rng(0)), beyond


def test_beyond_the_frame_everything_stays_zero() -> None:
    """Whatever happens, and in an occluder too: exactly the pixels whose centres lie beyond the frame."""
    view, place, beyond = corner_view()
    rng, blank = np.random.default_rng(5), View(np.zeros((100, 100, 3), np.uint8), None, view.box)
    inside = augment.inside_frame(place.to_crop, view.size, place.size, place.factor)
    assert np.array_equal(inside, ~beyond)
    occluder = Occluder(30, 30, 40, 40, None, np.full(4, 255, np.uint8))
    for _ in range(20):
        style = ThermalStyle.draw(rng)
        for shown, rendered in ((view, None), (replace(view, thermal=None), style), (blank, style)):
            plan = CropPlan(place, ColourChange.draw(rng), ThermalChange.draw(rng), rendered, occluder)
            assert not augment_view(shown, plan, [])[beyond].any()


def test_black_pixels_of_the_frame_change_like_any_other() -> None:
    """Zero inside the frame is a grey level: an offset lifts it, as it lifts what is beside it."""
    view = View(np.zeros((100, 100, 3), np.uint8), np.zeros((100, 100), np.uint8), Box(0, 0, 40, 40))
    _, place, beyond = corner_view()
    plan = CropPlan(place, replace(SAME_COLOUR, sensor=SensorChange(noise=10)), replace(SAME_THERMAL, offset=30.0))
    pixels = augment_view(view, plan, [])
    assert (pixels[..., 3] == np.where(beyond, 0, 30)).all()
    assert 0.4 < (pixels[~beyond][:, :3] > 0).mean() < 0.6
    rendered = CropPlan(place, None, SAME_THERMAL, replace(PLAIN, inverted=True))
    thermal = augment_view(replace(view, thermal=None), rendered, [])[..., 3]
    assert (thermal == np.where(beyond, 0, round(255 * 0.8))).all()


def test_changes_differ_and_keep_the_structure() -> None:
    rng, image = np.random.default_rng(6), smooth_noise(6, (64, 64), 2)
    before = image.copy()
    colour = [augment.change_colour(image, ColourChange.draw(rng), None) for _ in range(10)]
    thermal = [augment.change_thermal(image[..., 0].copy(), ThermalChange.draw(rng), None) for _ in range(10)]
    assert np.array_equal(image, before)
    for source, variants in ((image, colour), (image[..., 0], thermal)):
        assert len({variant.tobytes() for variant in variants}) == 10
        for variant in variants:
            assert variant.shape == source.shape
            assert variant.dtype == np.uint8
            # What is brighter than its surroundings stays so.
            assert np.corrcoef(variant.ravel(), source.ravel())[0, 1] > 0.5


def test_a_colour_change_is_its_formula() -> None:
    image = smooth_noise(7, (64, 64))
    for seed in range(8):
        change = replace(ColourChange.draw(np.random.default_rng(seed)), sensor=SensorChange())
        mean = image.mean()
        expected = (mean + change.contrast * (image - mean)) @ change.matrix.T
        found = augment.change_colour(image, change, None)
        assert np.abs(found - np.clip(expected, 0, 255)).max() < 1.2


def test_noise_has_its_deviation_and_wraps_at_the_tables_end() -> None:
    image, size = np.full((64, 64, 3), 128, np.uint8), 64 * 64 * 3
    for start in (0, 12345, NOISE_VALUES - 1000):
        change = replace(SAME_COLOUR, sensor=SensorChange(noise=8, noise_start=start))
        noise = augment.change_colour(image, change, None).astype(float) - 128
        expected = 8 * noise_table()[(start + np.arange(size)) % NOISE_VALUES].reshape(image.shape)
        assert np.abs(noise - expected).max() <= 0.51
        assert noise.std() == pytest.approx(8, rel=0.05)
        assert abs(noise.mean()) < 0.4


def test_motion_kernels_are_lines_of_sum_one() -> None:
    rng = np.random.default_rng(0)
    spreads = []
    for _ in range(60):
        kernel = motion_kernel(rng)
        side = len(kernel)
        assert kernel.shape == (side, side)
        assert side % 2 == 1
        assert kernel.sum() == pytest.approx(1)
        rows, columns = np.nonzero(kernel > 0.01)
        spread = np.linalg.svd(np.stack((rows - rows.mean(), columns - columns.mean())), compute_uv=False)
        assert spread[1] < 0.62 * spread[0]  # long and thin
        spreads.append(spread[0])
    assert max(spreads) > 3 * min(spreads)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cx=st.floats(-0.3, 1.3),
    cy=st.floats(-0.3, 1.3),
    w=st.floats(0.02, 1.5),
    h=st.floats(0.02, 1.5),
)
def test_an_occluder_lies_in_the_crop_and_covers_half_at_most(
    seed: int, cx: float, cy: float, w: float, h: float
) -> None:
    box = np.array([cx, cy, w, h], np.float32)
    occluder = Occluder.draw(box, 128, 3, np.random.default_rng(seed))
    if occluder is None:
        return
    assert occluder.width > 0
    assert occluder.height > 0
    assert 0 <= occluder.left <= occluder.left + occluder.width <= 128
    assert 0 <= occluder.top <= occluder.top + occluder.height <= 128
    assert occluder.texture is None or 0 <= occluder.texture < 3
    left, top, right, bottom = 128 * np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
    width = min(right, occluder.left + occluder.width) - max(left, occluder.left)
    height = min(bottom, occluder.top + occluder.height) - max(top, occluder.top)
    assert max(width, 0) * max(height, 0) <= 0.5 * w * h * 128**2 * (1 + 1e-6)


def test_occluders_cover_a_fair_part_of_the_target_in_both_modalities() -> None:
    """Up to nearly half; and colour and thermal show the same rectangle, of a texture (thermal its green) or flat."""
    textures = [np.full((50, 90, 3), (255, 250, 245), np.uint8)]
    rng, shares, flat = np.random.default_rng(7), [], 0
    for _ in range(200):
        occluder = Occluder.draw(np.array([0.5, 0.5, 0.5, 0.4], np.float32), 128, 1, rng)
        assert occluder is not None
        rgb, thermal = np.zeros((128, 128, 3), np.uint8), np.zeros((128, 128), np.uint8)
        augment.occlude(rgb, occluder, textures)
        augment.occlude(thermal, occluder, textures)
        covered = np.zeros((128, 128), bool)
        covered[occluder.region] = True
        if occluder.texture is None:
            flat += 1
            assert (rgb[covered] == occluder.flat[:3]).all()
            assert (thermal[covered] == occluder.flat[3]).all()
        else:
            assert (rgb[covered] == (255, 250, 245)).all()
            assert (thermal[covered] == 250).all()
        assert not rgb[~covered].any()
        assert not thermal[~covered].any()
        shares.append(covered[39:89, 32:96].mean())
    assert max(shares) > 0.4
    assert 0.1 < np.mean(shares) < 0.35
    assert flat / 200 == pytest.approx(0.2, abs=0.12)


def test_the_largest_occluders_are_half_of_the_target() -> None:
    """Without the bound, 0.8 of the width times 0.8 of the height."""
    rng, box = np.random.default_rng(9), np.array([0.5, 0.5, 0.3, 0.3], np.float32)
    drawn = [Occluder.draw(box, 1024, 0, rng) for _ in range(400)]
    shares = [occluder.width * occluder.height / (0.3 * 1024) ** 2 for occluder in drawn if occluder is not None]
    assert len(shares) == 400
    assert 0.49 < max(shares) <= 0.5


def test_an_occluder_beside_the_crop_is_none() -> None:
    rng = np.random.default_rng(8)
    for center in (-0.4, 1.4):
        assert Occluder.draw(np.array([center, center, 0.2, 0.2], np.float32), 64, 1, rng) is None
