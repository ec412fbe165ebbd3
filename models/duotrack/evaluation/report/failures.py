"""Pictures of a tracker's worst moments: the first frame, the last good one, and that in which the target was lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.errors import EvaluationError
from duotrack.evaluation.metrics import iou
from duotrack.evaluation.sequences import BenchmarkPairs, Boxes, to_array
from duotrack.frames import FramePair, thermal_to_uint8

Rectangle = tuple[float, float, float, float]
"""x y w h in pixels of the frame."""

LOST = 0.1
LOST_FRAMES = 10
GOOD = 0.5
WIDEST = 480
LARGEST = 80_000
"""Pixels in width, and bytes, of an embedded picture: six failures with both modalities stay below 4 MB."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One moment of a sequence as the trackers saw it.

    Attributes:
        frame: number, from 0.
        moment: what it is, in a word or two.
        colour, thermal: the part of the frame that is shown, as JPEG; None where the modality is missing.
        truth: None where the target is absent.
        boxes, overlaps: box and IoU of each tracker, IoU None where the target is absent.
    """

    frame: int
    moment: str
    colour: bytes | None = field(repr=False)
    thermal: bytes | None = field(repr=False)
    truth: Rectangle | None
    boxes: Mapping[str, Rectangle]
    overlaps: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class FailurePicture:
    """A sequence that went wrong, in a few moments.

    Attributes:
        window: the part of the frames that the pictures show, the same in all.
        caption: what happened, in a sentence.
    """

    benchmark: str
    sequence: str
    window: Rectangle
    shots: tuple[Shot, ...]
    caption: str

    @property
    def frame(self) -> int:
        """The moment of failure."""
        return self.shots[-1].frame

    def to_record(self) -> dict[str, Any]:
        """As plain values for JSON, without the images."""
        shots = [
            {name: value for name, value in asdict(shot).items() if name not in ("colour", "thermal")}
            for shot in self.shots
        ]
        return {
            "benchmark": self.benchmark,
            "sequence": self.sequence,
            "window": list(self.window),
            "caption": self.caption,
            "shots": shots,
        }


def failure_pictures(
    sequences: Sequence[BenchmarkPairs],
    boxes: Mapping[str, Mapping[str, Boxes]],
    *,
    count: int = 6,
    benchmark: str = "",
) -> tuple[FailurePicture, ...]:
    """The worst failures of the first tracker, with what the others did at the same moments.

    Sequences in which it lost the target come first (IoU below 0.1 in 10 visible frames on end), worst mean IoU before
    better; then those with a frame below 0.5. A sequence that went well is not shown, however few are left.

    Args:
        boxes: for each tracker, by sequence, (N, 4) x y w h in pixels; a tracker may lack sequences.
        benchmark: whose section of the report shows the pictures; the first one's by default.

    Raises:
        EvaluationError: a sequence has another number of boxes than frames.
        SourceError: a frame cannot be read.
    """
    if not boxes:
        return ()
    first = boxes[next(iter(boxes))]
    failures = [
        failure
        for sequence in sequences
        if sequence.name in first and (failure := _failure(sequence, first[sequence.name])) is not None
    ]
    failures.sort(key=lambda failure: (not failure.lost, failure.mean))
    return tuple(
        _picture(
            failure,
            {label: found[failure.sequence.name] for label, found in boxes.items() if failure.sequence.name in found},
            benchmark,
        )
        for failure in failures[: max(count, 0)]
    )


@dataclass(frozen=True, slots=True)
class _Failure:
    sequence: BenchmarkPairs
    mean: float
    frame: int
    before: int
    lost: bool


def _failure(sequence: BenchmarkPairs, found: Boxes) -> _Failure | None:
    """Where the tracker failed; None where every frame is good enough."""
    overlaps = _overlaps(sequence, found)
    visible = np.flatnonzero(~np.isnan(overlaps))
    visible = visible[visible > 0]
    if not len(visible) or overlaps[visible].min() >= GOOD:
        return None
    start = _start_of_loss(overlaps[visible] < LOST)
    frame = int(visible[start] if start is not None else visible[overlaps[visible].argmin()])
    earlier = visible[visible < frame]
    good = earlier[overlaps[earlier] >= GOOD]
    before = int(good[-1]) if len(good) else int(earlier[-1]) if len(earlier) else 0
    return _Failure(sequence, float(overlaps[visible].mean()), frame, before, start is not None)


def _start_of_loss(bad: NDArray[np.bool_]) -> int | None:
    """The first of ``LOST_FRAMES`` or more on end."""
    if len(bad) < LOST_FRAMES:
        return None
    runs = np.lib.stride_tricks.sliding_window_view(bad, LOST_FRAMES).all(1)
    return int(runs.argmax()) if runs.any() else None


def _overlaps(sequence: BenchmarkPairs, found: Boxes) -> NDArray[np.float64]:
    """(N,) IoU, NaN where the target is absent."""
    truth = to_array(sequence.boxes)
    if found.shape != truth.shape:
        raise EvaluationError(
            f"sequence {sequence.name}: {len(truth)} frames need boxes of shape {truth.shape}, got {found.shape}"
        )
    overlaps: NDArray[np.float64] = np.where(truth[:, 2] > 0, np.nan_to_num(iou(found, truth)), np.nan)
    return overlaps


def _picture(failure: _Failure, boxes: Mapping[str, Boxes], benchmark: str) -> FailurePicture:
    sequence, overlaps = failure.sequence, {label: _overlaps(failure.sequence, found) for label, found in boxes.items()}
    moments = {0: "first frame"}
    if failure.before not in (0, failure.frame):
        moments[failure.before] = "before"
    moments[failure.frame] = "lost" if failure.lost else "lowest overlap"
    truth = to_array(sequence.boxes)
    label = next(iter(boxes))
    shown = np.concatenate([array[[*moments]] for array in (truth, boxes[label])])
    pairs = {frame: sequence.pair(frame) for frame in moments}
    start = pairs[0]
    window = _window(shown[np.isfinite(shown).all(1) & (shown[:, 2] > 0)], start.width, start.height)
    shots = tuple(
        Shot(
            frame,
            moment,
            *_images(pairs[frame], window),
            _rectangle(truth[frame]) if truth[frame, 2] > 0 else None,
            {name: _rectangle(found[frame]) for name, found in boxes.items() if np.isfinite(found[frame]).all()},
            {name: None if math.isnan(values[frame]) else float(values[frame]) for name, values in overlaps.items()},
        )
        for frame, moment in moments.items()
    )
    return FailurePicture(benchmark, sequence.name, _rectangle(window), shots, _caption(failure, label))


def _caption(failure: _Failure, label: str) -> str:
    last = len(failure.sequence.boxes) - 1
    if failure.lost:
        what = f"lost the target in frame {failure.frame} of {last}"
        what += "" if failure.before in (0, failure.frame) else f"; frame {failure.before} was the last good one before"
    else:
        what = f"has its lowest overlap in frame {failure.frame} of {last}"
    return f"{label} {what}. Mean IoU {failure.mean:.2f}."


def _window(boxes: Boxes, width: int, height: int) -> NDArray[np.float64]:
    """The part of a frame that shows the boxes and what is around them, in the frame's shape, as whole pixels."""
    corner, end = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
    frame = np.array([width, height], np.float64)
    corner, end = np.clip(corner, 0, frame), np.clip(end, 0, frame)
    needed = (end - corner) + 2 * float(np.sqrt(boxes[:, 2:].prod(1)).max())
    share = float(np.clip((needed / frame).max(), 1 / 3, 1))
    size = np.round(share * frame)
    place = np.clip(np.round((corner + end - size) / 2), 0, frame - size)
    return np.concatenate((place, size))


def _images(pair: FramePair, window: NDArray[np.float64]) -> tuple[bytes | None, bytes | None]:
    """Colour and thermal as JPEG."""
    thermal = None if pair.thermal is None else thermal_to_uint8(pair.thermal)
    colour = None if pair.rgb is None else np.ascontiguousarray(pair.rgb[..., ::-1])
    return _jpeg(colour, window), _jpeg(thermal, window)


def _jpeg(image: NDArray[np.uint8] | None, window: NDArray[np.float64]) -> bytes | None:
    if image is None:
        return None
    x, y, width, height = window.astype(int)
    part: Any = image[y : y + height, x : x + width]
    if width > WIDEST:
        part = cv2.resize(part, (WIDEST, max(1, round(height * WIDEST / width))), interpolation=cv2.INTER_AREA)
    for quality in (82, 60, 35):
        encoded: bytes = cv2.imencode(".jpg", part, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()
        if len(encoded) <= LARGEST:
            break
    return encoded


def _rectangle(box: NDArray[np.float64]) -> Rectangle:
    x, y, w, h = box.tolist()
    return x, y, w, h
