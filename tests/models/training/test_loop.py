"""The training loop: exact resumption, the schedule, averaged weights, and that it learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from duotrack.data.pairs import Batchable
from duotrack.nets.student import Student, StudentConfig
from duotrack.training.loop import Progress, TrainingConfig, schedule, train

MakeStudent = Callable[..., Student]


class BrightSquares(Dataset[Batchable]):
    """A bright square somewhere in a dark search crop; every number has its own, or one of ``distinct``."""

    def __init__(self, distinct: int | None = None) -> None:
        self._distinct = distinct

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, number: int) -> Batchable:
        rng = np.random.default_rng(number if self._distinct is None else number % self._distinct)
        template, search = np.full((128, 128, 4), 40, np.uint8), np.full((256, 256, 4), 40, np.uint8)
        template[32:96, 32:96] = 220
        x, y = (int(value) for value in rng.integers(0, 192, 2))
        present = bool(rng.random() < 0.8)
        if present:
            search[y : y + 64, x : x + 64] = 220
        return {
            "template": torch.from_numpy(template),
            "template_present": torch.ones(2),
            "template_box": torch.full((4,), 0.5),
            "search": torch.from_numpy(search),
            "search_present": torch.ones(2),
            "search_box": torch.tensor([(x + 32) / 256, (y + 32) / 256, 0.25, 0.25]),
            "present": torch.tensor(float(present)),
        }


SHORT = TrainingConfig(steps=6, batch=2, warmup=2, log_every=1, save_every=2)


def weights(student: Student) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in student.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def stored(output: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(output / "checkpoint.pt", weights_only=True)
    return checkpoint


def run(student: Student, config: TrainingConfig, output: Path, **options: Any) -> tuple[Student, list[Progress]]:
    reports: list[Progress] = []
    averaged = train(student, set(), BrightSquares(), config, output, workers=0, report=reports.append, **options)
    return averaged, reports


@pytest.mark.parametrize("stops", [[3], [1, 2, 5], [4]])
def test_a_resumed_run_is_bitwise_the_unbroken_one(make_student: MakeStudent, tmp_path: Path, stops: list[int]) -> None:
    unbroken, expected = run(make_student(0), SHORT, tmp_path / "unbroken")
    reports: list[Progress] = []
    for stop in stops:
        reports += run(make_student(0), SHORT, tmp_path / "broken", stop_after=stop)[1]
        assert stored(tmp_path / "broken")["step"] == stop
    resumed, last = run(make_student(0), SHORT, tmp_path / "broken")
    assert_same(weights(resumed), weights(unbroken))
    assert_same(stored(tmp_path / "broken")["student"], stored(tmp_path / "unbroken")["student"])
    losses = [(report.step, report.losses, report.learning_rate) for report in reports + last]
    assert losses == [(report.step, report.losses, report.learning_rate) for report in expected]
    assert [report.step for report in expected] == [1, 2, 3, 4, 5, 6]


def test_a_run_stopped_between_reports_reports_true_means(make_student: MakeStudent, tmp_path: Path) -> None:
    config = TrainingConfig(steps=4, batch=2, warmup=2, log_every=4, save_every=2)
    _, (single,) = run(make_student(0), config, tmp_path / "unbroken")
    run(make_student(0), config, tmp_path / "broken", stop_after=3)
    _, (after,) = run(make_student(0), config, tmp_path / "broken")
    # A mean over only the steps since the resumption would do as well; half of it would not.
    assert after.losses["total"] == pytest.approx(single.losses["total"], rel=0.5)


def test_a_finished_run_is_not_run_again(make_student: MakeStudent, tmp_path: Path) -> None:
    averaged, _ = run(make_student(0), SHORT, tmp_path)
    again, reports = run(make_student(5), SHORT, tmp_path)
    assert reports == []
    assert_same(weights(again), weights(averaged))


def test_a_failed_write_leaves_the_last_checkpoint(
    make_student: MakeStudent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: half of the file is there when the write fails. The run goes on from step 2 as if unbroken."""
    save = torch.save

    def fail_at_step_4(state: dict[str, Any], path: Path) -> None:
        save(state, path)
        if state["step"] == 4:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            raise OSError(28, "No space left on device")

    unbroken, _ = run(make_student(0), SHORT, tmp_path / "unbroken")
    monkeypatch.setattr(torch, "save", fail_at_step_4)
    with pytest.raises(OSError, match="No space left"):
        run(make_student(0), SHORT, tmp_path / "broken")
    monkeypatch.setattr(torch, "save", save)
    assert stored(tmp_path / "broken")["step"] == 2
    resumed, _ = run(make_student(0), SHORT, tmp_path / "broken")
    assert_same(weights(resumed), weights(unbroken))


