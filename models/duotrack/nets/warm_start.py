"""Starting a student or a teacher from a pretrained transformer: a ViT, or a tracker that has one.

Kernels and positions are resampled, blocks chosen, and gains folded in where the network has no LayerScale. A network
narrower than its source takes every n-th channel of it, the same ones everywhere, and every n-th attention head: evenly
spaced elements of the first layers, without rescaling, start a small ViT well (Xu et al., *Initializing Models with
Larger Ones*, ICLR 2024); heads are kept whole, so that what they attend to stays.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from duotrack.errors import ModelError
from duotrack.nets.checkpoint_file import Checkpoint
from duotrack.nets.models import ModelConfig, TrackingModel
from duotrack.nets.pretrained import Pretrained, read_pretrained
from duotrack.nets.public_checkpoint import with_thermal
from duotrack.nets.student import Student
from duotrack.nets.teacher import Teacher
from duotrack.nets.vit import PatchEmbedding

# Colour and thermal are summed in a student's embedding: each is scaled so that a pair is not twice as loud as a frame.
MODALITY_GAIN = 0.75
# The prompts of prompters that are new are this part of what they would be: at first the streams stay as pretrained.
QUIET_PROMPTS = 0.1
# The part that the random weights of a new fusion keep, beside the mean of both streams.
QUIET_FUSION = 0.1


def warm_start(model: TrackingModel, start: Path | Checkpoint, *, blocks: Sequence[int] | None = None) -> set[str]:
    """Copy what fits of a pretrained network into ``model``, in place.

    Of a ViT (DINO, DINOv2, MAE, timm) that is the transformer; of a tracker (OSTrack, MPLT, a DuoTrack student or
    teacher) also the last norm, prompters, heads and embeddings that have the same shapes. A student's thermal kernel
    starts as the mean of a 3-channel source's colour kernels, both × ``MODALITY_GAIN``; a teacher takes the colour
    part of a student's. A teacher whose source has no prompters starts with quiet ones, and with a fusion that is close
    to the mean of both streams.

    Args:
        start: the network's file, or what was read of it.
        blocks: which of the source's blocks to take, one number for each block of the model; by default the first.

    Returns:
        The names of the model's parameters that are now pretrained.

    Raises:
        ModelError: the file cannot be read or is not known, is narrower or has fewer blocks than the model, or has
            attention heads of another width. The model is then as it was.
    """
    source, config = read_pretrained(start), model.config
    chosen = _chosen_blocks(source, config.depth, blocks)
    targets = _transformer(source, config, chosen, channels=4 if isinstance(model, Student) else 3)
    own = model.state_dict()
    if source.width == config.width:
        targets |= _fitting_parts(_renumbered(source.others, chosen), own)
    starts = _quiet_start(own, targets) if isinstance(model, Teacher) else {}
    for name, tensor in (starts | targets).items():
        own[name].copy_(tensor)  # the state dict shares its memory with the model
    return targets.keys() & dict(model.named_parameters()).keys()


def search_positions(source: Pretrained, template_grid: int, search_grid: int) -> Tensor:
    """Position embeddings (1, search_grid², C) of the search crop.

    A tracker whose template has the same grid sees its search crop at the same scale: a smaller crop is the middle of
    its own, and its positions are those. All others are resampled.
    """
    template, search = source.positions
    side = math.isqrt(search.shape[1])
    cut = side - search_grid
    if template.shape[1] == search.shape[1] or template.shape[1] != template_grid**2 or cut < 0 or cut % 2:
        return resample_positions(search, search_grid)
    middle = slice(cut // 2, side - cut // 2)
    return search.reshape(1, side, side, -1)[:, middle, middle].flatten(1, 2)


def resample_positions(positions: Tensor, grid: int) -> Tensor:
    """Position embeddings (1, S·S, C) on a square grid, resampled to (1, grid·grid, C)."""
    side = math.isqrt(positions.shape[1])
    if side == grid:
        return positions
    maps = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, (grid, grid), mode="bicubic", align_corners=False, antialias=True)
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def resample_kernel(kernel: Tensor, patch: int) -> Tensor:
    """A convolution kernel (C, channels, P, P) for another patch size, with the same answer to a flat picture."""
    size = kernel.shape[-1]
    if size == patch:
        return kernel
    resampled = F.interpolate(kernel, (patch, patch), mode="bicubic", align_corners=False, antialias=True)
    return resampled * (size / patch) ** 2


def _chosen_blocks(source: Pretrained, depth: int, blocks: Sequence[int] | None) -> Sequence[int]:
    there = len(source.blocks)
    if blocks is None:
        if there < depth:
            raise ModelError(f"{source.path} is {there} blocks deep: expected at least {depth}")
        return range(depth)
    if len(blocks) != depth or not all(0 <= index < there for index in blocks):
        raise ModelError(f"cannot take blocks {list(blocks)} of {source.path}: expected {depth} numbers below {there}")
    return blocks


def _transformer(source: Pretrained, config: ModelConfig, blocks: Sequence[int], channels: int) -> dict[str, Tensor]:
    kernel = resample_kernel(source.kernel, config.patch)
    if channels == 4 and kernel.shape[1] == 3:
        kernel = with_thermal(kernel) * MODALITY_GAIN
    keep, heads = _kept(source, config)
    tensors = {
        "patch_embed.proj.weight": PatchEmbedding.from_conv(kernel[keep, :channels]),
        "patch_embed.proj.bias": source.bias[keep],
        "pos_embed_z": resample_positions(source.positions[0], config.template_grid)[..., keep],
        "pos_embed_x": search_positions(source, config.template_grid, config.search_grid)[..., keep],
    }
    for index, number in enumerate(blocks):
        block = _scaled(source.blocks[number], layer_scale=config.layer_scale)
        tensors |= {f"blocks.{index}.{name}": _thinned(name, tensor, keep, heads) for name, tensor in block.items()}
    return {f"backbone.{name}": tensor for name, tensor in tensors.items()}


def _kept(source: Pretrained, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """The channels of the source that the model takes, and those of its heads' outputs: evenly spaced, (C,) each."""
    width, head_width = config.width, config.width // config.heads
    if source.width < width:
        raise ModelError(f"{source.path} is {source.width} wide, narrower than the model's {width}")
    heads, rest = divmod(source.width, head_width)
    if rest or (source.heads is not None and source.heads != heads):
        theirs = f" with {source.heads} heads" if source.heads is not None else ""
        raise ModelError(
            f"{source.path} is {source.width} wide{theirs}: its attention heads are not the model's, {head_width} wide"
        )
    chosen = torch.arange(config.heads) * heads // config.heads
    within = torch.arange(head_width)
    return torch.arange(width) * source.width // width, (chosen[:, None] * head_width + within).flatten()


