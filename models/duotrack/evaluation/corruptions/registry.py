"""Every corruption by name, and how one is chosen and applied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from duotrack.errors import EvaluationError, SourceError
from duotrack.evaluation.corruptions.corruption import Corruption
from duotrack.evaluation.corruptions.dropped_frames import DROPPED_FRAMES
from duotrack.evaluation.corruptions.low_light import LOW_LIGHT
from duotrack.evaluation.corruptions.missing import MISSING
from duotrack.evaluation.corruptions.occlusion import OCCLUSION
from duotrack.evaluation.corruptions.registration import REGISTRATION
from duotrack.evaluation.corruptions.thermal_camera import THERMAL_CAMERA
from duotrack.evaluation.sequences import BenchmarkPairs

CORRUPTIONS: Mapping[str, Corruption] = {
    **MISSING,
    **REGISTRATION,
    **LOW_LIGHT,
    **THERMAL_CAMERA,
    **DROPPED_FRAMES,
    **OCCLUSION,
}
"""By the name that commands and folders use."""


@dataclass(frozen=True, slots=True)
class CorruptionChoice:
    """A corruption and how bad it is; what a worker process needs to make the same frames.

    Attributes:
        name: one of ``CORRUPTIONS``.
        severity: in the corruption's unit.
        seed: of everything random about it, together with the sequence's name.

    Raises:
        EvaluationError: there is no such corruption, or it has no such severity.
    """

    name: str
    severity: float
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in CORRUPTIONS:
            raise EvaluationError(f"unknown corruption {self.name!r}; known are {', '.join(CORRUPTIONS)}")
        kind = CORRUPTIONS[self.name]
        if not (math.isfinite(self.severity) and kind.neutral <= self.severity <= kind.largest):
            limits = f"from {kind.neutral:g} to {kind.largest:g} ({kind.unit})"
            raise EvaluationError(f"the severity of {self.name} is {limits}, got {self.severity:g}")
        if kind.whole and self.severity != round(self.severity):
            raise EvaluationError(f"the severity of {self.name} is a whole number ({kind.unit}), got {self.severity:g}")
        if self.seed < 0:
            raise EvaluationError(f"a seed is not negative, got {self.seed}")


def corrupted(sequence: BenchmarkPairs, choice: CorruptionChoice) -> BenchmarkPairs:
    """``sequence`` made worse; itself at the severity that changes nothing.

    Pairs are made when they are asked for, and ``pair(i)`` is the same whatever was asked for before.

    Raises:
        SourceError: the sequence lacks a modality that the corruption is about, or its first pair cannot be read.
    """
    kind = CORRUPTIONS[choice.name]
    if choice.severity == kind.neutral:
        return sequence
    first = sequence.pair(0)
    if not kind.suits(first):
        needed = " and ".join(_WORDS[modality] for modality in kind.needs)
        raise SourceError(
            f"sequence {sequence.name} cannot have {choice.name}: expected {needed} in its first pair, got {first!r}"
        )
    return kind.apply(sequence, first, choice.severity, choice.seed)


_WORDS = {"rgb": "colour", "thermal": "thermal"}
