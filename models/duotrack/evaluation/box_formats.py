"""Boxes as the lines of text files: the forms that trackers and toolkits write them in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from duotrack.errors import SourceError
from duotrack.evaluation.sequences import Boxes

BoxFormat = Literal["xywh", "corners8", "xyxy"]

BOX_COLUMNS: Mapping[BoxFormat, int] = {"xywh": 4, "corners8": 8, "xyxy": 4}


def read_numbers(text: str, source: str) -> Boxes:
    """A table of numbers, a row a line, separated by commas, tabs or blanks → (N, C). ``nan`` and ``inf`` are numbers.

    Args:
        source: the file's name, for messages.

    Raises:
        SourceError: there are no lines, one is no row of numbers, or it is longer or shorter than the first.
    """
    lines = text.replace(",", " ").rstrip().splitlines()
    if not lines:
        raise SourceError(f"{source} is empty: expected a box a line")
    try:
        table = _parse(lines)
    except ValueError as error:
        raise SourceError(f"{source}:{_first_fault(lines)}") from error
    if len(table) != len(lines):  # NumPy passes over blank lines, which would shift all boxes after them
        raise SourceError(f"{source}:{_first_fault(lines)}")
    return table


def _parse(lines: list[str]) -> Boxes:
    return np.loadtxt(lines, np.float64, comments=None, ndmin=2)


def _first_fault(lines: list[str]) -> str:
    """The number of the line that is unlike the first, and what is wrong with it."""
    columns = len(lines[0].split())
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            return f"{number}: expected a box, got a blank line"
        if len(words) != columns:
            return f"{number}: expected {columns} numbers as in the first line, got {len(words)}"
        try:
            _parse([line])
        except ValueError:
            return f"{number}: expected {columns} numbers, got {line.strip()[:60]!r}"
    return "1: expected numbers"


def to_xywh(values: Boxes, form: BoxFormat) -> Boxes:
    """Rows of a file (N, 4 or 8) as x y w h (N, 4).

    Two corners span w = x2 − x1, with no pixel added; of four corners, the box around them is taken.
    """
    if form == "xywh":
        return values
    if form == "xyxy":
        return np.column_stack((values[:, :2], values[:, 2:] - values[:, :2]))
    corners = values.reshape(-1, 4, 2)
    low, high = corners.min(1), corners.max(1)
    return np.column_stack((low, high - low))


def to_corners8(boxes: Boxes) -> Boxes:
    """(N, 4) x y w h → (N, 8): upper left, upper right, lower right, lower left."""
    x1, y1 = boxes[:, :2].T
    x2, y2 = (boxes[:, :2] + boxes[:, 2:]).T
    return np.column_stack((x1, y1, x2, y1, x2, y2, x1, y2))


def _to_xyxy(boxes: Boxes) -> Boxes:
    return np.column_stack((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]))


_WRITTEN: Mapping[BoxFormat, tuple[str, Callable[[Boxes], Boxes]]] = {
    "xywh": (",", lambda boxes: boxes),
    "corners8": (" ", to_corners8),
    "xyxy": (",", _to_xyxy),
}


def format_rows(boxes: Boxes, form: BoxFormat) -> str:
    """(N, 4) x y w h as the text of a result file: two decimals, with commas between, or blanks in ``corners8``."""
    separator, convert = _WRITTEN[form]
    return "".join(separator.join(f"{value:.2f}" for value in row) + "\n" for row in convert(boxes).tolist())
