"""What a run leaves behind for people and programs to read."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from duotrack.training.report import JsonLog, Report, TensorBoard, Terminal

LOSSES = Report(3, {"focal": 1.5, "total": 2.25}, 1e-4, 0.75, 12.0)
CHECK = Report(4, validation={"success": 0.5, "precision": 0.625})
SHORTER = Report(4, steps=5)


def test_the_log_has_a_line_for_each_report(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "run" / "log.jsonl", 0)
    log.report(LOSSES)
    log.report(CHECK)
    log.report(SHORTER)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == [
        {
            "step": 3,
            "losses": {"focal": 1.5, "total": 2.25},
            "learning_rate": 1e-4,
            "gradient_norm": 0.75,
            "pairs_per_second": 12.0,
        },
        {"step": 4, "validation": {"success": 0.5, "precision": 0.625}},
        {"step": 4, "steps": 5},
    ]


@pytest.mark.parametrize(("resume_from", "kept"), [(0, []), (3, [1, 3]), (4, [1, 3, 4])])
def test_what_a_resumed_run_repeats_is_cut_from_the_log(tmp_path: Path, resume_from: int, kept: list[int]) -> None:
    """Also a last line that a kill cut in half."""
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 3}\n{"step": 4}\n{"step": 5}\n{"step": 6, "los', encoding="utf-8")
    JsonLog(path, resume_from)
    assert [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()] == kept


def test_tensorboard_has_the_same_figures(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, 0)
    board.report(LOSSES)
    board.report(CHECK)
    board.report(SHORTER)
    board.close()
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    points = {name: (found.Scalars(name)[0].step, found.Scalars(name)[0].value) for name in found.Tags()["scalars"]}
    assert points == {
        "loss/focal": (3, 1.5),
        "loss/total": (3, 2.25),
        "run/learning_rate": (3, pytest.approx(1e-4)),
        "run/gradient_norm": (3, 0.75),
        "run/pairs_per_second": (3, 12.0),
        "validation/success": (4, 0.5),
        "validation/precision": (4, 0.625),
    }


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_terminal_shows_losses_and_validation(is_terminal: bool) -> None:
    written = io.StringIO()
    terminal = Terminal(Console(file=written, force_terminal=is_terminal, width=200), 10, 2)
    terminal.report(LOSSES)
    terminal.report(CHECK)
    terminal.report(SHORTER)
    terminal.close()
    text = written.getvalue()
    assert "after step 4: 5 steps in all from now on" in text
    assert "12.0 pairs/s" in text
    assert "total 2.250" in text
    assert "step 4/10  validation  success 0.500  precision 0.625" in text
    assert ("step 3/10" in text) != is_terminal
    assert ("━" in text) == is_terminal
