"""Starting from DINOv2 weights: which tensor goes where, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from duotrack.errors import ModelError
from duotrack.nets.student import Student
from duotrack.nets.warm_start import MODALITY_GAIN, parameter_groups, resample_positions, warm_start

MakeStudent = Callable[..., Student]


def dinov2(*, width: int = 48, depth: int = 3, side: int = 7) -> dict[str, Tensor]:
    """A random ViT under Hugging Face's names for DINOv2 (``modeling_dinov2.py``), with a 14 × 14 patch."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.1

    tensors = {
        "embeddings.cls_token": random(1, 1, width),
        "embeddings.mask_token": random(1, width),
        "embeddings.position_embeddings": random(1, 1 + side**2, width),
        "embeddings.patch_embeddings.projection.weight": random(width, 3, 14, 14),
        "embeddings.patch_embeddings.projection.bias": random(width),
        "layernorm.weight": random(width),
        "layernorm.bias": random(width),
    }
    for index in range(depth):
        prefix = f"encoder.layer.{index}."
        shapes = {
            "norm1": (width,),
            "attention.attention.query": (width, width),
            "attention.attention.key": (width, width),
            "attention.attention.value": (width, width),
            "attention.output.dense": (width, width),
            "norm2": (width,),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }
        for name, shape in shapes.items():
            tensors[f"{prefix}{name}.weight"] = random(*shape)
            tensors[f"{prefix}{name}.bias"] = random(shape[0])
        for scale in (1, 2):
            tensors[f"{prefix}layer_scale{scale}.lambda1"] = random(width)
    return tensors


@pytest.fixture
def source() -> dict[str, Tensor]:
    return dinov2()


def saved(tensors: dict[str, Tensor], folder: Path) -> Path:
    path = folder / "dino.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def test_blocks_are_the_first_ones(make_student: MakeStudent, source: dict[str, Tensor], tmp_path: Path) -> None:
    """A DINOv2 block computed from its own tensors gives what the student's block gives."""
    student = make_student(0)
    names = warm_start(student, saved(source, tmp_path))
    tokens = torch.randn(2, 9, 48)
    with torch.no_grad():
        for index in range(student.config.depth):

            def linear(values: Tensor, name: str, layer: int = index) -> Tensor:
                prefix = f"encoder.layer.{layer}.{name}"
                return values @ source[f"{prefix}.weight"].T + source[f"{prefix}.bias"]

            def norm(values: Tensor, name: str, layer: int = index) -> Tensor:
                prefix = f"encoder.layer.{layer}.{name}"
                return F.layer_norm(values, (48,), source[f"{prefix}.weight"], source[f"{prefix}.bias"], 1e-6)

            normed = norm(tokens, "norm1")
            query, key, value = (
                linear(normed, f"attention.attention.{kind}").reshape(2, 9, 3, 16).transpose(1, 2)
                for kind in ("query", "key", "value")
            )
            mixed = (query @ key.transpose(-1, -2) / 4).softmax(-1) @ value
            mixed = linear(mixed.transpose(1, 2).reshape(2, 9, 48), "attention.output.dense")
            expected = tokens + source[f"encoder.layer.{index}.layer_scale1.lambda1"] * mixed
            hidden = linear(F.gelu(linear(norm(expected, "norm2"), "mlp.fc1")), "mlp.fc2")
            expected = expected + source[f"encoder.layer.{index}.layer_scale2.lambda1"] * hidden
            found, _ = student.backbone.blocks[index](tokens)
            assert torch.allclose(found, expected, atol=1e-5)
    assert {name.split(".")[2] for name in names if ".blocks." in name} == {"0", "1"}


def test_a_flat_picture_means_what_it_meant(
    make_student: MakeStudent, source: dict[str, Tensor], tmp_path: Path
) -> None:
    """Over a constant picture a kernel acts by its sum alone, which 14 → 16 must not change, but for the gain.

    Colour brings 0.75 of the source's answer; thermal the mean over the three colours, times 0.75. Bicubic weights at
    a noisy kernel's border leave about a hundredth; left at the resampled size the sums would be 1.31 times as large.
    """
    student = make_student(0)
    warm_start(student, saved(source, tmp_path))
    sums = source["embeddings.patch_embeddings.projection.weight"].sum((2, 3))
    weight = student.backbone.patch_embed.proj.weight.detach().reshape(48, 16, 16, 4).sum((1, 2))
    assert MODALITY_GAIN == 0.75
    assert torch.allclose(weight[:, :3], 0.75 * sums, atol=0.05)
    assert torch.allclose(weight[:, 3], 0.75 * sums.mean(1), atol=0.05)
    bias = student.backbone.patch_embed.proj.bias.detach()
    assert torch.equal(bias, source["embeddings.patch_embeddings.projection.bias"])


def test_kernels_keep_their_orientation(make_student: MakeStudent, tmp_path: Path) -> None:
    """A kernel that weighs only the upper left of the red channel does so after resampling."""
    source = dinov2()
    kernel = torch.zeros(48, 3, 14, 14)
    kernel[:, 0, :7, :3] = 1
    source["embeddings.patch_embeddings.projection.weight"] = kernel
    student = make_student(0)
    warm_start(student, saved(source, tmp_path))
    weight = student.backbone.patch_embed.proj.weight.detach().reshape(48, 16, 16, 4)[0]
    assert float(weight[:8, :3, 0].sum()) > 0.8 * float(weight[..., 0].abs().sum())
    assert not weight[..., 1:3].any()


