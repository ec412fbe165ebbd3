"""eval, robustness and report as a user calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from duotrack.cli import app

NAMES = ("boat", "car", "dog")
Miniature = Callable[..., Path]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def evaluate(root: Path, output: Path, *more: object) -> Result:
    return call("eval", "--benchmark", "rgbt234", "--root", root, "--output", output, "--tracker", "static", *more)


def test_eval_prints_the_figures_and_writes_them(tmp_path: Path, rgbt234: Miniature) -> None:
    result = evaluate(rgbt234(*NAMES), tmp_path / "run")
    assert result.exit_code == 0, result.output
    score = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert score["benchmark"] == "rgbt234"
    assert f"{100 * score['headline']['MSR']:.1f}" in result.stdout
    assert score["tracker"] == "STATIC"
    assert set(score["about"]) >= {"hardware", "software", "model"}


def test_eval_agrees_with_the_metrics_command_on_its_own_files(tmp_path: Path, rgbt234: Miniature) -> None:
    root, run = rgbt234(*NAMES), tmp_path / "run"
    evaluate(root, run)
    again = call("metrics", "--benchmark", "rgbt234", "--ground-truth", root, "--results", run / "results", "--json")
    assert again.exit_code == 0, again.output
    score, other = json.loads((run / "scores.json").read_text()), json.loads(again.stdout)
    assert score["sequences"] == other["sequences"]
    assert score["headline"] == other["headline"]


def test_a_part_of_a_set_is_named_as_such(tmp_path: Path, rgbt234: Miniature) -> None:
    result = evaluate(rgbt234(*NAMES), tmp_path / "run", "--limit", 2, "--label", "still")
    score = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert len(score["sequences"]) == 2
    assert "2 of 3 sequences" in " ".join(score["notes"])
    assert "2 of 3 sequences" in result.output
    assert score["tracker"] == "still"


def test_a_sequence_that_fails_is_named_and_the_exit_says_so(tmp_path: Path, rgbt234: Miniature) -> None:
    root = rgbt234(*NAMES)
    (root / "car" / "infrared" / "3.png").write_bytes(b"")
    result = evaluate(root, tmp_path / "run")
    assert result.exit_code == 1
    assert "sequence car: cannot read image" in result.output
    score = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert [entry["name"] for entry in score["sequences"]] == ["boat", "dog"]
    assert any("1 of 3 sequences" in note for note in score["notes"])


def write_otb(root: Path, **truths: list[tuple[int, ...]]) -> Path:
    """A miniature set in OTB's convention, of frames that show nothing."""
    for name, boxes in truths.items():
        (root / name / "img").mkdir(parents=True)
        for frame in range(1, 7):
            cv2.imwrite(str(root / name / "img" / f"{frame:04}.jpg"), np.full((48, 64, 3), 40 * frame, np.uint8))
        (root / name / "groundtruth_rect.txt").write_text("".join(f"{x},{y},{w},{h}\n" for x, y, w, h in boxes))
    return root


HERE, NOWHERE = (10, 10, 20, 20), (0, 0, 0, 0)


def test_a_sequence_that_cannot_be_scored_is_named_and_the_others_count(tmp_path: Path) -> None:
    gone, hidden = [HERE, *[NOWHERE] * 5], [HERE, *[NOWHERE] * 4, HERE]
    root = write_otb(tmp_path / "otb", Seen=[HERE] * 6, Gone=gone, Hidden=hidden)
    result = evaluate(root, tmp_path / "run", "--benchmark", "otb")
    assert result.exit_code == 1
    assert "note: not scored: sequence Gone has no frame to score" in result.output
    score = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert {entry["name"]: entry["frames"] for entry in score["sequences"]} == {"Hidden": 1, "Seen": 5}
    assert any("sequence Gone" in note for note in score["notes"])


def test_a_set_without_truth_has_its_results_written(tmp_path: Path) -> None:
    for name in ("A", "B"):
        folder = tmp_path / "got" / "test" / name
        folder.mkdir(parents=True)
        for frame in range(1, 7):
            cv2.imwrite(str(folder / f"{frame:08}.jpg"), np.full((48, 64, 3), 40 * frame, np.uint8))
        (folder / "groundtruth.txt").write_text("10,10,20,20\n")
    chosen = ("--benchmark", "got10k", "--split", "test")
    result = evaluate(tmp_path / "got", tmp_path / "run", *chosen)
    assert result.exit_code == 0, result.output
    assert "got10k test has nothing to score" in result.output
    assert (tmp_path / "run" / "results" / "B.txt").read_text().splitlines() == ["10.00,10.00,20.00,20.00"] * 6
    assert not (tmp_path / "run" / "scores.json").exists()
    common = ("--root", tmp_path / "got", "--output", tmp_path / "worse", "--tracker", "static")
    robust = call("robustness", *chosen, *common)
    assert robust.exit_code == 1
    assert "got10k test: no sequence has a true box after its first frame: nothing to score" in robust.output


