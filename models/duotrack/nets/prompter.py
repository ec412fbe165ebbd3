"""Mutual prompts: what one modality's stream tells the other before a block (the paper's section 3.2; MPLT's code).

Feature maps are (B, C, H, W). Attribute names are those of MPLT's checkpoints, in which ``spatialattention`` is what
the literature calls channel attention, and ``tokenattention`` is spatial attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The temperature of the fovea's softmax at the start.
SHARPNESS = 10.0


class ChannelAttention(nn.Module):
    """A gain for each channel from its mean and its maximum over the map (CBAM, Woo et al. 2018): (B, C, 1, 1)."""

    def __init__(self, width: int, ratio: int = 8) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // ratio, 1, bias=False)
        self.fc2 = nn.Conv2d(width // ratio, width, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        pooled = features.mean((2, 3), keepdim=True), features.amax((2, 3), keepdim=True)
        gain: Tensor = sum((self.fc2(self.fc1(values).relu()) for values in pooled), torch.zeros(()))
        return gain.sigmoid()


class SpatialAttention(nn.Module):
    """A gain for each place from the mean and the maximum over channels, through a 7×7 convolution: (B, 1, H, W)."""

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        pooled = torch.cat((features.mean(1, keepdim=True), features.amax(1, keepdim=True)), 1)
        gain: Tensor = self.conv1(pooled)
        return gain.sigmoid()


class Fovea(nn.Module):
    """Each channel, weighted by a softmax over places of itself at a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.Parameter(torch.full((1,), SHARPNESS))

    def forward(self, features: Tensor) -> Tensor:
        return (features.flatten(2) * self.smooth).softmax(-1).view_as(features) * features


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
        pooled = torch.cat((own.mean((2, 3)), other.mean((2, 3))), 1)
        logits: Tensor = self.fc2(self.fc1(pooled).relu())
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
    checkpoints were trained that way. ``spatialattention2`` takes no part; it holds the checkpoint's parameters.

    Args:
        weighing: weigh own and other adaptively (``ModalityWeighing``).
    """

    def __init__(self, width: int, *, weighing: bool = False) -> None:
        super().__init__()
        for index in range(3):
            setattr(self, f"spatialattention{index}", ChannelAttention(width))
            setattr(self, f"tokenattention{index}", SpatialAttention())
        self.fovea = Fovea()
        self.weighing = ModalityWeighing(width) if weighing else None

    def forward(self, own: Tensor, previous: Tensor, other: Tensor) -> Tensor:
        if self.weighing is not None:
            gains = self.weighing(own, other)[:, :, None, None, None]
            own, other = own * gains[:, 0], other * gains[:, 1]
        own = attended(own, self.get_submodule("spatialattention0"), self.get_submodule("tokenattention0"))
        previous = attended(previous, self.get_submodule("spatialattention1"), self.get_submodule("tokenattention1"))
        other = attended(other, self.get_submodule("spatialattention1"), self.get_submodule("tokenattention2"))
        prompt: Tensor = self.fovea(own) + previous + other
        return prompt


def attended(features: Tensor, channels: nn.Module, places: nn.Module) -> Tensor:
    """Features × their channel attention, then × the spatial attention of that."""
    features = features * channels(features)
    attended: Tensor = features * places(features)
    return attended
