"""Whole runs from the command: a tiny teacher, a student distilled from it, and what goes wrong on the way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from duotrack.cli import app
from duotrack.engine.models import open_model
from duotrack.export import read_model
from duotrack.nets.models import load_model
from duotrack.nets.student import Student
from duotrack.nets.teacher import Teacher
from duotrack.training import run
from duotrack.training.config import load_config
from duotrack.training.samples import Epochs, training_crops

TINY = {"width": 48, "depth": 2, "heads": 3, "head_channels": 16}


def written(folder: Path, name: str, **changes: Any) -> Path:
    tree = {
        "model": {"name": name, "overrides": TINY},
        "data": {"sources": [{"kind": "synthetic"}], "workers": 0},
        "steps": 4,
        "batch": 2,
        "log_every": 1,
        "save_every": 2,
        "schedule": {"warmup": 2},
    } | changes
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def command(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def entries(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a teacher that was trained for four steps."""
    folder = tmp_path_factory.mktemp("teacher")
    config = written(folder, "teacher-s", validation={"scenes": 1, "frames": 3})
    code, output = command("train", config, "--output", folder / "run")
    assert code == 0, output
    assert "step 4/4  validation  success" in output
    return folder / "run" / "teacher-s.safetensors"


def test_a_run_leaves_weights_log_config_and_curves(teacher: Path) -> None:
    network, name = load_model(teacher)
    assert isinstance(network, Teacher)
    assert name == "teacher-s"
    assert network.config.width == 48
    run = teacher.parent
    assert [entry["step"] for entry in entries(run)] == [1, 2, 3, 4, 4]
    assert 0 <= entries(run)[-1]["validation"]["success"] <= 1
    assert json.loads((run / "config.json").read_text(encoding="utf-8"))["optimizer"]["clip"] == 1.0
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))


def test_a_live_and_a_cached_teacher_teach_the_same(teacher: Path, tmp_path: Path) -> None:
    """In one step over all samples, their order does not matter; the cache rounds to fp16."""
    weights = {"feature": 1.0, "response_score": 1.0, "response_box": 1.0, "relational": 1.0, "whitened": 1.0}
    config = written(
        tmp_path,
        "student-t",
        precision="fp32",
        steps=1,
        batch=8,
        schedule={"warmup": 0},
        distillation={"teacher": str(teacher), "weights": weights, "cache_samples": 8},
    )
    losses = {}
    for kind, options in {"live": (), "cached": ("--cache", tmp_path / "cache")}.items():
        code, output = command("distill", config, "--output", tmp_path / kind, *options)
        assert code == 0, output
        (losses[kind],) = [entry["losses"] for entry in entries(tmp_path / kind)]
    assert "teacher's outputs: 8 of 8 samples" in output
    assert weights.keys() < losses["live"].keys()
    assert losses["cached"] == pytest.approx(losses["live"], rel=2e-3)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    code, output = command("distill", config, "--output", tmp_path / "again", "--cache", tmp_path / "cache")
    assert code == 0, output
    assert "teacher's outputs" not in output
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert [entry["losses"] for entry in entries(tmp_path / "again")] == [
        entry["losses"] for entry in entries(tmp_path / "cached")
    ]
    student, _ = load_model(tmp_path / "cached" / "student-t.safetensors")
    assert isinstance(student, Student)
    assert not any("projection" in name for name in student.state_dict())


