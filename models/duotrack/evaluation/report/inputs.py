"""What a report is made of, sorted into a section for each benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from duotrack.errors import EvaluationError
from duotrack.evaluation.report.failures import FailurePicture
from duotrack.evaluation.scores import BenchmarkScore, RobustnessCurve

FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class ReportInputs:
    """Everything that a report shows.

    The first tracker is the one under test: tables are ordered by it, and differences are taken from it.

    Attributes:
        scores: one for each tracker and benchmark, in the order in which tables and legends show them.
        failures: those that name no benchmark are shown with the first one.
        made: a line on when and with what the report was made.

    Raises:
        EvaluationError: there is neither a score nor a curve, or a tracker has two scores on one benchmark.
    """

    scores: tuple[BenchmarkScore, ...] = ()
    robustness: tuple[RobustnessCurve, ...] = ()
    failures: tuple[FailurePicture, ...] = ()
    title: str = "Tracker comparison"
    made: str = ""

    def __post_init__(self) -> None:
        if not self.scores and not self.robustness:
            raise EvaluationError("a report needs the scores or a robustness curve of at least one tracker, got none")
        seen: set[tuple[str, str]] = set()
        for score in self.scores:
            key = (score.benchmark, score.tracker)
            if key in seen:
                raise EvaluationError(
                    f"two scores of tracker {score.tracker!r} on {score.benchmark!r}: give one of them another label"
                )
            seen.add(key)

    @property
    def trackers(self) -> tuple[str, ...]:
        """Labels in the order in which they first appear; each keeps its colour all over the report."""
        pictured = (name for picture in self.failures for shot in picture.shots for name in shot.boxes)
        return _unique(
            (
                *(score.tracker for score in self.scores),
                *(curve.tracker for curve in self.robustness),
                *pictured,
            )
        )

    @property
    def sections(self) -> tuple[Section, ...]:
        """The inputs by benchmark."""
        names = _unique(
            (
                *(score.benchmark for score in self.scores),
                *(curve.benchmark for curve in self.robustness),
                *(picture.benchmark for picture in self.failures if picture.benchmark),
            )
        )
        return tuple(
            Section(
                name,
                tuple(score for score in self.scores if score.benchmark == name),
                tuple(curve for curve in self.robustness if curve.benchmark == name),
                tuple(picture for picture in self.failures if (picture.benchmark or names[0]) == name),
            )
            for name in names
        )


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """What a report says about one benchmark; any part may be empty."""

    benchmark: str
    scores: tuple[BenchmarkScore, ...]
    robustness: tuple[RobustnessCurve, ...] = ()
    failures: tuple[FailurePicture, ...] = ()

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the headline figures, in the set's order."""
        return _unique(name for score in self.scores for name in score.headline)


def report_record(inputs: ReportInputs) -> Mapping[str, Any]:
    """The report as plain values for JSON: all that the page shows, the pictures' pixels excepted."""
    return {
        "format": FORMAT,
        "title": inputs.title,
        "made": inputs.made,
        "scores": [score.to_record() for score in inputs.scores],
        "robustness": [curve.to_record() for curve in inputs.robustness],
        "failures": [picture.to_record() for picture in inputs.failures],
    }


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
