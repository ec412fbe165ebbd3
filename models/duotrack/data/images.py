"""Training images, decoded once and kept in memory: sequences with boxes, stills, aligned pairs, thermal frames."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import Box, mask_box
from duotrack.data.folders import natural_key
from duotrack.errors import BoxError, SourceError
from duotrack.frames import FramePair, Image

Pixels = NDArray[np.uint8]

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
JPEG_TAIL = 4096  # bytes in which a whole file has its end
BOX_OF_MASK = 0.9
"""Overlap from which on a target's box is that of its mask."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One annotated image: colour (H, W, 3), thermal (H, W), or both; the target's box, and its mask where known.

    Views whose ``scene`` is equal may show the same things.
    """

    rgb: Pixels | None
    thermal: Pixels | None
    box: Box
    mask: Pixels | None = None
    scene: str | int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        image = self.rgb if self.rgb is not None else self.thermal
        assert image is not None
        return image.shape[1], image.shape[0]

    def outline(self) -> NDArray[np.float64] | None:
        """(N, 2) x and y in pixels: what the target's box goes around, however it is turned.

        None without a mask, or where the box is not the mask's: then it may hold what the mask does not show.
        """
        shown = None if self.mask is None else (self.mask > 127).astype(np.uint8)
        found = None if shown is None else mask_box(shown)
        if shown is None or found is None or found.iou(self.box) < BOX_OF_MASK:
            return None
        hull = cv2.convexHull(cast("Any", cv2.findNonZero(shown)))  # of pixels; each has four corners
        corners = hull + np.array([[(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]])
        return cast("NDArray[np.float64]", corners.reshape(-1, 2))


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """Consecutive colour frames (decoded) of ``files``, with a box each, None where the target is absent."""

    name: str
    frames: list[Pixels]
    boxes: list[Box | None]
    masks: list[Pixels] | None = field(default=None)
    files: tuple[Path, ...] = ()

    def pair(self, index: int) -> FramePair:
        return FramePair(self.frames[index], None)


def validation_split() -> dict[str, list[str]]:
    """Names held out of training, for each folder of the local data (``validation_split.json`` says how chosen)."""
    text = (files("duotrack.data") / "validation_split.json").read_text(encoding="utf-8")
    return cast("dict[str, list[str]]", json.loads(text)["validation"])


def read_rgb(path: Path) -> Pixels:
    """A colour image as (H, W, 3) uint8 in R, G, B order, as it is stored: an orientation in its metadata is ignored.

    Raises:
        SourceError: the file is missing, not an image, or a JPEG that is cut short.
    """
    return cast("Pixels", _read(path, cv2.IMREAD_COLOR_RGB))


def read_thermal(path: Path) -> Image:
    """A single-channel image as (H, W) uint8 or uint16, as it is stored: an orientation in its metadata is ignored.

    Raises:
        SourceError: the file is missing, not an image, a JPEG that is cut short, or has samples of another kind.
    """
    image = _read(path, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if image.dtype not in (np.uint8, np.uint16):
        raise SourceError(f"expected 8-bit or 16-bit samples in {path}, got {image.dtype}")
    return image


def read_grey(path: Path) -> Pixels:
    """A single-channel image as (H, W) uint8; an orientation in its metadata is ignored.

    Raises:
        SourceError: the file is missing, not an image, a JPEG that is cut short, or has more than 8 bits a sample.
    """
    image = read_thermal(path)
    if image.dtype != np.uint8:
        raise SourceError(f"expected 8-bit samples in {path}, got {image.dtype}")
    return cast("Pixels", image)


def _read(path: Path, form: int) -> NDArray[Any]:
    try:
        image = cv2.imread(str(path), form | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:  # as where the header tells of more pixels than OpenCV takes
        raise SourceError(f"cannot read image {path}: {error.err}") from error
    if image is None:
        raise SourceError(f"cannot read image {path}")
    _require_end(path)
    return image


def _require_end(path: Path) -> None:
    """OpenCV fills what a JPEG lacks with grey. Some cameras write a little behind the end of the picture."""
    with path.open("rb") as file:
        if file.read(2) != JPEG_START:
            return
        file.seek(max(0, path.stat().st_size - JPEG_TAIL))
        if JPEG_END not in file.read():
            raise SourceError(f"image {path} is cut short: its last {JPEG_TAIL} bytes have no end of a JPEG")


def read_boxes(path: Path) -> list[Box | None]:
    """``x,y,w,h`` a line; a line without area (0,0,0,0) is an absent target.

    Raises:
        SourceError: the file is missing or a line is not four numbers.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SourceError(f"cannot read boxes {path}: {error.strerror}") from error
    boxes: list[Box | None] = []
    for number, line in enumerate(lines, 1):
        try:
            values = np.array(line.replace(",", " ").split(), dtype=float)
        except ValueError as error:
            raise SourceError(f"{path}:{number}: expected x,y,w,h, got {line!r}") from error
        if values.shape != (4,):
            raise SourceError(f"{path}:{number}: expected four numbers x,y,w,h, got {line!r}")
        try:
            boxes.append(Box(*values.tolist()) if values[2] > 0 and values[3] > 0 else None)
        except BoxError as error:
            raise SourceError(f"{path}:{number}: {error}") from error
    return boxes