def test_a_cache_for_other_samples_is_refused(teacher: Path, tmp_path: Path) -> None:
    distillation = {"teacher": str(teacher), "weights": {"feature": 1.0}, "cache_samples": 4}
    config = written(tmp_path, "student-t", steps=3, distillation=distillation)
    cache = ("--cache", tmp_path / "cache")
    assert command("distill", config, "--output", tmp_path / "first", *cache)[0] == 0
    code, output = command("distill", config, "--output", tmp_path / "second", *cache, "--set", "seed=1")
    assert code == 1
    assert "dataset.seed is 0 in the cache and should be 1" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "no-such-config"), "cannot read config no-such-config: No such file or directory"),
        (("train", "synthetic", "--set", "stepz=1"), "synthetic: stepz: unknown key; did you mean steps?"),
        (("distill", "synthetic"), "synthetic has no distillation part"),
        (("distill", "synthetic", "--teacher", "none.safetensors"), "no loss is switched on in distillation.weights"),
        (
            ("distill", "synthetic", "--teacher", "none.safetensors", "--set", "distillation.weights={feature: 1}"),
            "cannot read weights none.safetensors",
        ),
        (("train", "synthetic", "--set", "model.start=none.safetensors"), "none.safetensors"),
        (("train", "synthetic", "--set", "validation={root: /none}"), "/none"),
    ],
)
def test_a_users_error_is_one_line_and_an_exit_status(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    code, output = command(*arguments, "--output", tmp_path / "run")
    assert code == 1
    (line,) = output.strip().splitlines()
    assert line.startswith("duotrack: ")
    assert message in line
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    code, output = command("train", written(tmp_path, "student-t"), "--output", tmp_path / "file" / "run")
    assert code == 1
    assert output.strip() == f"duotrack: {tmp_path / 'file' / 'run'}: Not a directory"


def test_a_student_cannot_teach_and_a_teacher_cannot_be_taught(teacher: Path, tmp_path: Path) -> None:
    distillation = {"teacher": str(teacher), "weights": {"feature": 1.0}}
    code, output = command(
        "distill", written(tmp_path, "teacher-s", distillation=distillation), "--output", tmp_path / "run"
    )
    assert code == 1
    assert "distillation needs a student as model.name, got 'teacher-s'" in output
    student = written(tmp_path, "student-t")
    assert command("train", student, "--output", tmp_path / "student")[0] == 0
    weights = tmp_path / "student" / "student-t.safetensors"
    feature = ("--set", "distillation.weights={feature: 1}")
    code, output = command("distill", student, "--teacher", weights, *feature, "--output", tmp_path / "run")
    assert code == 1
    assert "holds a student, expected a teacher" in output


def test_a_run_augments_the_same_on_the_device(tmp_path: Path) -> None:
    """torch's batches and OpenCV's samples are a few grey levels apart at most: the losses hardly.

    At a rate of almost nothing: a network that learns from them makes more of the difference with every step.
    """
    losses = {}
    for place in ("cpu", "device"):
        config = written(tmp_path, "student-t", precision="fp32", batch=4)
        changes = ("--set", f"data.augment_on={place}", "--set", "optimizer.new_lr=1e-9")
        code, output = command("train", config, "--output", tmp_path / place, *changes)
        assert code == 0, output
        losses[place] = [entry["losses"]["total"] for entry in entries(tmp_path / place)]
    assert losses["device"] == pytest.approx(losses["cpu"], rel=0.002)
    assert losses["device"] != losses["cpu"]


def write_recordings(root: Path, *names: str) -> None:
    """Recordings of twelve frames of noise, as in RGBT234."""
    rng = np.random.default_rng(0)
    for name in names:
        folder = root / name
        boxes = []
        for frame in range(12):
            pixels = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
            for kind in ("visible", "infrared"):
                (folder / kind).mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(folder / kind / f"{frame:04d}.jpg"), pixels)
            boxes.append(f"{30 + frame},{40},{20},{24}")
        for kind in ("init", "visible", "infrared"):
            (folder / f"{kind}.txt").write_text("\n".join(boxes) + "\n", encoding="utf-8")


