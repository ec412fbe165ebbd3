"""How a tracker looks in every chart, table and picture: colour, dashes and marker, told apart without colour too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from duotrack.evaluation.report.markup import Markup, element, number

COLOURS = 8
"""How many ``--series-N`` and dash patterns the style sheet has."""


@dataclass(frozen=True, slots=True)
class Series:
    """A tracker's label and its look, from its place in the report."""

    label: str
    place: int

    @property
    def look(self) -> str:
        """Classes of the style sheet: colour ``c1`` … and dashes ``d1`` …; from the ninth on, in other pairs."""
        return f"c{self.place % COLOURS + 1} d{self._dash + 1}"

    @property
    def _dash(self) -> int:
        return (self.place + self.place // COLOURS) % COLOURS

    def marker(self, x: float, y: float, tooltip: str | None = None, radius: float = 4.0) -> Markup:
        """The series' mark at a point."""
        outline = SHAPES[self._dash]
        points = " ".join(f"{number(x + radius * px)},{number(y + radius * py)}" for px, py in outline)
        title = () if tooltip is None else (element("title", tooltip),)
        return element("polygon", *title, class_=f"marker {self.look}", points=points)

    def swatch(self) -> Markup:
        """A short piece of the line with its mark, for legends."""
        return element(
            "svg",
            element("line", class_=f"line {self.look}", x1=1, x2=33, y1=7, y2=7),
            self.marker(17, 7),
            class_="swatch",
            viewBox="0 0 34 14",
            aria_hidden="true",
        )

    def name(self) -> Markup:
        """The label after its swatch."""
        return element("span", self.swatch(), element("span", self.label), class_="series")


def legend(entries: Iterable[tuple[Series, str]]) -> Markup:
    """Series with a figure each, as a list."""
    items = [
        element("li", series.name(), element("span", figure, class_="figure"), class_=series.look)
        for series, figure in entries
    ]
    return element("ul", *items, class_="legend")


def _star(corners: int, inner: float | None = None, turn: float = -90.0) -> Sequence[tuple[float, float]]:
    """The corners of a polygon of radius 1, or of a star whose inner corners are at ``inner``."""
    radii = [1.0] * corners if inner is None else [1.0, inner] * corners
    angles = [math.radians(turn + 360 * step / len(radii)) for step in range(len(radii))]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in zip(radii, angles, strict=True)]


SHAPES = (
    _star(16),
    _star(4, turn=-45),
    _star(3),
    _star(4),
    _star(4, 0.4, turn=-45),
    _star(3, turn=90),
    _star(5, 0.5),
    _star(6),
)
"""Disc, square, triangle, diamond, cross, triangle pointing down, star, hexagon."""
