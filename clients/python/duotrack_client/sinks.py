"""Where results go: a text file of boxes, a CSV file, an annotated video. Each stays valid wherever writing ends."""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack_client.errors import SinkError
from duotrack_client.pairs import PairLike
from duotrack_client.protocol import Box, Result, TargetState
from duotrack_client.sources import IMAGE_SUFFIXES

CSV_COLUMNS: Final = (
    "frame",
    "x",
    "y",
    "w",
    "h",
    "score",
    "state",
    "queue_ms",
    "decode_ms",
    "infer_ms",
    "total_ms",
)

LARGEST_SIDE: Final = 8190  # of an MPEG-4 video, in pixels: 13 bits, and even
DEFAULT_FPS: Final = 25.0  # of a video, where the input does not say

_COLOURS: Final = {  # in B, G, R order, as OpenCV draws
    TargetState.TRACKING: (80, 220, 60),
    TargetState.UNCERTAIN: (0, 200, 255),
    TargetState.COASTING: (255, 160, 0),
    TargetState.LOST: (60, 60, 255),
}


class Sink(Protocol):
    """A file that results are written to, in order.

    Raises:
        SinkError: it cannot be written.
    """

    def write(self, pair: PairLike, result: Result) -> None: ...
    def close(self) -> None: ...


class BoxFile:
    """A line ``x,y,w,h`` for each frame: the form of the tracking benchmarks."""

    def __init__(self, path: Path) -> None:
        self._file = _TextFile(path)

    def write(self, pair: PairLike, result: Result) -> None:  # noqa: ARG002 - the pair is of use to other sinks
        self._file.write(result.box.text() + "\n")

    def close(self) -> None:
        self._file.close()


class CsvFile:
    """A row for each frame, with the score, the state and the timings in milliseconds."""

    def __init__(self, path: Path) -> None:
        self._file = _TextFile(path)
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(CSV_COLUMNS)

    def write(self, pair: PairLike, result: Result) -> None:  # noqa: ARG002
        timings = result.timings
        self._writer.writerow(
            (
                result.seq,
                *(f"{value:.2f}" for value in result.box.xywh),
                f"{result.score:.4f}",
                result.state,
                timings.queue,
                timings.decode,
                timings.infer,
                timings.total,
            )
        )

    def close(self) -> None:
        self._file.close()


class VideoFile:
    """An MP4 video of the two modalities side by side, with the box, the state and the score drawn in."""

    def __init__(self, path: Path, fps: float) -> None:
        _require_mp4(path)
        _TextFile(path).close()
        self._path = path
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._written = 0

    def write(self, pair: PairLike, result: Result) -> None:
        image = draw_pair(pair, result.box, result.state, result.score)
        height, width = image.shape[:2]
        if self._writer is None:
            self._writer = self._open(width, height)
        self._writer.write(image)
        self._written += 1

    def _open(self, width: int, height: int) -> cv2.VideoWriter:
        writer = cv2.VideoWriter(str(self._path), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, (width, height))
        if not writer.isOpened():
            hint = f": its sides may have {LARGEST_SIDE} pixels" if max(width, height) > LARGEST_SIDE else ""
            raise SinkError(f"cannot write a {width}x{height} video to {self._path}{hint}")
        return writer

    def close(self) -> None:
        if self._writer is None:
            self._path.unlink(missing_ok=True)  # without a frame it would be no video
            return
        self._writer.release()
        # OpenCV's writer says nothing where it fails, as on a disk that is full.
        reader = cv2.VideoCapture(str(self._path))
        frames = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
        reader.release()
        if frames < self._written:
            raise SinkError(f"cannot write {self._path}: it has {frames} of {self._written} frames; is the disk full?")


@contextmanager
def open_sinks(
    output: Path | None,
    csv: Path | None,
    video: Path | None,
    fps: float | None,
    inputs: Iterable[Path | None] = (),
) -> Iterator[Sink]:
    """A sink into the files whose paths are given, closed at the end whatever happens.

    The files are opened with the first result: a track that does not start leaves them as they were.

    Args:
        fps: frames per second of the video; 25 where None.
        inputs: files and folders that are read meanwhile.

    Raises:
        SinkError: a file cannot be written, is an input or one of its images, or is to hold two kinds of results.
    """
    outputs = [path for path in (output, csv, video) if path is not None]
    _require_places(outputs, [path for path in inputs if path is not None])
    openers: list[Callable[[], Sink]] = []
    if output is not None:
        openers.append(partial(BoxFile, output))
    if csv is not None:
        openers.append(partial(CsvFile, csv))
    if video is not None:
        _require_mp4(video)
        openers.append(partial(VideoFile, video, fps or DEFAULT_FPS))
    with closing(_LateSinks(openers)) as sinks:
        yield sinks


