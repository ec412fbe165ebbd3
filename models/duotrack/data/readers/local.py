"""The project's own colour sequences: ``rgb-sequences/NAME/visible/``, with its validation split (docs/training.md)."""

from __future__ import annotations

from pathlib import Path

from duotrack.data.folders import frame_files, require_split, sequence_folders
from duotrack.data.images import validation_split
from duotrack.data.readers.annotations import assemble, read_box_file
from duotrack.data.recordings import Recording


def read_local(root: Path, split: str | None) -> list[Recording]:
    """``root`` is the data folder, or its ``rgb-sequences``; ``split`` is ``train``, ``val``, or None for both.

    Raises:
        SourceError: see ``open_recordings``.
    """
    require_split("local", split, ("train", "val"))
    nested = root / "rgb-sequences"
    folders = sequence_folders(nested if nested.is_dir() else root, ("visible", "groundtruth.txt"))
    held_out = set(validation_split()["rgb-sequences"])
    wanted = [path for path in folders if split is None or (path.name in held_out) == (split == "val")]
    return [
        assemble(path.name, rgb=frame_files(path / "visible"), main=read_box_file(path / "groundtruth.txt"))
        for path in wanted
    ]
