"""Pretrained transformers to start from, under one set of names whatever file they come from.

Known are vision transformers in timm's names (also DINO's, DINOv2's and MAE's own files) and in Hugging Face's names
for DINOv2, and trackers whose backbone is one: OSTrack, MPLT, and DuoTrack's own networks.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from duotrack.errors import ModelError
from duotrack.nets.checkpoint_file import Checkpoint, read_checkpoint
from duotrack.nets.models import METADATA
from duotrack.nets.public_checkpoint import HEAD_WIDTH, public_tensors

LAYER_SCALES = frozenset(("ls1.gamma", "ls2.gamma"))
# Positions of a class token and of up to four registers may stand before those of the picture.
EXTRA_TOKENS = 5
# What a ViT's file may hold beside patches, positions and blocks, none of which a tracker needs: class, mask and
# register tokens, the last norm (it follows a depth and a task that are not the tracker's), classifiers, MAE's decoder.
_PASSED_OVER = re.compile(
    r"cls_token|dist_token|mask_token|reg_token|register_tokens|decoder_.*|(norm|fc_norm|head|head_dist|pre_logits)\..*"
)


@dataclass(frozen=True)
class Pretrained:
    """A pretrained transformer of width C, in float32.

    Attributes:
        path: the file that it is from.
        heads: attention heads, where they are known.
        kernel: (C, 3 or 4, P, P), the patch embedding as a convolution: R, G, B, and thermal if it has four channels.
        bias: (C,), the patch embedding's.
        positions: (1, tokens, C) on square grids, of the template and of the search crop; of a plain ViT both the same.
        blocks: the parameters of each block, in timm's names, with or without ``LAYER_SCALES``.
        others: of a tracker what else it learned, in DuoTrack's names, with ``backbone.`` where that belongs.
    """

    path: Path
    heads: int | None
    kernel: Tensor
    bias: Tensor
    positions: tuple[Tensor, Tensor]
    blocks: tuple[dict[str, Tensor], ...]
    others: dict[str, Tensor]

    @property
    def width(self) -> int:
        return len(self.kernel)


def read_pretrained(source: Path | Checkpoint) -> Pretrained:
    """The transformer in a file, or in what was read of one; what kind of file it is, its keys tell.

    Raises:
        ModelError: the file cannot be read or is of no known kind, or lacks tensors or has some that are not known.
    """
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    path = checkpoint.path
    if any(name.startswith("encoder.layer.") for name in checkpoint.tensors):
        return _plain(_timm_names(checkpoint.tensors), path)
    if "patch_embed.proj.weight" in checkpoint.tensors:
        return _plain(checkpoint.tensors, path)
    if "backbone.patch_embed.proj.weight" in checkpoint.tensors:
        return _tracker(checkpoint)
    raise ModelError(
        f"{path} is no pretrained network that is known here: expected a ViT in timm's or Hugging Face's DINOv2 names, "
        f"OSTrack, MPLT or DuoTrack; it holds {_some(checkpoint.tensors)}"
    )


def _plain(tensors: dict[str, Tensor], path: Path) -> Pretrained:
    tensors = {name: tensor.float() for name, tensor in tensors.items() if not _PASSED_OVER.fullmatch(name)}
    kernel, bias = _patch_embedding(tensors, path)
    width = len(kernel)
    positions = _positions(tensors, "pos_embed", path, width, extra=EXTRA_TOKENS)
    blocks = _blocks(tensors, path, width)
    if tensors:
        raise ModelError(f"{path} holds tensors of no part that is known here: {_some(tensors)}")
    return Pretrained(path, _usual_heads(width), kernel, bias, (positions, positions), blocks, {})


def _tracker(checkpoint: Checkpoint) -> Pretrained:
    path = checkpoint.path
    tensors = public_tensors(checkpoint.tensors)
    backbone = {
        name.removeprefix("backbone."): tensors.pop(name) for name in list(tensors) if name.startswith("backbone.")
    }
    heads = None
    if backbone["patch_embed.proj.weight"].ndim == 2:
        heads = _recorded_heads(checkpoint)
        channels = 3 if "mplt_fuse_search.0.weight" in tensors else 4
        backbone["patch_embed.proj.weight"] = _as_conv(backbone["patch_embed.proj.weight"], channels, path)
    kernel, bias = _patch_embedding(backbone, path)
    width = len(kernel)
    positions = tuple(_positions(backbone, f"pos_embed_{part}", path, width, extra=0) for part in "zx")
    blocks = _blocks(backbone, path, width)
    others = tensors | {f"backbone.{name}": tensor for name, tensor in backbone.items()}
    return Pretrained(path, heads or _usual_heads(width), kernel, bias, (positions[0], positions[1]), blocks, others)


def _patch_embedding(tensors: dict[str, Tensor], path: Path) -> tuple[Tensor, Tensor]:
    kernel = _taken(tensors, "patch_embed.proj.weight", path)
    if kernel.ndim != 4 or kernel.shape[1] not in (3, 4) or kernel.shape[2] != kernel.shape[3] or not kernel.numel():
        raise ModelError(f"{path}: its patch embedding is {tuple(kernel.shape)}, expected (width, 3, patch, patch)")
    bias = _taken(tensors, "patch_embed.proj.bias", path)
    _expect(bias, (len(kernel),), "patch_embed.proj.bias", path)
    return kernel, bias


def _positions(tensors: dict[str, Tensor], name: str, path: Path, width: int, *, extra: int) -> Tensor:
    """Positions of a square grid, without those of up to ``extra`` tokens that stand before it."""
    positions = _taken(tensors, name, path)
    count = positions.shape[1] if positions.ndim == 3 else 0
    before = count - math.isqrt(count) ** 2
    if count < 1 or before > extra:
        raise ModelError(f"{path}: {name} is {tuple(positions.shape)}, expected (1, tokens of a square grid, {width})")
    _expect(positions, (1, count, width), name, path)
    return positions[:, before:]


def _blocks(tensors: dict[str, Tensor], path: Path, width: int) -> tuple[dict[str, Tensor], ...]:
    """The blocks, which are taken out of ``tensors``; keys that no block has stay."""
    shapes = _block_shapes(width)
    numbered: dict[int, dict[str, Tensor]] = {}
    for name in list(tensors):
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        if match and match[2] in shapes:
            _expect(tensors[name], shapes[match[2]], name, path)
            numbered.setdefault(int(match[1]), {})[match[2]] = tensors.pop(name)
    for index in range(max(len(numbered), 1)):
        block = numbered.get(index, {})
        optional = LAYER_SCALES if not LAYER_SCALES & block.keys() else set()
        missing = sorted(shapes.keys() - optional - block.keys())
        if missing:
            raise ModelError(f"{path} has no 'blocks.{index}.{missing[0]}'")
    return tuple(numbered[index] for index in range(len(numbered)))


def _block_shapes(width: int) -> dict[str, tuple[int, ...]]:
    linear = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    linear |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys((*LAYER_SCALES, "norm1.weight", "norm2.weight"), (width,))
    shapes |= dict.fromkeys(("norm1.bias", "norm2.bias"), (width,))
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def _timm_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face's names for DINOv2 (``modeling_dinov2.py``) as timm's; query, key and value become one matrix."""
    prefixes = {
        "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.": "",
        "layernorm.": "norm.",
        "encoder.layer.": "blocks.",
    }
    parts = {"attention.output.dense": "attn.proj", "layer_scale1.lambda1": "ls1.gamma"}
    parts["layer_scale2.lambda1"] = "ls2.gamma"
    renamed = {}
    for name, tensor in tensors.items():
        for prefix, replacement in prefixes.items():
            if name.startswith(prefix):
                name = replacement + name.removeprefix(prefix)
                break
        for part, replacement in parts.items():
            name = name.replace(part, replacement)
        renamed[name] = tensor
    for name in [name for name in renamed if ".attention.attention.query." in name]:
        triple = [name.replace("query", kind) for kind in ("query", "key", "value")]
        if all(part in renamed for part in triple):
            target = name.replace("attention.attention.query", "attn.qkv")
            renamed[target] = torch.cat([renamed.pop(part) for part in triple])
    return renamed


