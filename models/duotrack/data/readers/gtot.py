"""GTOT [Li et al., TIP 2016]: ``v/`` and ``i/`` frames, boxes as two corners."""

from __future__ import annotations

from pathlib import Path

from duotrack.data.folders import frame_files, require_split, sequence_folders
from duotrack.data.readers.annotations import assemble, read_box_file, two_corners
from duotrack.data.recordings import Recording


def read_gtot(root: Path, split: str | None) -> list[Recording]:
    """The 50 short grey and thermal sequences; no splits.

    Raises:
        SourceError: see ``open_recordings``.
    """
    require_split("gtot", split, ())
    return [_read(folder) for folder in sequence_folders(root, ("v", "i", "groundTruth_v.txt"))]


def _read(folder: Path) -> Recording:
    rgb_boxes = read_box_file(folder / "groundTruth_v.txt", two_corners)
    return assemble(
        folder.name,
        rgb=frame_files(folder / "v"),
        thermal=frame_files(folder / "i"),
        main=rgb_boxes,
        rgb_boxes=rgb_boxes,
        thermal_boxes=read_box_file(folder / "groundTruth_i.txt", two_corners),
    )
