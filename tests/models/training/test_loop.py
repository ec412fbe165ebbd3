"""The training loop: exact resumption, what it reports and writes, averaged weights, and that it learns."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import Dataset

from duotrack.errors import CheckpointError, SourceError, TrainingError
from duotrack.nets.student import Student, StudentConfig
from duotrack.training.config import RunConfig
from duotrack.training.distributed import Processes
from duotrack.training.loop import Part, Trained, train
from duotrack.training.losses import LossWeights
from duotrack.training.objective import Batch, Objective
from duotrack.training.report import Report

ALONE = Processes(0, 1, torch.device("cpu"))
MakeStudent = Callable[..., Student]
MakeRun = Callable[..., RunConfig]
MakeSamples = Callable[..., Dataset[Batch]]


class Listener:
    """Keeps what a run reports."""

    def __init__(self) -> None:
        self.entries: list[Report] = []
        self.starts: list[int] = []
        self.closed = False

    def __call__(self, start: int) -> list[Any]:
        self.starts.append(start)
        return [self]

    def report(self, entry: Report) -> None:
        self.entries.append(entry)

    def close(self) -> None:
        self.closed = True


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def stored(output: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(output / "checkpoint.pt", weights_only=True)
    return checkpoint


def run(
    student: Student, samples: Dataset[Batch], config: RunConfig, output: Path, **options: Any
) -> tuple[Trained, Listener]:
    listener = Listener()
    objective = Objective(student, LossWeights())
    options = {"pretrained": set(), "reporters": listener} | options
    return train(objective, dataset=samples, config=config, output=output, processes=ALONE, **options), listener


@pytest.mark.parametrize("stops", [[3], [1, 2, 5], [4]])
def test_a_resumed_run_is_bitwise_the_unbroken_one(
    make_student: MakeStudent, bright_squares: MakeSamples, short_run: MakeRun, tmp_path: Path, stops: list[int]
) -> None:
    unbroken, expected = run(make_student(0), bright_squares(), short_run(), tmp_path / "unbroken")
    entries: list[Report] = []
    for stop in stops:
        entries += run(make_student(0), bright_squares(), short_run(), tmp_path / "broken", stop_after=stop)[1].entries
        assert stored(tmp_path / "broken")["step"] == stop
    resumed, last = run(make_student(0), bright_squares(), short_run(), tmp_path / "broken")
    assert last.starts == stops[-1:]
    assert_same(weights(resumed.model), weights(unbroken.model))
    assert_same(stored(tmp_path / "broken")["objective"], stored(tmp_path / "unbroken")["objective"])

    def curves(reports: list[Report]) -> list[tuple[object, ...]]:
        return [(entry.step, entry.losses, entry.learning_rate, entry.gradient_norm) for entry in reports]

    assert curves(entries + last.entries) == curves(expected.entries)
    assert [entry.step for entry in expected.entries] == [1, 2, 3, 4, 5, 6]


def tiny_run(folder: Path) -> Path:
    """A config file of a run of 30 steps on generated scenes."""
    config = {
        "model": {"name": "student-t", "overrides": {"width": 48, "depth": 2, "heads": 3, "head_channels": 16}},
        "data": {"sources": [{"kind": "synthetic"}], "workers": 1},
        "steps": 30,
        "batch": 2,
        "log_every": 1,
        "save_every": 3,
        "schedule": {"warmup": 2},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def started(config: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "duotrack", "train", str(config), "--output", str(output)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def logged(output: Path) -> dict[int, dict[str, float]]:
    path = output / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {entry["step"]: entry["losses"] for entry in map(json.loads, lines)}


def wait_for_steps(process: subprocess.Popen[bytes], output: Path, steps: int) -> None:
    deadline = time.monotonic() + 120
    while len(logged(output)) < steps:
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline, "the run takes too long"
        time.sleep(0.05)


def test_a_run_killed_twice_has_the_loss_sequence_of_an_unbroken_one(tmp_path: Path) -> None:
    """``kill -9`` in the middle, at a step without a checkpoint; the same command again, from a new process."""
    config = tiny_run(tmp_path)
    unbroken = started(config, tmp_path / "unbroken")
    assert unbroken.wait(180) == 0
    for steps in (8, 17):
        process = started(config, tmp_path / "broken")
        wait_for_steps(process, tmp_path / "broken", steps)
        process.kill()
        process.wait(10)
    last = started(config, tmp_path / "broken")
    assert last.wait(180) == 0
    losses = logged(tmp_path / "broken")
    assert list(losses) == list(range(1, 31))
    assert losses == logged(tmp_path / "unbroken")
    for name in ("objective", "averaged"):
        assert_same(stored(tmp_path / "broken")[name], stored(tmp_path / "unbroken")[name])


@pytest.mark.parametrize("request_to_stop", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_saves_first(tmp_path: Path, request_to_stop: signal.Signals) -> None:
    """As by Ctrl-C, or by a service manager: the loader's workers get the signal as well."""
    config = tiny_run(tmp_path)
    process = started(config, tmp_path / "run")
    wait_for_steps(process, tmp_path / "run", 4)
    os.killpg(process.pid, request_to_stop)
    assert process.wait(60) == 130
    steps = stored(tmp_path / "run")["step"]
    assert steps == max(logged(tmp_path / "run"))
    assert not (tmp_path / "run" / "student-t.safetensors").exists()


