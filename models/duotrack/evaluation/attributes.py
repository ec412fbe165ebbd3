"""Challenge attributes that follow from the boxes alone, under the names that the public sets have for them.

They are set by hand there; here by these thresholds, which are those that OTB and LasHeR describe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from duotrack.boxes import Box

FAST = 20.0
"""Pixels between the centres of two frames in a row."""
FEW_PIXELS = 400.0
LARGEST_SCALE = 2.0
"""Factor between the area of a box and that of the first one."""


def box_attributes(boxes: Sequence[Box | None]) -> set[str]:
    """What is hard about a sequence, as far as its boxes tell; None is an absent target.

    FM, fast motion: the centre moves by more than 20 pixels from some frame to the next. LR, low resolution: some box
    has fewer than 400 pixels. OV, out of view: the target is absent from some frame. SV, scale variation: the area of
    some box is less than half or more than twice that of the first.
    """
    present = [box for box in boxes if box is not None]
    found = {"OV"} if len(present) < len(boxes) else set()
    if any(_moved(one, other) > FAST for one, other in pairwise(boxes) if one is not None and other is not None):
        found.add("FM")
    if any(box.area < FEW_PIXELS for box in present):
        found.add("LR")
    if any(abs(math.log(box.area / present[0].area)) > math.log(LARGEST_SCALE) for box in present):
        found.add("SV")
    return found


def _moved(one: Box, other: Box) -> float:
    return math.dist(one.center, other.center)
