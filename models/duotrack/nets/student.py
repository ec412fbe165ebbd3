"""The one-stream student: colour and thermal are fused at the patch embedding, then one transformer sees both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from duotrack.nets.head import CenterHead, HeadOutput, PresenceHead, Trace
from duotrack.nets.vit import Block, KeyValue, PatchEmbedding
from duotrack.network import CropShapes

# Mean and standard deviation of R, G, B (ImageNet) and thermal, for values from 0 to 1.
CHANNEL_MEAN = (0.485, 0.456, 0.406, 0.449)
CHANNEL_STD = (0.229, 0.224, 0.225, 0.226)


@dataclass(frozen=True, slots=True)
class StudentConfig(CropShapes):
    """Shape of a student. The defaults are ``student-s``'s, but for its search crop.

    Attributes:
        template_attention: ``isolated`` lets template tokens attend only to themselves, so that their keys and values
            are computed once per session; ``joint`` is OSTrack's attention over template and search together.
        layer_scale: a learned gain on each residual branch, as DINOv2 has and OSTrack has not.
        head_channels: channels of the first convolution of each tower of the centre head.
    """

    width: int = 384
    depth: int = 6
    heads: int = 6
    template_attention: Literal["isolated", "joint"] = "isolated"
    layer_scale: bool = True
    head_channels: int = 128
    patch: int = 16

    @property
    def template_grid(self) -> int:
        return self.template_size // self.patch

    @property
    def search_grid(self) -> int:
        return self.search_size // self.patch


# At the template's scale, 3.5 times the target in place of OSTrack's 4: a quarter fewer tokens. The tracker knows where
# to look (``duotrack.motion``), and finds as much in it (docs/training.md).
SMALL_SEARCH = 224
STUDENTS = {
    "student-s": StudentConfig(search_size=SMALL_SEARCH),
    # Closer crops have more pixels on the target, small targets aside, which are searched for further around.
    "student-t": StudentConfig(
        width=192, depth=6, heads=3, head_channels=64, search_size=SMALL_SEARCH, template_factor=1.6, widening=1.4
    ),
    "student-b": StudentConfig(
        width=768, depth=12, heads=12, template_attention="joint", layer_scale=False, head_channels=256
    ),
}


class OneStreamBackbone(nn.Module):
    """Patch embedding of both modalities, positions, and the transformer blocks. Names are OSTrack's.

    Beyond OSTrack it learns what stands for an absent modality (``modality_mask``), and which part of the template
    crop is target and which is surroundings (``target_type``, ``context_type``): the square crop alone would not say
    whether a tall or a wide thing in it is meant.
    """

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embed = PatchEmbedding(4, config.patch, width)
        self.modality_mask = nn.Parameter(torch.zeros(2, width))
        self.pos_embed_z = nn.Parameter(torch.zeros(1, config.template_grid**2, width))
        self.pos_embed_x = nn.Parameter(torch.zeros(1, config.search_grid**2, width))
        self.target_type = nn.Parameter(torch.zeros(width))
        self.context_type = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(
            Block(width, config.heads, layer_scale=config.layer_scale) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(CHANNEL_MEAN) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(CHANNEL_STD) * 255, persistent=False)
        for parameter in (self.pos_embed_z, self.pos_embed_x, self.target_type, self.context_type, self.modality_mask):
            nn.init.trunc_normal_(parameter, std=0.02)

    def embed(self, crop: Tensor, present: Tensor) -> Tensor:
        """Pixels to tokens: crop (B, S, S, 4) uint8 and present (B, 2) → (B, N, C), without positions."""
        channels = torch.cat((present[:, :1].expand(-1, 3), present[:, 1:]), 1)[:, None, None, :]
        normalised = (crop.float() - self.mean) / self.std * channels
        absent = (1 - present) @ self.modality_mask
        tokens: Tensor = self.patch_embed(normalised) + absent[:, None]
        return tokens

    def embed_template(self, crop: Tensor, present: Tensor, box: Tensor) -> Tensor:
        """As ``embed``, plus positions and, by how much of each patch the target's box covers, the token types."""
        types = template_types(box, self.config.template_grid, self.target_type, self.context_type)
        return self.embed(crop, present) + self.pos_embed_z + types

    def embed_search(self, crop: Tensor, present: Tensor) -> Tensor:
        return self.embed(crop, present) + self.pos_embed_x


