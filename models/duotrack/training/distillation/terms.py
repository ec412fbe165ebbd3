"""What every distillation loss shares: float32 inside, one value for each sample, and a weighted mean of those."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, cast

import torch
from torch import Tensor

from duotrack.errors import ModelError
from duotrack.training.distributed import process_mean

Arguments = ParamSpec("Arguments")


def in_float32(loss: Callable[Arguments, Tensor]) -> Callable[Arguments, Tensor]:
    """``loss`` with autocast off and its floating-point tensors in float32, whatever precision they come in.

    Softmax, similarities and covariances of bf16 or fp16 features lose what the student should learn.
    """

    @wraps(loss)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        positional: list[Any] = [_single(argument) for argument in args]
        named: dict[str, Any] = {name: _single(argument) for name, argument in kwargs.items()}
        device = next(value.device.type for value in (*positional, *named.values()) if isinstance(value, Tensor))
        with torch.autocast(device, enabled=False):
            return cast("Any", loss)(*positional, **named)  # type: ignore[no-any-return]

    return run


def _single(value: object) -> object:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Σ w·v / Σ w of one value (B,) for each sample; the plain mean without weights, and 0 where all weights are 0.

    The weights are summed over all processes, so that the mean of every process's loss is the joint batch's.
    """
    if weights is None:
        return values.mean()
    return (values * weights).sum() / process_mean(weights.sum()).clamp(min=1e-6)


def require_same_shape(what: str, student: Tensor, teacher: Tensor) -> None:
    """Refuse to compare tensors that broadcasting might silently make fit.

    Raises:
        ModelError: the shapes differ; the message names both.
    """
    if student.shape != teacher.shape:
        raise ModelError(
            f"{what}: the student's {tuple(student.shape)} and the teacher's {tuple(teacher.shape)} should have the "
            "same shape; do both have the same crop sizes and patch?"
        )
