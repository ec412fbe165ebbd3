"""Finding frames and sequences in folders whose names follow no single rule."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from duotrack.errors import SourceError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}


def natural_key(path: Path) -> list[str | int]:
    """Sorts ``10.jpg`` after ``9.jpg``: runs of digits compare as numbers."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def frame_files(folder: Path) -> tuple[Path, ...]:
    """The images of a folder in natural order of their names, which differ too much between sets to be parsed.

    Raises:
        SourceError: the folder is missing or has no images.
    """
    files = [path for path in entries(folder) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not files:
        raise SourceError(f"{folder} has no frames: expected {', '.join(sorted(IMAGE_SUFFIXES))} files")
    return tuple(sorted(files, key=natural_key))


def require_partners(name: str, rgb: Sequence[Path], thermal: Sequence[Path]) -> None:
    """Frames are paired in order: where one side is shorter, it must lack the last ones.

    Which ones it lacks is told by the names, or by their last numbers from the first on; names that differ otherwise
    tell nothing.

    Args:
        name: of the recording, for the message.

    Raises:
        SourceError: a frame lacks its partner, and others after it do not.
    """
    shorter, longer = sorted((rgb, thermal), key=len)
    frame = _without_partner(longer, shorter) if len(shorter) != len(longer) else None
    if frame is not None:
        raise SourceError(
            f"{name}: {frame} has no partner in {shorter[0].parent}, and those after it would have the wrong one; "
            "add the missing frame, or remove this one and its lines of annotation"
        )


def _without_partner(longer: Sequence[Path], shorter: Sequence[Path]) -> Path | None:
    keys: list[Sequence[object]] = [[path.stem for path in paths] for paths in (longer, shorter)]
    if not set(keys[1]) <= set(keys[0]):
        keys = [_counted(paths) for paths in (longer, shorter)]
    if not set(keys[1]) <= set(keys[0]):
        return None
    return next((path for path, key, other in zip(longer, *keys, strict=False) if key != other), None)


def _counted(paths: Sequence[Path]) -> list[int]:
    """The last number in each name, from the first one's on; 0 where there is none."""
    numbers = [int((re.findall(r"\d+", path.stem) or ["0"])[-1]) for path in paths]
    return [number - numbers[0] for number in numbers]


def entries(folder: Path) -> list[Path]:
    """Everything in a folder but hidden files (archives made on a Mac bring a ``._`` twin of each frame).

    Raises:
        SourceError: the folder is missing or cannot be read.
    """
    try:
        return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=natural_key)
    except OSError as error:
        raise SourceError(f"expected a folder at {folder}: {error.strerror}") from error


def sequence_folders(root: Path, marks: Sequence[str]) -> list[Path]:
    """The folders of ``root`` that are sequences: those with a file or folder named in ``marks``, and empty ones.

    Folders with other things, such as lists of attributes, stand beside the sequences of several sets. An empty folder
    is taken for a sequence, so that reading it fails, rather than that a sequence goes missing.

    Raises:
        SourceError: the folder is missing, or has no sequences.
    """
    found = [path for path in entries(root) if path.is_dir() and is_sequence(path, marks)]
    if not found:
        raise SourceError(f"{root} has no sequences: expected folders with {' or '.join(marks)}")
    return found


def is_sequence(folder: Path, marks: Sequence[str]) -> bool:
    return any((folder / mark).exists() for mark in marks) or not entries(folder)


def read_names(path: Path) -> list[str]:
    """Sequence names, one a line.

    Raises:
        SourceError: the file is missing or has no names.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read the list of sequences {path}: {error}") from error
    if not lines:
        raise SourceError(f"the list of sequences {path} is empty: expected one name a line")
    return lines


def require_split(kind: str, split: str | None, allowed: Sequence[str]) -> None:
    """
    Raises:
        SourceError: ``split`` is neither None nor one of ``allowed``.
    """
    if split is not None and split not in allowed:
        choice = f"has the splits {', '.join(allowed)}" if allowed else "has no splits"
        raise SourceError(f"{kind} {choice}; got {split!r}")
