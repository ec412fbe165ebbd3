"""Precision, normalised precision and success of predicted boxes, by the rules of each benchmark.

Precision and success: Wu et al., Object Tracking Benchmark, TPAMI 2015. Normalised precision: Müller et al.,
TrackingNet, ECCV 2018. The maximum over two truths (MPR, MSR): Li et al., RGB-T Object Tracking: Benchmark and
Baseline, PR 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from duotrack.data.readers.annotations import LARGEST_DIFFERENCE
from duotrack.errors import EvaluationError
from duotrack.evaluation.rules import VISIBLE, Rules
from duotrack.evaluation.scores import BenchmarkScore, Curve, Curves, LossReports, SequenceScore, Speed
from duotrack.evaluation.sequences import Boxes

SUCCESS_THRESHOLDS = VISIBLE.axes.success
PRECISION_PIXELS = VISIBLE.precision_at

# A coordinate beyond this, or one that is no number, is no box; its frame is a miss.
_FAR = 1e9
# Added to the sides of the true box that an error is divided by, as LasHeR's tools do.
_EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one sequence, or the mean over several, in [0, 1].

    Attributes:
        success: area under the success plot, the mean over ``SUCCESS_THRESHOLDS`` of the share of frames whose overlap
            is larger.
        precision: share of frames whose centre is within 20 pixels.
        overlap: mean IoU.
    """

    success: float
    precision: float
    overlap: float


@dataclass(frozen=True, slots=True, eq=False)
class FrameMeasures:
    """Of the F frames that are scored, in the rules' arithmetic.

    Attributes:
        error: (F,) pixels between the centres.
        normalised: (F,) the same in units of the true box's width and height.
        overlap: (F,) IoU.
        there: (F,) whether the target is there.
    """

    error: NDArray[np.floating]
    normalised: NDArray[np.floating]
    overlap: NDArray[np.floating]
    there: NDArray[np.bool_]