def _as_conv(weight: Tensor, channels: int, path: Path) -> Tensor:
    """The inverse of ``PatchEmbedding.from_conv``."""
    patch = math.isqrt(weight.shape[1] // channels)
    if patch**2 * channels != weight.shape[1]:
        raise ModelError(
            f"{path}: its patch embedding is {tuple(weight.shape)}, no square patches of {channels} channels"
        )
    return weight.reshape(-1, patch, patch, channels).permute(0, 3, 1, 2)


def _recorded_heads(checkpoint: Checkpoint) -> int | None:
    try:
        return int(json.loads(checkpoint.metadata[METADATA])["config"]["heads"])
    except (KeyError, TypeError, ValueError):
        return None


def _usual_heads(width: int) -> int | None:
    return None if width % HEAD_WIDTH else width // HEAD_WIDTH


def _taken(tensors: dict[str, Tensor], name: str, path: Path) -> Tensor:
    if name not in tensors:
        raise ModelError(f"{path} has no {name!r}")
    return tensors.pop(name)


def _expect(tensor: Tensor, shape: tuple[int, ...], name: str, path: Path) -> None:
    if tensor.shape != shape:
        raise ModelError(f"{path}: {name} is {tuple(tensor.shape)}, expected {shape}")


def _some(tensors: dict[str, Tensor]) -> str:
    return ", ".join(sorted(tensors)[:4]) + ", …" * (len(tensors) > 4)
