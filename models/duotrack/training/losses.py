"""Losses of the centre head and of presence, and the targets they are measured against (OSTrack, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from duotrack.nets.head import HeadOutput
from duotrack.training.distributed import process_mean


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Factors of the losses of a sample.

    Attributes:
        mask: of the target's mask, which is predicted for training alone; 0, as it is by default, switches it off.
    """

    focal: float = 1.0
    giou: float = 2.0
    l1: float = 5.0
    presence: float = 1.0
    mask: float = 0.0


@dataclass(frozen=True, slots=True)
class LossTerms:
    """Scalar tensors; ``total`` is their weighted sum."""

    focal: Tensor
    giou: Tensor
    l1: Tensor
    presence: Tensor
    total: Tensor


def center_heatmap(boxes: Tensor, grid: int) -> Tensor:
    """Gaussian bumps of height one at the cell of each box's centre: (B, 4) cx cy w h in 0…1 → (B, grid, grid).

    The spread follows CornerNet's rule (a box shifted by ``r`` cells in both directions still overlaps by 0.7), with
    σ = (2r + 1) / 6 and at least 0.5 cells: small targets would otherwise have a single positive cell.
    """
    width, height = boxes[:, 2] * grid, boxes[:, 3] * grid
    overlap = 0.7
    kept = 2 * overlap / (1 + overlap) * width * height
    radius = ((width + height) - ((width + height) ** 2 - 4 * (width * height - kept)).clamp(min=0).sqrt()) / 2
    sigma = ((2 * radius + 1) / 6).clamp(min=0.5)[:, None, None]
    column, row = center_cell(boxes, grid)
    cells = torch.arange(grid, device=boxes.device, dtype=boxes.dtype)
    squared = (cells[None, None, :] - column[:, None, None]) ** 2 + (cells[None, :, None] - row[:, None, None]) ** 2
    return torch.exp(-squared / (2 * sigma**2))


def center_cell(boxes: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Column and row, each (B,), of the cell that holds each box's centre."""
    cells = (boxes[:, :2] * grid).floor().clamp(0, grid - 1)
    return cells[:, 0], cells[:, 1]


def focal_loss(score_logits: Tensor, heatmap: Tensor) -> Tensor:
    """CornerNet's focal loss (α = 2, β = 4) of (B, G, G) logits, summed over cells, averaged over the batch.

    A row of zeros as ``heatmap`` (target absent) leaves only its negative part.
    """
    logits = score_logits.float()
    probability = logits.sigmoid()
    positive = heatmap.eq(1).float()
    hit = F.logsigmoid(logits) * (1 - probability) ** 2 * positive
    miss = F.logsigmoid(-logits) * probability**2 * (1 - heatmap) ** 4 * (1 - positive)
    return -(hit + miss).sum() / len(logits)


def generalized_iou(first: Tensor, second: Tensor) -> Tensor:
    """GIoU (Rezatofighi et al. 2019) of boxes (…, 4) as cx cy w h, in [-1, 1], elementwise."""
    first_low, first_high = first[..., :2] - first[..., 2:] / 2, first[..., :2] + first[..., 2:] / 2
    second_low, second_high = second[..., :2] - second[..., 2:] / 2, second[..., :2] + second[..., 2:] / 2
    overlap = (torch.minimum(first_high, second_high) - torch.maximum(first_low, second_low)).clamp(min=0)
    intersection = overlap.prod(-1)
    union = first[..., 2:].prod(-1) + second[..., 2:].prod(-1) - intersection
    hull = (torch.maximum(first_high, second_high) - torch.minimum(first_low, second_low)).prod(-1)
    return intersection / union.clamp(min=1e-9) - (hull - union) / hull.clamp(min=1e-9)


def tracking_loss(output: HeadOutput, boxes: Tensor, present: Tensor, weights: LossWeights) -> LossTerms:
    """Loss of one batch.

    Args:
        boxes: (B, 4) true centre and size in units of the search crop's side; ignored where ``present`` is 0.
        present: (B,) 1 where the target is in the crop.

    The box terms are taken at every cell of the bump around the true centre, weighted by its height, so that a peak
    one cell off still carries a good box.
    """
    grid = output.score_logits.shape[-1]
    heatmap = center_heatmap(boxes, grid) * present[:, None, None]
    near = torch.where(heatmap > 0.1, heatmap, 0.0)
    share = near / process_mean(near.sum()).clamp(min=1e-6)
    predicted = output.box_map.float().permute(0, 2, 3, 1)
    target = boxes[:, None, None, :].expand_as(predicted)
    focal = focal_loss(output.score_logits, heatmap)
    giou = ((1 - generalized_iou(predicted, target)) * share).sum()
    l1 = ((predicted - target).abs().mean(-1) * share).sum()
    presence = F.binary_cross_entropy_with_logits(output.presence_logit.float(), present)
    total = weights.focal * focal + weights.giou * giou + weights.l1 * l1 + weights.presence * presence
    return LossTerms(focal, giou, l1, presence, total)


def mask_loss(logits: Tensor, masks: Tensor, known: Tensor) -> Tensor:
    """Cross entropy plus Dice loss (Milletari et al. 2016, as Mask2Former sums them) of the target's mask.

    Both are means over the samples whose mask is known; Dice over those of them that show the target.

    Args:
        logits: (B, M, M), that a cell is the target's, before its sigmoid.
        masks: (B, M, M) uint8, the share of each cell that is, from 0 to 255.
        known: (B,) 1 where the mask counts.
    """
    logits, shares = logits.float().flatten(1), masks.flatten(1).float() / 255
    entropy = F.binary_cross_entropy_with_logits(logits, shares, reduction="none").mean(1)
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * shares).sum(1) + 1) / (probability.sum(1) + shares.sum(1) + 1)
    shown = known * (shares.amax(1) > 0.5)
    return _mean_of(entropy, known) + _mean_of(dice, shown)


def _mean_of(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean, over all processes together; 0 where nothing has a weight."""
    return (values * weights).sum() / process_mean(weights.sum()).clamp(min=1e-6)
