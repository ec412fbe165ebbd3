"""Relations between tokens: the student need not have the teacher's features, only their geometry."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from duotrack.training.distillation.terms import in_float32, require_same_shape, weighted_mean
from duotrack.training.distributed import process_mean


def cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosine similarity of every row's token with every column's: (B, N, C), (B, M, C) → (B, N, M)."""
    return F.normalize(rows, dim=-1) @ F.normalize(columns, dim=-1).transpose(1, 2)


@in_float32
def relational_loss(
    student_rows: Tensor,
    student_columns: Tensor,
    teacher_rows: Tensor,
    teacher_columns: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean over samples and pairs (i, j) of (cos(s_i, s'_j) − cos(t_i, t'_j))² (Park et al. 2019; Tung, Mori 2019).

    The student's and the teacher's tokens may have different widths. For the asymmetric variant (Budnik, Avrithis 2021)
    the student's rows are the teacher's: its search tokens, at the teacher's width, should lie to the teacher's
    template as the teacher's search tokens do.

    Args:
        student_rows, teacher_rows: (B, N, C) and (B, N, D), as the template's tokens.
        student_columns, teacher_columns: (B, M, C) and (B, M, D), as the search region's.
        weights: (B,), how much each sample counts.

    Raises:
        ModelError: the numbers of tokens differ.
    """
    ours = cosines(student_rows, student_columns)
    theirs = cosines(teacher_rows.detach(), teacher_columns.detach())
    require_same_shape("similarities of tokens", ours, theirs)
    return weighted_mean((ours - theirs).square().mean((1, 2)), weights)


@in_float32
def whiten(tokens: Tensor, shrinkage: float) -> Tensor:
    """Tokens on their principal axes, each axis divided by its standard deviation: Λ^(−1/2) Uᵀ (x − μ).

    UΛUᵀ = (1 − ε) Σ + ε (tr Σ / C) I, with μ and Σ over all tokens of the batch (of all processes) and ε the
    shrinkage, without which the axes that a batch hardly uses would be blown up to the size of the others.

    Args:
        tokens: (B, N, C); no gradient flows through the whitening.
    """
    flat = tokens.detach().flatten(0, 1)
    centred = flat - process_mean(flat.mean(0))
    covariance = process_mean(centred.T @ centred / len(flat))
    # Tokens that are all the same have no covariance; they stay zero, and finite.
    variance = covariance.diagonal().mean().clamp(min=1e-12)
    covariance = (1 - shrinkage) * covariance + shrinkage * variance * torch.eye(len(covariance), device=tokens.device)
    spread, axes = torch.linalg.eigh(covariance)
    whitened: Tensor = centred @ axes * spread.clamp(min=shrinkage * variance).rsqrt()
    return whitened.view_as(tokens)


def _log_neighbours(tokens: Tensor, temperature: float) -> Tensor:
    """For each token the log softmax of its cosines with the others over the temperature: (B, N, C) → (B, N, N − 1)."""
    similarities = cosines(tokens, tokens)
    count = similarities.shape[1]
    # Itself is every token's nearest; it would hide the others. Off the diagonal, row by row:
    others = similarities.flatten(1)[:, 1:].reshape(-1, count - 1, count + 1)[..., :-1].reshape(-1, count, count - 1)
    return (others / temperature).log_softmax(-1)


@in_float32
def whitened_loss(
    student: Tensor,
    teachers: Tensor,
    temperature: float = 0.1,
    shrinkage: float = 0.01,
    weights: Tensor | None = None,
) -> Tensor:
    """½ (KL(P ‖ Q) + KL(Q ‖ P)), averaged over teachers, samples and tokens (after Whiten-MTD, Ma et al. 2024).

    Row i of P is the softmax over all other tokens j of the same sample of cos(x_i, x_j) / T, where x are a teacher's
    whitened tokens; Q is the same of the student's. Whitening makes teachers of different spreads comparable, so that
    one student can follow both. The student's tokens are not whitened but come through a learned projection: whitening
    is affine, so a projection can learn it, and nothing has to be differentiated through an eigendecomposition.

    Args:
        student: (B, N, C), projected tokens.
        teachers: (B, S, N, D), tokens of S teachers; they receive no gradient.
        weights: (B,), how much each sample counts.

    Raises:
        ModelError: the numbers of tokens differ.
    """
    require_same_shape("tokens", student[..., 0], teachers[:, 0, :, 0])
    ours = _log_neighbours(student, temperature)
    divergences = []
    for tokens in teachers.unbind(1):
        theirs = _log_neighbours(whiten(tokens, shrinkage), temperature)
        divergences.append(((theirs.exp() - ours.exp()) * (theirs - ours)).sum(-1).mean(1) / 2)
    return weighted_mean(torch.stack(divergences).mean(0), weights)
