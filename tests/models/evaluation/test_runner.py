"""Runs over a benchmark: whole files in the toolkits' formats, nothing lost or done twice whatever interrupts them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from duotrack.errors import EvaluationError
from duotrack.evaluation.benchmark import BenchmarkChoice
from duotrack.evaluation.runner import Follower, Job, Setup, claim, run
from duotrack.evaluation.scoring import score_run
from duotrack.evaluation.trackers import TrackerChoice

if TYPE_CHECKING:
    from conftest import ExportedModel

NAMES = ("boat", "car", "dog", "man")
Miniature = Callable[..., Path]
STATIC = TrackerChoice("static")


def follower_of(root: Path, tracker: TrackerChoice = STATIC, **choice: int) -> Follower:
    return Follower(Setup(BenchmarkChoice("rgbt234", root, **choice), tracker))


@pytest.fixture(scope="session")
def student(exported: ExportedModel) -> TrackerChoice:
    """A tiny network: unlike OpenCV's MIL, it gives the same boxes whatever it tracked before."""
    return TrackerChoice("duotrack", model=str(exported.directory), provider="cpu", threads=1)


def jobs_of(follower: Follower, folder: Path) -> list[Job]:
    return [Job(folder, name) for name in follower.benchmark.sequences]


def command(student: TrackerChoice, root: Path, output: Path, *more: str) -> list[str]:
    tracker = ["--model", str(student.model), "--provider", "cpu", "--threads", "1"]
    benchmark = ["--benchmark", "rgbt234", "--root", str(root)]
    return [sys.executable, "-m", "duotrack", "eval", *benchmark, *tracker, "--output", str(output), *more]


def results_in(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in (folder / "results").iterdir()}


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened for a minute"
        time.sleep(0.01)


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """A process that heeds Ctrl-C, even if the tests run in the background of a shell, where it is ignored."""
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_run_writes_a_result_for_each_sequence_in_the_sets_own_format(tmp_path: Path, rgbt234: Miniature) -> None:
    follower = follower_of(rgbt234(*NAMES))
    told: list[str] = []
    outcome = run(
        follower, jobs_of(follower, tmp_path / "run"), report=lambda name, frames: told.extend([name] * frames)
    )
    assert (outcome.done, outcome.kept, outcome.failed) == (4, 0, {})
    assert sorted(set(told)) == sorted(NAMES)
    assert len(told) == 4 * 24
    lines = results_in(tmp_path / "run")["boat"].splitlines()
    assert len(lines) == 24
    x, y, w, h = follower.benchmark.truth("boat").boxes[0][0]
    corners = [x, y, x + w, y, x + w, y + h, x, y + h]
    assert [float(value) for value in lines[5].split()] == corners  # the static box, as eight columns


def test_the_score_of_a_run_is_that_of_its_result_files(tmp_path: Path, rgbt234: Miniature) -> None:
    """A static box on a moving square: the share of frames within 20 pixels and the overlaps follow from the truth."""
    follower = follower_of(rgbt234(*NAMES))
    folder = tmp_path / "run"
    record = claim(folder, follower, 1)
    run(follower, jobs_of(follower, folder))
    score = score_run(folder, follower.benchmark, "static", record)
    expected = []
    for name in NAMES:
        truth = follower.benchmark.truth(name).boxes[0]
        shift = truth[:, :2] - truth[0, :2]
        expected.append(np.mean(np.linalg.norm(shift, axis=1) <= 20))
    assert score.headline["MPR"] == pytest.approx(np.mean(expected))
    assert 0.1 < score.headline["MPR"] < 0.9
    assert score.speed is not None
    assert score.speed.pairs == 4 * 23
    assert score.speed.p50 == pytest.approx(score.speed.read_p50 + score.speed.track_p50, rel=0.5)
    assert score.loss_reports is None  # a static box never says that it is lost


def test_a_second_run_does_nothing_again(tmp_path: Path, rgbt234: Miniature) -> None:
    follower = follower_of(rgbt234(*NAMES))
    jobs = jobs_of(follower, tmp_path / "run")
    run(follower, jobs[:3])
    stamps = {job.sequence: job.result.stat().st_mtime_ns for job in jobs[:3]}
    outcome = run(follower, jobs)
    assert (outcome.done, outcome.kept) == (1, 3)
    assert {job.sequence: job.result.stat().st_mtime_ns for job in jobs[:3]} == stamps