def test_every_kind_of_source_can_be_trained_on(tmp_path: Path) -> None:
    """A set in a public convention, a cache of it and shards of it, made by their commands."""
    write_recordings(tmp_path / "set", "walker", "rider")
    write_recordings(tmp_path / "held out", "jumper")
    (tmp_path / "set" / "walker" / "infrared" / "0012.jpg").touch()
    note = "walker: cut to 12 frames: 12 in "
    root = str(tmp_path / "set")
    for name, *options in (("prepare", "--max-side", "64"), ("shard",)):
        code, output = command(name, "rgbt234", root, "--output", tmp_path / name, *options)
        assert (code, note in output) == (0, True), output
        assert re.search(rf"wrote [12] .*{name}, kept 0", output)
        code, output = command(name, "rgbt234", root, "--output", tmp_path / name, *options)
        assert (code, re.search(rf"wrote 0 .*{name}, kept [12]", output) is not None) == (0, True), output
    sources = [
        {"kind": "recordings", "set": "rgbt234", "root": root, "share": 1},
        {"kind": "cache", "root": str(tmp_path / "prepare"), "share": 1},
        {"kind": "shards", "root": str(tmp_path / "shard"), "share": 1},
    ]
    validation = {"set": "rgbt234", "root": str(tmp_path / "held out"), "frames": 3, "scenes": 1}
    config = written(tmp_path, "student-t", data={"sources": sources, "workers": 1}, batch=4, validation=validation)
    code, output = command("train", config, "--output", tmp_path / "run")
    assert (code, output.count(note)) == (0, 1), output
    assert entries(tmp_path / "run")[-1]["validation"].keys() == {
        "success",
        "precision",
        "overlap",
        "one_step",
        *(f"{figure}_{kind}" for figure in ("success", "one_step") for kind in ("recorded", "generated")),
    }
    for source in sources:
        config = written(tmp_path, "student-t", data={"sources": [source]}, validation={**validation, "root": root})
        code, output = command("train", config, "--output", tmp_path / "leaking")
        assert code == 1
        assert "2 of 2 sequences to validate on are trained on (rider, walker): give sources and" in output
    assert not (tmp_path / "leaking").exists()


