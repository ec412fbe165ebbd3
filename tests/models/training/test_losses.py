"""Losses against numbers worked out by hand, pixels counted, and formulas written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from duotrack.nets.head import HeadOutput
from duotrack.training.losses import (
    LossWeights,
    center_cell,
    center_heatmap,
    focal_loss,
    generalized_iou,
    mask_loss,
    tracking_loss,
)


@pytest.mark.parametrize(
    ("first", "second", "giou"),
    [
        ((5, 5, 10, 10), (5, 5, 10, 10), 1.0),
        ((5, 5, 10, 10), (15, 5, 10, 10), 0.0),  # side by side: no overlap, and no gap in the hull
        ((5, 5, 10, 10), (25, 5, 10, 10), -1 / 3),  # a gap as wide as either
        ((5, 5, 10, 10), (5, 5, 5, 10), 0.5),
        ((5, 5, 10, 10), (10, 10, 10, 10), 1 / 7 - 50 / 225),  # corners overlap: 25 / 175; hull 15 × 15
    ],
)
def test_giou_by_hand(first: tuple[float, ...], second: tuple[float, ...], giou: float) -> None:
    found = generalized_iou(torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64))
    assert float(found) == pytest.approx(giou)


corners = st.tuples(st.integers(0, 15), st.integers(0, 15), st.integers(1, 14), st.integers(1, 14))


@given(corners, corners)
def test_giou_counts_pixels(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> None:
    masks = np.zeros((2, 30, 30), bool)
    for mask, (x, y, w, h) in zip(masks, (first, second), strict=True):
        mask[y : y + h, x : x + w] = True
    common, union = (masks[0] & masks[1]).sum(), (masks[0] | masks[1]).sum()
    rows, columns = np.nonzero(masks[0] | masks[1])
    hull = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    boxes = torch.tensor([[x + w / 2, y + h / 2, w, h] for x, y, w, h in (first, second)], dtype=torch.float64)
    assert float(generalized_iou(boxes[0], boxes[1])) == pytest.approx(common / union - (hull - union) / hull)


def test_giou_has_the_right_gradient() -> None:
    first = torch.tensor([[0.5, 0.5, 0.3, 0.2], [0.2, 0.2, 0.1, 0.15]], dtype=torch.float64, requires_grad=True)
    second = torch.tensor([[0.55, 0.46, 0.2, 0.3], [0.7, 0.6, 0.2, 0.2]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(generalized_iou, (first, second))


def test_boxes_apart_are_drawn_together() -> None:
    """IoU is flat there; GIoU is not."""
    box = torch.tensor([0.2, 0.5, 0.1, 0.1], requires_grad=True)
    (1 - generalized_iou(box, torch.tensor([0.8, 0.5, 0.1, 0.1]))).backward()
    assert box.grad is not None
    assert float(box.grad[0]) < -0.1


@given(
    st.floats(1 / 64, 1, width=32), st.floats(1 / 64, 1, width=32), st.floats(0, 1, width=32), st.floats(0, 1, width=32)
)
def test_the_heatmap_is_cornernets(w: float, h: float, cx: float, cy: float) -> None:
    """A box moved by the radius on both axes overlaps by exactly 0.7; σ is (2r + 1) / 6, at least half a cell."""
    width, height = w * 16, h * 16
    low, high = 0.0, min(width, height)
    for _ in range(60):  # bisection for the radius, from its definition
        radius = (low + high) / 2
        common = (width - radius) * (height - radius)
        low, high = (radius, high) if common / (2 * width * height - common) > 0.7 else (low, radius)
    sigma = max((2 * radius + 1) / 6, 0.5)
    column, row = min(int(cx * 16), 15), min(int(cy * 16), 15)
    found = center_heatmap(torch.tensor([[cx, cy, w, h]]), 16)[0]
    for y in range(16):
        for x in range(16):
            expected = math.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * sigma**2))
            assert float(found[y, x]) == pytest.approx(expected, abs=2e-3)
    assert float(found[row, column]) == 1
    assert int((found == 1).sum()) == 1


def test_the_center_cell_is_column_then_row_and_stays_in_the_grid() -> None:
    boxes = torch.tensor([[0.99, 0.01, 0.1, 0.1], [1.0, 1.3, 0.1, 0.1], [-0.2, 0.5, 0.1, 0.1]])
    columns, rows = center_cell(boxes, 16)
    assert columns.tolist() == [15, 15, 0]
    assert rows.tolist() == [0, 15, 8]


def focal_by_hand(logits: Tensor, heatmap: Tensor) -> float:
    """CornerNet, equation 1 (α 2, β 4), a cell at a time; averaged over the batch."""
    total = 0.0
    for logit, target in zip(logits.flatten().tolist(), heatmap.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        if target == 1:
            total -= (1 - p) ** 2 * math.log(p)
        else:
            total -= (1 - target) ** 4 * p**2 * math.log(1 - p)
    return total / len(logits)


def test_focal_loss_by_hand() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 16, 16) * 3
    heatmap = center_heatmap(torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.1, 0.9, 0.1, 0.1], [0.3, 0.3, 0.2, 0.2]]), 16)
    heatmap[2] = 0  # absent
    assert float(focal_loss(logits, heatmap)) == pytest.approx(focal_by_hand(logits, heatmap), rel=1e-4)


def test_focal_loss_of_one_certain_cell() -> None:
    """p = 0.5 at the one positive cell, and nothing elsewhere: 0.5² · ln 2."""
    logits, heatmap = torch.full((1, 4, 4), -40.0), torch.zeros(1, 4, 4)
    logits[0, 1, 2], heatmap[0, 1, 2] = 0.0, 1.0
    assert float(focal_loss(logits, heatmap)) == pytest.approx(0.25 * math.log(2))


def test_focal_loss_stays_finite_at_certainty() -> None:
    logits = torch.tensor([[[-80.0, 80.0]]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([[[1.0, 0.0]]]))
    loss.backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(logits.grad).all())


def outputs(batch: int, seed: int = 0) -> HeadOutput:
    generator = torch.Generator().manual_seed(seed)
    box_map = torch.rand(batch, 4, 16, 16, generator=generator)
    return HeadOutput(
        torch.randn(batch, 16, 16, generator=generator).requires_grad_(),
        (box_map * 0.9 + 0.05).requires_grad_(),
        torch.randn(batch, generator=generator).requires_grad_(),
    )


BOXES = torch.tensor([[0.5, 0.45, 0.3, 0.2], [0.2, 0.7, 0.15, 0.25], [0.8, 0.3, 0.1, 0.1]])


def test_the_whole_loss_by_hand() -> None:
    present = torch.tensor([1.0, 1.0, 0.0])
    output = outputs(3)
    weights = LossWeights(focal=0.7, giou=1.5, l1=4.0, presence=0.3)
    terms = tracking_loss(output, BOXES, present, weights)
    heatmap = center_heatmap(BOXES, 16)
    heatmap[2] = 0
    giou = l1 = height = 0.0
    for session, row, column in np.ndindex(3, 16, 16):
        bump = float(heatmap[session, row, column])
        if bump > 0.1:
            found = output.box_map[session, :, row, column].detach()
            height += bump
            giou += bump * (1 - float(generalized_iou(found, BOXES[session])))
            l1 += bump * float((found - BOXES[session]).abs().sum()) / 4
    presence = 0.0
    for logit, truth in zip(output.presence_logit.tolist(), present.tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        presence -= math.log(p if truth else 1 - p) / 3
    focal = focal_by_hand(output.score_logits.detach(), heatmap)
    assert float(terms.focal.detach()) == pytest.approx(focal, rel=1e-4)
    assert float(terms.giou.detach()) == pytest.approx(giou / height, rel=1e-4)
    assert float(terms.l1.detach()) == pytest.approx(l1 / height, rel=1e-4)
    assert float(terms.presence.detach()) == pytest.approx(presence, rel=1e-4)
    total = 0.7 * focal + 1.5 * giou / height + 4 * l1 / height + 0.3 * presence
    assert float(terms.total.detach()) == pytest.approx(total, rel=1e-4)


def test_the_weights_are_ostracks() -> None:
    """OSTrack, section 3.4: λ of GIoU 2, of L1 5, focal 1."""
    weights = LossWeights()
    assert (weights.focal, weights.giou, weights.l1) == (1.0, 2.0, 5.0)


def test_the_mask_loss_by_hand() -> None:
    """Of four samples: one seen, one absent, one whose mask is not known, and one that is guessed perfectly."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(4, 6, 6, generator=generator)
    masks = torch.randint(0, 256, (4, 6, 6), generator=generator, dtype=torch.uint8)
    masks[1] = 0
    masks[3] = 255 * (masks[3] > 100)
    logits[3] = torch.where(masks[3] > 0, 30.0, -30.0)
    entropy, dice = [], []
    for session in (0, 1, 3):
        total = overlap = 0.0
        shares = (masks[session].double() / 255).flatten().tolist()
        chances = [1 / (1 + math.exp(-logit)) for logit in logits[session].flatten().tolist()]
        for p, share in zip(chances, shares, strict=True):
            total -= share * math.log(p) + (1 - share) * math.log(max(1 - p, 1e-300))
            overlap += p * share
        entropy.append(total / 36)
        if session != 1:
            dice.append(1 - (2 * overlap + 1) / (sum(chances) + sum(shares) + 1))
    known = torch.tensor([1.0, 1.0, 0.0, 1.0])
    assert dice[1] < 1e-6
    expected = sum(entropy) / 3 + sum(dice) / 2
    assert float(mask_loss(logits, masks, known)) == pytest.approx(expected, rel=1e-4)


