"""The two-stream teacher: one ViT run on colour and on thermal, whose streams prompt each other before every block.

The structure and the parameter names are MPLT's, so that its public checkpoints load. Both streams go through the
shared blocks as one batch: streams are stacked on the batch axis, colour first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from duotrack.nets.head import CenterHead, HeadOutput, PresenceHead, Trace
from duotrack.nets.prompter import InitialPrompter, Prompter
from duotrack.nets.student import CHANNEL_MEAN, CHANNEL_STD, box_coverage
from duotrack.nets.vit import Block, PatchEmbedding


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """Shape of a teacher. The defaults are ``teacher-s``.

    Attributes:
        weighing: the paper's adaptive weighing of the two modalities in every prompter; MPLT has none.
        layer_scale: a learned gain on each residual branch, as DINOv2 has and MPLT has not.
        head_channels: channels of the first convolution of each tower of the centre head.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6
    weighing: bool = False
    layer_scale: bool = True
    head_channels: int = 128
    patch: int = 16
    template_size: int = 128
    search_size: int = 256

    @property
    def template_grid(self) -> int:
        return self.template_size // self.patch

    @property
    def search_grid(self) -> int:
        return self.search_size // self.patch


TEACHERS = {
    "teacher-s": TeacherConfig(),
    "teacher-b": TeacherConfig(width=768, heads=12, layer_scale=False, head_channels=256),
}


