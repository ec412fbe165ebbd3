"""Mutual prompts: what one modality's stream tells the other before a block (the paper's section 3.2; MPLT's code).

Tokens are (B, N, C): the N places of a square map, rows first. Attribute names are those of MPLT's checkpoints, in
which ``spatialattention`` is what the literature calls channel attention, and ``tokenattention`` is spatial attention.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The temperature of the fovea's softmax at the start.
SHARPNESS = 10.0


class ChannelAttention(nn.Module):
    """A gain for each channel from its mean and its maximum over the places (CBAM, Woo et al. 2018): (B, 1, C).

    MPLT's files hold the two linear maps as 1×1 convolutions.
    """

    def __init__(self, width: int, ratio: int = 8) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // ratio, 1, bias=False)
        self.fc2 = nn.Conv2d(width // ratio, width, 1, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        pooled = torch.stack((tokens.mean(1), maximum(tokens, 1)), 1)
        hidden = F.linear(pooled, self.fc1.weight.flatten(1)).relu()
        return F.linear(hidden.sum(1, keepdim=True), self.fc2.weight.flatten(1)).sigmoid()


class SpatialAttention(nn.Module):
    """A gain for each place from the mean and the maximum over channels, through a 7×7 convolution: (B, N, 1)."""

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        grid = math.isqrt(tokens.shape[1])
        pooled = torch.stack((tokens.mean(2), maximum(tokens, 2)), 1)
        gain: Tensor = self.conv1(pooled.reshape(-1, 2, grid, grid))
        return gain.flatten(1).unsqueeze(2).sigmoid()


class Fovea(nn.Module):
    """Each channel, weighted by a softmax over places of itself at a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.Parameter(torch.full((1,), SHARPNESS))

    def forward(self, tokens: Tensor) -> Tensor:
        return (tokens * self.smooth).softmax(1) * tokens


class ModalityWeighing(nn.Module):
    """Two gains that sum to two, for the own and the other modality, from the means of both: (B, 2).

    The paper's adaptive weighing. It starts at one and one, where the prompter is as without it.
    """

    def __init__(self, width: int, ratio: int = 8) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2 * width, width // ratio)
        self.fc2 = nn.Linear(width // ratio, 2)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        logits: Tensor = self.fc2(self.fc1(torch.cat((own.mean(1), other.mean(1)), 1)).relu())
        return 2 * logits.softmax(-1)


class InitialPrompter(nn.Module):
    """The first prompt of a stream: fovea(own) + other, each after channel and spatial attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatialattention0 = ChannelAttention(width)
        self.tokenattention0 = SpatialAttention()
        self.spatialattention1 = ChannelAttention(width)
        self.tokenattention1 = SpatialAttention()
        self.fovea = Fovea()

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        own = attended(own, self.spatialattention0, self.tokenattention0)
        other = attended(other, self.spatialattention1, self.tokenattention1)
        prompt: Tensor = self.fovea(own) + other
        return prompt


class Prompter(nn.Module):
    """A stream's next prompt: fovea(own) + previous prompt + other, each after channel and spatial attention.

    The other modality goes through channel attention 1, as the previous prompt does: MPLT's code has it so, and its
    checkpoints were trained that way. ``spatialattention2`` takes no part and does not learn; it holds the checkpoint's
    parameters.

    Args:
        weighing: weigh own and other adaptively (``ModalityWeighing``).
    """

    def __init__(self, width: int, *, weighing: bool = False) -> None:
        super().__init__()
        self.spatialattention0 = ChannelAttention(width)
        self.tokenattention0 = SpatialAttention()
        self.spatialattention1 = ChannelAttention(width)
        self.tokenattention1 = SpatialAttention()
        self.spatialattention2 = ChannelAttention(width).requires_grad_(False)
        self.tokenattention2 = SpatialAttention()
        self.fovea = Fovea()
        self.weighing = ModalityWeighing(width) if weighing else None

    def forward(self, own: Tensor, previous: Tensor, other: Tensor) -> Tensor:
        if self.weighing is not None:
            gains = self.weighing(own, other)[:, :, None, None]
            own, other = own * gains[:, 0], other * gains[:, 1]
        own = attended(own, self.spatialattention0, self.tokenattention0)
        previous = attended(previous, self.spatialattention1, self.tokenattention1)
        other = attended(other, self.spatialattention1, self.tokenattention2)
        prompt: Tensor = self.fovea(own) + previous + other
        return prompt


def attended(tokens: Tensor, channels: ChannelAttention, places: SpatialAttention) -> Tensor:
    """Tokens × their channel attention, then × the spatial attention of that."""
    tokens = tokens * channels(tokens)
    attended: Tensor = tokens * places(tokens)
    return attended


def maximum(tokens: Tensor, dim: int) -> Tensor:
    """The largest values along an axis, by the faster of two ways on a CPU: ``amax`` forward, ``max`` with backward.

    The gradient of ``amax`` is shared among ties, which it counts over the whole tensor; that of ``max`` goes to one of
    them, as in MPLT's pooling layers.
    """
    return tokens.max(dim).values if tokens.requires_grad else tokens.amax(dim)
