"""The command ``duotrack export``, from weights to what a user can open, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from duotrack.cli import app
from duotrack.engine.models import open_model
from duotrack.nets.models import save_model
from duotrack.nets.student import Student

if TYPE_CHECKING:
    from conftest import ExportedModel


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """One aligned pair of stills, of the layout that training reads."""
    rng = np.random.default_rng(1)
    for folder, shape in (("visible", (60, 80, 3)), ("infrared", (60, 80))):
        path = tmp_path / "data" / "rgbt-pairs" / "any" / folder / "0001.jpg"
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), rng.integers(0, 256, shape, dtype=np.uint8))
    return tmp_path / "data"


def test_weights_become_an_int8_folder(make_student: Callable[..., Student], images: Path, tmp_path: Path) -> None:
    """In one step; the file says which network it holds, and the name can be changed."""
    save_model(make_student(3, depth=1), tmp_path / "weights.safetensors", "trained")
    options = ("--precision", "int8", "--calibrate", images, "--samples", "2", "--name", "small")
    done = export(tmp_path / "weights.safetensors", "--output", tmp_path / "small", *options)
    assert done.exit_code == 0, done.output
    assert "agrees with the recorded run" in done.output
    folder = open_model(tmp_path / "small")
    assert (folder.spec.name, folder.arithmetic) == ("small", "int8")
    record = json.loads((tmp_path / "small" / "model.json").read_text(encoding="utf-8"))
    assert record["network"]["depth"] == 1
    assert sorted(path.name for path in folder.directory.iterdir()) == [
        "model.json",
        "search.onnx",
        "template.onnx",
        "weights.bin",
    ]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--precision", "int4"), 2, "expected one of fp32, fp16, bf16, int8, got 'int4'"),
        (("--target", "coreml"), 2, "expected one of onnx, tensorrt, got 'coreml'"),
        (("--precision", "int8"), 1, "--calibrate DATA"),
        (("--precision", "int8", "--calibrate", "nowhere"), 1, "nowhere has nothing to calibrate on"),
        ((), 1, "is exported already"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    exported: ExportedModel, tmp_path: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    done = export(exported.directory, "--output", tmp_path / "out", *options)
    assert done.exit_code == code
    assert message in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_weights_of_another_project_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").write_bytes(b"not safetensors")
    done = export(tmp_path / "other.safetensors", "--output", tmp_path / "out")
    assert done.exit_code == 1
    assert "cannot read weights" in done.output
