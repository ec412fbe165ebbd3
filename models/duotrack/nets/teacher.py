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
from duotrack.nets.student import CHANNEL_MEAN, CHANNEL_STD, SMALL_SEARCH, template_types
from duotrack.nets.vit import Block, PatchEmbedding
from duotrack.network import CropShapes


@dataclass(frozen=True, slots=True)
class TeacherConfig(CropShapes):
    """Shape of a teacher. The defaults are ``teacher-s``'s, but for its search crop.

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

    @property
    def template_grid(self) -> int:
        return self.template_size // self.patch

    @property
    def search_grid(self) -> int:
        return self.search_size // self.patch


TEACHERS = {
    "teacher-s": TeacherConfig(search_size=SMALL_SEARCH, template_factor=1.6, widening=1.4),  # as student-t
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
        # They do not ask for gradients: distributed training waits for one of every parameter that does.
        self.prompt_blocks = nn.ModuleList(Prompter(width, weighing=config.weighing) for _ in range(depth))
        self.prompt_blocks_rev = nn.ModuleList(Prompter(width, weighing=config.weighing) for _ in range(depth))
        self.prompt_blocks[0].requires_grad_(False)
        self.prompt_blocks_rev[0].requires_grad_(False)
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
        tokens = []
        for index, image in enumerate((normalised[..., :3], normalised[..., 3:].expand(-1, -1, -1, 3))):
            there = present[:, index, None, None]
            tokens.append(self.patch_embed(image * there[..., None]) + (1 - there) * self.modality_mask[index])
        return tokens[0], tokens[1]

    def template_types(self, box: Tensor) -> Tensor:
        """What tells the target's patches from its surroundings, (B, N, C); see ``OneStreamBackbone``."""
        return template_types(box, self.config.template_grid, self.target_type, self.context_type)

    def forward(self, template: tuple[Tensor, Tensor], search: tuple[Tensor, Tensor], types: Tensor) -> list[Tensor]:
        """Embedded tokens of both streams → tokens after each block, then after the last norm: (2·B, Nz + Nx, C)."""
        positions = torch.cat((self.pos_embed_z + types, self.pos_embed_x.expand(types.shape[0], -1, -1)), 1)
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
        return (
            self._prompted(self.prompt_blocks_init, rgb, thermal),
            self._prompted(self.prompt_blocks_init_rev, thermal, rgb),
        )

    def _next_prompts(self, index: int, tokens: Tensor, prompts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        rgb, thermal = streams(tokens).unbind()
        rgb, thermal = self.prompt_norms[index - 1](rgb), self.prompt_norms_rev[index - 1](thermal)
        before = self.prompt_norms[index](prompts[0]), self.prompt_norms_rev[index](prompts[1])
        return (
            self._prompted(self.prompt_blocks[index], rgb, before[0], thermal),
            self._prompted(self.prompt_blocks_rev[index], thermal, before[1], rgb),
        )

    def _prompted(self, prompter: nn.Module, *inputs: Tensor) -> Tensor:
        """What ``prompter`` makes of the template's places and, apart from them, of the search region's."""
        parts = zip(*(self.split(tokens) for tokens in inputs), strict=True)
        return torch.cat([prompter(*part) for part in parts], 1)

    def split(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Tokens (B, Nz + Nx, C) as the template's and the search region's."""
        return torch.functional.split(tokens, [self.config.template_grid**2, self.config.search_grid**2], 1)


def streams(tokens: Tensor) -> Tensor:
    """Streams stacked on the batch axis, (2·B, N, C), as (2, B, N, C).

    Not ``chunk``, nor ``len`` anywhere on the way: each would fix B in an exported graph.
    """
    return tokens.reshape(2, -1, *tokens.shape[1:])


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
        both = torch.cat([self.backbone.split(stream)[1] for stream in streams(last).unbind()], 2)
        grid = self.config.search_grid
        maps = both.transpose(1, 2).reshape(-1, both.shape[2], grid, grid)
        fused = self.mplt_fuse_search(maps).flatten(2).transpose(1, 2)
        score_logits, box_map = self.box_head(fused)
        output = HeadOutput(score_logits, box_map, self.presence_head(fused, score_logits))
        return Trace(output, tuple(streams(tokens).transpose(0, 1) for tokens in (*layers, last)), fused)

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
