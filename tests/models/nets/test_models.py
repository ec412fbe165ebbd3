"""Weights on disk: what is written is what is read, and a file that does not fit says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import duotrack.nets.models as models
from duotrack.errors import ModelError
from duotrack.nets.models import (
    METADATA,
    MODELS,
    ModelConfig,
    build_model,
    load_model,
    load_tensors,
    named_config,
    save_model,
)
from duotrack.nets.student import Student, StudentConfig
from duotrack.nets.teacher import Teacher, TeacherConfig

CONFIGS: dict[str, ModelConfig] = {
    "student": StudentConfig(width=48, depth=2, heads=3, head_channels=16),
    "joint student": StudentConfig(48, 2, 3, "joint", layer_scale=False, head_channels=16, template_size=96),
    "teacher": TeacherConfig(width=48, depth=2, heads=3, head_channels=16, weighing=True),
}
TENSOR = "backbone.blocks.1.mlp.fc1.bias"


def random_model(config: ModelConfig, seed: int = 0) -> models.TrackingModel:
    torch.manual_seed(seed)
    model = build_model(config)
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
        elif name.endswith("num_batches_tracked"):
            value.fill_(1234)
    return model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_model(random_model(CONFIGS["student"]), path, "tiny")
    return path


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_was_saved_is_loaded(tmp_path: Path, kind: str) -> None:
    model = random_model(CONFIGS[kind])
    save_model(model, tmp_path / "new folder" / "weights.safetensors", "some name")
    loaded, name = load_model(tmp_path / "new folder" / "weights.safetensors")
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert name == "some name"
    found, expected = loaded.state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("kind", CONFIGS)
def test_half_a_file_holds_the_same_to_eleven_bits(tmp_path: Path, kind: str) -> None:
    model = random_model(CONFIGS[kind])
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_model(model, whole, "tiny")
    save_model(model, half, "tiny", half=True)
    assert {value.dtype for value in load_file(half).values()} == {torch.float16, torch.int64}
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    loaded, _ = load_model(half)
    for key, value in loaded.state_dict().items():
        expected = model.state_dict()[key]
        assert value.dtype == expected.dtype, key
        assert torch.allclose(value, expected, rtol=2**-11, atol=2**-25), key


def test_what_half_a_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    """fp16 ends at 65504; a variance of raw features can lie beyond."""
    model = random_model(CONFIGS["student"])
    model.get_buffer("box_head.conv1_ctr.1.running_var").fill_(70000)
    with pytest.raises(ModelError, match=r"box_head\.conv1_ctr\.1\.running_var reaches 70000"):
        save_model(model, tmp_path / "half.safetensors", "tiny", half=True)
    assert not list(tmp_path.iterdir())


def test_the_file_says_how_to_build_its_network(tmp_path: Path) -> None:
    config = CONFIGS["teacher"]
    save_model(random_model(config), tmp_path / "t.safetensors", "my teacher")
    with safe_open(tmp_path / "t.safetensors", "pt") as file:
        record = json.loads(file.metadata()[METADATA])
    assert record == {"name": "my teacher", "architecture": "teacher", "config": asdict(config)}


def test_the_saved_network_computes_the_same(tmp_path: Path) -> None:
    model = random_model(CONFIGS["teacher"]).eval()
    save_model(model, tmp_path / "t.safetensors", "tiny")
    loaded, _ = load_model(tmp_path / "t.safetensors")
    crops = torch.randint(0, 256, (1, 128, 128, 4)).byte(), torch.randint(0, 256, (1, 256, 256, 4)).byte()
    both = torch.ones(1, 2)
    given = crops[0], both, torch.full((1, 4), 0.5), crops[1], both
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model(*given), loaded.eval()(*given), strict=True))


def test_a_failed_save_leaves_the_file_that_was_there(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full_disk(_: dict[str, Tensor], path: Path, *__: dict[str, str]) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(models, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_model(random_model(CONFIGS["student"], seed=1), saved, "other")
    assert saved.read_bytes() == before
    assert load_model(saved)[1] == "tiny"


def test_saving_replaces_and_leaves_nothing_else(saved: Path) -> None:
    other = random_model(CONFIGS["student"], seed=1)
    save_model(other, saved, "other")
    loaded, name = load_model(saved)
    assert name == "other"
    assert torch.equal(loaded.get_parameter(TENSOR), other.get_parameter(TENSOR))
    assert list(saved.parent.iterdir()) == [saved]


def altered(path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> Path:
    """The file again with some of its tensors or of its record changed."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()[METADATA])
    change(tensors, record)
    save_file(tensors, path, {METADATA: json.dumps(record)})
    return path


def test_missing_tensors_are_named(saved: Path) -> None:
    altered(saved, lambda tensors, _: tensors.pop(TENSOR))
    with pytest.raises(ModelError, match=rf"tiny\.safetensors does not fit: 1 missing: {TENSOR}$"):
        load_model(saved)


def test_unknown_tensors_are_named(saved: Path) -> None:
    altered(saved, lambda tensors, _: tensors.update(surplus=torch.zeros(1)))
    with pytest.raises(ModelError, match=r"does not fit: 1 not known: surplus$"):
        load_model(saved)


def test_other_shapes_are_told(saved: Path) -> None:
    altered(saved, lambda tensors, _: tensors.update({TENSOR: torch.zeros(191)}))
    with pytest.raises(ModelError, match=rf"1 of another shape: {TENSOR} is \(191,\) and should be \(192,\)$"):
        load_model(saved)


