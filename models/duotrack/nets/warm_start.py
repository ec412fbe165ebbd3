"""Starting a student from a pretrained DINOv2 ViT: kernels and positions are resampled, the first blocks taken."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from duotrack.errors import ModelError
from duotrack.nets.student import Student
from duotrack.nets.vit import PatchEmbedding

# Colour and thermal are summed in one embedding: each is scaled so that a pair is not twice as loud as a frame.
MODALITY_GAIN = 0.75


def warm_start(student: Student, path: Path) -> set[str]:
    """Copy a DINOv2 ViT of the student's width (Hugging Face names, safetensors) into the student's backbone.

    The 4-channel patch embedding takes the colour kernel × 0.75, and its channel mean × 0.75 for thermal. The
    student's blocks are the pretrained model's first ones.

    Returns:
        The names of the student's parameters that are now pretrained.

    Raises:
        ModelError: the file cannot be read, or its width or depth does not fit.
    """
    try:
        source = {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read pretrained weights {path}: {error}") from error
    backbone, config = student.backbone, student.config
    if not config.layer_scale:
        raise ModelError("DINOv2 weights need a student with layer_scale: true")
    try:
        kernel = source["embeddings.patch_embeddings.projection.weight"]
        positions = source["embeddings.position_embeddings"]
        if kernel.shape[0] != config.width:
            raise ModelError(f"{path} is {kernel.shape[0]} wide, the student {config.width}")
        kernel = F.interpolate(
            kernel, (config.patch, config.patch), mode="bicubic", align_corners=False, antialias=True
        )
        kernel = kernel * (source["embeddings.patch_embeddings.projection.weight"].shape[-1] / config.patch) ** 2
        kernel = torch.cat((kernel, kernel.mean(1, keepdim=True)), 1) * MODALITY_GAIN
        targets: dict[str, Tensor] = {
            "patch_embed.proj.weight": PatchEmbedding.from_conv(kernel),
            "patch_embed.proj.bias": source["embeddings.patch_embeddings.projection.bias"],
            "pos_embed_z": resample_positions(positions[:, 1:], config.template_grid),
            "pos_embed_x": resample_positions(positions[:, 1:], config.search_grid),
        }
        for index in range(config.depth):
            targets |= {f"blocks.{index}.{name}": tensor for name, tensor in _block(source, index).items()}
    except KeyError as error:
        raise ModelError(
            f"{path} has no {error.args[0]!r}: expected a DINOv2 ViT at least {config.depth} deep"
        ) from error
    parameters = dict(backbone.named_parameters())
    with torch.no_grad():
        for name, tensor in targets.items():
            parameters[name].copy_(tensor)
    return {f"backbone.{name}" for name in targets}


def resample_positions(positions: Tensor, grid: int) -> Tensor:
    """Position embeddings (1, S·S, C) on a square grid, resampled to (1, grid·grid, C)."""
    side = round(positions.shape[1] ** 0.5)
    maps = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, (grid, grid), mode="bicubic", align_corners=False, antialias=True)
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def _block(source: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    prefix = f"encoder.layer.{index}."
    block = {}
    for kind in ("weight", "bias"):
        parts = [source[f"{prefix}attention.attention.{name}.{kind}"] for name in ("query", "key", "value")]
        block[f"attn.qkv.{kind}"] = torch.cat(parts)
        block[f"attn.proj.{kind}"] = source[f"{prefix}attention.output.dense.{kind}"]
        for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
            block[f"{name}.{kind}"] = source[f"{prefix}{name}.{kind}"]
    for scale in (1, 2):
        block[f"ls{scale}.gamma"] = source[f"{prefix}layer_scale{scale}.lambda1"]
    return block


def parameter_groups(
    student: nn.Module, pretrained: set[str], *, pretrained_lr: float, new_lr: float, weight_decay: float
) -> list[dict[str, object]]:
    """Optimiser groups: pretrained and new parameters learn at their own rates; biases, norms, gains do not decay."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in student.named_parameters():
        groups.setdefault((name in pretrained, parameter.ndim >= 2), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": pretrained_lr if is_pretrained else new_lr,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (is_pretrained, decays), parameters in groups.items()
    ]
