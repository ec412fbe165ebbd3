"""Speed against accuracy: a mark for each tracker, with a whisker from the median to the slowest hundredth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from duotrack.evaluation.report.axes import (
    Axis,
    Heading,
    Scale,
    drawing,
    framed,
    grid,
    logarithmic_ticks,
    percent_axis,
    ticks,
)
from duotrack.evaluation.report.figures import decimal, percent
from duotrack.evaluation.report.markup import Markup, element
from duotrack.evaluation.report.series import Series, legend
from duotrack.evaluation.scores import Speed

CAP = 4.0


def speed_chart(heading: Heading, figure: str, points: Sequence[tuple[Series, Speed, float]]) -> Markup:
    """A figure with milliseconds a pair, on a logarithmic axis, against a share."""
    low = min(speed.p50 for _, speed, _ in points)
    high = max(speed.p99 for _, speed, _ in points)
    x = _milliseconds(low, high)
    y = percent_axis(Scale.upwards(0, upper_limit(value for _, _, value in points)), f"{figure} (%)")
    marks = [_mark(series, speed, value, x, y) for series, speed, value in reversed(points)]
    entries = [(series, f"{decimal(speed.p50)} ms, {percent(value)}") for series, speed, value in points]
    return framed(heading, drawing(heading, grid(x, y), *marks), legend(entries))


def upper_limit(shares: Iterable[float]) -> float:
    """The next tenth above all shares, at least 0.2."""
    return max(0.2, math.ceil(max(shares, default=0.0) * 10 - 1e-9) / 10)


def _milliseconds(low: float, high: float) -> Axis:
    low, high = max(low, 0.01) / 1.5, max(high, 0.02) * 1.5
    marks = logarithmic_ticks(low, high)
    if len(marks) < 2:
        marks = [value for value in ticks(low, high) if value > 0]
    return Axis(Scale.across(low, high, logarithmic=True), marks, "milliseconds a pair, median to p99")


def _mark(series: Series, speed: Speed, value: float, x: Axis, y: Axis) -> Markup:
    start, end, height = x.scale(speed.p50), x.scale(max(speed.p99, speed.p50)), y.scale(value)
    said = f"{series.label}: {decimal(speed.p50)} ms a pair (p99 {decimal(speed.p99)}), {percent(value)}"
    return element(
        "g",
        element("line", class_="whisker", x1=start, x2=end, y1=height, y2=height),
        element("line", class_="whisker", x1=end, x2=end, y1=height - CAP, y2=height + CAP),
        series.marker(start, height, said, 7),
        class_=f"curve {series.look}",
    )
