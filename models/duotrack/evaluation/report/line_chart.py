"""Curves over thresholds, several trackers overlaid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from duotrack.evaluation.report.axes import Axis, Heading, drawing, framed, grid
from duotrack.evaluation.report.markup import Markup, element, number
from duotrack.evaluation.report.series import Series, legend

MARKERS = 10


@dataclass(frozen=True, slots=True)
class Line:
    """A curve.

    Attributes:
        figure: what the legend says of it.
        points: x and y, in order; y is None where there is a gap.
    """

    series: Series
    figure: str
    points: Sequence[tuple[float, float | None]]


def line_chart(heading: Heading, x: Axis, y: Axis, lines: Sequence[Line], *extra: str, kind: str = "") -> Markup:
    """A figure with axes, the curves, and a legend in the order of the lines.

    Args:
        extra: drawn between the grid and the curves.
    """
    # the first of the legend is drawn last, on top
    curves = [_curve(line, x, y) for line in reversed(lines)]
    entries = [(line.series, line.figure) for line in lines]
    return framed(heading, drawing(heading, grid(x, y), *extra, *curves), legend(entries), kind=kind)


def path(points: Sequence[tuple[float, float] | None]) -> str:
    """SVG path data through points on the page, interrupted at None."""
    pieces, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
        else:
            pieces.append(f"{pen}{number(point[0])} {number(point[1])}")
            pen = "L"
    return "".join(pieces)


def _curve(line: Line, x: Axis, y: Axis) -> Markup:
    placed = [None if value is None else (x.scale(at), y.scale(value)) for at, value in line.points]
    every = max(1, round(len(placed) / MARKERS))
    markers = [
        line.series.marker(*place, f"{line.series.label}: {y.text(value)} at {x.text(at)}")
        for (at, value), place in list(zip(line.points, placed, strict=True))[::every]
        if value is not None and place is not None
    ]
    stroke = element("path", element("title", line.series.label), class_=f"line {line.series.look}", d=path(placed))
    return element("g", stroke, *markers, class_=f"curve {line.series.look}")