class TwoStreamBackbone(nn.Module):
    """Patch embedding, prompters and blocks. Beyond MPLT it learns the student's target types and modality mask."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.config = config
        width, depth = config.width, config.depth
        self.patch_embed = PatchEmbedding(3, config.patch, width)
        self.modality_mask = nn.Parameter(torch.zeros(2, width))
        self.pos_embed_z = nn.Parameter(torch.zeros(1, config.template_grid**2, width))
        self.pos_embed_x = nn.Parameter(torch.zeros(1, config.search_grid**2, width))
        self.target_type = nn.Parameter(torch.zeros(width))
        self.context_type = nn.Parameter(torch.zeros(width))
        self.prompt_blocks_init = InitialPrompter(width)
        self.prompt_blocks_init_rev = InitialPrompter(width)
        # The first of each is never asked: the first block's prompt is the initial prompter's. MPLT's files hold it.
        self.prompt_blocks = nn.ModuleList(Prompter(width, weighing=config.weighing) for _ in range(depth))
        self.prompt_blocks_rev = nn.ModuleList(Prompter(width, weighing=config.weighing) for _ in range(depth))
        self.prompt_norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(depth))
        self.prompt_norms_rev = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(depth))
        self.blocks = nn.ModuleList(Block(width, config.heads, layer_scale=config.layer_scale) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(CHANNEL_MEAN) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(CHANNEL_STD) * 255, persistent=False)
        for parameter in (self.pos_embed_z, self.pos_embed_x, self.target_type, self.context_type, self.modality_mask):
            nn.init.trunc_normal_(parameter, std=0.02)

    def embed(self, crop: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels to tokens: crop (B, S, S, 4) uint8 and present (B, 2) → colour and thermal tokens, each (B, N, C)."""
        normalised = (crop.float() - self.mean) / self.std
        streams = []
        for index, image in enumerate((normalised[..., :3], normalised[..., 3:].expand(-1, -1, -1, 3))):
            there = present[:, index, None, None]
            streams.append(self.patch_embed(image * there[..., None]) + (1 - there) * self.modality_mask[index])
        return streams[0], streams[1]

    def template_types(self, box: Tensor) -> Tensor:
        """What tells the target's patches from its surroundings, (B, N, C); see ``OneStreamBackbone``."""
        coverage = box_coverage(box, self.config.template_grid).unsqueeze(-1)
        return coverage * self.target_type + (1 - coverage) * self.context_type

    def forward(self, template: tuple[Tensor, Tensor], search: tuple[Tensor, Tensor], types: Tensor) -> list[Tensor]:
        """Embedded tokens of both streams → tokens after each block, then after the last norm: (2·B, Nz + Nx, C)."""
        positions = torch.cat((self.pos_embed_z + types, self.pos_embed_x.expand(len(types), -1, -1)), 1)
        own = [torch.cat((template[index], search[index]), 1) for index in range(2)]
        prompts = self._first_prompts(self.prompt_norms[0](own[0]), self.prompt_norms[0](own[1]))
        tokens = torch.cat((own[0] + prompts[0] + positions, own[1] + prompts[1] + positions))
        layers = []
        for index, block in enumerate(self.blocks):
            if index > 0:
                prompts = self._next_prompts(index, tokens, prompts)
                tokens = tokens + torch.cat(prompts)
            tokens, _ = block(tokens)
            layers.append(tokens)
        return [*layers, self.norm(tokens)]

    def _first_prompts(self, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor]:
        parts = [(self.maps(rgb, part), self.maps(thermal, part)) for part in range(2)]
        return (
            to_tokens(*(self.prompt_blocks_init(own, other) for own, other in parts)),
            to_tokens(*(self.prompt_blocks_init_rev(own, other) for other, own in parts)),
        )

    def _next_prompts(self, index: int, tokens: Tensor, prompts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        rgb, thermal = tokens.chunk(2)
        norms = self.prompt_norms, self.prompt_norms_rev
        own = [norms[0][index - 1](rgb), norms[1][index - 1](thermal)]
        before = [norms[stream][index](prompts[stream]) for stream in range(2)]
        following = []
        for stream, prompter in enumerate((self.prompt_blocks[index], self.prompt_blocks_rev[index])):
            inputs = own[stream], before[stream], own[1 - stream]
            following.append(to_tokens(*(prompter(*(self.maps(x, part) for x in inputs)) for part in range(2))))
        return following[0], following[1]

    def maps(self, tokens: Tensor, part: int) -> Tensor:
        """The template's (0) or the search region's (1) tokens as a map (B, C, G, G)."""
        count = self.config.template_grid**2
        chosen = tokens[:, count:] if part else tokens[:, :count]
        grid = self.config.search_grid if part else self.config.template_grid
        return chosen.transpose(1, 2).reshape(len(tokens), self.config.width, grid, grid)


def to_tokens(template: Tensor, search: Tensor) -> Tensor:
    """Two maps (B, C, G, G) as tokens (B, N, C), the first's before the second's."""
    return torch.cat((template.flatten(2), search.flatten(2)), 2).transpose(1, 2)


class Teacher(nn.Module):
    """Template and search crops in; score map, boxes and presence out. Inputs and methods are ``Student``'s."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = TwoStreamBackbone(config)
        self.mplt_fuse_search = nn.Sequential(
            nn.Conv2d(2 * config.width, config.width, 3, padding=1), nn.BatchNorm2d(config.width), nn.ReLU(inplace=True)
        )
        self.box_head = CenterHead(config.width, config.head_channels, config.search_grid)
        self.presence_head = PresenceHead(config.width)

    def encode(self, template: Tensor, template_present: Tensor, template_box: Tensor) -> Tensor:
        """Embedded template tokens of colour and thermal, and their types: (B, 3, N, C)."""
        tokens = self.backbone.embed(template, template_present)
        return torch.stack((*tokens, self.backbone.template_types(template_box)), 1)

    def search(self, search: Tensor, search_present: Tensor, template_features: Tensor) -> HeadOutput:
        return self.trace_search(search, search_present, template_features).output

    def trace_search(self, search: Tensor, search_present: Tensor, template_features: Tensor) -> Trace:
        rgb, thermal, types = template_features.unbind(1)
        return self.trace_tokens((rgb, thermal), self.backbone.embed(search, search_present), types)

    def trace_tokens(self, template: tuple[Tensor, Tensor], search: tuple[Tensor, Tensor], types: Tensor) -> Trace:
        """As ``trace``, from embedded tokens (B, N, C) of colour and thermal."""
        *layers, last = self.backbone(template, search, types)
        rgb, thermal = last.chunk(2)
        both = torch.cat((self.backbone.maps(rgb, 1), self.backbone.maps(thermal, 1)), 1)
        fused = self.mplt_fuse_search(both).flatten(2).transpose(1, 2)
        score_logits, box_map = self.box_head(fused)
        output = HeadOutput(score_logits, box_map, self.presence_head(fused, score_logits))
        streams = tuple(torch.stack(tokens.chunk(2), 1) for tokens in (*layers, last))
        return Trace(output, streams, fused)

    def trace(
        self,
        template: Tensor,
        template_present: Tensor,
        template_box: Tensor,
        search: Tensor,
        search_present: Tensor,
    ) -> Trace:
        return self.trace_search(search, search_present, self.encode(template, template_present, template_box))

    def forward(
        self,
        template: Tensor,
        template_present: Tensor,
        template_box: Tensor,
        search: Tensor,
        search_present: Tensor,
    ) -> HeadOutput:
        return self.trace(template, template_present, template_box, search, search_present).output
