"""How much a tracker loses when frames get worse: success AUC over the severity of one corruption at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from duotrack.errors import EvaluationError
from duotrack.evaluation.benchmark import Benchmark
from duotrack.evaluation.corruptions import CORRUPTIONS, Corruption, CorruptionChoice
from duotrack.evaluation.runner import Job
from duotrack.evaluation.scores import RobustnessCurve
from duotrack.evaluation.scoring import score_visible
from duotrack.evaluation.sequences import BenchmarkPairs


@dataclass(frozen=True, slots=True)
class Suite:
    """Which corruptions, at which severities, on which sequences.

    Attributes:
        severities: ascending, for each corruption by name.
        names: of the sequences that each corruption can be applied to: most need both modalities.
        seed: of everything random about the corruptions.
    """

    severities: Mapping[str, tuple[float, ...]]
    names: Mapping[str, tuple[str, ...]]
    seed: int = 0

    def jobs(self, folder: Path) -> Iterator[Job]:
        """Every sequence as it is, then at every severity of every corruption."""
        for name in dict.fromkeys(name for names in self.names.values() for name in names):
            yield Job(folder / "clean", name)
        for corruption, severities in self.severities.items():
            for severity in severities:
                choice = CorruptionChoice(corruption, severity, self.seed)
                for name in self.names[corruption]:
                    yield Job(severity_folder(folder, choice), name, choice)


def severity_folder(folder: Path, choice: CorruptionChoice) -> Path:
    """Where the results at one severity of a corruption are."""
    return folder / choice.name / f"{choice.severity:g}"


def plan_suite(
    benchmark: Benchmark, corruptions: Sequence[str], severities: Sequence[float] = (), seed: int = 0
) -> Suite:
    """The corruptions by name (all if none is given) at their own severities, or at the given ones.

    Sequences without a true box after the first frame are left out.

    Raises:
        EvaluationError: a corruption is unknown, a severity is out of its range, or no sequence has what it needs, or
            anything to score.
    """
    chosen = {name: _known(name) for name in corruptions or CORRUPTIONS}
    first = {name: each.pair(0) for name, each in benchmark.sequences.items() if _has_truth(each)}
    if not first:
        raise EvaluationError(f"{benchmark.label}: no sequence has a true box after its first frame: nothing to score")
    names = {
        name: tuple(sequence for sequence, pair in first.items() if corruption.suits(pair))
        for name, corruption in chosen.items()
    }
    missing = [name for name in chosen if not names[name]]
    if missing and (corruptions or len(missing) == len(chosen)):
        needed = " and ".join(chosen[missing[0]].needs)
        raise EvaluationError(f"{benchmark.label}: no sequence has {needed}, which {missing[0]} needs")
    steps = {
        name: tuple(sorted(severities)) or corruption.severities for name, corruption in chosen.items() if names[name]
    }
    for name, values in steps.items():
        for value in values:
            CorruptionChoice(name, value, seed)  # checks the range
    return Suite(steps, {name: names[name] for name in steps}, seed)


def _has_truth(sequence: BenchmarkPairs) -> bool:
    return any(box is not None for box in sequence.boxes[1:])


def robustness_curves(suite: Suite, folder: Path, benchmark: Benchmark, label: str) -> tuple[RobustnessCurve, ...]:
    """What the finished jobs of a suite show, a curve for each corruption.

    Each curve's clean value is over the very sequences that were corrupted.

    Raises:
        EvaluationError: a job is not done.
    """
    curves = []
    clean: dict[tuple[str, ...], float] = {}
    for name, severities in suite.severities.items():
        names = suite.names[name]
        if names not in clean:
            clean[names], _ = score_visible((Job(folder / "clean", sequence) for sequence in names), benchmark)
        found = []
        for severity in severities:
            choice = CorruptionChoice(name, severity, suite.seed)
            place = severity_folder(folder, choice)
            found.append(score_visible((Job(place, sequence, choice) for sequence in names), benchmark))
        success, reports = zip(*found, strict=True)
        corruption = CORRUPTIONS[name]
        curves.append(
            RobustnessCurve(
                benchmark.label, label, corruption.title, corruption.unit, severities, success, clean[names], reports
            )
        )
    return tuple(curves)


def _known(name: str) -> Corruption:
    if name not in CORRUPTIONS:
        raise EvaluationError(f"unknown corruption {name!r}; known are {', '.join(CORRUPTIONS)}")
    return CORRUPTIONS[name]
