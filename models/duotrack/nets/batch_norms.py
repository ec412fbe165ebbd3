"""BatchNorms that an exporter folded into the convolutions before them, made ones that can be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from duotrack.nets.models import TrackingModel
from duotrack.nets.narrowing import Crops


@torch.no_grad()
def unfold_batch_norms(model: TrackingModel, batches: Sequence[Crops]) -> None:
    """Give every BatchNorm of ``model``, in place, the statistics of its inputs over ``batches``.

    Weight and bias are set to undo them, so that the network computes what it did. So far the BatchNorms must do
    nothing, as those that ``export.read_model`` gives back: in training these would normalise by the batch, and thereby
    take away the scales and shifts that were folded into the convolutions.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    seen: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}

    def note(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        # Sums of 1, x and x² in double precision: a variance is the small difference of large numbers.
        values = inputs[0].double().movedim(1, 0).flatten(1)
        seen[norm].append(torch.stack((torch.ones_like(values), values, values.square())).sum(2))

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    model.eval()
    for crops in batches:
        model(*crops)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        count, total, squares = torch.stack(seen[norm]).sum(0)
        mean, square = total / count, squares / count
        variance = (square - mean.square()).clamp_min(0)
        norm.running_mean, norm.running_var = mean.float(), variance.float()
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)
