"""A polygon for each tracker over the attributes of a benchmark."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

from duotrack.evaluation.report.axes import Heading, drawing, framed, ticks
from duotrack.evaluation.report.figures import known, percent
from duotrack.evaluation.report.line_chart import path
from duotrack.evaluation.report.markup import Markup, element, number
from duotrack.evaluation.report.series import Series, legend

SIZE = (460.0, 300.0)
CENTRE = (230.0, 150.0)
RADIUS = 112.0
LINE = 13.0
LONGEST = 14
"""Characters of a line of an attribute's name beside its spoke; a tooltip has the rest."""


def radar_chart(
    heading: Heading, attributes: Sequence[str], polygons: Sequence[tuple[Series, str, Mapping[str, float]]]
) -> Markup:
    """A figure with a spoke for each attribute, from 0 in the centre.

    Args:
        attributes: at least three, clockwise from the top.
        polygons: for each tracker the legend's figure and shares by attribute; a missing one leaves a gap.
    """
    marks = rings(max((value for _, _, shares in polygons for value in shares.values()), default=0.0))
    limit = marks[-1]
    corners = [direction(index, len(attributes)) for index in range(len(attributes))]
    web = [_ring(corners, share / limit) for share in marks]
    spokes = [
        element("line", class_="grid", x1=CENTRE[0], y1=CENTRE[1], x2=x, y2=y) for x, y in (at(c, 1) for c in corners)
    ]
    names = [_name(attribute, corner) for attribute, corner in zip(attributes, corners, strict=True)]
    scale = [
        element("text", number(100 * share), class_="tick", x=CENTRE[0] + 4, y=at((0, -1), share / limit)[1] + 4)
        for share in marks[:-1]
    ]
    shapes = [_polygon(series, attributes, shares, limit) for series, _, shares in reversed(polygons)]
    back = element("g", *web, *spokes, *names, aria_hidden="true")
    front = element("g", *scale, aria_hidden="true")
    image = drawing(heading, back, *shapes, front, width=SIZE[0], height=SIZE[1])
    return framed(heading, image, legend([(series, figure) for series, figure, _ in polygons]), kind="radar")


def rings(highest: float) -> list[float]:
    """Shares at which the web has rings; the last is the whole radius, at or above ``highest``."""
    highest = max(highest, 0.1)
    step = ticks(0, highest, 5)[1]
    return [step * (index + 1) for index in range(math.ceil(highest / step - 1e-9))]


def direction(index: int, count: int) -> tuple[float, float]:
    """The unit vector of a spoke: the first points up, the others follow clockwise."""
    angle = 2 * math.pi * index / count
    return math.sin(angle), -math.cos(angle)


def at(direction: tuple[float, float], share: float) -> tuple[float, float]:
    """The point at a share of the radius."""
    return CENTRE[0] + direction[0] * RADIUS * share, CENTRE[1] + direction[1] * RADIUS * share


def _ring(corners: Sequence[tuple[float, float]], share: float) -> Markup:
    points = " ".join(f"{number(x)},{number(y)}" for x, y in (at(corner, share) for corner in corners))
    return element("polygon", class_="grid", points=points, fill="none")


def _name(attribute: str, corner: tuple[float, float]) -> Markup:
    x, y = at(corner, 1.09)
    anchor = "middle" if abs(corner[0]) < 0.2 else "start" if corner[0] > 0 else "end"
    lines = textwrap.wrap(attribute, LONGEST, max_lines=2, placeholder=" …") or [attribute]
    # the block of lines lies above the point at the top of the web, below it at the bottom, beside it between
    first = y + 4 + LINE * ((corner[1] - 1) / 2 * (len(lines) - 1)) + 4 * corner[1]
    spans = [element("tspan", line, x=x, y=first + index * LINE) for index, line in enumerate(lines)]
    return element("text", element("title", attribute), *spans, class_="spoke", text_anchor=anchor)


def _polygon(series: Series, attributes: Sequence[str], shares: Mapping[str, float], limit: float) -> Markup:
    values = [known(shares.get(attribute)) for attribute in attributes]
    points = [
        None if value is None else at(direction(index, len(attributes)), value / limit)
        for index, value in enumerate(values)
    ]
    closed = None not in points
    markers = [
        series.marker(*point, f"{series.label}, {attribute}: {percent(value)}", 3.2)
        for point, attribute, value in zip(points, attributes, values, strict=True)
        if point is not None
    ]
    outline = path(points) + (
        "Z" if closed else path([None, points[-1], points[0]] if points[-1] and points[0] else [])
    )
    area = element(
        "path", element("title", series.label), class_=f"line {series.look}{' area' if closed else ''}", d=outline
    )
    return element("g", area, *markers, class_=f"curve {series.look}")