def test_the_names_are_those_of_changed_parameters(
    make_student: MakeStudent, source: dict[str, Tensor], tmp_path: Path
) -> None:
    student, fresh = make_student(0), make_student(0)
    names = warm_start(student, saved(source, tmp_path))
    before = dict(fresh.named_parameters())
    changed = {name for name, value in student.named_parameters() if not torch.equal(value, before[name])}
    assert names == changed
    assert {name for name in before if ".blocks." in name} <= names
    assert not any(name.startswith(("box_head", "presence_head")) for name in names)


def test_half_precision_files_are_read(make_student: MakeStudent, source: dict[str, Tensor], tmp_path: Path) -> None:
    student = make_student(0)
    warm_start(student, saved({name: tensor.half() for name, tensor in source.items()}, tmp_path))
    assert all(parameter.dtype == torch.float32 for parameter in student.parameters())
    fc1 = student.backbone.blocks[1].mlp.fc1.weight.detach()
    assert torch.equal(fc1, source["encoder.layer.1.mlp.fc1.weight"].half().float())


def refused(student: Student, path: Path, message: str) -> None:
    """``warm_start`` raises ModelError, and leaves the student as it was."""
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    with pytest.raises(ModelError, match=message) as caught:
        warm_start(student, path)
    assert str(path) in str(caught.value) or "layer_scale" in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_another_width_is_refused(make_student: MakeStudent, tmp_path: Path) -> None:
    refused(make_student(0), saved(dinov2(width=96), tmp_path), "96 wide, the student 48")


def test_a_source_too_shallow_is_refused(make_student: MakeStudent, tmp_path: Path) -> None:
    refused(make_student(0), saved(dinov2(depth=1), tmp_path), r"encoder\.layer\.1\..*at least 2 deep")


@pytest.mark.parametrize(
    "missing",
    ["embeddings.position_embeddings", "encoder.layer.1.mlp.fc2.bias", "encoder.layer.0.layer_scale2.lambda1"],
)
def test_a_missing_tensor_is_named(
    make_student: MakeStudent, source: dict[str, Tensor], tmp_path: Path, missing: str
) -> None:
    del source[missing]
    refused(make_student(0), saved(source, tmp_path), f"has no '{missing}'")


def test_a_missing_or_damaged_file_is_refused(make_student: MakeStudent, tmp_path: Path) -> None:
    refused(make_student(0), tmp_path / "absent.safetensors", "cannot read pretrained weights")
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(b"not safetensors at all")
    refused(make_student(0), path, "cannot read pretrained weights")


@pytest.mark.parametrize(
    "attention",
    ["isolated", "joint"],
)
def test_a_student_without_layer_scale_is_refused(
    make_student: MakeStudent, source: dict[str, Tensor], tmp_path: Path, attention: str
) -> None:
    student = make_student(0, layer_scale=False, template_attention=attention)
    refused(student, saved(source, tmp_path), "layer_scale")


@given(st.integers(2, 12), st.integers(2, 20), st.floats(-3, 3, width=32))
def test_resampling_keeps_a_constant_map(side: int, grid: int, value: float) -> None:
    resampled = resample_positions(torch.full((1, side**2, 2), value), grid)
    assert resampled.shape == (1, grid**2, 2)
    assert torch.allclose(resampled, torch.tensor(value), atol=1e-4)


@given(st.integers(2, 12), st.integers(0, 100))
def test_resampling_to_the_same_size_changes_nothing(side: int, seed: int) -> None:
    positions = torch.randn(1, side**2, 3, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(resample_positions(positions, side), positions, atol=1e-5)


def test_resampling_keeps_rows_and_columns_apart() -> None:
    """A map that rises along its rows, and one that rises along its columns, still do; 37 → 16 as for DINOv2."""
    rows, columns = np.mgrid[:37, :37]
    positions = torch.from_numpy(np.stack((rows, columns), -1).reshape(1, 37 * 37, 2)).float()
    resampled = resample_positions(positions, 16).reshape(16, 16, 2)
    centers = (torch.arange(16) + 0.5) * 37 / 16 - 0.5
    inner = slice(2, -2)  # antialiasing lacks one side at the border
    assert torch.allclose(resampled[inner, :, 0], centers[inner, None].expand(-1, 16), atol=0.1)
    assert torch.allclose(resampled[:, inner, 1], centers[None, inner].expand(16, -1), atol=0.1)


def test_every_parameter_is_in_one_group(make_student: MakeStudent, source: dict[str, Tensor], tmp_path: Path) -> None:
    student = make_student(0)
    pretrained = warm_start(student, saved(source, tmp_path))
    groups = parameter_groups(student, pretrained, pretrained_lr=1e-4, new_lr=6e-4, weight_decay=0.05)
    found: dict[int, tuple[object, object]] = {}
    for group in groups:
        parameters = group["params"]
        assert isinstance(parameters, list)
        for parameter in parameters:
            assert id(parameter) not in found
            found[id(parameter)] = group["lr"], group["weight_decay"]
    names = dict(student.named_parameters())
    assert found.keys() == {id(parameter) for parameter in names.values()}
    for name, parameter in names.items():
        rate, decay = found[id(parameter)]
        assert rate == (1e-4 if name in pretrained else 6e-4), name
        if name.endswith(("bias", "gamma")) or ".norm" in name:
            assert decay == 0, name
        if name.endswith(("fc1.weight", "qkv.weight", "patch_embed.proj.weight", ".0.weight")):
            assert decay == 0.05, name