def iou(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Intersection over union, row by row, of boxes (N, 4) as x y w h in pixels → (N,).

    Toolkits that count pixels from the first to the last one in the box, both included, get the same from x y w h.
    """
    low = np.maximum(first[:, :2], second[:, :2])
    high = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    intersection = np.clip(high - low, 0, None).prod(1)
    union = first[:, 2:].prod(1) + second[:, 2:].prod(1) - intersection
    overlaps: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return overlaps


def frames_that_may_lack(count: int) -> int:
    """How many of ``count`` frames a result may lack at its end, as published ones do, and still be scored."""
    return max(1, int(LARGEST_DIFFERENCE * count))


def measure_frames(predicted: Boxes, truths: Sequence[Boxes], rules: Rules) -> FrameMeasures:
    """Compare boxes frame by frame.

    Args:
        predicted: (N, 4) x y w h in pixels; what is not finite is a miss.
        truths: one or two times (N, 4) or a few more, which are left out; of two, the better counts in each frame.
    """
    truths = [truth[: len(predicted)] for truth in truths]
    if rules.first_frame == "left out":
        predicted, truths = predicted[1:], [truth[1:] for truth in truths]
    elif rules.first_frame == "given":
        predicted = np.concatenate((truths[0][:1], predicted[1:]))
    if rules.repeat_last:
        predicted = _repeat_last(predicted)
    measured = [_against(predicted, truth, rules) for truth in truths]
    there: NDArray[np.bool_] = np.logical_or.reduce([measures.there for measures in measured])
    scored = there if rules.absent == "left out" else slice(None)
    return FrameMeasures(
        np.min([measures.error for measures in measured], 0)[scored],
        np.min([measures.normalised for measures in measured], 0)[scored],
        np.max([measures.overlap for measures in measured], 0)[scored],
        there[scored],
    )


def _repeat_last(boxes: Boxes) -> Boxes:
    """With each box without area replaced by the last one that has it, or by the first of all."""
    bad: NDArray[np.bool_] = np.logical_or.reduce(boxes[:, 2:] <= 0, axis=1)
    last_good = np.maximum.accumulate(np.where(bad, 0, np.arange(len(boxes))))
    return boxes[last_good]


def _against(predicted: Boxes, truth: Boxes, rules: Rules) -> FrameMeasures:
    usable: NDArray[np.bool_] = np.logical_and.reduce(np.abs(predicted) < _FAR, axis=1)
    predicted = np.where(usable[:, None], predicted, 0.0).astype(rules.arithmetic)
    truth = truth.astype(rules.arithmetic)
    centres, true_centres = _centres(predicted), _centres(truth)
    sides = truth[:, 2:] + _EPSILON
    error = np.linalg.norm(centres - true_centres, axis=1)
    # One division would do, but then other errors than in the toolkits are rounded to just within a threshold.
    normalised = np.linalg.norm(centres / sides - true_centres / sides, axis=1)
    overlap = iou(predicted, truth)
    error[~usable], normalised[~usable], overlap[~usable] = np.inf, np.inf, 0.0
    values = truth if rules.absent == "hit and miss" else truth[:, 2:]
    there: NDArray[np.bool_] = np.logical_and.reduce(values > 0, axis=1)
    if rules.absent == "hit and miss":
        error[~there], normalised[~there], overlap[~there] = 0.0, 0.0, 0.0
    elif rules.absent == "left out":
        error[~there], normalised[~there], overlap[~there] = np.inf, np.inf, 0.0
    return FrameMeasures(error, normalised, overlap, there)


def _centres(boxes: Boxes) -> Boxes:
    """(N, 4) → (N, 2): halfway between the first and the last pixel."""
    return boxes[:, :2] + (boxes[:, 2:] - 1) / 2


def score_sequence(
    name: str,
    predicted: Boxes,
    truths: Sequence[Boxes],
    rules: Rules,
    attributes: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> SequenceScore:
    """One sequence by a benchmark's rules.

    Args:
        predicted: (N, 4) x y w h in pixels, for the annotated frames. It may be a little shorter than the truth: the
            frames that it lacks are left out then, as the toolkits do.
        truths: one or two times (N, 4), see ``measure_frames``.

    Raises:
        EvaluationError: the lengths do not match, or there is no frame to score.
    """
    count = min(len(truth) for truth in truths)
    if not count - frames_that_may_lack(count) <= len(predicted) <= count:
        raise EvaluationError(f"sequence {name}: expected a box for each of {count} frames, got {len(predicted)}")
    frames = measure_frames(predicted, truths, rules)
    if not len(frames.error):
        raise EvaluationError(f"sequence {name} has no frame to score: the target is nowhere but in the first")
    axes = rules.axes
    curves = Curves(
        _share_within(frames.error, axes.precision, strict=rules.strict),
        (frames.overlap > axes.success[:, None]).mean(1),
        None if axes.normalised is None else _share_within(frames.normalised, axes.normalised, strict=rules.strict),
    )
    overlap = float(frames.overlap[frames.there].mean(dtype=np.float64)) if frames.there.any() else 0.0
    return SequenceScore(
        name, len(frames.error), _headline(curves, rules), curves, overlap, tuple(attributes), tuple(notes)
    )


def _share_within(errors: NDArray[np.floating], thresholds: Curve, *, strict: bool) -> Curve:
    within = errors < thresholds[:, None] if strict else errors <= thresholds[:, None]
    shares: Curve = within.mean(1)
    return shares


def _headline(curves: Curves, rules: Rules) -> dict[str, float]:
    """The figures of a sequence or of a set: every one is linear in the curves."""
    axes = rules.axes
    values = [_read_at(curves.precision, axes.precision, rules.precision_at)]
    if curves.normalised is not None and axes.normalised is not None:
        values.append(_read_at(curves.normalised, axes.normalised, rules.normalised_at))
    values.append(float(curves.success.mean() if rules.area == "mean" else np.trapezoid(curves.success, axes.success)))
    return dict(zip(rules.figures, values, strict=True))


def _read_at(curve: Curve, axis: Curve, threshold: float) -> float:
    return float(curve[np.abs(axis - threshold).argmin()])


def summarise(sequences: Sequence[SequenceScore], rules: Rules) -> tuple[dict[str, float], Curves]:
    """The figures and mean curves of several sequences, each of the same weight unless the rules pool their frames.

    Raises:
        EvaluationError: there are no sequences.
    """
    if not sequences:
        raise EvaluationError("there is no sequence to score")
    weights = [entry.frames if rules.pooled else 1 for entry in sequences]

    def mean(curves: Iterable[Curve]) -> Curve:
        average: Curve = np.average(list(curves), axis=0, weights=weights)
        return average

    normalised = [entry.curves.normalised for entry in sequences if entry.curves.normalised is not None]
    curves = Curves(
        mean(entry.curves.precision for entry in sequences),
        mean(entry.curves.success for entry in sequences),
        mean(normalised) if normalised else None,
    )
    return _headline(curves, rules), curves


def score_benchmark(
    benchmark: str,
    tracker: str,
    sequences: Iterable[SequenceScore],
    rules: Rules,
    *,
    speed: Speed | None = None,
    loss_reports: LossReports | None = None,
    about: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> BenchmarkScore:
    """All of a benchmark's sequences together, and those of each attribute (rules' order first, then as they come).

    Args:
        benchmark: label, as in ``lasher test``.
        tracker: label.

    Raises:
        EvaluationError: there are no sequences.
    """
    entries = tuple(sequences)
    headline, curves = summarise(entries, rules)
    names = dict.fromkeys((*rules.attributes, *(name for entry in entries for name in entry.attributes)))
    members = {name: [entry for entry in entries if name in entry.attributes] for name in names}
    return BenchmarkScore(
        benchmark=benchmark,
        tracker=tracker,
        headline=headline,
        axes=rules.axes,
        curves=curves,
        sequences=entries,
        attributes={
            name: {**summarise(group, rules)[0], "count": len(group)} for name, group in members.items() if group
        },
        speed=speed,
        loss_reports=loss_reports,
        about=dict(about or {}),
        notes=tuple(notes),
    )


_ALL_GIVEN = replace(VISIBLE, first_frame="scored")


def score(predicted: Boxes, truth: Boxes) -> Scores:
    """Scores of one sequence, over the frames in which the target is there.

    Args:
        predicted, truth: (N, 4) x y w h in pixels; a truth without area is an absent target. The first frame, which a
            tracker is given, is best left out of both.

    Raises:
        EvaluationError: the lengths do not match, or the target is in no frame.
    """
    entry = score_sequence("in memory", predicted, (truth,), _ALL_GIVEN)
    return Scores(entry.headline["SR"], entry.headline["PR"], entry.overlap)


def mean_scores(scores: list[Scores]) -> Scores:
    """The mean over sequences, each of the same weight."""
    return Scores(
        float(np.mean([entry.success for entry in scores])),
        float(np.mean([entry.precision for entry in scores])),
        float(np.mean([entry.overlap for entry in scores])),
    )
