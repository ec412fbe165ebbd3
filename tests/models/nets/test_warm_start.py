"""Starting from pretrained weights: which tensor goes where in which network, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from duotrack.errors import ModelError
from duotrack.nets.models import save_model
from duotrack.nets.parity import differences_from, run_reference
from duotrack.nets.pretrained import read_pretrained
from duotrack.nets.student import Student
from duotrack.nets.teacher import Teacher, TeacherConfig
from duotrack.nets.vit import PatchEmbedding
from duotrack.nets.warm_start import MODALITY_GAIN, resample_positions, warm_start

MakeStudent = Callable[..., Student]
MakeTeacher = Callable[..., Teacher]
Model = TypeVar("Model", Student, Teacher)

SHARED_WEIGHTS = Path(__file__).resolve().parents[3].parent / "shared" / "weights" / "dinov2_vits14_fp16.safetensors"


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
def pretrained_vit() -> Path:
    """The DINOv2 ViT-S/14 that the shipped student started from; outside the repository."""
    if not SHARED_WEIGHTS.is_file():
        pytest.skip(f"no pretrained weights: {SHARED_WEIGHTS} does not exist")
    return SHARED_WEIGHTS


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


@pytest.fixture
def make_teacher() -> Callable[..., Teacher]:
    """``make_teacher(seed, depth=…)``: a random teacher of the tiny size, with some values of its config changed."""

    def make(seed: int, **changes: Any) -> Teacher:
        torch.manual_seed(seed)
        return Teacher(replace(TeacherConfig(width=48, depth=2, heads=3, head_channels=16), **changes)).eval()

    return make


def timm_names(source: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same ViT in the names of timm and of DINOv2's own files."""
    parts = {"attention.output.dense": "attn.proj", "layer_scale1.lambda1": "ls1.gamma", "encoder.layer.": "blocks."}
    parts |= {"layer_scale2.lambda1": "ls2.gamma", "embeddings.patch_embeddings.projection": "patch_embed.proj"}
    parts |= {"embeddings.position_embeddings": "pos_embed", "embeddings.": "", "layernorm.": "norm."}
    tensors = {}
    for name, tensor in source.items():
        if ".attention.query." in name:
            three = [source[name.replace("query", kind)] for kind in ("query", "key", "value")]
            tensors[name.replace("attention.attention.query", "attn.qkv").replace("encoder.layer", "blocks")] = (
                torch.cat(three)
            )
        elif ".attention.attention." not in name:
            for old, new in parts.items():
                name = name.replace(old, new)
            tensors[name] = tensor
    return tensors


def started(model: Model, tensors: dict[str, Tensor], folder: Path, **options: Any) -> tuple[Model, set[str]]:
    names = warm_start(model, saved(tensors, folder), **options)
    return model, names


