"""Stored scores: what is read is what was written, and what is no score is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from duotrack.errors import SourceError
from duotrack.evaluation.scores import (
    Axes,
    BenchmarkScore,
    Curves,
    LossReports,
    RobustnessCurve,
    SequenceScore,
    Speed,
    read_json,
    write_json,
)

REPORTS = LossReports(2, 0.5, 4.0, 0.5, 0.01, 0.0, 1, None)


def benchmark_score() -> BenchmarkScore:
    axes = Axes(np.linspace(0, 50, 51), np.linspace(0, 1, 21))
    curves = Curves(np.linspace(0, 1, 51), np.linspace(1, 0, 21))
    sequence = SequenceScore("walker", 99, {"PR": 0.5, "SR": 0.25}, curves, 0.4, ("FM", "OV"), ("cut to 99 frames",))
    return BenchmarkScore(
        "lasher test",
        "student-s",
        {"PR": 0.5, "SR": 0.25},
        axes,
        curves,
        (sequence,),
        {"FM": {"PR": 0.5, "SR": 0.25, "count": 1}},
        Speed(20.0, 31.5, 4.0, 15.5, 22.0, 98, drawn=False, processes=1),
        REPORTS,
        {"provider": "openvino"},
        ("thermal is synthetic",),
    )


def test_scores_come_back_as_they_were_written(tmp_path: Path) -> None:
    score = benchmark_score()
    write_json(tmp_path / "scores.json", score.to_record())
    again = BenchmarkScore.from_record(read_json(tmp_path / "scores.json"))
    assert again.to_record() == score.to_record()
    np.testing.assert_allclose(again.curves.success, score.curves.success, atol=1e-6)
    assert again.sequences[0].attributes == ("FM", "OV")
    assert again.speed == score.speed
    assert again.loss_reports == REPORTS


def test_a_robustness_curve_comes_back_as_it_was_written() -> None:
    curve = RobustnessCurve("synthetic 1", "CSRT", "low light", "share", (0.5, 1.0), (0.4, 0.2), 0.5, (None, REPORTS))
    again = RobustnessCurve.from_record(json.loads(json.dumps(curve.to_record())))
    assert again.to_record() == curve.to_record()
    assert again.loss_reports == (None, REPORTS)


@pytest.mark.parametrize("change", [{"format": 7}, {"speed": {"fast": 1}}, {"sequences": [{}]}, {"colour": "blue"}])
def test_a_record_of_another_shape_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"format|version"):
        BenchmarkScore.from_record({**benchmark_score().to_record(), **change})


@pytest.mark.parametrize("kind", [BenchmarkScore, RobustnessCurve])
def test_a_record_that_is_a_list_is_refused(kind: type[BenchmarkScore | RobustnessCurve]) -> None:
    with pytest.raises(ValueError, match=r"as a JSON object, got list"):
        kind.from_record([])  # type: ignore[arg-type]


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(SourceError, match=r"scores\.json is not JSON"):
        read_json(tmp_path / "scores.json")
