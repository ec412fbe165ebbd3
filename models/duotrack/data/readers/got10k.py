"""GOT-10k [Huang et al., TPAMI 2021]: colour only, with labels of absence and visibility."""

from __future__ import annotations

from pathlib import Path

from duotrack.data.folders import frame_files, read_names, require_split, sequence_folders
from duotrack.data.readers.annotations import BoxFile, assemble, read_box_file, read_frame_flags
from duotrack.data.recordings import Recording
from duotrack.errors import SourceError

SPLITS = ("train", "val", "test")


def read_got10k(root: Path, split: str | None) -> list[Recording]:
    """``split`` is ``train``, ``val``, ``test``, or None for those that ``root`` has; ``root`` may itself be one split.

    ``list.txt`` says which sequences belong to a split; without it, all folders do. The test split has a box for the
    first frame only: the other frames are not annotated.

    Raises:
        SourceError: see ``open_recordings``.
    """
    require_split("got10k", split, SPLITS)
    present = [name for name in SPLITS if (root / name).is_dir()]
    folders = [root / split] if split is not None else [root / name for name in present] or [root]
    return [_read(sequence) for folder in folders for sequence in _sequences(folder)]


def _sequences(folder: Path) -> list[Path]:
    names = folder / "list.txt"
    if names.is_file():
        return [folder / name for name in read_names(names)]
    return sequence_folders(folder, ("groundtruth.txt",))


def _read(folder: Path) -> Recording:
    frames, boxes = frame_files(folder), read_box_file(folder / "groundtruth.txt")
    if len(boxes.boxes) == 1 < len(frames):
        return _first_box_only(folder, frames, boxes)
    hidden = [False] * len(frames)
    # A target is out of sight where absence.label has 1, or where cover.label (in eighths visible) has 0.
    for name, sign in (("absence.label", 1), ("cover.label", 0)):
        if (folder / name).is_file():
            flags = read_frame_flags(folder / name, len(frames))
            hidden = [before or flag == sign for before, flag in zip(hidden, flags, strict=True)]
    return assemble(folder.name, rgb=frames, main=boxes, absent=hidden)


def _first_box_only(folder: Path, frames: tuple[Path, ...], boxes: BoxFile) -> Recording:
    if "test" not in folder.name.lower() and folder.parent.name != "test":
        raise SourceError(
            f"{boxes.path} has 1 line, expected {len(frames)}: only the test split has one box a sequence"
        )
    rest = len(frames) - 1
    return Recording(
        name=folder.name,
        boxes=boxes.boxes + (None,) * rest,
        annotated=(True,) + (False,) * rest,
        absent=(boxes.boxes[0] is None,) + (False,) * rest,
        rgb=frames,
    )