class Student(nn.Module):
    """Template and search crops in; score map, boxes and presence out.

    Crops are uint8 (B, S, S, 4): R, G, B, thermal. ``present`` is (B, 2) float, 1 where colour (thermal) is there.
    ``template_box`` is (B, 4): centre and size of the target in units of the template crop's side.
    """

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = OneStreamBackbone(config)
        self.box_head = CenterHead(config.width, config.head_channels, config.search_grid)
        self.presence_head = PresenceHead(config.width)

    def encode(self, template: Tensor, template_present: Tensor, template_box: Tensor) -> Tensor:
        """What search tokens need to know of the template, once per session.

        Returns:
            For isolated attention the keys and values of every block, (B, depth, 2, heads, N, head_width); for joint
            attention the embedded template tokens, (B, N, C), which every search pass carries along.
        """
        return self._encode(template, template_present, template_box)[0]

    def search(self, search: Tensor, search_present: Tensor, template_features: Tensor) -> HeadOutput:
        return self._search(search, search_present, template_features).output

    def trace(
        self,
        template: Tensor,
        template_present: Tensor,
        template_box: Tensor,
        search: Tensor,
        search_present: Tensor,
    ) -> Trace:
        """As ``forward``, with the tokens of every block. The template's come from its own pass where isolated."""
        features, template_layers = self._encode(template, template_present, template_box)
        found = self._search(search, search_present, features)
        layers = list(found.layers)
        if template_layers:
            layers = [torch.cat(both, 1) for both in zip(template_layers, found.layers, strict=True)]
        return Trace(found.output, tuple(tokens.unsqueeze(1) for tokens in layers), found.fused)

    def forward(
        self,
        template: Tensor,
        template_present: Tensor,
        template_box: Tensor,
        search: Tensor,
        search_present: Tensor,
    ) -> HeadOutput:
        return self.search(search, search_present, self.encode(template, template_present, template_box))

    def _encode(self, template: Tensor, present: Tensor, box: Tensor) -> tuple[Tensor, list[Tensor]]:
        tokens = self.backbone.embed_template(template, present, box)
        if self.config.template_attention == "joint":
            return tokens, []
        memory, layers = [], []
        for block in self.backbone.blocks:
            tokens, own = block(tokens)
            memory.append(torch.stack(own, 1))
            layers.append(tokens)
        return torch.stack(memory, 1), [*layers, self.backbone.norm(tokens)]

    def _search(self, search: Tensor, present: Tensor, template_features: Tensor) -> Trace:
        """The layers are (B, N, C), of template and search for joint attention, else of search alone."""
        tokens = self.backbone.embed_search(search, present)
        if self.config.template_attention == "joint":
            tokens = torch.cat((template_features.to(tokens.dtype), tokens), 1)
        layers = []
        for index, block in enumerate(self.backbone.blocks):
            context = None
            if self.config.template_attention == "isolated":
                memory = template_features[:, index]
                context = KeyValue(memory[:, 0], memory[:, 1])
            tokens, _ = block(tokens, context)
            layers.append(tokens)
        layers.append(self.backbone.norm(tokens))
        fused = layers[-1][:, -(self.config.search_grid**2) :]
        score_logits, box_map = self.box_head(fused)
        return Trace(HeadOutput(score_logits, box_map, self.presence_head(fused, score_logits)), tuple(layers), fused)


def template_types(box: Tensor, grid: int, target: Tensor, context: Tensor) -> Tensor:
    """Token types (B, grid², C): ``target`` (C,) and ``context`` (C,), mixed by how much of a patch the box covers."""
    coverage = box_coverage(box, grid).unsqueeze(-1)
    return coverage * target + (1 - coverage) * context


def box_coverage(box: Tensor, grid: int) -> Tensor:
    """How much of each cell of a grid × grid crop a box covers: (B, 4) cx cy w h in 0…1 → (B, grid²) in [0, 1]."""
    starts = torch.arange(grid, device=box.device, dtype=box.dtype) / grid

    def along(center: Tensor, size: Tensor) -> Tensor:
        low, high = (center - size / 2)[:, None], (center + size / 2)[:, None]
        return (torch.minimum(high, starts + 1 / grid) - torch.maximum(low, starts)).clamp(min=0) * grid

    columns = along(box[:, 0], box[:, 2])
    rows = along(box[:, 1], box[:, 3])
    return (rows[:, :, None] * columns[:, None, :]).flatten(1)