def draw_pair(pair: PairLike, box: Box, state: TargetState, score: float) -> NDArray[np.uint8]:
    """The images of ``pair`` side by side, annotated: (H, W, 3) uint8 in B, G, R order, with even sides."""
    images = []
    if pair.rgb is not None:
        images.append(cv2.cvtColor(pair.rgb, cv2.COLOR_RGB2BGR))
    if pair.thermal is not None:
        images.append(cv2.cvtColor(_to_8_bits(pair.thermal), cv2.COLOR_GRAY2BGR))
    for image in images:
        _draw(image, box, state, score)
    joined = np.hstack(images)
    height, width = joined.shape[:2]
    return np.asarray(joined[: height - height % 2 or 1, : width - width % 2 or 1], np.uint8)


def _draw(image: NDArray[Any], box: Box, state: TargetState, score: float) -> None:
    colour = _COLOURS[state]
    limit = 4.0 * max(image.shape)  # OpenCV takes 32-bit integers
    left, top, right, bottom = (
        round(min(max(value, -limit), limit)) for value in (box.x, box.y, box.x + box.w, box.y + box.h)
    )
    cv2.rectangle(image, (left, top), (right, bottom), colour, 2)
    cv2.putText(image, f"{state} {score:.2f}", (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)


def _to_8_bits(thermal: NDArray[Any]) -> NDArray[np.uint8]:
    if thermal.dtype != np.uint16:
        return np.asarray(thermal, np.uint8)
    # The 1st to the 99th percentile: a scene fills a small part of the 16 bits, and single hot pixels even less.
    low, high = np.percentile(thermal, (1, 99))
    scaled = (thermal.astype(np.float32) - low) * (255.0 / max(high - low, 1.0))
    return np.asarray(np.clip(scaled, 0, 255), np.uint8)


class _LateSinks:
    """Several sinks that are opened with the first result."""

    def __init__(self, openers: Iterable[Callable[[], Sink]]) -> None:
        self._openers = openers
        self._opened = ExitStack()
        self._sinks: list[Sink] | None = None

    def write(self, pair: PairLike, result: Result) -> None:
        if self._sinks is None:
            self._sinks = [self._opened.enter_context(closing(opener())) for opener in self._openers]
        for sink in self._sinks:
            sink.write(pair, result)

    def close(self) -> None:
        self._opened.close()


def _require_places(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Check that outputs have folders, and are not in the place of an input, of one of its images, or of each other."""
    for place, path in enumerate(outputs):
        if not path.parent.is_dir():
            raise SinkError(f"cannot write {path}: {os.strerror(errno.ENOENT)}")
        for other in inputs:
            is_frame = path.suffix.lower() in IMAGE_SUFFIXES and other.resolve() in path.resolve().parents
            if _is_same(path, other) or is_frame:
                raise SinkError(f"expected {path} to be written elsewhere than to the input {other}")
        for other in outputs[:place]:
            if _is_same(path, other):
                raise SinkError(f"expected a file of its own for each kind of results, got {path} twice")


def _is_same(path: Path, other: Path) -> bool:
    """Whether two paths are of one file or folder; what is no file, as ``/dev/null``, can be written to twice."""
    try:
        return path.samefile(other) and (path.is_file() or path.is_dir())
    except OSError:  # one of them is not there
        return path.resolve() == other.resolve()


def _require_mp4(path: Path) -> None:
    if path.suffix.lower() != ".mp4":
        raise SinkError(f"expected a video file that ends in .mp4, got {path}")


class _TextFile:
    """A new text file, whose every error names it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._named():
            self._file = path.open("w", encoding="utf-8", buffering=1, newline="")  # by lines: nothing half-written

    def write(self, text: str) -> None:
        try:
            with self._named():
                self._file.write(text)
        except SinkError:
            with suppress(OSError):
                self._file.close()
            raise

    def close(self) -> None:
        with self._named():
            self._file.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SinkError(f"cannot write {self._path}: {error.strerror}") from error
