"""OTB-100 [Wu et al., TPAMI 2015]: colour only, ``NAME/img/``; some folders have more frames or targets than one."""

from __future__ import annotations

import re
from pathlib import Path

from duotrack.data.folders import entries, frame_files, require_split, sequence_folders
from duotrack.data.readers.annotations import BoxFile, assemble, read_box_file
from duotrack.data.recordings import Recording
from duotrack.errors import SourceError

# The benchmark's first and last frame, by file number, where the folder has frames that were never annotated.
ANNOTATED = {
    "BlurCar1": (247, 988),
    "BlurCar3": (3, 359),
    "BlurCar4": (18, 397),
    "David": (300, 770),
    "Diving": (1, 215),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
}


def read_otb(root: Path, split: str | None) -> list[Recording]:
    """No splits. Folders with boxes of several targets (Jogging, Skating2) give a recording each: ``Jogging-1``.

    Boxes are as the files have them, and these count pixels from one.

    Raises:
        SourceError: see ``open_recordings``.
    """
    require_split("otb", split, ())
    folders = sequence_folders(root, ("img", "groundtruth_rect.txt"))
    return [recording for folder in folders for recording in _read(folder)]


def _read(folder: Path) -> list[Recording]:
    files = [path for path in entries(folder) if re.fullmatch(r"groundtruth_rect(\.\d+)?\.txt", path.name)]
    if not files:
        raise SourceError(f"cannot find {folder / 'groundtruth_rect.txt'}, nor boxes of several targets beside it")
    frames = frame_files(folder / "img")
    names = [f"{folder.name}-{path.stem.rpartition('.')[2]}" if len(files) > 1 else folder.name for path in files]
    return [_of_target(name, folder, frames, read_box_file(path)) for name, path in zip(names, files, strict=True)]


def _of_target(name: str, folder: Path, frames: tuple[Path, ...], boxes: BoxFile) -> Recording:
    span = ANNOTATED.get(folder.name)
    if span is not None and len(frames) != len(boxes.boxes):
        first, last = span
        frames = tuple(path for path in frames if path.stem.isdecimal() and first <= int(path.stem) <= last)
        if not frames:
            raise SourceError(f"{folder / 'img'} has none of the annotated frames {first:04d} to {last:04d}")
    return assemble(name, rgb=frames, main=boxes)