def test_masks_that_nobody_knows_teach_nothing() -> None:
    logits = torch.randn(2, 4, 4, requires_grad=True)
    loss = mask_loss(logits, torch.full((2, 4, 4), 255, dtype=torch.uint8), torch.zeros(2))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_an_absent_target_teaches_no_box() -> None:
    output = outputs(3)
    tracking_loss(output, BOXES, torch.tensor([1.0, 0.0, 1.0]), LossWeights()).total.backward()
    box, score, presence = output.box_map.grad, output.score_logits.grad, output.presence_logit.grad
    assert box is not None
    assert score is not None
    assert presence is not None
    assert not box[1].any()
    assert box[0].any()
    assert box[2].any()
    assert bool((score[1] > 0).all())  # every cell's score is pushed down
    assert float(presence[1]) > 0
    assert float(presence[0]) < 0


@pytest.mark.parametrize("box", [[0.1, 0.2, 0.5, 0.9], [7.0, -3.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
def test_the_box_of_an_absent_target_is_ignored(box: list[float]) -> None:
    present = torch.tensor([1.0, 0.0, 1.0])
    other = BOXES.clone()
    other[1] = torch.tensor(box)
    first, second = (tracking_loss(outputs(3), boxes, present, LossWeights()) for boxes in (BOXES, other))
    assert float(first.total.detach()) == pytest.approx(float(second.total.detach()), rel=1e-6)


def test_a_batch_without_any_target_has_a_finite_loss() -> None:
    output = outputs(3)
    terms = tracking_loss(output, BOXES, torch.zeros(3), LossWeights())
    assert float(terms.giou.detach()) == 0
    assert float(terms.l1.detach()) == 0
    terms.total.backward()
    assert output.box_map.grad is not None
    assert not output.box_map.grad.any()


def test_the_right_answer_costs_almost_nothing() -> None:
    heatmap = center_heatmap(BOXES, 16)
    logits = torch.where(heatmap == 1, 20.0, -20.0)
    output = HeadOutput(logits, BOXES[:, :, None, None].expand(3, 4, 16, 16), torch.full((3,), 20.0))
    assert float(tracking_loss(output, BOXES, torch.ones(3), LossWeights()).total) < 1e-5
