"""Box and flag files of the public sets, and recordings put together from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from duotrack.boxes import Box
from duotrack.data.folders import require_partners
from duotrack.data.recordings import Recording
from duotrack.errors import SourceError

LARGEST_DIFFERENCE = 0.02  # of the longest: colour, thermal or boxes may be that much shorter before they do not belong

Values = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class BoxFile:
    """The boxes of an annotation file, a line each; None for a line without area, which marks an absent target."""

    path: Path
    boxes: tuple[Box | None, ...]


def corner_and_size(values: Values) -> Values:
    """x y w h, as almost every set has it."""
    return values


def two_corners(values: Values) -> Values:
    """Two opposite corners, in any order, as x y w h. (GTOT)"""
    x1, y1, x2, y2 = values
    return min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1)


def read_box_file(path: Path, form: Callable[[Values], Values] = corner_and_size) -> BoxFile:
    """Four numbers a line, separated by commas, tabs or blanks; blank lines at the end are nothing.

    Raises:
        SourceError: the file is missing or empty, or a line is not four finite numbers.
    """
    boxes: list[Box | None] = []
    for number, line in enumerate(_lines(path), 1):
        try:
            x, y, w, h = form(_four_numbers(line))
        except ValueError as error:
            raise SourceError(f"{path}:{number}: expected four numbers, got {line!r}") from error
        boxes.append(Box(x, y, w, h) if w > 0 and h > 0 else None)
    return BoxFile(path, tuple(boxes))


def _four_numbers(line: str) -> Values:
    x, y, w, h = (float(part) for part in line.replace(",", " ").split())
    if not all(map(math.isfinite, (x, y, w, h))):
        raise ValueError(line)
    return x, y, w, h


def read_flags(path: Path) -> list[int]:
    """Whole numbers, a line each or all in one line with commas.

    Raises:
        SourceError: the file is missing or empty, or something in it is not a whole number.
    """
    flags: list[int] = []
    for number, line in enumerate(_lines(path), 1):
        try:
            flags += [int(part) for part in line.replace(",", " ").split()]
        except ValueError as error:
            raise SourceError(f"{path}:{number}: expected whole numbers, got {line[:60]!r}") from error
    return flags


def read_frame_flags(path: Path, count: int) -> list[int]:
    """One whole number for each of ``count`` frames; see ``read_flags``.

    Raises:
        SourceError: also when there are more or fewer.
    """
    flags = read_flags(path)
    if len(flags) != count:
        raise SourceError(f"{path} has {len(flags)} values, expected one for each of {count} frames")
    return flags


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"cannot read {path}: not a text file") from error
    lines = text.rstrip().splitlines()
    if not lines:
        raise SourceError(f"{path} is empty: expected a line for each frame")
    return lines


def assemble(
    name: str,
    *,
    main: BoxFile,
    rgb: tuple[Path, ...] | None = None,
    thermal: tuple[Path, ...] | None = None,
    rgb_boxes: BoxFile | None = None,
    thermal_boxes: BoxFile | None = None,
    absent: Sequence[bool] | None = None,
    attributes: tuple[str, ...] = (),
) -> Recording:
    """A recording with a line of annotation for each frame.

    Some sequences of the RGB-T sets have a few frames more in one modality, or a few lines too many. Everything is cut
    to the shortest then, which ``Recording.notes`` says: what is missing must be missing at the end.

    Args:
        absent: more frames without a target than those whose box has no area.

    Raises:
        SourceError: lengths differ by more than 2 % (and by more than one), or a frame's partner is missing in the
            middle.
    """
    lengths = {str(files[0].parent): len(files) for files in (rgb, thermal) if files is not None}
    lengths |= {str(file.path): len(file.boxes) for file in (main, rgb_boxes, thermal_boxes) if file is not None}
    shortest, longest = min(lengths.values()), max(lengths.values())
    counted = ", ".join(f"{count} in {place}" for place, count in lengths.items())
    if longest - shortest > max(1, int(LARGEST_DIFFERENCE * longest)):
        raise SourceError(f"{name}: expected as many boxes as frames, got {counted}")
    if rgb is not None and thermal is not None:
        require_partners(name, rgb, thermal)
    boxes = main.boxes[:shortest]
    hidden = absent if absent is not None else (False,) * shortest
    return Recording(
        name=name,
        boxes=boxes,
        annotated=(True,) * shortest,
        absent=tuple(box is None or flag for box, flag in zip(boxes, hidden, strict=False)),
        rgb=rgb and rgb[:shortest],
        thermal=thermal and thermal[:shortest],
        rgb_boxes=rgb_boxes.boxes[:shortest] if rgb_boxes is not None else None,
        thermal_boxes=thermal_boxes.boxes[:shortest] if thermal_boxes is not None else None,
        attributes=attributes,
        notes=(f"cut to {shortest} frames: {counted}",) if longest != shortest else (),
    )