def test_a_sequence_without_truth_has_no_part_in_the_curves(tmp_path: Path) -> None:
    root = write_otb(tmp_path / "otb", Seen=[HERE] * 6, Gone=[HERE, *[NOWHERE] * 5])
    common = ("--root", root, "--output", tmp_path / "run", "--tracker", "static")
    result = call("robustness", "--benchmark", "otb", *common, "--corruption", "low-light", "--severities", "2")
    assert result.exit_code == 0, result.output
    (curve,) = json.loads((tmp_path / "run" / "robustness.json").read_text())
    assert curve["clean"] == pytest.approx(20 / 21)  # the static box is right, but overlap 1 is not above 1


def test_a_box_that_opencv_does_not_take_costs_its_sequence_only(tmp_path: Path) -> None:
    root = write_otb(tmp_path / "otb", Outside=[(500, 500, 20, 20)] * 6, Seen=[HERE] * 6)
    result = evaluate(root, tmp_path / "run", "--benchmark", "otb", "--tracker", "mil")
    assert result.exit_code == 1
    assert "sequence Outside: OpenCV's tracker fails at box 500,500,20,20 of a 64x48 frame: " in result.output
    assert (tmp_path / "run" / "scores.json").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--tracker", "sort"), "unknown tracker 'sort'"),
        (("--modality", "xray"), "unknown modality 'xray'"),
        (("--benchmark", "votrgbt"), "unknown benchmark 'votrgbt'"),
        (("--root", "/nowhere"), "/nowhere"),
        (("--split", "train"), "has no splits"),
    ],
)
def test_wrong_choices_end_in_one_line(tmp_path: Path, rgbt234: Miniature, more: tuple[str, str], message: str) -> None:
    result = evaluate(rgbt234(*NAMES), tmp_path / "run", *more)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


def test_a_report_of_runs_and_curves(tmp_path: Path, rgbt234: Miniature) -> None:
    root = rgbt234(*NAMES)
    evaluate(root, tmp_path / "still")
    evaluate(root, tmp_path / "mil", "--tracker", "mil", "--threads", 1)
    curves = call(
        *(
            "robustness",
            "--benchmark",
            "rgbt234",
            "--root",
            root,
            "--output",
            tmp_path / "worse",
            "--tracker",
            "static",
        ),
        *("--corruption", "misalignment", "--corruption", "dropped-frames", "--severities", "0.5"),
    )
    assert curves.exit_code == 0, curves.output
    assert "misalignment (px): clean" in curves.output
    more = call(
        *(
            "robustness",
            "--benchmark",
            "rgbt234",
            "--root",
            root,
            "--output",
            tmp_path / "worse",
            "--tracker",
            "static",
        ),
        *("--corruption", "rotation", "--severities", "2,5"),
    )
    assert more.exit_code == 0, more.output
    stored = json.loads((tmp_path / "worse" / "robustness.json").read_text())
    assert len(stored) == 3  # the second call keeps the first one's curves
    page = tmp_path / "report.html"
    result = call("report", tmp_path / "still", tmp_path / "mil", tmp_path / "worse", "--output", page)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    for word in ("STATIC", "MIL", "rotation", "data:image/jpeg;base64", "lost the target"):
        assert word in text
    assert page.with_suffix(".md").read_text().count("|") > 10
    assert json.loads(page.with_suffix(".json").read_text())["scores"][1]["tracker"] == "MIL"


def test_a_report_without_the_sets_frames_says_so(tmp_path: Path, rgbt234: Miniature) -> None:
    root = rgbt234(*NAMES)
    evaluate(root, tmp_path / "run")
    root.rename(tmp_path / "elsewhere")
    result = call("report", tmp_path / "run", "--output", tmp_path / "report.html")
    assert result.exit_code == 0, result.output
    assert "no frames of failures" in result.output
    assert "data:image" not in (tmp_path / "report.html").read_text()


def test_a_report_of_metrics_alone(tmp_path: Path, rgbt234: Miniature) -> None:
    """Result files from elsewhere have scores, but neither tracks nor a run."""
    root, run = rgbt234(*NAMES), tmp_path / "run"
    evaluate(root, run)
    scored = call("metrics", "--benchmark", "rgbt234", "--ground-truth", root, "--results", run / "results", "--json")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "scores.json").write_text(scored.stdout)
    result = call("report", run, tmp_path / "other", "--output", tmp_path / "report.html")
    assert result.exit_code == 0, result.output
    assert "results" in (tmp_path / "report.html").read_text()


def test_a_report_that_is_no_page_is_refused(tmp_path: Path, rgbt234: Miniature) -> None:
    evaluate(rgbt234(*NAMES), tmp_path / "run", "--limit", 2)
    result = call("report", tmp_path / "run", "--output", tmp_path / "report.md")
    assert result.exit_code == 1
    assert "expected a file that ends in .html for the page, got " in result.output
    assert not (tmp_path / "report.md").exists()
    result = call("report", tmp_path / "run", "--output", tmp_path / "report.HTM")
    assert result.exit_code == 0, result.output
    assert "- 2 of 3 sequences were chosen by --limit" in (tmp_path / "report.md").read_text()


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = call("report", tmp_path / "empty", "--output", tmp_path / "report.html")
    assert result.exit_code == 1
    assert "has neither scores.json nor robustness.json" in result.output
    (tmp_path / "empty" / "scores.json").write_text('{"format": 99}')
    result = call("report", tmp_path / "empty", "--output", tmp_path / "report.html")
    assert result.exit_code == 1
    assert "expected scores of format 1, got 99" in result.output