def test_two_processes_find_what_one_finds(tmp_path: Path, rgbt234: Miniature, student: TrackerChoice) -> None:
    follower = follower_of(rgbt234(*NAMES), student)
    run(follower, jobs_of(follower, tmp_path / "one"))
    outcome = run(follower, jobs_of(follower, tmp_path / "two"), processes=2)
    assert outcome.done == 4
    assert results_in(tmp_path / "one") == results_in(tmp_path / "two")


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, rgbt234: Miniature, student: TrackerChoice) -> None:
    """kill -9 in the middle: finished sequences are kept as they are, and the scores are those of an unbroken run."""
    root = rgbt234(*NAMES, frames=100)
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    process = start(command(student, root, broken))
    wait_for(lambda: (broken / "results").is_dir() and any((broken / "results").glob("*.txt")), process)
    process.kill()
    process.communicate()
    done = {path: path.stat().st_mtime_ns for path in (broken / "results").glob("*.txt")}
    assert 0 < len(done) < len(NAMES)
    again = subprocess.run(command(student, root, broken), capture_output=True, text=True, check=True)
    assert f"{len(done)} of 4 sequences were done before" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in done} == done
    subprocess.run(command(student, root, whole), capture_output=True, check=True)
    assert results_in(broken) == results_in(whole)
    scores = [json.loads((folder / "scores.json").read_text()) for folder in (broken, whole)]
    assert scores[0]["sequences"] == scores[1]["sequences"]


def test_control_c_ends_in_one_line(tmp_path: Path, rgbt234: Miniature, student: TrackerChoice) -> None:
    root = rgbt234(*NAMES, frames=100)
    for processes in ("1", "2"):
        output = tmp_path / processes
        process = start(command(student, root, output, "--processes", processes))
        wait_for(lambda output=output: (output / "frames").is_dir(), process)  # type: ignore[misc]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
        assert "interrupted" in errors


def children_of(process: subprocess.Popen[str]) -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    names = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in text.split()}
    return [pid for pid, line in names.items() if b"spawn_main" in line]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finding worker processes needs Linux's /proc")
def test_workers_that_die_are_named_and_none_outlives_the_run(
    tmp_path: Path, rgbt234: Miniature, student: TrackerChoice
) -> None:
    root, output = rgbt234(*NAMES, frames=200), tmp_path / "run"
    process = start(command(student, root, output, "--processes", "2"))
    wait_for(lambda: len(children_of(process)) == 2, process)
    os.kill(children_of(process)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a worker process died" in errors
    assert "Traceback" not in errors

    process = start(command(student, root, output, "--processes", "2"))
    wait_for(lambda: len(children_of(process)) == 2, process)
    workers = children_of(process)
    time.sleep(1)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline, "workers outlive a killed run"
        time.sleep(0.05)


def test_a_broken_image_costs_its_sequence_only_and_until_it_is_mended(tmp_path: Path, rgbt234: Miniature) -> None:
    root, folder = rgbt234(*NAMES), tmp_path / "run"
    image = root / "car" / "visible" / "v0007.png"
    content = image.read_bytes()
    image.write_bytes(b"no image")
    for processes in (1, 2):
        outcome = run(follower_of(root), jobs_of(follower_of(root), folder), processes=processes)
        assert list(outcome.failed) == ["car"]
        assert str(image) in outcome.failed["car"]
    image.write_bytes(content)
    outcome = run(follower_of(root), jobs_of(follower_of(root), folder))
    assert (outcome.done, outcome.kept, outcome.failed) == (1, 3, {})


def test_a_folder_of_another_run_is_refused(tmp_path: Path, rgbt234: Miniature) -> None:
    root, folder = rgbt234(*NAMES), tmp_path / "run"
    claim(folder, follower_of(root), 1)
    assert claim(folder, follower_of(root), 2)["processes"] == 2
    with pytest.raises(EvaluationError, match=r"holds another run \(tracker, model differ\)"):
        claim(folder, follower_of(root, TrackerChoice("mil")), 1)
    with pytest.raises(EvaluationError, match=r"holds another run \(limit differ"):
        claim(folder, follower_of(root, limit=2), 1)
    (folder / "run.json").write_text("[]")
    with pytest.raises(EvaluationError, match="holds another run"):
        claim(folder, follower_of(root), 1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(EvaluationError, match=r"has files, but no run\.json"):
        claim(tmp_path / "mine", follower_of(root), 1)


def test_another_network_of_the_same_name_is_another_run(
    tmp_path: Path, rgbt234: Miniature, student: TrackerChoice
) -> None:
    root = rgbt234(*NAMES)
    copy = shutil.copytree(str(student.model), tmp_path / "model")
    choice = replace(student, model=str(copy))
    claim(tmp_path / "run", follower_of(root, choice), 1)
    record = json.loads((copy / "model.json").read_text())
    record["spec"]["lost_below"] = 0.1
    (copy / "model.json").write_text(json.dumps(record))
    with pytest.raises(EvaluationError, match=r"holds another run \(model differ"):
        claim(tmp_path / "run", follower_of(root, choice), 1)


def test_a_limit_spreads_evenly(rgbt234: Miniature) -> None:
    assert list(follower_of(rgbt234(*NAMES), limit=2).benchmark.sequences) == ["boat", "dog"]


def test_unknown_benchmarks_and_missing_roots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"unknown benchmark 'rgbt999'; known are synthetic, lasher"):
        BenchmarkChoice("rgbt999", tmp_path)
    with pytest.raises(EvaluationError, match="needs --root"):
        BenchmarkChoice("lasher")
    with pytest.raises(EvaluationError, match="takes neither a root nor a split"):
        BenchmarkChoice("synthetic", tmp_path)
