"""The centre head (OSTrack, section 3.3): a score map, and a box for every cell of it; and the presence output."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HeadOutput(NamedTuple):
    """What the network says about a search crop, for G × G cells.

    Attributes:
        score_logits: (B, G, G), the centre score before its sigmoid.
        box_map: (B, 4, G, G), for each cell a box as centre and size (cx, cy, w, h) in units of the crop's side.
        presence_logit: (B,), whether the target is in the crop at all, before its sigmoid.
    """

    score_logits: Tensor
    box_map: Tensor
    presence_logit: Tensor

    @property
    def score_map(self) -> Tensor:
        """Centre scores in [1e-4, 1 − 1e-4], clamped as in OSTrack so that the focal loss stays finite."""
        return self.score_logits.float().sigmoid().clamp(1e-4, 1 - 1e-4)


class Trace(NamedTuple):
    """A pass through a network with what distillation looks at.

    Attributes:
        layers: tokens after each block, and last after the final norm: (B, streams, Nz + Nx, C), the template's Nz
            first. A student has one stream; a teacher has two, colour first.
        fused: (B, Nx, C), the search tokens that the head read.
    """

    output: HeadOutput
    layers: tuple[Tensor, ...]
    fused: Tensor


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class CenterHead(nn.Module):
    """Three towers of four 3×3 convolutions over the search tokens: centre score, offset in the cell, size.

    Channels halve from ``channels`` on. Names are OSTrack's (``conv1_ctr`` … ``conv5_size``). The size goes through a
    sigmoid clamped to [1e-4, 1 − 1e-4]; the offset is linear.
    """

    def __init__(self, width: int, channels: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        for tower, outputs in (("ctr", 1), ("offset", 2), ("size", 2)):
            sizes = [width, channels, channels // 2, channels // 4, channels // 8]
            for layer in range(4):
                setattr(self, f"conv{layer + 1}_{tower}", _conv(sizes[layer], sizes[layer + 1]))
            setattr(self, f"conv5_{tower}", nn.Conv2d(sizes[4], outputs, 1))
        prior = self.get_parameter("conv5_ctr.bias")
        nn.init.constant_(prior, -4.0)  # almost every cell is background: start near its prior
        columns = torch.arange(grid, dtype=torch.float32)
        self.cells: Tensor
        self.register_buffer("cells", torch.stack(torch.meshgrid(columns, columns, indexing="xy")), persistent=False)

    def _tower(self, name: str, features: Tensor) -> Tensor:
        for layer in range(1, 6):
            features = getattr(self, f"conv{layer}_{name}")(features)
        return features

    def forward(self, search_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Search tokens (B, G·G, C) → score logits (B, G, G) and box map (B, 4, G, G)."""
        batch, _, width = search_tokens.shape
        features = search_tokens.transpose(1, 2).reshape(batch, width, self.grid, self.grid)
        score_logits = self._tower("ctr", features).squeeze(1)
        center = (self.cells + self._tower("offset", features)) / self.grid
        size = self._tower("size", features).float().sigmoid().clamp(1e-4, 1 - 1e-4)
        return score_logits, torch.cat((center, size), 1)


class PresenceHead(nn.Module):
    """Whether the target is in the crop, from the tokens under the score map's mass, their mean, and the peak score."""

    def __init__(self, width: int, hidden: int = 128) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2 * width + 1, hidden)
        self.fc2 = nn.Linear(hidden, 1)

    def forward(self, search_tokens: Tensor, score_logits: Tensor) -> Tensor:
        """Search tokens (B, N, C) and score logits (B, G, G) → presence logit (B,)."""
        scores = score_logits.detach().flatten(1)
        attention = scores.softmax(1).unsqueeze(1)
        at_peak = (attention @ search_tokens).squeeze(1)
        peak = scores.amax(1, keepdim=True)
        pooled = torch.cat((at_peak, search_tokens.mean(1), peak), 1)
        logit: Tensor = self.fc2(self.fc1(pooled).relu())
        return logit.squeeze(1)


class MaskHead(nn.Module):
    """Which pixels of a search crop are the target's, linearly from each token: for training, no tracker runs it.

    A box says of a target's shape four numbers, a mask says of every token what of it belongs to the target.

    Args:
        cells: values on each axis of a token's patch.
    """

    def __init__(self, width: int, cells: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, cells**2)
        self._cells = cells
        nn.init.constant_(self.proj.bias, -2.0)  # most of a crop is background

    def forward(self, search_tokens: Tensor) -> Tensor:
        """Search tokens (B, G·G, C) → mask logits (B, G · cells, G · cells)."""
        batch, count, _ = search_tokens.shape
        grid = math.isqrt(count)
        logits = self.proj(search_tokens).transpose(1, 2).reshape(batch, -1, grid, grid)
        return F.pixel_shuffle(logits, self._cells).squeeze(1)
