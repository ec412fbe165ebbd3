"""Importing MPLT's and OSTrack's checkpoints: their own code's recorded outputs, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from duotrack.cli import app
from duotrack.errors import ModelError
from duotrack.nets.models import TrackingModel, build_model, load_model, save_model
from duotrack.nets.parity import differences_from, read_record, run_reference
from duotrack.nets.public_checkpoint import import_checkpoint
from duotrack.nets.student import Student, StudentConfig
from duotrack.nets.teacher import Teacher, TeacherConfig

SMALL: dict[str, Any] = {"width": 48, "depth": 2, "heads": 3, "head_channels": 16, "layer_scale": False}
SMALL |= {"patch": 16, "template_size": 32, "search_size": 64}
CONFIGS = {"mplt": TeacherConfig(**SMALL), "ostrack": StudentConfig(**SMALL, template_attention="joint")}
ARCHITECTURES = list(CONFIGS)
OURS = ("presence_head.", "backbone.modality_mask", "backbone.target_type", "backbone.context_type")


def public_tensors(model: TrackingModel) -> dict[str, Tensor]:
    """The tensors of ``model`` as the public code names and shapes them, beside those that it holds and never uses."""
    config = model.config
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith(OURS)}
    kernel = tensors["backbone.patch_embed.proj.weight"].reshape(config.width, config.patch, config.patch, -1)
    tensors["backbone.patch_embed.proj.weight"] = kernel[..., :3].permute(0, 3, 1, 2).contiguous()
    tensors["backbone.cls_token"] = torch.randn(1, 1, config.width)
    tensors["backbone.pos_embed"] = torch.randn(1, 197, config.width)
    if isinstance(model, Teacher):
        tensors["backbone.pos_embed_x_last"] = torch.randn(1, config.search_grid**2, config.width)
    return tensors


def public_file(
    folder: Path, architecture: str, change: Callable[[dict[str, Tensor]], object] = lambda _: None, **shape: Any
) -> Path:
    torch.manual_seed(1)
    tensors = public_tensors(build_model(replace(CONFIGS[architecture], **shape)))
    change(tensors)
    path = folder / f"{architecture}.pth.tar"
    torch.save({"net": tensors, "epoch": 300}, path)
    return path


@pytest.mark.parametrize(("architecture", "kind"), [("mplt", Teacher), ("ostrack", Student)])
def test_the_original_codes_outputs(architecture: str, kind: type, reference_checkpoints: Path, tmp_path: Path) -> None:
    """Also after a turn through DuoTrack's own file. Asked is 1e-4; float32 sums in another order leave 5e-6."""
    model = import_checkpoint(reference_checkpoints / f"{architecture}_tiny.pth.tar", architecture, heads=3)
    record = reference_checkpoints / f"{architecture}_tiny_io.npz"
    assert isinstance(model, kind)
    assert max(differences_from(model, record).values()) < 2e-5
    save_model(model, tmp_path / "model.safetensors", "tiny")
    reloaded, _ = load_model(tmp_path / "model.safetensors")
    assert max(differences_from(reloaded, record).values()) < 2e-5


def test_another_number_of_heads_gives_other_outputs(reference_checkpoints: Path) -> None:
    model = import_checkpoint(reference_checkpoints / "ostrack_tiny.pth.tar", "ostrack", heads=4)
    assert differences_from(model, reference_checkpoints / "ostrack_tiny_io.npz")["tokens"] > 0.01


