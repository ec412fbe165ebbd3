"""Trackers' result files: a text file for each sequence, in a folder or a ZIP, with a box a line."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from duotrack.errors import SourceError
from duotrack.evaluation.box_formats import BOX_COLUMNS, BoxFormat, read_numbers, to_xywh
from duotrack.evaluation.ground_truth import Truth
from duotrack.evaluation.metrics import frames_that_may_lack
from duotrack.evaluation.rules import Rules
from duotrack.evaluation.sequences import Boxes

# A sequence of a hundred thousand frames with eight long numbers a line has less.
LARGEST_FILE = 64 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """A tracker's boxes.

    Attributes:
        boxes: sequence name → (N, 4) x y w h in pixels, for the annotated frames; rounded where the rules say so.
        sequence_notes: sequence name → what was mended, for those where something was.
        notes: what concerns all.
    """

    boxes: Mapping[str, Boxes]
    sequence_notes: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Files:
    """Text files, by their path inside a folder or ZIP.

    Attributes:
        read: a file's bytes; more than ``LARGEST_FILE`` are not read to the end.
    """

    place: Path
    paths: tuple[PurePosixPath, ...]
    read: Callable[[PurePosixPath], bytes]

    def text(self, path: PurePosixPath) -> str:
        content = self.read(path)
        if len(content) > LARGEST_FILE:
            raise SourceError(f"{self.source(path)} is larger than {LARGEST_FILE >> 20} MB: this is no result file")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SourceError(f"{self.source(path)} is not a text file") from error

    def source(self, path: PurePosixPath) -> str:
        return str(self.place / path)


def read_results(
    path: Path, truths: Mapping[str, Truth], rules: Rules, prefix: str | None = None, form: BoxFormat | None = None
) -> Results:
    """The result of every sequence in ``truths``, from ``PREFIX`` + ``NAME.txt`` at any depth of a folder or ZIP.

    Lines beyond the truth are cut off, and a few may lack at the end. Where a set annotates every tenth frame, there
    may be a line for every frame, or for those only. All that is mended is noted.

    Args:
        prefix: of the file names. By default none, or that with which there is a file for every sequence.
        form: of the lines. By default four numbers are x y w h, eight are four corners.

    Raises:
        SourceError: there is no such folder or ZIP, a sequence has no file or two, or a file is damaged, has another
            number of columns, or too few lines; the message names the file.
    """
    with _open(path) as files:
        prefix_found, matched = _match(files, list(truths), prefix)
        boxes, sequence_notes = {}, {}
        for name, truth in truths.items():
            boxes[name], notes = _read(files, matched[name], truth, rules, form)
            if notes:
                sequence_notes[name] = notes
        others = [other for other in files.paths if other not in set(matched.values())]
    overall = []
    if prefix is None and prefix_found:
        overall.append(f"file names were found to begin with {prefix_found!r}")
    if others:
        overall.append(f"{len(others)} more files belong to no sequence: {_some(map(str, others))}")
    return Results(boxes, sequence_notes, tuple(overall))


@contextmanager
def _open(path: Path) -> Iterator[_Files]:
    if path.is_dir():
        paths = _text_files(PurePosixPath(file.relative_to(path)) for file in path.rglob("*.txt") if file.is_file())
        yield _Files(path, paths, lambda inner: _read_file(path / inner))
    elif path.is_file():
        try:
            with zipfile.ZipFile(path) as archive:
                members = {PurePosixPath(info.filename): info for info in archive.infolist() if not info.is_dir()}
                yield _Files(path, _text_files(members), lambda inner: _read_member(archive, members[inner], path))
        except (OSError, zipfile.BadZipFile) as error:
            raise SourceError(f"{path} is neither a folder nor a readable ZIP: {error}") from error
    else:
        raise SourceError(f"results {path} do not exist: expected a folder or a ZIP")


def _text_files(paths: Iterable[PurePosixPath]) -> tuple[PurePosixPath, ...]:
    """Without what the archives of a Mac have beside each file."""
    return tuple(
        sorted(
            path
            for path in paths
            if path.suffix == ".txt" and not path.name.startswith(".") and "__MACOSX" not in path.parts
        )
    )


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path) -> bytes:
    try:
        with archive.open(member) as file:
            return file.read(LARGEST_FILE + 1)
    # RuntimeError: it has a password; NotImplementedError: another way of compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise SourceError(f"cannot read {place / member.filename}: {error}") from error


def _match(files: _Files, names: list[str], prefix: str | None) -> tuple[str, dict[str, PurePosixPath]]:
    """The prefix, and the file of every sequence."""
    if not files.paths:
        raise SourceError(f"{files.place} has no .txt files: expected one for each of {len(names)} sequences")
    by_stem: dict[str, list[PurePosixPath]] = {}
    for path in files.paths:
        by_stem.setdefault(path.stem, []).append(path)
    if prefix is None:
        prefix = _find_prefix(by_stem, names, files.place)
    missing = [name for name in names if prefix + name not in by_stem]
    if missing:
        raise SourceError(
            f"{files.place} has no file for {len(missing)} of {len(names)} sequences: "
            f"{_some(f'{prefix}{name}.txt' for name in missing)}; it has {_some(map(str, files.paths))}"
        )
    for name in names:
        if len(by_stem[prefix + name]) > 1:
            raise SourceError(
                f"{files.place} has several files for sequence {name}: {_some(map(str, by_stem[prefix + name]))}; "
                "give the folder of one tracker, or --prefix"
            )
    return prefix, {name: by_stem[prefix + name][0] for name in names}


def _find_prefix(stems: Iterable[str], names: list[str], place: Path) -> str:
    """That with which there is a file for every sequence, or else for most."""
    present = set(stems)
    if present.issuperset(names):
        return ""
    counts = Counter(stem.removesuffix(name) for name in names for stem in present if stem.endswith(name))
    complete = sorted(prefix for prefix, count in counts.items() if count == len(names))
    if len(complete) > 1:
        raise SourceError(
            f"{place} has results of {len(complete)} trackers; choose one with --prefix: {_some(complete)}"
        )
    return complete[0] if complete else max(counts, key=lambda prefix: (counts[prefix], -len(prefix)), default="")


def _read(
    files: _Files, path: PurePosixPath, truth: Truth, rules: Rules, form: BoxFormat | None
) -> tuple[Boxes, tuple[str, ...]]:
    """The boxes of the annotated frames, and what was mended."""
    source = files.source(path)
    values = read_numbers(files.text(path), source)
    form = form or _detect(values.shape[1], source)
    if values.shape[1] != BOX_COLUMNS[form]:
        fitting = [name for name, columns in BOX_COLUMNS.items() if columns == values.shape[1]]
        hint = f": try --box-format {' or '.join(fitting)}" if fitting else ""
        raise SourceError(f"{source} has {values.shape[1]} columns, expected {BOX_COLUMNS[form]} ({form}){hint}")
    boxes = to_xywh(_round(values) if rules.rounded else values, form)
    notes = []
    if truth.step > 1 and len(boxes) > len(truth) + 1:
        boxes = boxes[:: truth.step]
    expected, got = len(truth), len(boxes)
    counted = f"{len(values)} lines, expected {expected}" + (f" (or {truth.step} times that)" if truth.step > 1 else "")
    if expected - got > frames_that_may_lack(expected):
        raise SourceError(f"{source} has {counted}, one for each frame with a true box")
    if got < expected:
        notes.append(f"{counted}: the last {expected - got} frames were left out")
    elif got > expected:
        notes.append(f"{counted}: the rest was cut off")
    boxes = boxes[:expected]
    wrong = int((~np.isfinite(boxes)).any(1).sum())
    if wrong:
        notes.append(f"{wrong} lines are not finite numbers: these frames are misses")
    return boxes, tuple(notes)


def _round(values: Boxes) -> Boxes:
    """To whole pixels, as numbers of single precision: so do the toolkits."""
    return values.astype(np.float32).round().astype(np.float64)


def _detect(columns: int, source: str) -> BoxFormat:
    if columns == BOX_COLUMNS["corners8"]:
        return "corners8"
    if columns == BOX_COLUMNS["xywh"]:
        return "xywh"
    raise SourceError(f"{source} has {columns} columns, expected 4 (xywh, or xyxy with --box-format) or 8 (corners8)")


def _some(names: Iterable[str]) -> str:
    """The first three of many."""
    shown = list(names)
    return ", ".join(shown[:3]) + (", …" if len(shown) > 3 else "")
