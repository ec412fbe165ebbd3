"""Training configs: what is read, what is refused, and that the refusal says where and what would be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from duotrack.data.augment_plan import CropJitter
from duotrack.errors import ConfigError, ModelError
from duotrack.nets.student import StudentConfig
from duotrack.nets.teacher import TeacherConfig
from duotrack.training.config import load_config, parse_config, shipped_configs

ENVIRONMENT = {
    "NARROWED": "/runs/start.safetensors",
    "DATA": "/data",
    "PRETRAINED": "vit.safetensors",
    "TEACHER": "t.safetensors",
    "LASHER": "/l",
    "OSTRACK": "o",
}


def tree(**changes: Any) -> dict[str, Any]:
    return {"model": {"name": "student-t"}, "data": {"sources": [{"kind": "synthetic"}]}} | changes


def test_every_shipped_config_is_valid() -> None:
    assert {"teacher-s", "student-t-distilled", "lasher-teacher-b", "lasher-student-b", "student-t"} <= set(
        shipped_configs()
    )
    for name in shipped_configs():
        config = load_config(name, environment=ENVIRONMENT)
        assert config.steps >= 400


def test_a_file_is_read_with_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree(steps=700, optimizer={"new_lr": 1e-3}, losses={"giou": 3})), encoding="utf-8")
    config = load_config(str(path))
    assert (config.steps, config.optimizer.new_lr, config.losses.giou, config.losses.l1) == (700, 1e-3, 3.0, 5.0)
    assert config.distillation is None
    assert json.loads(config.as_json())["optimizer"]["clip"] == 1.0


def test_the_network_is_the_named_size_with_its_overrides() -> None:
    config = parse_config(tree(model={"name": "teacher-b", "overrides": {"depth": 4, "weighing": True}}))
    assert config.model.config() == TeacherConfig(
        width=768, depth=4, heads=12, weighing=True, layer_scale=False, head_channels=256
    )
    assert parse_config(tree()).model.config() == StudentConfig(
        width=192, heads=3, head_channels=64, search_size=224, template_factor=1.6, widening=1.4
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepz": 5}, r"stepz: unknown key; did you mean steps\?"),
        ({"optimizer": {"new_Lr": 1}}, r"optimizer\.new_Lr: unknown key; did you mean new_lr\?"),
        ({"losses": {"focla": 1}}, r"losses\.focla: unknown key; did you mean focal\?"),
        ({"losses": {"xyz": 1}}, r"losses\.xyz: unknown key$"),
        (
            {"distillation": {"teacher": "t", "weights": {"featur": 1}}},
            r"distillation\.weights\.featur: unknown key; did you mean feature\?",
        ),
        ({"steps": 0}, r"steps: .*greater than or equal to 1, got 0"),
        ({"steps": "many"}, r"steps: .*integer.*got 'many'"),
        ({"batch": 2.5}, r"batch: .*integer"),
        ({"data": {"sources": []}}, r"data\.sources: .*at least 1 item"),
        ({"data": {"sources": [{"kind": "lcal", "root": "x"}]}}, r"data\.sources\.0: .*'lcal'.*'local', 'synthetic'"),
        ({"data": {"sources": [{"kind": "local"}]}}, r"data\.sources\.0\.root: Field required"),
        ({"data": {"sources": [{"kind": "local", "root": "x", "rot": 1}]}}, r"data\.sources\.0\.rot: unknown key"),
        ({"schedule": {"warmup": 500}, "steps": 400}, r"schedule\.warmup \(500\) must be shorter than steps \(400\)$"),
        (
            {"model": {"name": "student-t", "overrides": {"dept": 4}}},
            r"overrides\.dept: unknown key; did you mean depth",
        ),
        (
            {"data": {"sources": [{"kind": "synthetic"}], "jitter": {"turnd": 1}}},
            r"jitter\.turnd: unknown key; .*turned\?",
        ),
        (
            {"data": {"sources": [{"kind": "synthetic"}], "jitter": {"turned": 2}}},
            r"data\.jitter.*a share of at most 1",
        ),
        ({"model": {"name": "student-t", "overrides": {"depth": "deep"}}}, r"model\.overrides\.depth: .*got 'deep'"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(tree(**changes))


def test_a_source_with_a_fault_is_not_also_called_absent() -> None:
    source = {"kind": "local", "root": "data", "shares": {"stills": 0}}
    with pytest.raises(ConfigError, match=r": data\.sources\.0\.shares\.stills: [^;]*, got 0$"):
        parse_config(tree(data={"sources": [source]}))
    with pytest.raises(ConfigError, match=r"data\.sources: .*at least 1 item"):
        parse_config(tree(data={"sources": []}))


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"steps: .*; batch: "):
        parse_config(tree(steps=-1, batch=0))


def test_an_unknown_size_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"unknown model 'student-x': expected one of .*student-t.*teacher-b"):
        parse_config(tree(model={"name": "student-x"}))


def test_overrides_are_yaml_at_a_place(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree()), encoding="utf-8")
    config = load_config(
        str(path),
        [
            "steps=900",
            "schedule.drops=[0.5, 0.9]",
            "model.overrides.depth=3",
            "data.sources.0.share=2",
            "data.jitter.scale=0.4",
        ],
    )
    assert config.steps == 900
    assert config.schedule.drops == (0.5, 0.9)
    assert config.model.overrides == {"depth": 3}
    assert config.data.sources[0].share == 2.0
    assert config.data.jitter == CropJitter(scale=0.4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "expected KEY=VALUE, got 'steps'"),
        ("data.sources.7.share=2", "data.sources.7.share: there is no '7' to set"),
        ("data.sources.x=2", "data.sources.x: there is no 'x' to set"),
        ("stepz=4", "stepz: unknown key"),
    ],
)
def test_an_override_that_fits_nowhere_is_refused(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree()), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_config(str(path), [override])


def test_environment_variables_are_filled_in() -> None:
    config = load_config("student-s", environment=ENVIRONMENT)
    assert config.data.sources[0].model_dump()["root"] == Path("/data")
    with pytest.raises(ConfigError, match=r"'\$\{PRETRAINED\}': the environment variable PRETRAINED is not set"):
        load_config("student-s", environment={"DATA": "/data"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "expected a mapping of keys, got list"),
        (b"", "expected a mapping of keys, got NoneType"),
        (b"model: {name: [", "is not YAML"),
        (b"\xff\xfe", "it is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(str(path))


def test_a_missing_file_lists_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file or directory; shipped configs are .*teacher-s"):
        load_config(str(tmp_path / "none.yaml"))