@torch.no_grad()
def test_without_thermal_a_student_is_ostrack(reference_checkpoints: Path) -> None:
    """From uint8 crops with noise where thermal would be: OSTrack's own normalisation, by hand, gives the same."""
    model = import_checkpoint(reference_checkpoints / "ostrack_tiny.pth.tar", "ostrack", heads=3)
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (2, side, side, 4), dtype=np.uint8) for side in (128, 256)]
    images = [
        ((crop[..., :3] / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).transpose(0, 3, 1, 2).astype(np.float32)
        for crop in crops
    ]
    expected = run_reference(model, {"template": images[0], "search": images[1]})
    present, box = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[0.4, 0.5, 0.3, 0.7]] * 2)
    template, search = (torch.from_numpy(crop) for crop in crops)
    output = model(template, present, box, search, present)
    assert np.abs(output.score_map.numpy() - expected["score_map"][:, 0]).max() < 1e-5
    assert np.abs(output.box_map[:, 2:].numpy() - expected["size_map"]).max() < 1e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "shape",
    [
        {"width": 64, "heads": 1, "depth": 3},
        {"width": 128, "heads": 2, "head_channels": 24},
        {"width": 64, "heads": 1, "patch": 8, "template_size": 24, "search_size": 40},
    ],
)
def test_the_shape_is_told_from_the_tensors(architecture: str, shape: dict[str, int], tmp_path: Path) -> None:
    path = public_file(tmp_path, architecture, **shape)
    assert import_checkpoint(path, architecture).config == replace(CONFIGS[architecture], **shape)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tensor_is_where_it_belongs(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    original = build_model(CONFIGS[architecture]).state_dict()
    path = public_file(tmp_path, architecture)
    model = import_checkpoint(path, architecture, heads=3)
    torch.manual_seed(2)
    again = import_checkpoint(path, architecture, heads=3).state_dict()  # presence head included
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again[name]), name
        if name == "backbone.patch_embed.proj.weight":
            kernel, expected = (weight.reshape(48, 16, 16, -1) for weight in (tensor, original[name]))
            assert torch.equal(kernel[..., :3], expected[..., :3])
            assert torch.allclose(kernel[..., 3:], expected[..., :3].mean(-1, keepdim=True)) or architecture == "mplt"
        elif name.startswith(OURS[1:]):
            assert not tensor.any(), name
        elif not name.startswith(OURS):
            assert torch.equal(tensor, original[name]), name


def test_segment_embeddings_are_added_to_the_positions(tmp_path: Path) -> None:
    """OSTrack's SEP_SEG: one vector for all template tokens, and one for all search tokens."""
    segments = torch.randn(1, 1, 48), torch.randn(1, 1, 48)

    def separate(tensors: dict[str, Tensor]) -> None:
        tensors["backbone.template_segment_pos_embed"], tensors["backbone.search_segment_pos_embed"] = segments

    plain = import_checkpoint(public_file(tmp_path, "ostrack"), "ostrack", heads=3).state_dict()
    found = import_checkpoint(public_file(tmp_path, "ostrack", separate), "ostrack", heads=3).state_dict()
    for part, segment in zip("zx", segments, strict=True):
        name = f"backbone.pos_embed_{part}"
        assert torch.equal(found[name], plain[name] + segment)


def test_frozen_batch_norms_need_no_counter(tmp_path: Path) -> None:
    def freeze(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.endswith("num_batches_tracked")]:
            del tensors[name]

    import_checkpoint(public_file(tmp_path, "ostrack", freeze), "ostrack", heads=3)


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    def halve(tensors: dict[str, Tensor]) -> None:
        tensors |= {name: tensor.half() for name, tensor in tensors.items() if tensor.is_floating_point()}

    model = import_checkpoint(public_file(tmp_path, "mplt", halve), "mplt", heads=3)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


# What is refused


def adding(name: str, *shape: int) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({name: torch.zeros(shape)})


