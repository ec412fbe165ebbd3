"""VTUAV [Zhang et al., CVPR 2022]: ``rgb/`` and ``ir/`` frames from a drone, every tenth one annotated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from duotrack.boxes import Box
from duotrack.data.folders import entries, frame_files, is_sequence, require_partners
from duotrack.data.readers.annotations import BoxFile, read_box_file
from duotrack.data.recordings import Recording
from duotrack.errors import SourceError

STEP = 10
MARKS = ("rgb", "ir", "rgb.txt", "ir.txt")


def read_vtuav(root: Path, split: str | None) -> list[Recording]:
    """Line i of a box file is frame 10 · i. Sequences lie in ``root`` or up to two folders deeper.

    ``split`` is how the names of the folders in ``root`` begin, as the set's archives are many: ``train``, ``test_ST``,
    ``test_LT``, ``train_ST_004``. The archives hold three sequences twice; the first of a name counts.

    Raises:
        SourceError: see ``open_recordings``.
    """
    found: dict[str, Recording] = {}
    for folder in vtuav_folders(root, split):
        known = found.get(folder.name)
        if known is None:
            found[folder.name] = _read(folder)
        else:
            found[folder.name] = replace(known, notes=(*known.notes, f"the same name again in {folder.parent}"))
    return list(found.values())


def vtuav_folders(root: Path, split: str | None) -> list[Path]:
    """The folders of sequences, in ``root`` or up to two folders deeper; three names are there twice in the archives.

    Raises:
        SourceError: there are none, or no folder's name begins with ``split``.
    """
    parts = [root] if split is None else [path for path in entries(root) if path.name.startswith(split)]
    if not parts:
        raise SourceError(f"{root} has no folder whose name begins with {split!r}")
    found = [folder for part in parts for folder in _sequences(part, depth=2)]
    if not found:
        raise SourceError(f"{root} has no sequences: expected folders with rgb/, ir/, rgb.txt and ir.txt")
    return found


def _sequences(folder: Path, depth: int) -> Iterator[Path]:
    for path in entries(folder):
        if path.is_dir() and is_sequence(path, MARKS):
            yield path
        elif path.is_dir() and depth:
            yield from _sequences(path, depth - 1)


def _read(folder: Path) -> Recording:
    rgb, thermal = frame_files(folder / "rgb"), frame_files(folder / "ir")
    rgb_file, thermal_file = read_box_file(folder / "rgb.txt"), read_box_file(folder / "ir.txt")
    length = min(len(rgb), len(thermal))
    counted = f"{len(rgb)} frames in {folder / 'rgb'}, {len(thermal)} in {folder / 'ir'}"
    if abs(len(rgb) - len(thermal)) >= STEP:
        raise SourceError(f"{folder.name}: expected as many colour as thermal frames, got {counted}")
    require_partners(folder.name, rgb, thermal)
    rgb_boxes, thermal_boxes = (_spread(file, length) for file in (rgb_file, thermal_file))
    annotated = tuple(number % STEP == 0 and number < STEP * len(rgb_file.boxes) for number in range(length))
    return Recording(
        name=folder.name,
        boxes=rgb_boxes,
        annotated=annotated,
        absent=tuple(seen and box is None for seen, box in zip(annotated, rgb_boxes, strict=True)),
        rgb=rgb[:length],
        thermal=thermal[:length],
        rgb_boxes=rgb_boxes,
        thermal_boxes=thermal_boxes,
        notes=(f"cut to {length} frames: {counted}",) if len(rgb) != len(thermal) else (),
    )


def _spread(file: BoxFile, length: int) -> tuple[Box | None, ...]:
    """Each box at its frame, None between; the last incomplete ten frames may go without a line."""
    lines, expected = len(file.boxes), -(-length // STEP)
    if lines not in (expected, expected - 1):
        raise SourceError(f"{file.path} has {lines} lines, expected {expected}: every tenth of {length} frames")
    boxes: list[Box | None] = [None] * length
    boxes[: STEP * lines : STEP] = file.boxes
    return tuple(boxes)