def equal(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


# Vision transformers


def test_the_weights_at_hand_are_a_vit_s(pretrained_vit: Path) -> None:
    source = read_pretrained(pretrained_vit)
    assert (source.width, source.heads, len(source.blocks), source.kernel.shape[-1]) == (384, 6, 12, 14)
    assert source.positions[0].shape == source.positions[1].shape == (1, 37**2, 384)
    assert all("ls1.gamma" in block for block in source.blocks)


def test_timms_names_mean_the_same(make_student: MakeStudent, source: dict[str, Tensor], tmp_path: Path) -> None:
    """Also with all that such files hold besides: MAE's decoder, registers, a classifier; registers have no place."""
    expected, names = started(make_student(0), source, tmp_path)
    tensors = timm_names(source)
    extras = (
        "decoder_pos_embed",
        "decoder_blocks.0.attn.qkv.weight",
        "decoder_embed.bias",
        "mask_token",
        "head.weight",
    )
    extras += ("register_tokens", "reg_token", "fc_norm.bias", "dist_token")
    tensors |= {name: torch.zeros(2) for name in extras}
    found, found_names = started(make_student(0), tensors, tmp_path)
    assert equal(found, expected)
    assert found_names == names
    tensors["pos_embed"] = torch.cat((torch.zeros(1, 4, 48), tensors["pos_embed"]), 1)  # registers with places
    assert equal(started(make_student(0), tensors, tmp_path)[0], expected)
    tensors["pos_embed"] = tensors["pos_embed"][:, 5:]  # no class token's place
    assert equal(started(make_student(0), tensors, tmp_path)[0], expected)


def test_a_torch_file_is_read_as_well(make_student: MakeStudent, source: dict[str, Tensor], tmp_path: Path) -> None:
    expected, _ = started(make_student(0), source, tmp_path)
    torch.save({"model": timm_names(source)}, tmp_path / "mae.pth")
    student = make_student(0)
    warm_start(student, tmp_path / "mae.pth")
    assert equal(student, expected)


@torch.no_grad()
def test_gains_are_folded_in_or_set_to_one(
    make_student: MakeStudent, source: dict[str, Tensor], tmp_path: Path
) -> None:
    """With LayerScale or without it, in source or network, a block computes the same."""
    tokens = torch.randn(2, 9, 48)
    scaled, _ = started(make_student(0), source, tmp_path)
    folded, names = started(make_student(0, layer_scale=False), source, tmp_path)
    assert not any("ls1" in name for name in names)
    for own, other in zip(scaled.backbone.blocks, folded.backbone.blocks, strict=True):
        assert torch.allclose(own(tokens)[0], other(tokens)[0], atol=1e-5)
    gainless = {name: tensor for name, tensor in source.items() if "layer_scale" not in name}
    plain, _ = started(make_student(0, layer_scale=False), gainless, tmp_path)
    ones, names = started(make_student(0), gainless, tmp_path)
    assert "backbone.blocks.0.ls1.gamma" in names
    for own, other in zip(plain.backbone.blocks, ones.backbone.blocks, strict=True):
        assert torch.equal(own(tokens)[0], other(tokens)[0])
    assert not torch.allclose(plain.backbone.blocks[0](tokens)[0], folded.backbone.blocks[0](tokens)[0], atol=1e-2)


def test_blocks_can_be_chosen(make_student: MakeStudent, tmp_path: Path) -> None:
    source = dinov2(depth=4)
    kept = {name: tensor for name, tensor in source.items() if ".layer." not in name}
    for index, number in enumerate((1, 3)):
        prefix = f"encoder.layer.{number}."
        block = {name.removeprefix(prefix): tensor for name, tensor in source.items() if name.startswith(prefix)}
        kept |= {f"encoder.layer.{index}.{name}": tensor for name, tensor in block.items()}
    found, _ = started(make_student(0), source, tmp_path, blocks=(1, 3))
    assert equal(found, started(make_student(0), kept, tmp_path)[0])
    for blocks in ((1, 4), (-1, 0), (0,), (0, 1, 2)):
        with pytest.raises(ModelError, match="expected 2 numbers below 4"):
            started(make_student(0), source, tmp_path, blocks=blocks)


def test_a_narrower_network_takes_every_second_head_and_channel(make_student: MakeStudent, tmp_path: Path) -> None:
    """A ViT hidden in the even channels, heads and hidden units of one twice as wide, among noise, is found again."""
    narrow, wide = dinov2(width=48), dinov2(width=96)
    heads = torch.cat([torch.arange(16) + 32 * head for head in range(3)])
    for name, tensor in narrow.items():
        target = wide[name]
        rows, columns = torch.arange(0, len(target), 2), torch.arange(0, target.shape[-1], 2)
        if "query" in name or "key" in name or "value" in name:
            rows = heads
        if name.endswith("attention.output.dense.weight"):
            columns = heads
        if "embeddings.position" in name:
            target[..., columns] = tensor
        elif "embeddings" in name:
            continue
        elif tensor.ndim == 1:
            target[rows] = tensor
        else:
            target[rows[:, None], columns] = tensor
    for kind in ("weight", "bias"):
        wide[f"embeddings.patch_embeddings.projection.{kind}"][::2] = narrow[
            f"embeddings.patch_embeddings.projection.{kind}"
        ]
    found, names = started(make_student(0), wide, tmp_path)
    expected, expected_names = started(make_student(0), narrow, tmp_path)
    assert equal(found, expected)
    assert names == expected_names


def test_a_teachers_kernel_is_the_sources(make_teacher: MakeTeacher, source: dict[str, Tensor], tmp_path: Path) -> None:
    """Its streams are apart, so that nothing is halved and nothing added."""
    source["embeddings.patch_embeddings.projection.weight"] = torch.randn(48, 3, 16, 16)
    teacher, _ = started(make_teacher(0), source, tmp_path)
    expected = PatchEmbedding.from_conv(source["embeddings.patch_embeddings.projection.weight"])
    assert torch.equal(teacher.backbone.patch_embed.proj.weight, expected)


@torch.no_grad()
def test_new_prompters_start_quiet(make_teacher: MakeTeacher, source: dict[str, Tensor], tmp_path: Path) -> None:
    """Prompts at a tenth; the fusion is the mean of both streams and a tenth of what it was."""
    fresh = make_teacher(0)
    teacher, names = started(make_teacher(0), source, tmp_path)
    norms = [*teacher.backbone.prompt_norms, *teacher.backbone.prompt_norms_rev]
    assert all(bool((norm.weight == 0.1).all()) and not bool(norm.bias.any()) for norm in norms)
    assert not any("prompt" in name or "fuse" in name for name in names)
    maps = torch.randn(2, 96, 16, 16)
    before, after = fresh.mplt_fuse_search[0](maps), teacher.mplt_fuse_search[0](maps)
    bias = fresh.mplt_fuse_search[0].bias[:, None, None]
    expected = (maps[:, :48] + maps[:, 48:]) / 2 + 0.1 * (before - bias) + bias
    assert torch.allclose(after, expected, atol=1e-5)


# Trackers


def test_an_mplt_checkpoint_starts_a_teacher_that_computes_the_same(
    make_teacher: MakeTeacher, reference_checkpoints: Path
) -> None:
    teacher = make_teacher(0, depth=4, layer_scale=False, head_channels=32)
    names = warm_start(teacher, reference_checkpoints / "mplt_tiny.pth.tar")
    assert max(differences_from(teacher, reference_checkpoints / "mplt_tiny_io.npz").values()) < 2e-5
    new = {name for name, _ in teacher.named_parameters()} - names
    added = ("modality_mask", "target_type", "context_type")
    assert {name for name in new if not name.startswith("presence_head.")} == {f"backbone.{name}" for name in added}


def test_mplts_prompters_go_with_their_blocks(make_teacher: MakeTeacher, reference_checkpoints: Path) -> None:
    path = reference_checkpoints / "mplt_tiny.pth.tar"
    whole = make_teacher(0, depth=4, layer_scale=False, head_channels=32)
    warm_start(whole, path)
    part = make_teacher(0, depth=2, weighing=True)
    names = warm_start(part, path, blocks=(1, 3))
    for kind in ("blocks", "prompt_blocks", "prompt_blocks_rev", "prompt_norms", "prompt_norms_rev"):
        theirs, own = whole.backbone.get_submodule(kind), part.backbone.get_submodule(kind)
        for index, number in enumerate((1, 3)):
            expected = theirs.get_submodule(str(number)).state_dict()
            found = own.get_submodule(str(index)).state_dict()
            assert all(torch.equal(found[name], tensor) for name, tensor in expected.items()), (kind, index)
    assert not any(name.startswith("box_head") or ".weighing." in name for name in names)  # of 16 channels, not 32


@torch.no_grad()
def test_an_ostrack_checkpoint_starts_both(
    make_student: MakeStudent, make_teacher: MakeTeacher, reference_checkpoints: Path
) -> None:
    """A student with OSTrack's kernel scaled back gives OSTrack's outputs; a teacher's streams stay near its tokens."""
    path, record = reference_checkpoints / "ostrack_tiny.pth.tar", reference_checkpoints / "ostrack_tiny_io.npz"
    shape = {"depth": 4, "layer_scale": False, "head_channels": 32}
    student = make_student(0, template_attention="joint", **shape)
    warm_start(student, path)
    weight = student.backbone.patch_embed.proj.weight.view(48, 256, 4)
    assert torch.allclose(weight[..., 3], weight[..., :3].mean(-1), atol=1e-6)
    weight /= MODALITY_GAIN
    for parameter in (student.backbone.target_type, student.backbone.context_type, student.backbone.modality_mask):
        parameter.zero_()
    assert max(differences_from(student, record).values()) < 2e-5
    teacher = make_teacher(0, **shape)
    names = warm_start(teacher, path)
    assert {name for name, _ in teacher.named_parameters() if name.startswith(("box_head", "backbone.norm."))} <= names
    inputs = dict(np.load(record))
    both = {f"{part}_{modality}": inputs[part] for part in ("template", "search") for modality in ("rgb", "thermal")}
    expected = np.concatenate((inputs["tokens"], inputs["tokens"]), 1)

    def distance() -> float:
        return float(np.abs(run_reference(teacher, both)["tokens"] - expected).mean() / np.abs(expected).mean())

    quiet = distance()
    for norm in (*teacher.backbone.prompt_norms, *teacher.backbone.prompt_norms_rev):
        norm.weight.fill_(1)
    assert quiet < 0.5 * distance()


def test_a_students_own_file_starts_it_whole(make_student: MakeStudent, tmp_path: Path) -> None:
    trained, fresh = make_student(1), make_student(2)
    save_model(trained, tmp_path / "student.safetensors", "tiny")
    names = warm_start(fresh, tmp_path / "student.safetensors")
    assert names == {name for name, _ in fresh.named_parameters()}
    assert equal(fresh, trained)


def test_a_smaller_search_crop_is_the_middle_of_a_larger_one(make_student: MakeStudent, tmp_path: Path) -> None:
    """At the same scale: what was two cells from the middle still is. A larger one is resampled."""
    trained = make_student(1)
    save_model(trained, tmp_path / "student.safetensors", "tiny")
    grid, patch = trained.config.search_grid, trained.config.patch
    smaller = make_student(2, search_size=(grid - 2) * patch)
    warm_start(smaller, tmp_path / "student.safetensors")
    whole = trained.backbone.pos_embed_x.reshape(grid, grid, -1)
    assert torch.equal(smaller.backbone.pos_embed_x.reshape(grid - 2, grid - 2, -1), whole[1:-1, 1:-1])
    larger = make_student(2, search_size=(grid + 2) * patch)
    warm_start(larger, tmp_path / "student.safetensors")
    assert torch.equal(larger.backbone.pos_embed_x, resample_positions(trained.backbone.pos_embed_x, grid + 2))


def test_a_student_starts_a_teacher_and_a_teacher_a_student(
    make_student: MakeStudent, make_teacher: MakeTeacher, tmp_path: Path
) -> None:
    """Each takes what both have; of the kernel, a teacher the colour part."""
    trained, teacher = make_student(1), make_teacher(0)
    save_model(trained, tmp_path / "student.safetensors", "tiny")
    names = warm_start(teacher, tmp_path / "student.safetensors")
    mine, theirs = teacher.state_dict(), trained.state_dict()
    kernel = "backbone.patch_embed.proj.weight"
    assert names == {name for name, _ in trained.named_parameters()}
    assert all(torch.equal(tensor, mine[name]) for name, tensor in theirs.items() if name != kernel)
    assert torch.equal(mine[kernel].view(48, 256, 3), theirs[kernel].view(48, 256, 4)[..., :3])
    save_model(teacher, tmp_path / "teacher.safetensors", "tiny")
    student = make_student(3)
    assert warm_start(student, tmp_path / "teacher.safetensors") == {name for name, _ in student.named_parameters()}
    mine = student.state_dict()
    assert all(torch.equal(tensor, mine[name]) for name, tensor in theirs.items() if name != kernel)
    again = make_teacher(4)
    warm_start(again, tmp_path / "teacher.safetensors")
    assert equal(again, teacher)


# What is refused


def refused(student: Student, path: Path, message: str, **options: Any) -> None:
    """``warm_start`` raises ModelError, and leaves the student as it was."""
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    with pytest.raises(ModelError, match=message) as caught:
        warm_start(student, path, **options)
    assert str(path) in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_a_narrower_source_is_refused(make_student: MakeStudent, tmp_path: Path) -> None:
    refused(make_student(0), saved(dinov2(width=32), tmp_path), "32 wide, narrower than the model's 48")


def test_heads_of_another_width_are_refused(make_student: MakeStudent, tmp_path: Path) -> None:
    """A source of 64 channels has heads of 64, by convention, where DuoTrack's own file does not say otherwise."""
    refused(make_student(0), saved(dinov2(width=64), tmp_path), "64 wide with 1 heads: .* not the model's, 16 wide")
    refused(make_student(0), saved(dinov2(width=72), tmp_path), "72 wide: .* not the model's, 16 wide")
    save_model(make_student(0, width=64, heads=4), tmp_path / "four.safetensors", "tiny")
    warm_start(make_student(1, width=64, heads=4), tmp_path / "four.safetensors")
    refused(make_student(1, width=64, heads=2), tmp_path / "four.safetensors", "64 wide with 4 heads")


def test_a_source_too_shallow_is_refused(make_student: MakeStudent, tmp_path: Path) -> None:
    refused(make_student(0), saved(dinov2(depth=1), tmp_path), "is 1 blocks deep: expected at least 2")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("embeddings.position_embeddings", "has no 'pos_embed'"),
        ("encoder.layer.1.mlp.fc2.bias", r"has no 'blocks\.1\.mlp\.fc2\.bias'"),
        ("encoder.layer.0.layer_scale2.lambda1", r"has no 'blocks\.0\.ls2\.gamma'"),
        ("encoder.layer.1.attention.attention.key.weight", r"has no 'blocks\.1\.attn\.qkv\.weight'"),
    ],
)
def test_a_missing_tensor_is_named(
    make_student: MakeStudent, source: dict[str, Tensor], tmp_path: Path, missing: str, message: str
) -> None:
    del source[missing]
    refused(make_student(0), saved(source, tmp_path), message)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("pos_embed", (1, 60, 48), r"pos_embed is \(1, 60, 48\), expected \(1, tokens of a square grid, 48\)"),
        ("pos_embed", (1, 50, 40), r"pos_embed is \(1, 50, 40\), expected \(1, 50, 48\)"),
        ("patch_embed.proj.weight", (48, 1, 14, 14), r"patch embedding is \(48, 1, 14, 14\)"),
        ("blocks.1.mlp.fc1.weight", (96, 48), r"blocks\.1\.mlp\.fc1\.weight is \(96, 48\), expected \(192, 48\)"),
        ("blocks.0.attn.rel_pos", (3,), r"of no part that is known here: blocks\.0\.attn\.rel_pos"),
        ("norm_pre.weight", (48,), "of no part that is known here: norm_pre.weight"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    make_student: MakeStudent,
    source: dict[str, Tensor],
    tmp_path: Path,
    name: str,
    shape: tuple[int, ...],
    message: str,
) -> None:
    tensors = timm_names(source) | {name: torch.zeros(shape)}
    refused(make_student(0), saved(tensors, tmp_path), message)


def test_another_network_is_refused(make_student: MakeStudent, tmp_path: Path) -> None:
    refused(make_student(0), saved({"conv1.weight": torch.zeros(3)}, tmp_path), "no pretrained network that is known")


def test_a_missing_or_damaged_file_is_refused(make_student: MakeStudent, tmp_path: Path) -> None:
    refused(make_student(0), tmp_path / "absent.safetensors", "cannot read")
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(b"not safetensors at all")
    refused(make_student(0), path, "neither a torch checkpoint nor safetensors")


# Resampling


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
