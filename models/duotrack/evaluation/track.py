"""One tracker's run over one sequence: what it said about every frame and how long it took, in memory and on disk."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duotrack.data.whole_file import whole_file
from duotrack.errors import EvaluationError
from duotrack.evaluation.in_memory import first_box
from duotrack.evaluation.sequences import AnnotatedPairs, Boxes, to_array
from duotrack.evaluation.trackers import Found, SequenceTracker

COLUMNS = ("frame", "x", "y", "w", "h", "score", "lost", "read_ms", "track_ms")


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """What a tracker said about N frames, the first of which it was given.

    Attributes:
        boxes: (N, 4) x y w h in pixels.
        score: (N,) confidence, NaN where there is none.
        lost: (N,) 1 where the tracker said that it has lost the target, 0 where not, NaN where it never says so.
        read_ms, track_ms: (N,) milliseconds to get the pair, and to track it.
    """

    boxes: Boxes
    score: NDArray[np.float64]
    lost: NDArray[np.float64]
    read_ms: NDArray[np.float64]
    track_ms: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.boxes)


def follow(tracker: SequenceTracker, sequence: AnnotatedPairs, report: Callable[[], object] | None = None) -> Track:
    """Run a tracker over a whole sequence, each pair read when the one before is done.

    Args:
        report: called after each frame.

    Raises:
        SourceError: a frame cannot be read, or the sequence starts without its target.
        EvaluationError: the first pair lacks the modality that the tracker sees.
    """
    box = first_box(sequence)
    found, read_ms, track_ms = [], [], []
    for index in range(len(sequence.boxes)):
        asked = time.perf_counter()
        pair = sequence.pair(index)
        read = time.perf_counter()
        if index == 0:
            tracker.init(pair, box)
            answer = Found(box)
        else:
            answer = tracker.update(pair)
        done = time.perf_counter()
        found.append(answer)
        read_ms.append((read - asked) * 1e3)
        track_ms.append((done - read) * 1e3)
        if report is not None:
            report()
    return Track(
        to_array(answer.box for answer in found),
        np.array([np.nan if answer.score is None else answer.score for answer in found]),
        np.array([np.nan if answer.lost is None else float(answer.lost) for answer in found]),
        np.array(read_ms),
        np.array(track_ms),
    )


def write_track(path: Path, track: Track) -> None:
    """A row for each frame, with a line of names on top; boxes to a thousandth of a pixel.

    Raises:
        SourceError: it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, row in enumerate(_table(track)):
        writer.writerow((number, *("" if np.isnan(value) else f"{value:.3f}" for value in row)))
    with whole_file(path) as file:
        file.write(text.getvalue().encode())


def read_track(path: Path) -> Track:
    """What ``write_track`` wrote.

    Raises:
        EvaluationError: the file is missing or is no such table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        if tuple(header) != COLUMNS or not rows:
            raise ValueError(f"expected the columns {','.join(COLUMNS)} and a row for each frame")
        table = np.array([[float(value) if value else np.nan for value in row[1:]] for row in rows])
        if table.shape != (len(rows), len(COLUMNS) - 1):
            raise ValueError(f"expected {len(COLUMNS)} columns")
    except OSError as error:
        raise EvaluationError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise EvaluationError(f"{path} is not a track of an evaluation: {error}") from error
    return Track(table[:, :4], *(table[:, column] for column in range(4, 8)))


def _table(track: Track) -> NDArray[np.float64]:
    return np.column_stack((track.boxes, track.score, track.lost, track.read_ms, track.track_ms))
