"""Which distillation losses are on, how strong, and which layers they compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from duotrack.errors import ConfigError

Streams = Literal["average", "concatenate"]
Decay = Literal["linear", "cosine"]

# The terms of ``Distiller``, each a field of ``DistillationWeights``.
TERMS = (
    "feature",
    "response_score",
    "response_box",
    "response_presence",
    "frozen_head",
    "relational",
    "asymmetric",
    "whitened",
)


@dataclass(frozen=True, slots=True)
class DistillationWeights:
    """A weight of 0 switches a loss off: it is not computed, and has no projection.

    Attributes:
        feature: the student's tokens, projected, against the teacher's at ``layers``.
        response_score, response_box, response_presence: the head's outputs against the teacher's.
        frozen_head: the tracking loss of the teacher's head on the student's tokens; decays to 0 over the run.
        relational: cosines between tokens against the teacher's, at the last pair of ``layers``.
        asymmetric: as ``relational``, against the teacher's own template tokens.
        whitened: both streams as teachers, whose whitened similarities the student should have.
        cross_modal: the colour response teaches the thermal one; a second pass, see ``cross_modal_loss``.
        streams: how the teacher's two streams become one for ``feature``, ``relational`` and ``asymmetric``.
        layers: pairs of a student's and a teacher's layer (numbers as in ``TeacherTrace``); none is
            ``evenly_spaced``.
        temperature: of the score maps' softmax.
        similarity_temperature: of the whitened similarities' softmax.
        shrinkage: share of an isotropic covariance in the teacher's before it is inverted.
        frozen_head_decay: how the weight of ``frozen_head`` falls from the start of the run to its end.

    Raises:
        ConfigError: a weight is negative, a temperature or the shrinkage is out of range.
    """

    feature: float = 0.0
    response_score: float = 0.0
    response_box: float = 0.0
    response_presence: float = 0.0
    frozen_head: float = 0.0
    relational: float = 0.0
    asymmetric: float = 0.0
    whitened: float = 0.0
    cross_modal: float = 0.0
    streams: Streams = "average"
    layers: tuple[tuple[int, int], ...] = ()
    temperature: float = 2.0
    similarity_temperature: float = 0.1
    shrinkage: float = 0.01
    frozen_head_decay: Decay = "linear"

    def __post_init__(self) -> None:
        for name in (*TERMS, "cross_modal"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}: expected a weight of at least 0, got {getattr(self, name)}")
        for name in ("temperature", "similarity_temperature"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: expected more than 0, got {getattr(self, name)}")
        if not 0 < self.shrinkage <= 1:
            raise ConfigError(f"shrinkage: expected more than 0 and at most 1, got {self.shrinkage}")

    def switched_on(self) -> tuple[str, ...]:
        """Names of the losses whose weight is not 0."""
        return tuple(name for name in (*TERMS, "cross_modal") if getattr(self, name))


def evenly_spaced(student_depth: int, teacher_depth: int, count: int = 3) -> tuple[tuple[int, int], ...]:
    """Pairs of blocks at the same share of both depths, the last of them the last blocks.

    For 6 and 12 blocks: (1, 3), (3, 7), (5, 11). A student shallower than ``count`` gives a pair for each block.
    """
    count = min(count, student_depth, teacher_depth)
    return tuple((k * student_depth // count - 1, k * teacher_depth // count - 1) for k in range(1, count + 1))
