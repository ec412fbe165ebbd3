"""Response distillation: the student's maps and presence should be the teacher's (Hinton et al. 2015)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from duotrack.nets.head import HeadOutput
from duotrack.training.distillation.terms import in_float32, require_same_shape, weighted_mean


@in_float32
def score_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0, weights: Tensor | None = None) -> Tensor:
    """T² · KL(q ‖ p) over the cells of a map, with q = softmax(teacher / T) and p = softmax(student / T).

    T² keeps the size of the gradient as T grows. A softmax does not see a map's overall level: that is learned from
    the ground truth and from presence.

    Args:
        student, teacher: score logits (B, G, G); the teacher's receive no gradient.
        weights: (B,), how much each sample counts; a map without a target has no peak to teach.

    Raises:
        ModelError: the grids differ.
    """
    require_same_shape("score maps", student, teacher)
    ours = (student / temperature).flatten(1).log_softmax(1)
    theirs = (teacher.detach() / temperature).flatten(1).log_softmax(1)
    divergence = (theirs.exp() * (theirs - ours)).sum(1)
    return temperature**2 * weighted_mean(divergence, weights)


@in_float32
def box_loss(student: Tensor, teacher: Tensor, teacher_logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ over cells of m · mean over (cx, cy, w, h) of |student − teacher|, with m = softmax(teacher's score logits).

    What the teacher says of the background's boxes is noise; ``m`` sums to one over the cells that it believes in.

    Args:
        student, teacher: box maps (B, 4, G, G) in units of the crop's side; the teacher's receive no gradient.
        teacher_logits: (B, G, G).
        weights: (B,), how much each sample counts.

    Raises:
        ModelError: the grids differ.
    """
    require_same_shape("box maps", student, teacher)
    mass = teacher_logits.detach().flatten(1).softmax(1)
    distance = (student - teacher.detach()).abs().mean(1).flatten(1)
    return weighted_mean((mass * distance).sum(1), weights)


@in_float32
def presence_loss(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """KL between Bernoullis: q·log(q/p) + (1 − q)·log((1 − q)/(1 − p)), q = σ(teacher), p = σ(student).

    That is the binary cross entropy with the teacher's presence, less the teacher's own entropy: the same gradient,
    and zero where both agree.

    Args:
        student, teacher: presence logits (B,); the teacher's receive no gradient.
    """
    require_same_shape("presence", student, teacher)
    theirs = teacher.detach()
    present = theirs.sigmoid() * (F.logsigmoid(theirs) - F.logsigmoid(student))
    absent = (-theirs).sigmoid() * (F.logsigmoid(-theirs) - F.logsigmoid(-student))
    return weighted_mean(present + absent, weights)


def cross_modal_loss(
    thermal: HeadOutput,
    rgb: HeadOutput,
    temperature: float = 1.0,
    box_weight: float = 5.0,
    weights: Tensor | None = None,
) -> Tensor:
    """``score_loss`` + box_weight · ``box_loss`` of one student's thermal-only response against its colour response.

    No ground truth is needed: any aligned pair will do. The two responses are passes of the same network, on
    ``single_modality(batch, "thermal", parts=("search",))`` and ``single_modality(batch, "rgb", parts=("search",))``.

    Args:
        rgb: the teacher here; receives no gradient.
        box_weight: OSTrack's weight of a box's L1 relative to the score's.
        weights: (B,), how much each sample counts, as whether it has both modalities.
    """
    score = score_loss(thermal.score_logits, rgb.score_logits, temperature, weights)
    return score + box_weight * box_loss(thermal.box_map, rgb.box_map, rgb.score_logits, weights)