class Numbers(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return {"number": torch.tensor(number)}


def test_epochs_go_through_all_samples_in_a_new_order_each_time() -> None:
    epochs = Epochs(Numbers(), 7, seed=3)
    seen = [int(epochs[number]["number"]) for number in range(21)]
    parts = [seen[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(part) == list(range(7)) for part in parts)
    assert len({tuple(part) for part in parts}) == 3
    again = Epochs(Numbers(), 7, seed=3)
    assert [int(again[number]["number"]) for number in (20, 3, 11)] == [seen[20], seen[3], seen[11]]
    assert [int(Epochs(Numbers(), 7, seed=4)[number]["number"]) for number in range(21)] != seen


def test_a_student_is_narrowed_and_trained_on(teacher: Path, tmp_path: Path) -> None:
    wide = written(tmp_path, "student-s")
    assert command("train", wide, "--output", tmp_path / "wide")[0] == 0
    source, start = tmp_path / "wide" / "student-s.safetensors", tmp_path / "start.safetensors"
    small = {"width": 32, "depth": 2, "heads": 2, "head_channels": 8}
    config = written(tmp_path, "student-t", model={"name": "student-t", "overrides": small})
    code, output = command("narrow", config, source, "--output", start, "--samples", "5")
    assert code == 0, output
    network, name = load_model(start)
    assert isinstance(network, Student)
    assert (name, network.config.width, network.config.search_size) == ("student-t", 32, 224)
    assert command("train", config, "--set", f"model.start={start}", "--output", tmp_path / "run")[0] == 0

    code, output = command("narrow", config, teacher, "--output", tmp_path / "none.safetensors")
    assert (code, "teacher-s.safetensors holds 'teacher-s', a teacher: only students" in " ".join(output.split())) == (
        1,
        True,
    )
    code, output = command("narrow", written(tmp_path, "teacher-s"), source, "--output", tmp_path / "none.safetensors")
    assert (code, "only students can be narrowed, got 'teacher-s'" in " ".join(output.split())) == (1, True)
    code, output = command("narrow", wide, start, "--output", tmp_path / "none.safetensors")
    assert (code, "narrowing cannot add width: the source has 32, got 48" in " ".join(output.split())) == (1, True)
    assert not (tmp_path / "none.safetensors").exists()


def test_runs_that_left_one_start_are_averaged(tmp_path: Path) -> None:
    """With the start or without: each tensor is the mean, of BatchNorms' statistics too; and nothing else is taken."""
    folders = [tmp_path / "low", tmp_path / "high"]
    config = written(tmp_path, "student-t")
    for folder, rate in zip(folders, ("1e-4", "1e-2"), strict=True):
        assert command("train", config, "--set", f"optimizer.new_lr={rate}", "--output", folder)[0] == 0
    low, high = (folder / "student-t.safetensors" for folder in folders)
    start = load_config(str(folders[0] / "config.json"))
    parts = [load_model(low)[0].state_dict(), load_model(high)[0].state_dict()]
    torch.manual_seed(start.seed)  # as a run does before it builds its network
    begun = run.build_started(start)[0].state_dict()
    for given, states in (([], parts), (["--start", folders[0] / "config.json"], [*parts, begun])):
        code, output = command("average", low, high, *given, "--output", tmp_path / "mean.safetensors")
        assert code == 0, output
        mean, name = load_model(tmp_path / "mean.safetensors")
        assert name == "student-t"
        for key, value in mean.state_dict().items():
            if value.is_floating_point():
                expected = sum(state[key].double() for state in states) / len(states)
                assert torch.allclose(value.double(), expected, atol=1e-6), key
    assert not torch.equal(parts[0]["box_head.conv1_ctr.1.running_mean"], parts[1]["box_head.conv1_ctr.1.running_mean"])

    code, output = command("average", low, "--output", tmp_path / "none.safetensors")
    assert (code, "a mean needs two networks at least, got 1" in " ".join(output.split())) == (1, True)
    small = written(tmp_path, "student-s", model={"name": "student-s", "overrides": TINY | {"depth": 1}})
    assert command("train", small, "--output", tmp_path / "other")[0] == 0
    other = tmp_path / "other" / "student-s.safetensors"
    code, output = command("average", low, other, "--output", tmp_path / "none.safetensors")
    assert (code, "are different networks" in output) == (1, True)
    assert not (tmp_path / "none.safetensors").exists()


def test_what_was_exported_starts_and_teaches(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model folder stands for the weights that it was made from, wherever these can be given."""
    monkeypatch.setattr(run, "MEASURED", 4)
    folder = tmp_path / "teacher"
    assert command("export", teacher, "--output", folder, "--precision", "fp32")[0] == 0
    once: dict[str, Any] = {"steps": 1, "precision": "fp32", "schedule": {"warmup": 0}}
    usual = {"template_factor": 2.0, "widening": 1.0}  # crops, as OSTrack's
    losses = {}
    for kind, start in {"file": teacher, "folder": folder}.items():
        config = written(
            tmp_path, "teacher-s", **once, model={"name": "teacher-s", "overrides": TINY | usual, "start": str(start)}
        )
        code, output = command("train", config, "--output", tmp_path / kind)
        assert code == 0, output
        losses[kind] = entries(tmp_path / kind)[0]["losses"]
    # BatchNorms with other scales, but the same function: what differs is what a batch of two does to it.
    assert losses["folder"] == pytest.approx(losses["file"], rel=0.1)

    taught = {}
    for kind, source in {"file": teacher, "folder": folder}.items():
        distillation = {"teacher": str(source), "weights": {"feature": 1.0}}
        config = written(tmp_path, "student-t", **once, distillation=distillation)
        code, output = command("distill", config, "--output", tmp_path / f"taught by {kind}")
        assert code == 0, output
        taught[kind] = entries(tmp_path / f"taught by {kind}")[0]["losses"]["feature"]
    assert taught["folder"] == pytest.approx(taught["file"], rel=1e-3)


def test_a_run_starts_from_a_model_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "MEASURED", 4)
    config = load_config(str(written(tmp_path, "student-t", model={"name": "student-t", "start": "student-t"})))
    started, pretrained = run.build_started(config)
    assert pretrained == {name for name, _ in started.named_parameters()}
    shipped = read_model(open_model("student-t").directory)
    crops = training_crops(config.data, shipped.config, count=2, seed=1)[0]
    with torch.no_grad():
        found, expected = started.eval()(*crops), shipped(*crops)
    assert torch.allclose(found.score_logits, expected.score_logits, atol=1e-3)
    assert torch.allclose(found.box_map, expected.box_map, atol=1e-4)
    narrower = {"width": 128, "heads": 2, "head_channels": 48}
    small = written(tmp_path, "student-t", model={"name": "student-t", "overrides": narrower | {"depth": 6}})
    code, output = command(
        "narrow", small, "student-t", "--output", tmp_path / "narrowed.safetensors", "--samples", "4"
    )
    assert code == 0, output
    assert load_model(tmp_path / "narrowed.safetensors")[0].config.width == 128
