"""``duotrack metrics``: what it prints, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from duotrack.evaluation.metrics_command import app
from duotrack.evaluation.scores import BenchmarkScore

HERE, FAR = "100,100,40,20", "500,500,40,20"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Ground truth of two sequences of LasHeR, and a tracker that loses one of them."""
    truth = tmp_path / "truth"
    for name, flags in (("walk", "1,0"), ("run", "0,1")):
        for folder, text in (("lasher_gt", f"{HERE}\n" * 3), ("AttriSeqsTxt", flags)):
            (truth / folder).mkdir(parents=True, exist_ok=True)
            (truth / folder / f"{name}.txt").write_text(text)
    (truth / "lashertest.txt").write_text("walk\nrun")
    (truth / "Attributes_order.txt").write_text("NO, PO")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "T_walk.txt").write_text(f"{HERE}\n" * 3)
    (tmp_path / "mine" / "T_run.txt").write_text(f"{HERE}\n{FAR}\n{FAR}\n{FAR}\n")
    return tmp_path


def invoke(place: Path, *arguments: str, benchmark: str = "lasher") -> tuple[int, str, str]:
    fixed = ["--benchmark", benchmark, "--ground-truth", str(place / "truth"), "--results", str(place / "mine")]
    result = CliRunner().invoke(app, [*fixed, *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_table_with_figures_attributes_and_notes(place: Path) -> None:
    code, shown, errors = invoke(place)
    assert (code, errors) == (0, "")
    table = {cells[0]: cells[1:] for line in shown.splitlines() if len(cells := line.replace("│", " ").split()) == 5}
    assert table["all"] == ["66.7%", "66.7%", "63.5%", "2"]
    assert table["NO"] == ["100.0%", "100.0%", "95.2%", "1"]
    assert table["PO"] == ["33.3%", "33.3%", "31.7%", "1"]
    assert "mine on lasher test" in shown
    assert "6 frames" in shown
    assert "note: file names were found to begin with 'T_'" in shown
    assert "note: run: 4 lines, expected 3: the rest was cut off" in shown


def test_json_holds_everything(place: Path) -> None:
    code, shown, _ = invoke(place, "--json", "--tracker", "Mine [1]", "--prefix", "T_", "--box-format", "xywh")
    assert code == 0
    score = BenchmarkScore.from_record(json.loads(shown))
    assert (score.benchmark, score.tracker, score.notes) == ("lasher test", "Mine [1]", ())
    assert score.headline["PR"] == pytest.approx(2 / 3)
    assert score.attributes["PO"]["count"] == 1
    assert [entry.name for entry in score.sequences] == ["walk", "run"]
    assert score.about["results"] == "mine"


def test_a_label_in_brackets_is_shown_as_it_is(place: Path) -> None:
    assert "Mine [1] on lasher test" in invoke(place, "--tracker", "Mine [1]")[1]


@pytest.mark.parametrize(
    ("arguments", "benchmark", "message"),
    [
        ([], "otb", "duotrack: unknown benchmark 'otb'; known are lasher, rgbt234, rgbt210, gtot, vtuav"),
        (["--box-format", "cxcywh"], "lasher", "unknown box format 'cxcywh'; known are xywh, corners8, xyxy"),
        (["--box-format", "corners8"], "lasher", "T_walk.txt has 4 columns, expected 8 (corners8): try --box-format"),
        (["--prefix", "U_"], "lasher", "has no file for 2 of 2 sequences: U_walk.txt, U_run.txt"),
        (["--split", "val"], "lasher", "lasher has the splits train, test; got 'val'"),
        ([], "gtot", "has no sequences: expected folders with"),
    ],
)
def test_what_is_wrong_is_one_line(place: Path, arguments: list[str], benchmark: str, message: str) -> None:
    code, shown, errors = invoke(place, *arguments, benchmark=benchmark)
    assert (code, shown) == (1, "")
    assert message in errors
    assert errors.count("\n") == 1
