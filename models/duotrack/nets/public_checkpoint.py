"""Networks of other projects as DuoTrack's: MPLT's checkpoints as teachers, OSTrack's as students.

The imported network gives the outputs of the original code (``duotrack.nets.parity`` checks it). Every tensor of the
file is either used or known to have no part in the original forward pass; anything else is an error.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from duotrack.errors import ModelError
from duotrack.nets.checkpoint_file import read_checkpoint
from duotrack.nets.models import ModelConfig, TrackingModel, build_model, load_tensors
from duotrack.nets.student import StudentConfig
from duotrack.nets.teacher import TeacherConfig
from duotrack.nets.vit import PatchEmbedding

ARCHITECTURES = ("mplt", "ostrack")

# What the files hold and the original code never reads: the class token and the positions of the ViT that training
# started from, and positions that MPLT made for a variant of its own.
UNUSED = frozenset(f"backbone.{name}" for name in ("cls_token", "pos_embed", "pos_embed_x_last"))
# OSTrack's option SEP_SEG: one embedding for all template (search) tokens, added to their positions.
SEGMENTS = {
    "backbone.template_segment_pos_embed": "backbone.pos_embed_z",
    "backbone.search_segment_pos_embed": "backbone.pos_embed_x",
}
# The width of an attention head in ViT-T, S, B and L, and in all that started from them.
HEAD_WIDTH = 64
_KERNEL = "backbone.patch_embed.proj.weight"


def import_checkpoint(path: Path, architecture: str, *, heads: int | None = None) -> TrackingModel:
    """The network of a public checkpoint, of any width, depth, head channels, patch and crop sizes, in eval mode.

    What DuoTrack has beyond the original leaves its outputs as they were: mask and type embeddings are zero, the
    thermal kernel of a student (which OSTrack has not) is the mean of its colour kernels and acts only where there is
    a thermal image. The presence head is untrained.

    Args:
        architecture: ``mplt`` gives a ``Teacher``, ``ostrack`` a ``Student`` with joint attention.
        heads: attention heads, which no tensor tells; by default width / 64 where that is a whole number.

    Raises:
        ModelError: the file cannot be read, is of another architecture, has tensors that are not known, or lacks some;
            the message names them. Or ``heads`` is needed or does not divide the width.
    """
    if architecture not in ARCHITECTURES:
        raise ModelError(f"unknown architecture {architecture!r}: expected {' or '.join(ARCHITECTURES)}")
    tensors = public_tensors(read_checkpoint(path).tensors)
    model = _blank_model(_config(tensors, architecture, heads, path))
    kernel = tensors[_KERNEL]
    if architecture == "ostrack":
        kernel = with_thermal(kernel)
    tensors[_KERNEL] = PatchEmbedding.from_conv(kernel)
    own = model.state_dict()
    ours = {name for name in own if name.startswith("presence_head.")}
    ours |= {f"backbone.{name}" for name in ("modality_mask", "target_type", "context_type")}
    # Frozen batch norms, an option of OSTrack's head, do not count.
    ours |= {name for name in own if name.endswith(".num_batches_tracked") and name not in tensors}
    load_tensors(model, tensors | {name: own[name] for name in ours}, f"{path}, read as {architecture},")
    return model.eval()


def public_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an MPLT or OSTrack file that have a part in its forward pass, in float32."""
    used = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if name not in UNUSED
    }
    for segment, positions in SEGMENTS.items():
        if segment in used and positions in used:
            used[positions] = used[positions] + used.pop(segment)
    return used


def with_thermal(kernel: Tensor) -> Tensor:
    """A colour kernel (C, 3, P, P) with a fourth channel for thermal: the mean of the three."""
    return torch.cat((kernel, kernel.mean(1, keepdim=True)), 1)


def _blank_model(config: ModelConfig) -> TrackingModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the presence head stays random: at least the same one each time
        model = build_model(config)
    with torch.no_grad():
        for parameter in (model.backbone.modality_mask, model.backbone.target_type, model.backbone.context_type):
            parameter.zero_()
    return model


def _config(tensors: dict[str, Tensor], architecture: str, heads: int | None, path: Path) -> ModelConfig:
    kernel = _required(tensors, _KERNEL, path)
    if kernel.ndim == 2:
        raise ModelError(f"{path} is a DuoTrack network already: its patch embedding is a linear map")
    if kernel.ndim != 4 or kernel.shape[1] != 3 or kernel.shape[2] != kernel.shape[3] or not kernel.numel():
        raise ModelError(f"{path}: {_KERNEL} is {tuple(kernel.shape)}, expected (width, 3, patch, patch)")
    width, _, patch, _ = kernel.shape
    numbers = [int(found[1]) for name in tensors if (found := re.match(r"backbone\.blocks\.(\d+)\.", name))]
    # A number out of line would ask for a network of any depth; its neighbours are then missing by name.
    depth = min(max(numbers, default=-1), len(numbers)) + 1
    sizes = [_grid(tensors, f"backbone.pos_embed_{part}", path) * patch for part in "zx"]
    channels = len(_required(tensors, "box_head.conv1_ctr.0.bias", path).flatten())
    if heads is None and width % HEAD_WIDTH:
        raise ModelError(
            f"{path} is {width} wide: how many attention heads it has cannot be told from its tensors: pass --heads"
        )
    heads = width // HEAD_WIDTH if heads is None else heads
    if heads < 1:
        raise ModelError(f"expected one attention head or more, got {heads}")
    config = StudentConfig(
        width=width,
        depth=depth,
        heads=heads,
        template_attention="joint",
        layer_scale=False,
        head_channels=channels,
        patch=patch,
        template_size=sizes[0],
        search_size=sizes[1],
    )
    if architecture == "ostrack":
        return config
    shared = {name: value for name, value in asdict(config).items() if name != "template_attention"}
    return TeacherConfig(**shared)


def _grid(tensors: dict[str, Tensor], name: str, path: Path) -> int:
    positions = _required(tensors, name, path)
    grid = math.isqrt(positions.shape[1]) if positions.ndim == 3 else 0
    if grid < 1 or grid**2 != positions.shape[1]:
        raise ModelError(f"{path}: {name} is {tuple(positions.shape)}, expected (1, tokens of a square crop, width)")
    return grid


def _required(tensors: dict[str, Tensor], name: str, path: Path) -> Tensor:
    if name not in tensors:
        some = ", ".join(sorted(tensors)[:4])
        raise ModelError(f"{path} has no {name!r}, as every MPLT and OSTrack checkpoint has; it holds {some}, …")
    return tensors[name]
