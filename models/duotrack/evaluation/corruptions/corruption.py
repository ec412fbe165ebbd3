"""What a corruption is: a way to make frames worse, with a severity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from duotrack.boxes import Box
from duotrack.evaluation.sequences import BenchmarkPairs
from duotrack.frames import FramePair

Modality: TypeAlias = Literal["rgb", "thermal"]
Apply: TypeAlias = Callable[[BenchmarkPairs, FramePair, float, int], BenchmarkPairs]
"""From a sequence, its first pair, a severity and a seed to the worse sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """A way to make a sequence worse.

    Attributes:
        title: in plots and tables, as ``thermal noise``.
        unit: of the severity, as ``px`` or ``frames``.
        severities: ascending, those that a curve is drawn over.
        neutral: the severity that changes nothing, and the least.
        largest: severity.
        whole: the severity is a whole number.
        needs: modalities that a sequence must have.
        does: what is done, in a sentence.
        apply: does it. Random draws do not depend on the severity, so that severities differ in nothing else.
    """

    title: str
    unit: str
    severities: tuple[float, ...]
    largest: float
    does: str
    apply: Apply
    neutral: float = 0.0
    whole: bool = False
    needs: tuple[Modality, ...] = ()

    @property
    def needs_both(self) -> bool:
        return len(self.needs) == 2

    def suits(self, pair: FramePair) -> bool:
        """Whether a sequence that starts with ``pair`` has what this needs."""
        return all(getattr(pair, modality) is not None for modality in self.needs)


@dataclass(frozen=True, slots=True, eq=False)
class CorruptedPairs:
    """A sequence whose pairs are made when they are asked for, each on its own.

    Attributes:
        name, boxes, attributes: as those of the sequence it was made from, unless the corruption changes them.
        make: pair number ``index``.
    """

    name: str
    boxes: Sequence[Box | None]
    attributes: Sequence[str]
    make: Callable[[int], FramePair]

    def pair(self, index: int) -> FramePair:
        if not 0 <= index < len(self.boxes):
            raise IndexError(f"frame {index} of {self.name}, which has {len(self.boxes)} frames")
        return self.make(index)


def remade(
    sequence: BenchmarkPairs, make: Callable[[int], FramePair], boxes: Sequence[Box | None] | None = None
) -> CorruptedPairs:
    """``sequence`` with other pairs, and with other boxes where they are given."""
    return CorruptedPairs(sequence.name, sequence.boxes if boxes is None else boxes, sequence.attributes, make)
