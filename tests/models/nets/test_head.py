"""The centre head and the presence output, against their formulas written out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duotrack.nets.head import CenterHead, HeadOutput, MaskHead, PresenceHead


def tower(head: CenterHead, name: str, features: Tensor) -> Tensor:
    """Four times convolution, batch norm and ReLU, then a 1 × 1 convolution, from the parameters alone."""
    state = head.state_dict()
    for layer in range(1, 5):
        prefix = f"conv{layer}_{name}"
        features = F.conv2d(features, state[f"{prefix}.0.weight"], state[f"{prefix}.0.bias"], padding=1)
        mean, variance = state[f"{prefix}.1.running_mean"], state[f"{prefix}.1.running_var"]
        gain, shift = state[f"{prefix}.1.weight"], state[f"{prefix}.1.bias"]
        features = (features - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
        features = (features * gain[:, None, None] + shift[:, None, None]).clamp(min=0)
    return F.conv2d(features, state[f"conv5_{name}.weight"], state[f"conv5_{name}.bias"])


def lively_head() -> CenterHead:
    torch.manual_seed(0)
    head = CenterHead(24, 16, 8).eval()
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean = torch.randn(module.num_features) * 0.3
            module.running_var = torch.rand(module.num_features) + 0.2
    return head


@torch.no_grad()
def test_the_maps_follow_the_formula() -> None:
    head = lively_head()
    tokens = torch.randn(2, 64, 24) * 2
    logits, box_map = head(tokens)
    features = torch.stack([tokens[:, row * 8 : row * 8 + 8] for row in range(8)], 1).permute(0, 3, 1, 2)
    offset, size = tower(head, "offset", features), tower(head, "size", features)
    assert logits.shape == (2, 8, 8)
    assert box_map.shape == (2, 4, 8, 8)
    assert torch.allclose(logits, tower(head, "ctr", features)[:, 0], atol=1e-4)
    for row in range(8):
        for column in range(8):
            assert torch.allclose(box_map[:, 0, row, column], (column + offset[:, 0, row, column]) / 8, atol=1e-5)
            assert torch.allclose(box_map[:, 1, row, column], (row + offset[:, 1, row, column]) / 8, atol=1e-5)
    expected = torch.clamp(1 / (1 + torch.exp(-size)), 1e-4, 1 - 1e-4)
    assert torch.allclose(box_map[:, 2:], expected, atol=1e-5)


@torch.no_grad()
def test_sizes_and_scores_keep_away_from_zero_and_one() -> None:
    head = lively_head()
    head.get_parameter("conv5_size.bias").copy_(torch.tensor([-100.0, 100.0]))
    logits, box_map = head(torch.randn(1, 64, 24))
    assert torch.allclose(box_map[:, 2], torch.tensor(1e-4))
    assert torch.allclose(box_map[:, 3], torch.tensor(1 - 1e-4))
    scores = HeadOutput(torch.tensor([[[-50.0, 0.0, 50.0]]]), box_map, logits[:, 0, 0]).score_map
    assert torch.allclose(scores, torch.tensor([[[1e-4, 0.5, 1 - 1e-4]]]))


@torch.no_grad()
def test_a_fresh_head_takes_almost_all_for_background() -> None:
    """A bias of −4 is a prior of 1.8 % for each cell."""
    torch.manual_seed(1)
    logits, _ = CenterHead(24, 16, 8).eval()(torch.randn(4, 64, 24))
    assert math.isclose(float(logits.sigmoid().mean()), 1 / (1 + math.exp(4)), rel_tol=0.5)


@torch.no_grad()
def test_presence_follows_the_formula() -> None:
    torch.manual_seed(2)
    head = PresenceHead(24, hidden=10)
    tokens, scores = torch.randn(2, 64, 24), torch.randn(2, 8, 8) * 3
    logit = head(tokens, scores)
    assert logit.shape == (2,)
    for session in range(2):
        flat = scores[session].flatten()
        shares = flat.exp() / flat.exp().sum()
        at_peak = sum(share * token for share, token in zip(shares, tokens[session], strict=True))
        pooled = torch.cat((at_peak, tokens[session].mean(0), flat.max()[None]))
        hidden = (head.fc1.weight @ pooled + head.fc1.bias).clamp(min=0)
        assert torch.allclose(logit[session], (head.fc2.weight @ hidden + head.fc2.bias)[0], atol=1e-5)


def test_presence_does_not_push_the_score_map() -> None:
    """It reads the scores, and must not bend them: the score map has a loss of its own."""
    scores = torch.randn(2, 8, 8, requires_grad=True)
    tokens = torch.randn(2, 64, 24, requires_grad=True)
    PresenceHead(24)(tokens, scores).sum().backward()
    assert scores.grad is None
    assert tokens.grad is not None
    assert bool(tokens.grad.abs().sum() > 0)


def test_a_tokens_mask_lies_in_its_patch() -> None:
    """The third token of the second row speaks of rows 4 to 7 and columns 8 to 11, in reading order."""
    head = MaskHead(8, cells=4)
    nn.init.zeros_(head.proj.weight)
    head.proj.weight.data[:, 0] = torch.arange(1.0, 17.0)
    nn.init.zeros_(head.proj.bias)
    tokens = torch.zeros(1, 5 * 5, 8)
    tokens[0, 1 * 5 + 2, 0] = 1
    found = head(tokens)[0]
    assert found.shape == (20, 20)
    assert found[4:8, 8:12].flatten().tolist() == list(range(1, 17))
    assert int((found != 0).sum()) == 16