def test_a_run_with_another_config_is_not_continued(
    make_student: MakeStudent, bright_squares: MakeSamples, short_run: MakeRun, tmp_path: Path
) -> None:
    run(make_student(0), bright_squares(), short_run(), tmp_path, stop_after=2)
    changed = short_run(batch=4, optimizer={"new_lr": 1e-3})
    with pytest.raises(CheckpointError, match=r"batch: 2 → 4; optimizer.new_lr: 0.0006 → 0.001"):
        run(make_student(0), bright_squares(), changed, tmp_path)
    run(make_student(0), bright_squares(), short_run(log_every=5, save_every=1), tmp_path)
    assert stored(tmp_path)["step"] == 6


@pytest.mark.parametrize("steps", [3, 4, 9])
def test_a_run_may_become_shorter_or_longer(
    make_student: MakeStudent, bright_squares: MakeSamples, short_run: MakeRun, tmp_path: Path, steps: int
) -> None:
    """From there on its learning rate is that of a run of the new length, and the log says so."""
    run(make_student(0), bright_squares(), short_run(), tmp_path, stop_after=3)
    trained, listener = run(make_student(0), bright_squares(), short_run(steps=steps), tmp_path)
    assert trained.step == stored(tmp_path)["step"] == steps
    length, *rest = listener.entries
    assert (length.step, length.steps) == (3, steps)
    _, whole = run(make_student(0), bright_squares(), short_run(steps=steps), tmp_path / "whole")
    rates = {entry.step: entry.learning_rate for entry in whole.entries}
    assert {entry.step: entry.learning_rate for entry in rest} == {step: rates[step] for step in range(4, steps + 1)}
    again, silent = run(make_student(0), bright_squares(), short_run(steps=steps), tmp_path)
    assert silent.entries == []
    assert_same(weights(again.model), weights(trained.model))


