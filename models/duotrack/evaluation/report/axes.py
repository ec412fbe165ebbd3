"""Scales and the frame of a chart: grid, ticks and labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from duotrack.evaluation.report.markup import Markup, element, join, number

WIDTH, HEIGHT = 440.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 12.0, 50.0
"""Size of a chart and its margins, in units of its view box; about pixels."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Values ``low`` to ``high`` laid out from ``start`` to ``end`` on the page."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    @classmethod
    def across(cls, low: float, high: float, *, logarithmic: bool = False) -> Self:
        """From left to right."""
        return cls(low, high, LEFT, WIDTH - RIGHT, logarithmic)

    @classmethod
    def upwards(cls, low: float, high: float) -> Self:
        """From bottom to top."""
        return cls(low, high, HEIGHT - BOTTOM, TOP)


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale, where it has ticks and what they say, and what is measured along it."""

    scale: Scale
    ticks: Sequence[float]
    label: str
    text: Callable[[float], str] = number


@dataclass(frozen=True, slots=True)
class Heading:
    """What a chart is called.

    Attributes:
        identity: unique in the page, for references within it.
        title: shown above it.
        description: what the chart shows in words and numbers, for those who cannot see it.
    """

    identity: str
    title: str
    description: str


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) in [low, high], at most ``most`` of them."""
    if high <= low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power, 2 * power, 2.5 * power, 5 * power, 10 * power, 20 * power):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [index * step for index in range(first, last + 1)]


def logarithmic_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten in [low, high]."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]


def percent_axis(scale: Scale, label: str) -> Axis:
    """Shares, written as per cent."""
    return Axis(scale, ticks(scale.low, scale.high), label, lambda share: number(100 * share))


def grid(x: Axis, y: Axis) -> Markup:
    """Grid lines with the ticks' text and both labels."""
    left, right, bottom, top = x.scale.start, x.scale.end, y.scale.start, y.scale.end
    across = [
        element("line", class_="grid", x1=left, x2=right, y1=y.scale(value), y2=y.scale(value)) for value in y.ticks
    ]
    upwards = [
        element("line", class_="grid", x1=x.scale(value), x2=x.scale(value), y1=bottom, y2=top) for value in x.ticks
    ]
    beside = [
        element("text", y.text(value), class_="tick", x=left - 6, y=y.scale(value) + 4, text_anchor="end")
        for value in y.ticks
    ]
    below = [
        element("text", x.text(value), class_="tick", x=x.scale(value), y=bottom + 20, text_anchor="middle")
        for value in x.ticks
    ]
    middle = (top + bottom) / 2
    names = [
        element("text", x.label, class_="axis", x=(left + right) / 2, y=bottom + 43, text_anchor="middle"),
        element(
            "text",
            y.label,
            class_="axis",
            x=14,
            y=middle,
            text_anchor="middle",
            transform=f"rotate(-90 14 {number(middle)})",
        ),
    ]
    frame = element("line", class_="frame", x1=left, x2=right, y1=bottom, y2=bottom)
    return element("g", *across, *upwards, frame, *beside, *below, *names, aria_hidden="true")


def drawing(heading: Heading, *content: str, width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """An SVG image with a title and a description for screen readers."""
    return element(
        "svg",
        element("title", heading.title, id=f"{heading.identity}-title"),
        element("desc", heading.description, id=f"{heading.identity}-desc"),
        join(content),
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_labelledby=f"{heading.identity}-title {heading.identity}-desc",
    )


def framed(heading: Heading, *content: str, kind: str = "") -> Markup:
    """A figure: the title, then its parts."""
    return element(
        "figure", element("figcaption", heading.title), *content, class_=f"chart {kind}".strip(), id=heading.identity
    )
