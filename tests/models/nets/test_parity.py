"""Comparing a network with recorded outputs: the figures by hand, and records that cannot be compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from duotrack.errors import ModelError
from duotrack.nets.parity import OUTPUTS, largest_differences, read_record, run_reference
from duotrack.nets.student import Student
from duotrack.nets.teacher import Teacher, TeacherConfig

SIZES = {"template": 32, "search": 64}


@pytest.fixture(scope="module")
def student(make_student: Callable[..., Student]) -> Student:
    return make_student(0, template_size=32, search_size=64, template_attention="joint")


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher(TeacherConfig(width=48, depth=2, heads=3, head_channels=16, template_size=32, search_size=64))


def images(*suffixes: str, count: int = 3) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(0)
    return {
        part + suffix: rng.normal(size=(count, 3, size, size)).astype(np.float32)
        for part, size in SIZES.items()
        for suffix in suffixes
    }


def test_the_outputs_fit_together(student: Student, teacher: Teacher) -> None:
    """The best box is that of the best cell, from its offset and size: (column + x) / G, (row + y) / G, w, h."""
    for model, inputs, streams in ((student, images(""), 1), (teacher, images("_rgb", "_thermal"), 2)):
        outputs = run_reference(model, inputs)
        assert set(outputs) == set(OUTPUTS)
        assert outputs["tokens"].shape == (3, streams * (4 + 16), 48)
        for index in range(3):
            row, column = divmod(int(outputs["score_map"][index, 0].argmax()), 4)
            offset, size = outputs["offset_map"][index, :, row, column], outputs["size_map"][index, :, row, column]
            box = [(column + offset[0]) / 4, (row + offset[1]) / 4, *size]
            assert outputs["pred_boxes"][index, 0] == pytest.approx(box, abs=1e-5)


def test_the_images_of_both_streams_matter(teacher: Teacher) -> None:
    """Thermal channels may differ in the public code: a change of one alone changes the tokens."""
    inputs = images("_rgb", "_thermal")
    before = run_reference(teacher, inputs)["tokens"]
    for name in inputs:
        changed = inputs[name].copy()
        changed[:, 2] += 1
        assert np.abs(run_reference(teacher, inputs | {name: changed})["tokens"] - before).max() > 1e-3, name


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("search", None, "no array 'search' among template"),
        ("search", np.zeros((3, 3, 64, 32), np.float32), r"search is \(3, 3, 64, 32\) .* expected \(3, 3, 64, 64\)"),
        ("search", np.zeros((2, 3, 64, 64), np.float32), r"search is \(2, .* expected \(3, 3, 64, 64\)"),
        ("template", np.zeros((0, 3, 32, 32), np.float32), r"template is \(0, .* expected \(B, 3, 32, 32\)"),
        ("template", np.zeros((3, 32, 32, 3), np.float32), r"template is \(3, 32, 32, 3\)"),
        ("template", np.zeros((3, 3, 32, 32), np.uint8), "of uint8, expected .* of float32"),
        ("template", np.float32(0), r"template is \(\)"),
    ],
)
def test_odd_inputs_are_refused(student: Student, name: str, array: NDArray[np.generic] | None, message: str) -> None:
    inputs = images("")
    if array is None:
        del inputs[name]
    else:
        inputs[name] = array
    with pytest.raises(ModelError, match=message):
        run_reference(student, inputs)


def test_differences_are_the_largest_ones() -> None:
    rng = np.random.default_rng(1)
    found = {name: rng.normal(size=(2, 3)).astype(np.float32) for name in OUTPUTS}
    recorded = {name: array.copy() for name, array in found.items()}
    recorded["tokens"][1, 2] -= 0.25
    recorded["tokens"][0, 0] += 0.125
    differences = largest_differences(found, recorded)
    assert differences["tokens"] == pytest.approx(0.25)
    assert all(difference == 0 for name, difference in differences.items() if name != "tokens")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (None, "no 'tokens'"),
        (np.zeros((3, 2), np.float32), r"tokens is \(3, 2\) .* expected \(2, 3\)"),
        (np.zeros((2, 3), np.int64), "of int64"),
        (np.full((2, 3), np.nan, np.float32), "tokens is not finite"),
    ],
)
def test_outputs_that_cannot_be_compared_are_refused(array: NDArray[np.generic] | None, message: str) -> None:
    found = {name: np.zeros((2, 3), np.float32) for name in OUTPUTS}
    recorded: dict[str, NDArray[np.generic]] = {**found, "tokens": array if array is not None else found["tokens"]}
    if array is None:
        del recorded["tokens"]
    with pytest.raises(ModelError, match=message):
        largest_differences(found, recorded)


def test_a_record_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", template=np.array([{}], object))
    (tmp_path / "text.npz").write_text("no arrays here")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "objects.npz").read_bytes()[:40])
    (tmp_path / "empty.npz").touch()
    for name in ("array.npy", "objects.npz", "text.npz", "cut.npz", "empty.npz", "absent.npz", "."):
        with pytest.raises(ModelError, match="cannot read the recorded run"):
            read_record(tmp_path / name)
