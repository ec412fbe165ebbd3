"""A plain vision transformer whose parameter names follow timm's and OSTrack's, so that public checkpoints load.

Tokens are (B, N, C). A block attends from its tokens to those same tokens and, where given, to keys and values that
other tokens left behind (``context``): that is how search tokens see a template whose own pass ran earlier.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KeyValue(NamedTuple):
    """Keys and values of one block, each (B, heads, N, head_width)."""

    key: Tensor
    value: Tensor

    def then(self, other: KeyValue) -> KeyValue:
        """Both along the token axis, these first."""
        return KeyValue(torch.cat((self.key, other.key), 2), torch.cat((self.value, other.value), 2))


class PatchEmbedding(nn.Module):
    """Non-overlapping patches through one linear map: (B, H, W, channels) → (B, H/patch · W/patch, width).

    Written as reshape + Linear: a bf16 ``Conv2d`` with kernel = stride and an even number of input channels returns
    garbage on AMX, in torch 2.13 and in OpenVINO. The weight is (width, patch · patch · channels), rows first, the
    channel last; ``from_conv`` turns a convolution kernel into it.
    """

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(patch * patch * channels, width)

    @staticmethod
    def from_conv(kernel: Tensor) -> Tensor:
        """A convolution kernel (width, channels, patch, patch) as the weight of ``proj``."""
        return kernel.permute(0, 2, 3, 1).flatten(1)

    def forward(self, image: Tensor) -> Tensor:
        batch, height, width, channels = image.shape
        rows, columns, patch = height // self.patch, width // self.patch, self.patch
        patches = image.reshape(batch, rows, patch, columns, patch, channels).permute(0, 1, 3, 2, 4, 5)
        tokens: Tensor = self.proj(patches.reshape(batch, rows * columns, patch * patch * channels))
        return tokens


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What each query sees: (B, heads, N, D), with keys and values (B, heads, M, D) → (B, heads, N, D).

    Written out where a CPU learns: with torch's fused attention a whole step of a student takes a sixth longer there
    (two cores of an AMD EPYC, bf16, 32 pairs).
    """
    if query.device.type == "cpu" and query.requires_grad:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        return torch.softmax(scores, -1) @ value
    return F.scaled_dot_product_attention(query, key, value)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} must be a multiple of the number of heads {heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, context: KeyValue | None) -> tuple[Tensor, KeyValue]:
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, own = qkv[0], KeyValue(qkv[1], qkv[2])
        key, value = own if context is None else context.then(own)
        mixed = attend(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, width)), own


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return out


class LayerScale(nn.Module):
    """A learned gain for each channel of a residual branch (DINOv2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma


class Block(nn.Module):
    """Pre-norm attention and MLP with residuals; returns the new tokens and the keys and values they left behind."""

    def __init__(self, width: int, heads: int, *, mlp_ratio: float = 4.0, layer_scale: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.ls2 = LayerScale(width) if layer_scale else nn.Identity()

    def forward(self, tokens: Tensor, context: KeyValue | None = None) -> tuple[Tensor, KeyValue]:
        attended, own = self.attn(self.norm1(tokens), context)
        tokens = tokens + self.ls1(attended)
        return tokens + self.ls2(self.mlp(self.norm2(tokens))), own
