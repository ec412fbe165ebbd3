"""What is kept of a teacher's pass: the same whether the teacher ran just now or its outputs come from a cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from duotrack.errors import ModelError
from duotrack.nets.head import Trace

_PREFIX = "teacher."
_LAYER = f"{_PREFIX}layer."


class TeacherTrace(NamedTuple):
    """A teacher's outputs for B samples, without a graph; of any floating-point type, for the losses make them float32.

    Attributes:
        layers: by number of the layer (0 … depth − 1 are the blocks, depth is after the final norm), tokens
            (B, 2, Nz + Nx, C), colour first, the template's Nz tokens first.
        fused: (B, Nx, C), the search tokens that the teacher's head read; None where they were not kept.
        score_logits: (B, G, G).
        box_map: (B, 4, G, G).
        presence_logit: (B,).
    """

    layers: dict[int, Tensor]
    fused: Tensor | None
    score_logits: Tensor
    box_map: Tensor
    presence_logit: Tensor


def teacher_trace(trace: Trace, layers: Iterable[int], *, fused: bool = True) -> TeacherTrace:
    """The part of a teacher's ``trace`` that distillation looks at, detached.

    Args:
        layers: which of ``trace.layers`` to keep; see ``TeacherTrace``.

    Raises:
        ModelError: the teacher has no such layer.
    """
    kept = {}
    for number in layers:
        if not 0 <= number < len(trace.layers):
            raise ModelError(f"the teacher has no layer {number}: expected 0 to {len(trace.layers) - 1}")
        kept[number] = trace.layers[number].detach()
    output = trace.output
    return TeacherTrace(
        kept,
        trace.fused.detach() if fused else None,
        output.score_logits.detach(),
        output.box_map.detach(),
        output.presence_logit.detach(),
    )


def named_tensors(trace: TeacherTrace) -> dict[str, Tensor]:
    """The trace's tensors under names that can stand beside a sample's: ``teacher.layer.3``, ``teacher.box_map``, …."""
    named = {f"{_LAYER}{number}": tokens for number, tokens in trace.layers.items()}
    if trace.fused is not None:
        named[f"{_PREFIX}fused"] = trace.fused
    named[f"{_PREFIX}score_logits"] = trace.score_logits
    named[f"{_PREFIX}box_map"] = trace.box_map
    named[f"{_PREFIX}presence_logit"] = trace.presence_logit
    return named


def trace_from_named(tensors: Mapping[str, Tensor]) -> TeacherTrace:
    """The trace that ``named_tensors`` took apart, from among other tensors of a batch.

    Raises:
        ModelError: the batch holds no teacher's outputs.
    """
    try:
        return TeacherTrace(
            {int(name.removeprefix(_LAYER)): tokens for name, tokens in tensors.items() if name.startswith(_LAYER)},
            tensors.get(f"{_PREFIX}fused"),
            tensors[f"{_PREFIX}score_logits"],
            tensors[f"{_PREFIX}box_map"],
            tensors[f"{_PREFIX}presence_logit"],
        )
    except KeyError as error:
        raise ModelError(f"the batch has no {error.args[0]!r}, only {', '.join(tensors)}") from error
