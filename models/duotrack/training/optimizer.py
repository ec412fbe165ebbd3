"""AdamW's parameter groups, and the learning rate over a run."""

from __future__ import annotations

import math
import re
from typing import Any

from torch import Tensor, nn

from duotrack.training.config import Optimizer, Schedule


def parameter_groups(module: nn.Module, pretrained: set[str], config: Optimizer) -> list[dict[str, Any]]:
    """Optimiser groups of the parameters that learn.

    Pretrained and new ones learn at their own rates; a pretrained one ``n`` blocks below the last at
    ``layer_decay`` ** n of its rate, and embeddings one block below the first. Biases, norms and gains do not decay.

    Args:
        pretrained: names, as ``module.named_parameters`` gives them.
    """
    last = max((_block(name, 0) for name, _ in module.named_parameters()), default=0)
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            rate = config.new_lr
            if name in pretrained:
                rate = config.pretrained_lr * config.layer_decay ** (last - _block(name, last))
            groups.setdefault((rate, parameter.ndim >= 2), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": config.weight_decay if decays else 0.0}
        for (rate, decays), parameters in groups.items()
    ]


def _block(name: str, last: int) -> int:
    """The index of the block that a parameter belongs to: −1 for embeddings, ``last`` for what follows the blocks."""
    found = re.search(r"(?:^|\.|_)blocks(?:_rev)?\.(\d+)\.", name)
    if found:
        return int(found[1])
    return -1 if re.search(r"embed|modality_mask|_type$", name) else last


def learning_rate_share(step: int, steps: int, schedule: Schedule) -> float:
    """Share of the peak learning rate at ``step``, counted from 0, of ``steps``."""
    if step < schedule.warmup:
        return (step + 1) / schedule.warmup
    if schedule.kind == "step":
        return schedule.factor ** sum(step >= drop * steps for drop in schedule.drops)
    progress = (step - schedule.warmup) / max(1, steps - schedule.warmup)
    return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
