"""The teacher's head as a judge of the student's tokens (after SimKD, Chen et al. 2022)."""

from __future__ import annotations

import copy
import math

from torch import Tensor

from duotrack.nets.head import CenterHead, HeadOutput
from duotrack.training.distillation.weights import Decay


class FrozenHead:
    """A copy of a teacher's centre head that is only looked through: no gradient, no statistics, no training mode.

    It is no ``nn.Module``, so that a module which has one does not count it among its parameters, state or children.
    """

    def __init__(self, head: CenterHead) -> None:
        self._head = copy.deepcopy(head).eval().requires_grad_(False)

    def __call__(self, tokens: Tensor) -> HeadOutput:
        """Search tokens (B, G·G, C) at the teacher's width → its maps; presence, which it does not judge, is 0."""
        score_logits, box_map = self._head.to(tokens.device)(tokens)
        return HeadOutput(score_logits, box_map, score_logits.new_zeros(len(tokens)))


def decayed(progress: float, decay: Decay) -> float:
    """What is left of a weight at a share ``progress`` of the run: 1 − p, or ½ (1 + cos πp); from 1 to 0."""
    progress = min(max(progress, 0.0), 1.0)
    return 1 - progress if decay == "linear" else (1 + math.cos(math.pi * progress)) / 2
