"""Feature matching: the student's tokens, linearly projected, should be the teacher's (FitNets, Romero et al. 2015)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from duotrack.training.distillation.terms import in_float32, require_same_shape, weighted_mean
from duotrack.training.distillation.weights import Streams


def join_streams(tokens: Tensor, streams: Streams) -> Tensor:
    """A teacher's layer (B, 2, N, C) in float32 as one stream: the mean (B, N, C) or both channels (B, N, 2C)."""
    if streams == "average":
        return tokens.float().mean(1)
    return torch.cat(tokens.float().unbind(1), -1)


@in_float32
def feature_loss(projected: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over samples, tokens and channels of (p − LN(t))², with LN(t) = (t − mean t) / sqrt(var t + 1e-6).

    Mean and variance are over a token's channels. The teacher's token is normalised so that the loss does not depend
    on its scale, which grows with depth: a projection to zero costs 1 at every layer. The projection is not; it can
    learn any scale.

    Args:
        projected: (B, N, D), the student's tokens at the teacher's width.
        teacher: (B, N, D), joined streams; receives no gradient.
        weights: (B,), how much each sample counts.

    Raises:
        ModelError: the shapes differ.
    """
    require_same_shape("tokens", projected, teacher)
    target = F.layer_norm(teacher.detach(), teacher.shape[-1:], eps=1e-6)
    return weighted_mean((projected - target).square().mean((1, 2)), weights)