def dropping(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.pop(name)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (adding("backbone.cls_pos_embed", 1, 1, 48), "1 not known: backbone.cls_pos_embed"),
        (adding("box_head.conv1_tl.0.weight", 1), "1 not known: box_head.conv1_tl.0.weight"),
        (adding("backbone.blocks.7.norm1.bias", 48), "missing: backbone.blocks.2"),
        (adding("backbone.blocks.1.mlp.fc1.bias", 190), r"fc1.bias is \(190,\) and should be \(192,\)"),
        (adding("backbone.pos_embed_z", 1, 5, 48), r"pos_embed_z is \(1, 5, 48\), expected \(1, tokens of a square"),
        (adding("backbone.pos_embed_x", 16), r"pos_embed_x is \(16,\), expected"),
        (adding("backbone.pos_embed_x", 1, 16, 40), r"pos_embed_x is \(1, 16, 40\) and should be \(1, 16, 48\)"),
        (adding("backbone.patch_embed.proj.weight", 48, 4, 16, 16), r"\(48, 4, 16, 16\), expected \(width, 3, patch"),
        (adding("backbone.patch_embed.proj.weight", 48, 3, 16, 8), r"\(48, 3, 16, 8\), expected \(width, 3, patch"),
        (adding("backbone.patch_embed.proj.weight", 48, 768), "is a DuoTrack network already"),
        (dropping("backbone.norm.bias"), "1 missing: backbone.norm.bias"),
        (dropping("backbone.patch_embed.proj.weight"), r"has no 'backbone\.patch_embed\.proj\.weight'"),
        (dropping("backbone.pos_embed_z"), r"has no 'backbone\.pos_embed_z'"),
        (dropping("box_head.conv1_ctr.0.bias"), r"has no 'box_head\.conv1_ctr\.0\.bias'"),
        (dropping("box_head.conv5_size.weight"), "1 missing: box_head.conv5_size.weight"),
    ],
)
def test_what_does_not_fit_is_named(
    architecture: str, change: Callable[[dict[str, Tensor]], object], message: str, tmp_path: Path
) -> None:
    path = public_file(tmp_path, architecture, change)
    with pytest.raises(ModelError, match=message) as caught:
        import_checkpoint(path, architecture, heads=3)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "other", "what"), [("mplt", "ostrack", "not known"), ("ostrack", "mplt", "missing")]
)
def test_another_architecture_is_refused(architecture: str, other: str, what: str, tmp_path: Path) -> None:
    path = public_file(tmp_path, architecture)
    with pytest.raises(ModelError, match=f"read as {other}, does not fit: .* {what}: backbone.prompt_blocks"):
        import_checkpoint(path, other, heads=3)
    with pytest.raises(ModelError, match="unknown architecture 'siamfc': expected mplt or ostrack"):
        import_checkpoint(path, "siamfc", heads=3)


@pytest.mark.parametrize(
    ("heads", "message"),
    [(None, "is 48 wide: .* pass --heads"), (5, "48 must be a multiple of the number of heads 5"), (0, "got 0")],
)
def test_heads_that_cannot_be_are_refused(heads: int | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        import_checkpoint(public_file(tmp_path, "mplt"), "mplt", heads=heads)


# The command


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_command_checks_before_it_writes(architecture: str, tmp_path: Path) -> None:
    checkpoint, output, record = (
        public_file(tmp_path, architecture),
        tmp_path / "out" / "imported.safetensors",
        tmp_path / "io.npz",
    )
    model = import_checkpoint(checkpoint, architecture, heads=3)
    rng = np.random.default_rng(0)
    names = [f"{part}{suffix}" for part in ("template", "search") for suffix in ("_rgb", "_thermal")]
    names = names if architecture == "mplt" else ["template", "search"]
    inputs = {
        name: rng.normal(size=(2, 3, *[32 if "template" in name else 64] * 2)).astype(np.float32) for name in names
    }
    outputs = run_reference(model, inputs)

    def command(*more: str) -> Any:
        options = ["--architecture", architecture, "--heads", "3", "--output", str(output), "--check", str(record)]
        return CliRunner().invoke(app, ["import", str(checkpoint), *options, *more])

    np.savez(record, **inputs, **(outputs | {"size_map": outputs["size_map"] + np.float32(0.01)}))
    refused = command()
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["size_map"] == pytest.approx(0.01, abs=1e-6)
    assert "differs from" in refused.stderr
    assert not output.exists()
    assert command("--tolerance", "0.02").exit_code == 0
    np.savez(record, **inputs, **outputs)
    accepted = command("--name", "public")
    assert accepted.exit_code == 0, accepted.stderr
    assert json.loads(accepted.stdout).keys() == outputs.keys()
    assert max(json.loads(accepted.stdout).values()) < 1e-6
    reloaded, name = load_model(output)
    assert name == "public"
    assert reloaded.config == model.config
    assert read_record(record).keys() == inputs.keys() | outputs.keys()
    wrong = CliRunner().invoke(app, ["import", str(record), "--architecture", "mplt", "--output", str(output)])
    assert wrong.exit_code == 1
    assert "but not of torch" in wrong.stderr
