"""Boxes as they travel: left, top, width and height in pixels of the full frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeAlias

from duotrack_client.errors import BoxError


class HasBox(Protocol):
    """Anything with the four attributes of a box, such as ``duotrack.Box``."""

    @property
    def x(self) -> float: ...
    @property
    def y(self) -> float: ...
    @property
    def w(self) -> float: ...
    @property
    def h(self) -> float: ...


BoxLike: TypeAlias = HasBox | Sequence[float]


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box: left ``x``, top ``y``, width ``w``, height ``h``, in pixels of the full frame.

    Raises:
        BoxError: a value is not finite, or the width or height is not positive.
    """

    x: float
    y: float
    w: float
    h: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in self.xywh):
            raise BoxError(f"box values must be finite numbers, got {self.text()}")
        if self.w <= 0 or self.h <= 0:
            raise BoxError(f"box must have a positive width and height, got {self.text()}")

    @classmethod
    def of(cls, value: BoxLike) -> Self:
        """A box from four numbers or from any object with ``x``, ``y``, ``w`` and ``h``.

        Raises:
            BoxError: it is not four numbers, or they do not make a box.
        """
        if not isinstance(value, Sequence):
            return cls(float(value.x), float(value.y), float(value.w), float(value.h))
        if len(value) != 4:
            raise BoxError(f"expected a box as four numbers x, y, w, h in pixels, got {value!r}")
        return cls(*(float(number) for number in value))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``x,y,w,h``, separated by commas or white space.

        Raises:
            BoxError: there are not exactly four numbers, or they do not make a box.
        """
        parts = text.replace(",", " ").split()
        try:
            values = [float(part) for part in parts]
        except ValueError:
            values = []
        if len(values) != 4:
            raise BoxError(f"expected a box as four numbers x,y,w,h in pixels, got {text!r}")
        return cls(*values)

    @property
    def xywh(self) -> tuple[float, float, float, float]:
        return self.x, self.y, self.w, self.h

    def text(self) -> str:
        """The box as ``x,y,w,h``, the form of result files and of ``parse``."""
        return ",".join(f"{value:.2f}".rstrip("0").rstrip(".") for value in self.xywh)