def test_a_run_is_not_made_shorter_than_it_is(
    make_student: MakeStudent, bright_squares: MakeSamples, short_run: MakeRun, tmp_path: Path
) -> None:
    run(make_student(0), bright_squares(), short_run(), tmp_path, stop_after=4)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(CheckpointError, match=r"has done 4 steps, of 3 that it is to have: set steps to 4 or more"):
        run(make_student(0), bright_squares(), short_run(steps=3), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_damaged_checkpoint_is_named(
    make_student: MakeStudent, bright_squares: MakeSamples, short_run: MakeRun, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot read checkpoint .*checkpoint\.pt"):
        run(make_student(0), bright_squares(), short_run(), tmp_path)


def test_a_finished_run_is_not_run_again(
    make_student: MakeStudent, bright_squares: MakeSamples, short_run: MakeRun, tmp_path: Path
) -> None:
    first, _ = run(make_student(0), bright_squares(), short_run(), tmp_path)
    again, listener = run(make_student(5), bright_squares(), short_run(), tmp_path)
    assert listener.entries == []
    assert again.step == 6
    assert_same(weights(again.model), weights(first.model))


def test_a_failed_write_leaves_the_last_checkpoint(
    make_student: MakeStudent,
    bright_squares: MakeSamples,
    short_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a full disk: half of the file is there when the write fails. The run goes on from step 2 as if unbroken."""
    save = torch.save

    def fail_at_step_4(state: dict[str, Any], path: Path) -> None:
        save(state, path)
        if state["step"] == 4:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            raise OSError(28, "No space left on device")

    unbroken, _ = run(make_student(0), bright_squares(), short_run(), tmp_path / "unbroken")
    monkeypatch.setattr(torch, "save", fail_at_step_4)
    with pytest.raises(CheckpointError, match="No space left"):
        run(make_student(0), bright_squares(), short_run(), tmp_path / "broken")
    monkeypatch.setattr(torch, "save", save)
    assert stored(tmp_path / "broken")["step"] == 2
    resumed, _ = run(make_student(0), bright_squares(), short_run(), tmp_path / "broken")
    assert_same(weights(resumed.model), weights(unbroken.model))


def test_a_loss_that_is_not_finite_ends_the_run_before_it_is_saved(
    make_student: MakeStudent, bright_squares: MakeSamples, short_run: MakeRun, tmp_path: Path
) -> None:
    class Broken(Dataset[Batch]):
        def __init__(self, samples: Dataset[Batch]) -> None:
            self._samples = samples

        def __getitem__(self, number: int) -> Batch:
            sample = self._samples[number]
            return (
                sample
                if number < 6
                else sample | {"search_box": torch.full((4,), torch.nan), "present": torch.ones(())}
            )

    for log_every in (1, 100):
        output = tmp_path / str(log_every)
        with pytest.raises(TrainingError, match=r"not finite around step [456]"):
            run(make_student(0), Broken(bright_squares()), short_run(log_every=log_every), output)
        assert stored(output)["step"] == 2
        assert all(bool(tensor.isfinite().all()) for tensor in stored(output)["averaged"].values())


def unreadable() -> None:
    raise SourceError("cannot read image 4.jpg")


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("fail", "error", "message"),
    [
        (unreadable, SourceError, r"^cannot read image 4\.jpg$"),
        (killed, TrainingError, r"^DataLoader worker .*; fewer data\.workers take less$"),
    ],
)
def test_a_worker_that_fails_ends_the_run_and_the_other_workers(
    make_student: MakeStudent,
    bright_squares: MakeSamples,
    short_run: MakeRun,
    tmp_path: Path,
    fail: Callable[[], None],
    error: type[Exception],
    message: str,
) -> None:
    """One that is left ignores SIGTERM, and the interpreter would wait for it at its end."""

    class Failing(Dataset[Batch]):
        def __getitem__(self, number: int) -> Batch:
            if number == 4:
                fail()
            return bright_squares()[number]

    config = short_run(data={"sources": [{"kind": "synthetic"}], "workers": 2})
    listener = Listener()
    with pytest.raises(error, match=message) as raised:
        run(make_student(0), Failing(), config, tmp_path, reporters=listener)
    assert multiprocessing.active_children() == [], raised.traceback
    assert listener.closed


def test_the_averaged_weights_follow_the_formula(
    make_student: MakeStudent, bright_squares: MakeSamples, short_run: MakeRun, tmp_path: Path
) -> None:
    """a ← d·a + (1 − d)·w with d = min(0.2, (step + 1) / (step + 10)): 0.1 in the first step, 2/11 in the second, …"""
    start = weights(make_student(0))
    config = short_run(steps=4, save_every=1, average_decay=0.2)
    expected = start
    for step, decay in enumerate([1 / 10, 2 / 11, 0.2, 0.2], 1):
        trained, _ = run(make_student(0), bright_squares(), config, tmp_path, stop_after=step)
        current = {name.removeprefix("model."): tensor for name, tensor in stored(tmp_path)["objective"].items()}
        expected = {
            name: decay * expected[name] + (1 - decay) * current[name] if tensor.is_floating_point() else current[name]
            for name, tensor in start.items()
        }
        for name, tensor in weights(trained.model).items():
            assert torch.allclose(tensor, expected[name], atol=1e-6), name
    assert not trained.model.training
    assert not any(parameter.requires_grad for parameter in trained.model.parameters())


def test_pretrained_parameters_learn_at_their_own_rate(
    make_student: MakeStudent, bright_squares: MakeSamples, short_run: MakeRun, tmp_path: Path
) -> None:
    """With a rate of zero they stay, bit for bit, while the others move."""
    student = make_student(0)
    before = weights(student)
    pretrained = {name for name, _ in student.named_parameters() if name.startswith("backbone.blocks")}
    config = short_run(steps=3, optimizer={"pretrained_lr": 0.0})
    run(student, bright_squares(), config, tmp_path, pretrained=pretrained)
    for name, parameter in student.named_parameters():
        if name in pretrained:
            assert torch.equal(parameter, before[name]), name
    assert not torch.equal(student.backbone.patch_embed.proj.weight, before["backbone.patch_embed.proj.weight"])
    assert not torch.equal(student.get_parameter("box_head.conv5_ctr.bias"), before["box_head.conv5_ctr.bias"])


def test_samples_come_in_order_and_once(
    make_student: MakeStudent, bright_squares: MakeSamples, short_run: MakeRun, tmp_path: Path
) -> None:
    """What a run has seen is known from its step alone; that is what makes resumption exact."""
    seen: list[int] = []

    class Recorded(Dataset[Batch]):
        def __getitem__(self, number: int) -> Batch:
            seen.append(number)
            return bright_squares()[number]

    run(make_student(0), Recorded(), short_run(), tmp_path, stop_after=2)
    run(make_student(0), Recorded(), short_run(), tmp_path)
    assert seen == list(range(12))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_parts_of_all_processes_are_the_batches(count: int) -> None:
    parts = [list(Part(3, 6, 8, Processes(rank, count, torch.device("cpu")))) for rank in range(count)]
    batches = [[number for part in parts for number in part[step]] for step in range(3)]
    assert batches == [list(range(24, 32)), list(range(32, 40)), list(range(40, 48))]


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(TrainingError, match="a batch of 8 cannot be shared evenly among 3 processes"):
        Part(0, 1, 8, Processes(0, 3, torch.device("cpu")))


def test_validation_is_due_at_its_steps_and_at_the_end(
    make_student: MakeStudent, bright_squares: MakeSamples, short_run: MakeRun, tmp_path: Path
) -> None:
    config = short_run(validation={"scenes": 1, "every": 4})
    asked: list[nn.Module] = []

    def validate(model: nn.Module) -> dict[str, float]:
        asked.append(model)
        return {"success": len(asked) / 10}

    trained, listener = run(make_student(0), bright_squares(), config, tmp_path, validate=validate)
    found = [(entry.step, entry.validation) for entry in listener.entries if entry.validation]
    assert found == [(4, {"success": 0.1}), (6, {"success": 0.2})]
    assert all(model is trained.model for model in asked)
    assert trained.validation == {"success": 0.2}


def test_a_kill_during_validation_loses_nothing(
    make_student: MakeStudent, bright_squares: MakeSamples, short_run: MakeRun, tmp_path: Path
) -> None:
    """The step is on disk before it is validated, and the validation is made up for."""
    config = short_run(validation={"scenes": 1, "every": 3}, save_every=100)

    def killed(_: nn.Module) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(make_student(0), bright_squares(), config, tmp_path, validate=killed)
    assert stored(tmp_path)["step"] == 3
    trained, listener = run(make_student(0), bright_squares(), config, tmp_path, validate=lambda _: {"success": 0.5})
    assert [(entry.step, bool(entry.validation)) for entry in listener.entries] == [
        (3, True),
        (4, False),
        (5, False),
        (6, False),
        (6, True),
    ]
    again, silent = run(make_student(0), bright_squares(), config, tmp_path, validate=killed)
    assert (silent.entries, again.validation, trained.validation) == ([], {"success": 0.5}, {"success": 0.5})


def test_it_learns_one_batch_by_heart(bright_squares: MakeSamples, short_run: MakeRun, tmp_path: Path) -> None:
    torch.manual_seed(1)  # with others, eighty steps may be few
    student = Student(StudentConfig(width=48, depth=2, heads=3, head_channels=16))
    config = short_run(
        steps=80, batch=4, save_every=100, average_decay=0.5, schedule={"warmup": 4}, optimizer={"new_lr": 3e-3}
    )
    _, listener = run(student, bright_squares(distinct=4), config, tmp_path)
    first, last = listener.entries[0].losses, listener.entries[-1].losses
    assert last["total"] < 0.6 * first["total"]
    for name in ("focal", "giou", "l1", "presence"):
        assert last[name] < 0.7 * first[name], name
