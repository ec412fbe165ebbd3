"""How soon a tracker says that it has lost the target, how often it says so wrongly, and whether it finds it again.

A loss is a run of at least ``SHORTEST_LOSS`` frames without a target that starts after the first frame; its return is
the frame after its last. Shorter runs are flicker of an annotation: nothing is expected of the tracker in them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duotrack.errors import EvaluationError
from duotrack.evaluation.scores import LossReports

Flags = NDArray[np.bool_]

SHORTEST_LOSS = 5
"""Frames without a target that make a loss."""
SOON = 10
"""Frames after the first without a target within which a report is soon."""
ON_TARGET = 0.5
"""IoU from which on the box is on the target, and a target that came back is found again."""
FIND_WITHIN = 30
"""Frames after the return within which finding counts."""


@dataclass(frozen=True, slots=True, eq=False)
class LossTrack:
    """One sequence of N frames, the first of which the tracker was given.

    Attributes:
        present: (N,) whether the target is there.
        lost: (N,) whether the tracker says that it has lost it.
        overlap: (N,) IoU of the tracker's box with the true one, 0 where there is none.

    Raises:
        EvaluationError: they are not of one length.
    """

    present: Flags
    lost: Flags
    overlap: NDArray[np.float64]

    def __post_init__(self) -> None:
        shapes = [np.shape(values) for values in (self.present, self.lost, self.overlap)]
        if len(shapes[0]) != 1 or len(set(shapes)) != 1:
            raise EvaluationError(f"presence, reports and overlaps must be of one length, got shapes {shapes}")


def judge_losses(sequences: Iterable[LossTrack]) -> LossReports:
    """Loss reports over all sequences; every loss, return and frame counts alike.

    A report's delay is counted from a loss's first frame to the first of its frames that is reported as lost: 0 where
    the tracker says so at once, or has been saying so before.
    """
    delays: list[int | None] = []
    found: list[bool] = []
    visible = false_alarms = unfounded = missed = 0
    for track in sequences:
        for start, end in losses(track.present):
            reports = np.flatnonzero(track.lost[start:end])
            delays.append(int(reports[0]) if reports.size else None)
            if end < len(track.present):
                found.append(bool((track.overlap[end : end + FIND_WITHIN + 1] >= ON_TARGET).any()))
        present, lost, overlap = track.present[1:], track.lost[1:], track.overlap[1:]
        visible += int(present.sum())
        false_alarms += int((present & lost).sum())
        unfounded += int((present & lost & (overlap >= ON_TARGET)).sum())
        missed += int((present & ~lost & (overlap <= 0)).sum())
    reported = [delay for delay in delays if delay is not None]
    return LossReports(
        losses=len(delays),
        reported=_share(len(reported), len(delays)),
        delay=float(np.median(reported)) if reported else None,
        within_10=_share(sum(delay <= SOON for delay in reported), len(delays)),
        false_alarms=_share(false_alarms, visible),
        missed=_share(missed, visible),
        returns=len(found),
        found_within_30=_share(sum(found), len(found)),
        unfounded=_share(unfounded, visible),
    )


def losses(present: Flags) -> list[tuple[int, int]]:
    """First frame of each loss, and the frame after its last: where the target is back, or the sequence's length."""
    edges = np.flatnonzero(np.diff(present.astype(np.int8), prepend=1, append=1))
    runs = edges.reshape(-1, 2)
    long = runs[(runs[:, 1] - runs[:, 0] >= SHORTEST_LOSS) & (runs[:, 0] > 0)]
    return [(start, end) for start, end in long.tolist()]


def _share(cases: int, of: int) -> float | None:
    return cases / of if of else None
