"""A benchmark: its sequences, the truth about them, and the rules by which they are scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from duotrack.data.readers import READERS, open_recordings
from duotrack.errors import EvaluationError
from duotrack.evaluation.ground_truth import Truth, read_ground_truth
from duotrack.evaluation.local import LOCAL_VERSION, local_sequences
from duotrack.evaluation.rules import RULES, VISIBLE, Rules
from duotrack.evaluation.sequences import BenchmarkPairs, to_array
from duotrack.evaluation.synthetic import SYNTHETIC_VERSION, synthetic_sequences

DEFAULT_SPLITS = {"local": "val", "got10k": "val", "lasot": "test"} | {
    name: rules.split for name, rules in RULES.items() if rules.split is not None
}
"""Of sets that are meant to be evaluated on a part."""
BENCHMARKS = ("synthetic", *READERS)


@dataclass(frozen=True, slots=True)
class BenchmarkChoice:
    """A benchmark by name, and where it is.

    Attributes:
        name: one of ``BENCHMARKS``.
        root: the folder that the set was unpacked to; ``synthetic`` needs none.
        split: one of the set's splits; by default that which papers report on.
        limit: take so many sequences, evenly spread over the set; 0 is all.

    Raises:
        EvaluationError: there is no such benchmark, or the root is missing.
    """

    name: str
    root: Path | None = None
    split: str | None = None
    limit: int = 0

    def __post_init__(self) -> None:
        if self.name not in BENCHMARKS:
            raise EvaluationError(f"unknown benchmark {self.name!r}; known are {', '.join(BENCHMARKS)}")
        if self.name == "synthetic":
            if self.root is not None or self.split is not None:
                raise EvaluationError("the synthetic benchmark is generated: it takes neither a root nor a split")
        elif self.root is None:
            raise EvaluationError(f"benchmark {self.name} needs --root, the folder that the set was unpacked to")


@dataclass(frozen=True, slots=True, eq=False)
class Benchmark:
    """Sequences to run trackers over, in order, by name.

    Attributes:
        label: name, version and split, as in ``lasher test`` or ``synthetic 1``.
        drawn: the frames are generated when asked for, so that the time this takes says nothing about reading.
        notes: what figures on it must be read with.
    """

    label: str
    rules: Rules
    sequences: Mapping[str, BenchmarkPairs]
    drawn: bool = False
    notes: tuple[str, ...] = ()
    raw_truths: Mapping[str, Truth] | None = None

    def truth(self, name: str) -> Truth:
        """What the result of sequence ``name`` is compared with.

        Raises:
            EvaluationError: the set's annotation has no such sequence.
        """
        if self.raw_truths is None:
            return truth_of(self.sequences[name])
        if name not in self.raw_truths:
            raise EvaluationError(f"{self.label}: sequence {name} has frames, but no ground truth")
        return self.raw_truths[name]


def truth_of(sequence: BenchmarkPairs) -> Truth:
    """One box a frame, zeros where the target is absent."""
    return Truth((to_array(sequence.boxes),), tuple(sequence.attributes))


def open_benchmark(choice: BenchmarkChoice) -> Benchmark:
    """Read a benchmark's annotation. Frames are read, or drawn, when they are asked for.

    Raises:
        SourceError: a folder or file is missing, or is not as the set's convention says.
        EvaluationError: two sequences have one name, or a name cannot be that of a file.
    """
    if choice.name == "synthetic":
        scenes = synthetic_sequences()
        drawn = _by_name(scenes, choice.limit)
        notes = _part(len(drawn), len(scenes))
        return Benchmark(f"synthetic {SYNTHETIC_VERSION}", VISIBLE, drawn, drawn=True, notes=notes)
    assert choice.root is not None
    split = choice.split or DEFAULT_SPLITS.get(choice.name)
    label = " ".join(filter(None, (choice.name, split)))
    if choice.name == "local":
        local = local_sequences(choice.root, split or "val")
        sequences = _by_name(local.sequences, choice.limit)
        drawing = "times to read include drawing the frames of pair and rendered sequences"
        notes = (*local.notes, drawing, *_part(len(sequences), len(local.sequences)))
        return Benchmark(f"local {LOCAL_VERSION} {split}", VISIBLE, sequences, notes=notes)
    recordings = open_recordings(choice.name, choice.root, split)
    notes = tuple(f"{recording.name}: {note}" for recording in recordings for note in recording.notes)
    sequences = _by_name(recordings, choice.limit)
    notes += _part(len(sequences), len(recordings))
    if choice.name not in RULES:
        return Benchmark(label, VISIBLE, sequences, notes=notes)
    truths = read_ground_truth(choice.name, choice.root, split)
    return Benchmark(label, RULES[choice.name], sequences, notes=notes, raw_truths=truths)


def _by_name(sequences: Iterable[BenchmarkPairs], limit: int) -> dict[str, BenchmarkPairs]:
    everything = list(sequences)
    taken = everything if not limit else [everything[index] for index in _spread(len(everything), limit)]
    named = {sequence.name: sequence for sequence in taken}
    if len(named) != len(taken):
        raise EvaluationError("two sequences have one name, so that one's result would replace the other's")
    for name in named:
        if not name or name != Path(name).name or name.startswith("."):
            raise EvaluationError(f"sequence name {name!r} cannot be the name of a result file")
    return named


def _part(taken: int, count: int) -> tuple[str, ...]:
    return (f"{taken} of {count} sequences were chosen by --limit",) if taken < count else ()


def _spread(count: int, limit: int) -> Iterator[int]:
    """``limit`` of ``count`` numbers, evenly spread; all where there are not as many."""
    taken = min(count, limit)
    return (index * count // taken for index in range(taken))
