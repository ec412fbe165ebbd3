"""From the files of a run to its scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from duotrack.errors import EvaluationError
from duotrack.evaluation.benchmark import Benchmark, truth_of
from duotrack.evaluation.ground_truth import Truth
from duotrack.evaluation.loss_reports import LossTrack, judge_losses
from duotrack.evaluation.metrics import iou, score_benchmark, score_sequence
from duotrack.evaluation.results import Results, read_results
from duotrack.evaluation.rules import VISIBLE, Rules
from duotrack.evaluation.runner import Job, prepared
from duotrack.evaluation.scores import BenchmarkScore, LossReports, SequenceScore, Speed
from duotrack.evaluation.sequences import AnnotatedPairs, to_array
from duotrack.evaluation.track import Track, read_track


def score_run(folder: Path, benchmark: Benchmark, label: str, record: Mapping[str, Any]) -> BenchmarkScore | None:
    """Scores of a run folder, over the sequences that are done; those that cannot be scored are named in the notes.

    On public sets, boxes come from the result files and are rounded to whole pixels, as the sets' own tools do it; on
    our own benchmarks they are taken as they are.

    Args:
        label: of the tracker.
        record: ``run.json``.

    Returns:
        None where no sequence has a true box after its first frame, as in a set that keeps its truth to itself.

    Raises:
        EvaluationError, SourceError: a file of the run is missing or damaged, or no sequence is done or can be scored.
    """
    names = [name for name in benchmark.sequences if Job(folder, name).result.is_file()]
    tracks = {name: read_track(Job(folder, name).frames) for name in names}
    truths = {name: benchmark.truth(name) for name in names}
    if benchmark.raw_truths is None:
        results = Results({name: track.boxes for name, track in tracks.items()}, {})
    else:
        results = read_results(folder / "results", truths, benchmark.rules, prefix="")
    sequences, unscored = _score_sequences(results, truths, benchmark.rules)
    if unscored and not sequences:
        if any(_has_boxes(truth) for truth in truths.values()):
            raise EvaluationError(f"{unscored[0]}, and none of the other sequences can be scored")
        return None
    fully_annotated = all(truth.step == 1 for truth in truths.values())
    followed = [(tracks[entry.name], benchmark.sequences[entry.name]) for entry in sequences]
    left_out = len(benchmark.sequences) - len(names)
    machines = record["machines"]
    notes = (
        *benchmark.notes,
        *([f"{left_out} of {len(benchmark.sequences)} sequences have no result"] if left_out else ()),
        *(f"not scored: {reason}" for reason in unscored),
        *([f"parts ran elsewhere: {machines[:-1]}"] if len(machines) > 1 else ()),
    )
    return score_benchmark(
        benchmark.label,
        label,
        sequences,
        benchmark.rules,
        speed=speed(tracks.values(), drawn=benchmark.drawn, processes=record["processes"]),
        loss_reports=loss_reports(followed) if fully_annotated else None,
        about=machines[-1],
        notes=notes,
    )


def _score_sequences(
    results: Results, truths: Mapping[str, Truth], rules: Rules
) -> tuple[list[SequenceScore], list[str]]:
    """The sequences that can be scored, and why each of the others cannot."""
    scored, reasons = [], []
    for name, truth in truths.items():
        notes = results.sequence_notes.get(name, ())
        try:
            scored.append(score_sequence(name, results.boxes[name], truth.boxes, rules, truth.attributes, notes))
        except EvaluationError as error:
            reasons.append(str(error))
    return scored, reasons


def _has_boxes(truth: Truth) -> bool:
    """Whether a target is known in any frame but the first."""
    return any(bool((boxes[1:, 2:] > 0).all(1).any()) for boxes in truth.boxes)


def score_visible(jobs: Iterable[Job], benchmark: Benchmark) -> tuple[float, LossReports | None]:
    """Success AUC and loss reports of jobs by the rules of our own benchmarks, which fit corrupted sequences too.

    Raises:
        EvaluationError: a job is not done.
    """
    sequences: list[SequenceScore] = []
    followed: list[tuple[Track, AnnotatedPairs]] = []
    for job in jobs:
        sequence = prepared(benchmark.sequences[job.sequence], job.corruption)
        track = read_track(job.frames)
        sequences.append(score_sequence(job.sequence, track.boxes, truth_of(sequence).boxes, VISIBLE))
        followed.append((track, sequence))
    score = score_benchmark(benchmark.label, "", sequences, VISIBLE)
    return score.headline[VISIBLE.figures[-1]], loss_reports(followed)


def speed(tracks: Iterable[Track], *, drawn: bool, processes: int) -> Speed | None:
    """Percentiles over all frames after each sequence's first; None where there are none."""
    several = [track for track in tracks if len(track) > 1]
    if not several:
        return None
    read = np.concatenate([track.read_ms[1:] for track in several])
    tracked = np.concatenate([track.track_ms[1:] for track in several])
    whole = tracked if drawn else read + tracked
    (p50, p99), (track_p50, track_p99) = (np.percentile(values, (50, 99)).tolist() for values in (whole, tracked))
    return Speed(p50, p99, float(np.median(read)), track_p50, track_p99, len(read), drawn, processes)


def loss_reports(followed: Iterable[tuple[Track, AnnotatedPairs]]) -> LossReports | None:
    """How well losses were reported; None where the tracker never says that it is lost."""
    judged = []
    for track, sequence in followed:
        if np.isnan(track.lost[1:]).any():
            return None
        truth = to_array(sequence.boxes)
        there = truth[:, 2] > 0
        overlap = np.where(there, iou(track.boxes, truth), 0.0)
        judged.append(LossTrack(there, track.lost == 1, overlap))
    return judge_losses(judged) if judged else None