def test_many_misfits_are_counted_and_a_few_named(saved: Path) -> None:
    altered(saved, lambda _, record: record["config"].update(depth=3))
    with pytest.raises(ModelError, match=r"does not fit: 14 missing: (backbone\.blocks\.2\.[\w.]+, ){4}…$"):
        load_model(saved)


def test_a_misfit_changes_nothing(saved: Path) -> None:
    model = random_model(CONFIGS["student"], seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tensors = load_file(saved) | {TENSOR: torch.zeros(191)}
    with pytest.raises(ModelError, match="here does not fit"):
        load_tensors(model, tensors, "here")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_szie": 16}, "unexpected keyword argument 'patch_szie'"),
        ({"heads": 5}, "width 48 must be a multiple of the number of heads 5"),
        ({"heads": 0}, "heads is 0: expected a whole number from 1 on"),
        ({"depth": "6"}, "depth is '6': expected a whole number from 1 on"),
        ({"depth": 2.0}, r"depth is 2\.0: expected a whole number"),
        ({"depth": True}, "depth is True: expected a whole number"),
        ({"depth": -1}, "depth is -1: expected a whole number"),
        ({"width": None}, "width is None: expected a whole number from 8 on"),
        ({"head_channels": 4}, "head_channels is 4: expected a whole number from 8 on"),
        ({"layer_scale": "yes"}, "layer_scale is 'yes': expected true or false"),
        ({"layer_scale": 1}, "layer_scale is 1: expected true or false"),
        ({"template_attention": "shared"}, "template_attention is 'shared': expected one of isolated, joint"),
        ({"template_attention": ["joint"]}, r"template_attention is \['joint'\]: expected one of isolated, joint"),
        ({"template_factor": 0}, "template_factor is 0: expected a number above 0"),
        ({"template_factor": "2"}, "template_factor is '2': expected a number above 0"),
        ({"widening": 0}, "widening is 0: expected a number above 0"),
        ({"search_size": 250}, "search_size 250 must be a multiple of the patch 16"),
    ],
)
def test_a_config_that_describes_no_network_is_refused(saved: Path, change: dict[str, Any], message: str) -> None:
    altered(saved, lambda _, record: record["config"].update(change))
    with pytest.raises(ModelError, match=rf"the config in .*tiny\.safetensors does not fit.*: .*{message}"):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(architecture="uncle"), "architecture is 'uncle': expected student or teacher"),
        (lambda record: record.update(architecture=["student"]), r"architecture is \['student'\]: expected student"),
        (lambda record: record.pop("architecture"), "architecture is None"),
        (lambda record: record.pop("name"), "name is None"),
        (lambda record: record.pop("config"), "config is None"),
        (lambda record: record.update(config=[1, 2]), r"config is \[1, 2\]"),
        (lambda record: record.update(architecture="teacher"), "unexpected keyword argument 'template_attention'"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(
    saved: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    altered(saved, lambda _, record: change(record))
    with pytest.raises(ModelError, match=rf"the config in .*tiny\.safetensors does not fit.*: .*{message}"):
        load_model(saved)


@pytest.mark.parametrize("record", ["[]", "5", '"student"'])
def test_a_record_of_another_kind_is_refused(tmp_path: Path, record: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {METADATA: record})
    with pytest.raises(ModelError, match=r"the config in .*a\.safetensors does not fit"):
        load_model(tmp_path / "a.safetensors")


def test_a_file_from_before_an_option_has_its_default(saved: Path) -> None:
    """Options that a later version adds must not make older files unreadable."""
    altered(saved, lambda _, record: record["config"].pop("layer_scale"))
    loaded, _ = load_model(saved)
    assert isinstance(loaded.config, StudentConfig)
    assert loaded.config.layer_scale


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_weights_of_other_projects_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"embeddings": torch.zeros(3)}, tmp_path / "dino.safetensors", metadata)
    with pytest.raises(ModelError, match=r"dino\.safetensors holds no DuoTrack network: .*duotrack import"):
        load_model(tmp_path / "dino.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 8, 200, -1])
def test_a_truncated_file_is_refused(saved: Path, kept: int) -> None:
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"cannot read weights .*tiny\.safetensors"):
        load_model(saved)


@pytest.mark.parametrize("content", [b"no safetensors at all", b"\xff" * 64, b"PK\x03\x04" + bytes(100)])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot read weights .*other"):
        load_model(tmp_path / "other")


def test_metadata_that_is_no_json_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {METADATA: "{"})
    with pytest.raises(ModelError, match=r"cannot read weights .*a\.safetensors"):
        load_model(tmp_path / "a.safetensors")


def test_an_absent_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(ModelError, match=f"cannot read weights {path}"):
            load_model(path)


@pytest.mark.parametrize("name", MODELS)
def test_every_size_can_be_built(name: str) -> None:
    with torch.device("meta"):
        model = build_model(named_config(name))
    assert isinstance(model, Student if name.startswith("student") else Teacher)


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ModelError, match=r"unknown model 'student-xl': expected one of student-s, .*teacher-b"):
        named_config("student-xl")


def test_a_config_is_checked_before_it_is_built() -> None:
    with pytest.raises(ModelError, match="patch is 0: expected a whole number from 1 on"):
        build_model(replace(CONFIGS["teacher"], patch=0))