def test_the_averaged_weights_follow_the_formula(make_student: MakeStudent, tmp_path: Path) -> None:
    """a ← d·a + (1 − d)·w with d = min(0.3, (step + 1) / (step + 10)): 0.1 in the first step, 2/11 in the second, …"""
    start = weights(make_student(0))
    config = TrainingConfig(steps=4, batch=2, warmup=2, log_every=1, save_every=1, average_decay=0.2)
    expected = start
    for step, decay in enumerate([1 / 10, 2 / 11, 0.2, 0.2], 1):
        averaged, _ = run(make_student(0), config, tmp_path, stop_after=step)
        current = stored(tmp_path)["student"]
        expected = {
            name: decay * expected[name] + (1 - decay) * current[name] if tensor.is_floating_point() else current[name]
            for name, tensor in start.items()
        }
        for name, tensor in weights(averaged).items():
            assert torch.allclose(tensor, expected[name], atol=1e-6), name
    assert not averaged.training
    assert not any(parameter.requires_grad for parameter in averaged.parameters())


def test_the_schedule_by_hand() -> None:
    config = TrainingConfig(steps=1100, warmup=100)
    assert schedule(0, config) == pytest.approx(0.01)
    assert schedule(49, config) == pytest.approx(0.5)
    assert schedule(99, config) == pytest.approx(1.0)
    assert schedule(100, config) == pytest.approx(1.0)
    assert schedule(600, config) == pytest.approx(0.01 + 0.99 / 2)
    assert schedule(350, config) == pytest.approx(0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2)
    assert schedule(1100, config) == pytest.approx(0.01)
    assert schedule(5000, config) == pytest.approx(0.01)


def test_pretrained_parameters_learn_at_their_own_rate(make_student: MakeStudent, tmp_path: Path) -> None:
    """With a rate of zero they stay, bit for bit, while the others move."""
    student = make_student(0)
    before = weights(student)
    pretrained = {name for name, _ in student.named_parameters() if name.startswith("backbone.blocks")}
    config = TrainingConfig(steps=2, batch=2, warmup=1, pretrained_lr=0.0)
    train(student, pretrained, BrightSquares(), config, tmp_path, workers=0)
    for name, parameter in student.named_parameters():
        if name in pretrained:
            assert torch.equal(parameter, before[name]), name
    assert not torch.equal(student.backbone.patch_embed.proj.weight, before["backbone.patch_embed.proj.weight"])
    assert not torch.equal(student.get_parameter("box_head.conv5_ctr.bias"), before["box_head.conv5_ctr.bias"])


def test_samples_come_in_order_and_once(make_student: MakeStudent, tmp_path: Path) -> None:
    """What a run has seen is known from its step alone; that is what makes resumption exact."""
    seen: list[int] = []

    class Recorded(BrightSquares):
        def __getitem__(self, number: int) -> Batchable:
            seen.append(number)
            return super().__getitem__(number)

    train(make_student(0), set(), Recorded(), SHORT, tmp_path, workers=0, stop_after=2)
    train(make_student(0), set(), Recorded(), SHORT, tmp_path, workers=0)
    assert seen == list(range(12))


def test_it_learns_one_batch_by_heart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = Student(StudentConfig(width=48, depth=2, heads=3, head_channels=16))
    config = TrainingConfig(steps=80, batch=4, warmup=4, new_lr=3e-3, log_every=1, save_every=100, average_decay=0.5)
    reports: list[Progress] = []
    train(student, set(), BrightSquares(distinct=4), config, tmp_path, workers=0, report=reports.append)
    first, last = reports[0].losses, reports[-1].losses
    assert last["total"] < 0.6 * first["total"]
    for name in ("focal", "giou", "l1", "presence"):
        assert last[name] < 0.7 * first[name], name
