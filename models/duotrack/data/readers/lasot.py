"""LaSOT [Fan et al., CVPR 2019]: colour only, ``CLASS/CLASS-N/img/``, with flags of occlusion and exits."""

from __future__ import annotations

from pathlib import Path

from duotrack.data.folders import entries, frame_files, is_sequence, read_names, require_split
from duotrack.data.readers.annotations import assemble, read_box_file, read_frame_flags
from duotrack.data.recordings import Recording
from duotrack.errors import SourceError

MARKS = ("img", "groundtruth.txt")
LISTS = {"train": "training_set.txt", "test": "testing_set.txt"}


def read_lasot(root: Path, split: str | None) -> list[Recording]:
    """``split`` is ``train`` or ``test`` by the set's lists ``training_set.txt``, ``testing_set.txt``, or None for all.

    Raises:
        SourceError: see ``open_recordings``.
    """
    require_split("lasot", split, tuple(LISTS))
    if split is not None:
        return [_read(_folder(root, name)) for name in read_names(root / LISTS[split])]
    folders = [path for path in entries(root) if path.is_dir()]
    nested = [path if is_sequence(path, MARKS) else _of_class(path) for path in folders]
    flat = [path for found in nested for path in ([found] if isinstance(found, Path) else found)]
    if not flat:
        raise SourceError(f"{root} has no sequences: expected CLASS/CLASS-N/ with img/ and groundtruth.txt")
    return [_read(path) for path in flat]


def _of_class(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.is_dir() and is_sequence(path, MARKS)]


def _folder(root: Path, name: str) -> Path:
    """Sequences may stand in folders by class, as the set has them, or side by side."""
    flat = root / name
    return flat if flat.is_dir() else root / name.rpartition("-")[0] / name


def _read(folder: Path) -> Recording:
    frames = frame_files(folder / "img")
    hidden = [False] * len(frames)
    for name in ("full_occlusion.txt", "out_of_view.txt"):
        if (folder / name).is_file():
            flags = read_frame_flags(folder / name, len(frames))
            hidden = [before or bool(flag) for before, flag in zip(hidden, flags, strict=True)]
    return assemble(folder.name, rgb=frames, main=read_box_file(folder / "groundtruth.txt"), absent=hidden)
