"""Success and precision of predicted boxes against ground truth (Wu et al., Online Object Tracking: A Benchmark)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Overlap thresholds of the success plot: 0, 0.05, …, 1.
SUCCESS_THRESHOLDS = np.linspace(0, 1, 21)
PRECISION_PIXELS = 20.0

Boxes = NDArray[np.float64]


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


def iou(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Intersection over union, row by row, of boxes (N, 4) as x y w h in pixels → (N,)."""
    low = np.maximum(first[:, :2], second[:, :2])
    high = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    intersection = np.clip(high - low, 0, None).prod(1)
    union = first[:, 2:].prod(1) + second[:, 2:].prod(1) - intersection
    overlaps: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return overlaps


def score(predicted: Boxes, truth: Boxes) -> Scores:
    """Scores of one sequence, over the frames in which the target is there.

    Args:
        predicted, truth: (N, 4) x y w h in pixels; a truth without area is an absent target. The first frame, which a
            tracker is given, is best left out of both.
    """
    there = (truth[:, 2] > 0) & (truth[:, 3] > 0)
    predicted, truth = predicted[there], truth[there]
    overlaps = iou(predicted, truth)
    success = float((overlaps[None, :] > SUCCESS_THRESHOLDS[:, None]).mean())
    distances = np.linalg.norm((predicted[:, :2] + predicted[:, 2:] / 2) - (truth[:, :2] + truth[:, 2:] / 2), axis=1)
    return Scores(success, float((distances <= PRECISION_PIXELS).mean()), float(overlaps.mean()))


def mean_scores(scores: list[Scores]) -> Scores:
    """The mean over sequences, each of the same weight."""
    return Scores(
        float(np.mean([entry.success for entry in scores])),
        float(np.mean([entry.precision for entry in scores])),
        float(np.mean([entry.overlap for entry in scores])),
    )
