"""Boxes and crop windows, against pixel masks and against OSTrack's formulas written out."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from duotrack.boxes import Box, CropWindow
from duotrack.errors import BoxError, DuoTrackError

positions = st.floats(-2000, 2000, width=32)
lengths = st.floats(0.5, 1500, width=32)
boxes = st.builds(Box, positions, positions, lengths, lengths)


@pytest.mark.parametrize("text", ["1,2,3,4.5", "1 2 3 4.5", "1\t2\t3\t4.5\n", " 1, 2,3 ,4.50 "])
def test_parse_reads_commas_and_white_space(text: str) -> None:
    assert Box.parse(text) == Box(1, 2, 3, 4.5)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1;2;3;4", "12"])
def test_parse_names_the_text_that_is_not_four_numbers(text: str) -> None:
    with pytest.raises(BoxError, match="four numbers") as caught:
        Box.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["nan,1,2,3", "1,inf,2,3", "1,2,-inf,3"])
def test_parse_refuses_what_is_not_finite(text: str) -> None:
    with pytest.raises(BoxError, match="finite"):
        Box.parse(text)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_must_be_finite(place: int, value: float) -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    values[place] = value
    with pytest.raises(BoxError, match=rf"finite numbers, got .*{value}"):
        Box(*values)


@pytest.mark.parametrize(("w", "h"), [(0, 5), (5, 0), (-1, 5), (5, -0.5), (0, 0)])
def test_a_box_needs_area(w: float, h: float) -> None:
    with pytest.raises(BoxError, match=r"positive width and height, got 1,2,"):
        Box(1, 2, w, h)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float16", "float32", "float64"])
def test_numbers_of_an_array_are_kept_as_floats(dtype: str) -> None:
    box = Box(*np.array([200, 100, 200, 150], dtype))
    assert [type(value) for value in box.xywh] == [float] * 4
    assert (box.xywh, box.area, box.center) == ((200, 100, 200, 150), 30_000, (300, 175))
    assert json.loads(json.dumps(box.xywh)) == [200, 100, 200, 150]


@pytest.mark.parametrize("value", [None, "wide", [5], 1j, 10**400])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(BoxError, match=r"finite numbers, got \(1, 2, "):
        Box(1, 2, value, 4)  # type: ignore[arg-type]


def test_a_box_error_is_a_value_error_and_ours() -> None:
    assert issubclass(BoxError, ValueError)
    assert issubclass(BoxError, DuoTrackError)


@given(boxes)
def test_text_is_read_back_to_a_hundredth_of_a_pixel(box: Box) -> None:
    assert np.allclose(Box.parse(box.text()).xywh, box.xywh, rtol=0, atol=0.005 + 1e-9)


@pytest.mark.parametrize(
    ("box", "text"),
    [
        (Box(100, 0, 20, 10), "100,0,20,10"),
        (Box(-1.5, 0.25, 3.999, 1000), "-1.5,0.25,4,1000"),
    ],
)
def test_text_has_no_needless_zeros(box: Box, text: str) -> None:
    assert box.text() == text


@given(boxes)
def test_center_and_size_make_the_same_box(box: Box) -> None:
    assert np.allclose(Box.from_center(*box.center, box.w, box.h).xywh, box.xywh, atol=1e-3)


def mask(box: Box) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:40, :40]
    inside_x = (columns >= box.x) & (columns < box.x + box.w)
    return np.asarray(inside_x & (rows >= box.y) & (rows < box.y + box.h))


pixel_boxes = st.builds(Box, st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20))


@given(pixel_boxes, pixel_boxes)
def test_iou_counts_pixels(first: Box, second: Box) -> None:
    common, either = (mask(first) & mask(second)).sum(), (mask(first) | mask(second)).sum()
    assert first.iou(second) == pytest.approx(common / either)


@given(boxes, boxes)
def test_iou_is_symmetric_and_one_only_for_the_same_box(first: Box, second: Box) -> None:
    assert first.iou(second) == pytest.approx(second.iou(first), abs=1e-12)
    assert 0 <= first.iou(second) <= 1 + 1e-12
    assert first.iou(first) == pytest.approx(1)


def test_boxes_that_touch_do_not_overlap() -> None:
    assert Box(0, 0, 10, 10).iou(Box(10, 0, 10, 10)) == 0


def ostrack_clip_box(box: Box, height: int, width: int, margin: float) -> tuple[float, float, float, float]:
    """``lib/utils/box_ops.py`` of OSTrack, line by line."""
    x1, y1, w, h = box.xywh
    x2, y2 = x1 + w, y1 + h
    x1 = min(max(0, x1), width - margin)
    x2 = min(max(margin, x2), width)
    y1 = min(max(0, y1), height - margin)
    y2 = min(max(margin, y2), height)
    w = max(margin, x2 - x1)
    h = max(margin, y2 - y1)
    return x1, y1, w, h


@given(boxes, st.integers(10, 2000), st.integers(10, 2000))
def test_clip_is_ostracks_with_a_margin_of_ten(box: Box, width: int, height: int) -> None:
    assert box.clip(width, height).xywh == pytest.approx(ostrack_clip_box(box, height, width, 10), abs=1e-9)


@given(boxes, st.integers(1, 2000), st.integers(1, 2000))
def test_a_clipped_box_lies_in_the_image_and_stays_when_clipped_again(box: Box, width: int, height: int) -> None:
    clipped = box.clip(width, height)
    assert clipped.x >= 0
    assert clipped.y >= 0
    assert clipped.x + clipped.w <= width + 1e-9
    assert clipped.y + clipped.h <= height + 1e-9
    assert clipped.clip(width, height).xywh == pytest.approx(clipped.xywh, abs=1e-9)


def test_a_box_inside_is_not_clipped() -> None:
    assert Box(20, 30, 40, 50).clip(640, 480) == Box(20, 30, 40, 50)


@pytest.mark.parametrize("box", [Box(-5, -5, 20, 20), Box(630, 470, 20, 20), Box(0, 0, 640, 480)])
def test_a_track_may_start_on_a_box_over_the_border(box: Box) -> None:
    box.require_inside(640, 480)


@pytest.mark.parametrize("box", [Box(-30, 10, 20, 20), Box(10, -30, 20, 20), Box(700, 10, 20, 20), Box(10, 600, 2, 2)])
def test_a_track_cannot_start_outside_the_image(box: Box) -> None:
    with pytest.raises(BoxError, match="centre outside the 640x480 image") as caught:
        box.require_inside(640, 480)
    assert box.text() in str(caught.value)


@given(boxes, st.sampled_from([2.0, 4.0]))
def test_a_window_is_where_ostrack_cuts(box: Box, factor: float) -> None:
    """``lib/train/data/processing_utils.py``, ``sample_target``."""
    crop_size = math.ceil(math.sqrt(box.w * box.h) * factor)
    x1 = round(box.x + 0.5 * box.w - crop_size * 0.5)
    y1 = round(box.y + 0.5 * box.h - crop_size * 0.5)
    window = CropWindow.around(box, factor, 256)
    assert (window.x, window.y, window.side) == (x1, y1, crop_size)
    assert window.scale == pytest.approx(256 / crop_size)  # OSTrack's resize_factor


windows = st.builds(CropWindow, st.integers(-500, 500), st.integers(-500, 500), st.integers(1, 2000), st.just(256))


@given(windows, boxes)
def test_crop_and_frame_coordinates_are_inverse(window: CropWindow, box: Box) -> None:
    assert window.to_frame(*window.to_crop(box)).xywh == pytest.approx(box.xywh, abs=1e-6 * (window.side + 4000))


def test_the_whole_window_is_the_unit_square() -> None:
    window = CropWindow(10, -20, 64, 128)
    assert window.to_frame(0.5, 0.5, 1, 1) == Box(10, -20, 64, 64)
    assert window.to_crop(Box(10, -20, 32, 16)) == (0.25, 0.125, 0.5, 0.25)


@given(boxes)
def test_a_target_is_centred_in_its_window_to_a_pixel(box: Box) -> None:
    window = CropWindow.around(box, 4.0, 256)
    cx, cy, w, h = window.to_crop(box)
    assert abs(cx - 0.5) * window.side <= 0.5 + 1e-6
    assert abs(cy - 0.5) * window.side <= 0.5 + 1e-6
    assert math.sqrt(w * h) <= 0.25 + 1e-9


@pytest.mark.parametrize("side", [9e-10, 1e-320])
def test_a_box_that_is_next_to_nothing_starts_no_track(side: float) -> None:
    with pytest.raises(BoxError, match="too small: a side has at least 1e-09 pixels"):
        Box(10, 10, side, 5).require_inside(640, 480)
    Box(10, 10, 1e-9, 5).require_inside(640, 480)
