"""The local benchmark: what ``../shared/data`` holds out of training, as sequences to track in (docs/benchmarks.md).

Four parts, named by each sequence's first attribute and the beginning of its name: ``rgb`` (colour video),
``rendered`` (the same with made-up thermal), ``pair`` (aligned stills under a moving camera) and ``thermal`` (aerial
thermal video with linked identities).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from duotrack.data.folders import require_split
from duotrack.errors import SourceError
from duotrack.evaluation.local.colour import colour_sequences
from duotrack.evaluation.local.moving_pairs import moving_pairs
from duotrack.evaluation.local.rendered_thermal import rendered_sequences
from duotrack.evaluation.local.thermal_tracks import thermal_sequences
from duotrack.evaluation.sequences import BenchmarkPairs

__all__ = ["LOCAL_VERSION", "LocalBenchmark", "local_sequences"]

LOCAL_VERSION = 1
"""Raised whenever a frame or a box of the benchmark changes; figures of two versions cannot be compared."""

SPLITS = ("train", "val")
Part = Callable[[Path, str], tuple[list[BenchmarkPairs], list[str]]]
PARTS: dict[str, tuple[str, Part]] = {
    "rgb": ("rgb-sequences", colour_sequences),
    "rendered": ("rgb-sequences", rendered_sequences),
    "pair": ("rgbt-pairs", moving_pairs),
    "thermal": ("thermal-frames", thermal_sequences),
}
"""The folder that each part is made from, and how."""


@dataclass(frozen=True, slots=True, eq=False)
class LocalBenchmark:
    """
    Attributes:
        notes: what figures on it must be read with; a sentence each.
    """

    sequences: tuple[BenchmarkPairs, ...]
    notes: tuple[str, ...]


def local_sequences(root: Path, split: str = "val") -> LocalBenchmark:
    """The benchmark made from the local data folder; frames are read or drawn when they are asked for.

    A part whose folder is missing, or has nothing of the split, is left out, and a note says so.

    Args:
        root: holds ``rgb-sequences``, ``rgbt-pairs`` and ``thermal-frames`` (docs/training.md).
        split: ``val``, or ``train`` for what figures are not to be quoted on.

    Raises:
        SourceError: there is nothing of the split, or a file is not as its folder's convention says.
    """
    require_split("local", split, SPLITS)
    sequences: list[BenchmarkPairs] = []
    notes: list[str] = []
    for name, (folder, part) in PARTS.items():
        if not (root / folder).is_dir():
            notes.append(f"part {name} is left out: {root / folder} does not exist")
            continue
        found, remarks = part(root / folder, split)
        sequences += found
        notes += remarks if found else [f"part {name} is left out: {root / folder} has nothing of the split {split}"]
    if not sequences:
        folders = ", ".join(dict.fromkeys(folder for folder, _ in PARTS.values()))
        raise SourceError(f"{root} has no sequences of the split {split}: expected {folders} in it; {'; '.join(notes)}")
    return LocalBenchmark(tuple(sequences), tuple(notes))