def _thinned(name: str, tensor: Tensor, keep: Tensor, heads: Tensor) -> Tensor:
    """The part of a block's parameter that belongs to the kept channels and heads."""
    width, kept = len(tensor), len(keep)
    match name.split(".")[-2]:
        case "qkv":
            width //= 3
            rows, columns = torch.cat([heads + part * width for part in range(3)]), keep
        case "proj":
            rows, columns = keep, heads
        case "fc1":
            # The hidden layer is thinned as the channels are.
            rows, columns = torch.arange(4 * kept) * width // (4 * kept), keep
        case "fc2":
            hidden = tensor.shape[-1]
            rows, columns = keep, torch.arange(4 * kept) * hidden // (4 * kept)
        case _:
            rows, columns = keep, keep
    return tensor[rows] if tensor.ndim == 1 else tensor[rows][:, columns]


def _scaled(block: dict[str, Tensor], *, layer_scale: bool) -> dict[str, Tensor]:
    """The block with or without LayerScale, as asked; what it computes stays the same."""
    block = dict(block)
    for gain, linear in (("ls1.gamma", "attn.proj"), ("ls2.gamma", "mlp.fc2")):
        if layer_scale and gain not in block:
            block[gain] = torch.ones_like(block[f"{linear}.bias"])
        elif not layer_scale and gain in block:
            gamma = block.pop(gain)
            block[f"{linear}.weight"] = block[f"{linear}.weight"] * gamma[:, None]
            block[f"{linear}.bias"] = block[f"{linear}.bias"] * gamma
    return block


def _renumbered(others: dict[str, Tensor], blocks: Sequence[int]) -> dict[str, Tensor]:
    """``others`` with the prompters that stand before the chosen blocks, numbered as those blocks are in the model."""
    numbered = re.compile(r"(backbone\.prompt_(?:blocks|norms)(?:_rev)?)\.(\d+)\.(.+)")
    found: dict[str, Tensor] = {}
    for name, tensor in others.items():
        match = numbered.fullmatch(name)
        if match is None:
            found[name] = tensor
            continue
        places = [index for index, number in enumerate(blocks) if number == int(match[2])]
        found |= {f"{match[1]}.{index}.{match[3]}": tensor for index in places}
    return found


def _fitting_parts(others: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those parts of the model, as its box head, of which the source has every tensor in the same shape."""
    parts: dict[str, list[str]] = {}
    for name in own:
        if not _is_optional(name):
            parts.setdefault(_part(name), []).append(name)
    whole = {
        part
        for part, names in parts.items()
        if all(name in others and others[name].shape == own[name].shape for name in names)
    }
    return {
        name: others[name]
        for name in own
        if _part(name) in whole and name in others and others[name].shape == own[name].shape
    }


def _is_optional(name: str) -> bool:
    # MPLT has no weighing, which starts as if it were not there; frozen batch norms do not count.
    return ".weighing." in name or name.endswith(".num_batches_tracked")


def _part(name: str) -> str:
    if name.startswith("backbone.prompt_"):
        return "backbone.prompt"
    return ".".join(name.split(".")[: 2 if name.startswith("backbone.") else 1])


def _quiet_start(own: dict[str, Tensor], pretrained: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a teacher's prompt norms and fusion start from where the source has none."""
    starts = {
        name: torch.full_like(tensor, QUIET_PROMPTS)
        for name, tensor in own.items()
        if re.fullmatch(r"backbone\.prompt_norms(_rev)?\.\d+\.weight", name) and name not in pretrained
    }
    fusion = "mplt_fuse_search.0.weight"
    if fusion not in pretrained:
        weight = own[fusion] * QUIET_FUSION
        half = torch.eye(len(weight), device=weight.device) / 2
        weight[..., 1, 1] += torch.cat((half, half), 1)
        starts[fusion] = weight
    return starts
