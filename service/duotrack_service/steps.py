"""A lane's work on a batch of frames: decode, crop, infer, update. Runs in worker threads and shares nothing.

What is wrong with one frame must not touch the others of its batch, whatever it is: each frame has an outcome of its
own, and where a whole batch fails, its frames are tried one by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from duotrack.boxes import Box
from duotrack.errors import FrameError
from duotrack.frames import FramePair
from duotrack_client.protocol import Frame
from duotrack_service.decoding import decode_pair
from duotrack_service.inference import Model, Track, TrackResult


@dataclass(frozen=True, slots=True)
class Job:
    """One frame pair of one session, and what is to be done with it.

    Attributes:
        frame: the encoded pair.
        tracks: the session's targets that are followed already, by number.
        starts: targets to start, or start anew, on their boxes in this pair.
        options: switches of the tracker, for targets that start.
    """

    frame: Frame
    tracks: Mapping[int, Track]
    starts: Mapping[int, Box] = field(default_factory=dict)
    options: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """What became of a job.

    Attributes:
        tracks: all targets of the session after the pair, by number.
        results: where they are.
        decode_ms, infer_ms: time in milliseconds; that of a batch's inference counts in full for each of its frames.
    """

    tracks: Mapping[int, Track]
    results: Mapping[int, TrackResult]
    decode_ms: float
    infer_ms: float


Outcome: TypeAlias = Step | Exception
"""An exception is that frame's: ImageError, BoxError and FrameError are the client's, others are ours."""


@dataclass(frozen=True, slots=True)
class _Decoded:
    job: Job
    pair: FramePair
    milliseconds: float


Decoded: TypeAlias = _Decoded | Exception
Map: TypeAlias = Callable[[Callable[[Job], Decoded], Sequence[Job]], Iterable[Decoded]]


def run(model: Model, jobs: Sequence[Job], each: Map = map) -> list[Outcome]:
    """Take one step of each job's session, in one batch of the model; the outcomes in the order of the jobs.

    Args:
        each: calls a function on each job, ``map`` or that of an executor: how images are decoded.
    """
    decoded = list(each(_decode, jobs))
    ready = [one for one in decoded if isinstance(one, _Decoded)]
    stepped = iter(_steps(model, ready))
    return [next(stepped) if isinstance(one, _Decoded) else one for one in decoded]


def _decode(job: Job) -> Decoded:
    began = time.perf_counter()
    try:
        pair = decode_pair(job.frame)
    except Exception as error:
        return error
    return _Decoded(job, pair, (time.perf_counter() - began) * 1000)


def _steps(model: Model, decoded: Sequence[_Decoded]) -> list[Outcome]:
    if not decoded:
        return []
    try:
        return _batch(model, decoded)
    except Exception as error:
        if len(decoded) == 1:
            return [error]
        return [outcome for one in decoded for outcome in _steps(model, [one])]


def _batch(model: Model, decoded: Sequence[_Decoded]) -> list[Outcome]:
    began = time.perf_counter()
    work = [
        (index, target, track, one.pair)
        for index, one in enumerate(decoded)
        for target, track in one.job.tracks.items()
        if target not in one.job.starts
    ]
    moved = model.update([(track, pair) for _, _, track, pair in work]) if work else []
    answers: list[dict[int, tuple[Track, TrackResult]]] = [{} for _ in decoded]
    errors: dict[int, Exception] = {}
    for (index, target, _, _), answer in zip(work, moved, strict=True):
        if isinstance(answer, FrameError):
            errors[index] = answer
        else:
            answers[index][target] = answer
    for index, one in enumerate(decoded):
        for target, box in one.job.starts.items():
            try:
                answers[index][target] = model.start(one.pair, box, one.job.options)
            except Exception as error:
                errors[index] = error
    elapsed = (time.perf_counter() - began) * 1000
    return [
        errors[index] if index in errors else _step(answers[index], one.milliseconds, elapsed)
        for index, one in enumerate(decoded)
    ]


def _step(answers: Mapping[int, tuple[Track, TrackResult]], decode_ms: float, infer_ms: float) -> Step:
    targets = sorted(answers)
    return Step(
        tracks={target: answers[target][0] for target in targets},
        results={target: answers[target][1] for target in targets},
        decode_ms=decode_ms,
        infer_ms=infer_ms,
    )