def read_sequence(folder: Path, *, masks: bool = False) -> Sequence:
    """A folder with ``visible/*.jpg``, ``groundtruth.txt`` and optionally ``mask/*.png``; 10 comes after 9.

    Raises:
        SourceError: a file cannot be read, or there are not as many boxes as frames.
    """
    files = tuple(sorted((folder / "visible").glob("*.jpg"), key=natural_key))
    frames = [read_rgb(path) for path in files]
    boxes = read_boxes(folder / "groundtruth.txt")
    if not frames or len(frames) != len(boxes):
        raise SourceError(f"{folder} has {len(frames)} frames in visible/ and {len(boxes)} boxes in groundtruth.txt")
    mask_paths = sorted((folder / "mask").glob("*.png"), key=natural_key) if masks else []
    loaded = [read_grey(path) for path in mask_paths] if len(mask_paths) == len(frames) else None
    return Sequence(folder.name, frames, boxes, loaded, files)


def read_sequences(root: Path, *, held_out: bool, masks: bool = False, fold: tuple[str, ...] = ()) -> list[Sequence]:
    """The sequences of ``root`` that are (``held_out``) or are not in the validation split, sorted by name.

    Args:
        fold: names that are held out in place of the split's, where given.

    Raises:
        SourceError: ``root`` does not exist, one of the ``fold`` is not there, or one cannot be read.
    """
    if not root.is_dir():
        raise SourceError(f"{root} does not exist: expected a folder of sequences")
    if missing := [name for name in fold if not (root / name).is_dir()]:
        raise SourceError(f"{root / missing[0]} is to be held out and does not exist")
    names = set(fold or validation_split()["rgb-sequences"])
    folders = sorted(path for path in root.iterdir() if path.is_dir() and (path.name in names) == held_out)
    return [read_sequence(folder, masks=masks) for folder in folders]


def read_aligned_pairs(root: Path) -> Iterator[tuple[Pixels, Pixels]]:
    """Colour and thermal of ``<set>/{visible,infrared}/NNNN.jpg``, without the validation split."""
    held_out = set(validation_split()["rgbt-pairs"])
    for path in sorted(root.glob("*/visible/*.jpg")):
        if f"{path.parts[-3]}/{path.stem}" not in held_out:
            yield read_rgb(path), read_grey(path.parent.parent / "infrared" / path.name)


@dataclass(frozen=True, slots=True, eq=False)
class ThermalFrame:
    """A thermal frame with the boxes of everything labelled in it."""

    image: Pixels
    boxes: list[Box]


def read_thermal_frames(root: Path) -> Iterator[ThermalFrame]:
    """Frames of ``runNNN/infrared`` with ``boxes.csv`` (frame, class, x, y, w, h), without the validation split.

    Raises:
        SourceError: a file cannot be read.
    """
    held_out = set(validation_split()["thermal-frames"])
    for run in sorted(path for path in root.iterdir() if path.is_dir() and path.name not in held_out):
        boxes: dict[str, list[Box]] = {}
        try:
            with (run / "boxes.csv").open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    box = Box(*(float(row[key]) for key in ("x", "y", "w", "h")))
                    boxes.setdefault(row["frame"], []).append(box)
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise SourceError(f"cannot read {run / 'boxes.csv'} (frame,class,x,y,w,h): {error!r}") from error
        for name, found in boxes.items():
            yield ThermalFrame(read_grey(run / "infrared" / f"{name}.jpg"), found)


def largest_segments(labels: NDArray[Any], smallest: float, largest: float) -> list[Pixels]:
    """Masks (H, W) of 0 and 255: connected segments that cover from ``smallest`` to ``largest`` of the image."""
    masks: list[Pixels] = []
    for label in np.unique(labels):
        count, components, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8))
        shares = stats[:, cv2.CC_STAT_AREA] / labels.size
        fitting = [index for index in range(1, count) if smallest <= shares[index] <= largest]
        masks.extend((components == index).astype(np.uint8) * 255 for index in fitting)
    return masks
