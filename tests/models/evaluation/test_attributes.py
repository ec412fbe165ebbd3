"""Attributes that follow from boxes, each at its threshold."""

from __future__ import annotations

import pytest

from duotrack.boxes import Box
from duotrack.evaluation.attributes import box_attributes

STILL = Box(100, 100, 30, 20)


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([STILL] * 3, set()),
        ([STILL, Box(112, 116, 30, 20)], set()),  # exactly 20 pixels
        ([STILL, Box(112, 117, 30, 20)], {"FM"}),
        ([STILL, None, Box(200, 100, 30, 20)], {"OV"}),  # how it got there nobody saw
        ([STILL, Box(100, 100, 20, 20)], set()),  # exactly 400 pixels
        ([STILL, Box(100, 100, 20, 19.9)], {"LR"}),
        ([STILL, Box(95, 95, 40, 30)], set()),  # exactly twice the area
        ([STILL, Box(95, 95, 40, 30.1)], {"SV"}),
        ([Box(0, 0, 40, 40), Box(10, 10, 20, 20)], {"SV"}),
        ([None, STILL, Box(95, 95, 40, 31), Box(0, 0, 10, 10)], {"FM", "LR", "OV", "SV"}),
        ([None], {"OV"}),
    ],
)
def test_thresholds(boxes: list[Box | None], expected: set[str]) -> None:
    assert box_attributes(boxes) == expected
