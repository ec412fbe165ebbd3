"""The suite: which jobs it has, and curves whose clean value and drops are what the jobs show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from duotrack.boxes import Box
from duotrack.errors import EvaluationError
from duotrack.evaluation.benchmark import Benchmark, BenchmarkChoice
from duotrack.evaluation.corruptions import CORRUPTIONS
from duotrack.evaluation.robustness import plan_suite, robustness_curves
from duotrack.evaluation.rules import VISIBLE
from duotrack.evaluation.runner import Follower, Setup, run
from duotrack.evaluation.trackers import Found, OpenedTracker, TrackerChoice
from duotrack.frames import FramePair

NAMES = ("boat", "car")
Miniature = Callable[..., Path]


class ThermalPeak:
    """Finds the darkest square of the thermal frame exactly, and says that it is lost without thermal."""

    def init(self, pair: FramePair, box: Box) -> None:  # noqa: ARG002 - the interface's names
        self._box = box

    def update(self, pair: FramePair) -> Found:
        if pair.thermal is None:
            return Found(self._box, 0.0, lost=True)
        mean = cv2.blur(pair.thermal.astype(np.float32), (16, 16), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
        y, x = np.unravel_index(mean[:-16, :-16].argmin(), mean[:-16, :-16].shape)
        self._box = Box(float(x), float(y), self._box.w, self._box.h)
        return Found(self._box, 1.0, lost=False)


@pytest.fixture
def follower(rgbt234: Miniature) -> Follower:
    made = Follower(Setup(BenchmarkChoice("rgbt234", rgbt234(*NAMES, frames=40)), TrackerChoice("static")))
    made.opened = OpenedTracker(ThermalPeak())
    return made


def test_curves_fall_where_what_the_tracker_sees_is_taken_away(tmp_path: Path, follower: Follower) -> None:
    benchmark = follower.benchmark
    suite = plan_suite(benchmark, ["rgb-off", "thermal-off"])
    jobs = list(suite.jobs(tmp_path))
    severities = sum(len(CORRUPTIONS[name].severities) for name in suite.severities)
    assert len(jobs) == len(NAMES) * (1 + severities)
    assert len({job.result for job in jobs}) == len(jobs)
    run(follower, jobs)
    without_rgb, without_thermal = robustness_curves(suite, tmp_path, benchmark, "peak")
    assert without_rgb.clean == without_thermal.clean > 0.9
    assert set(without_rgb.success) == {without_rgb.clean}  # it never looks at colour
    assert without_thermal.success == tuple(sorted(without_thermal.success, reverse=True))
    assert without_thermal.success[-1] < 0.6 * without_thermal.clean
    reports = without_thermal.loss_reports[-1]
    assert reports is not None
    assert reports.false_alarms == 1.0  # lost from the second frame on, and the target always there
    assert (without_thermal.corruption, without_thermal.unit) == ("thermal switched off", "share of frames")


def test_occlusion_changes_the_truth_that_is_scored_against(tmp_path: Path, follower: Follower) -> None:
    suite = plan_suite(follower.benchmark, ["occlusion"], [12])
    run(follower, suite.jobs(tmp_path))
    (curve,) = robustness_curves(suite, tmp_path, follower.benchmark, "peak")
    assert curve.severities == (12,)
    assert curve.loss_reports[0] is not None
    assert curve.loss_reports[0].losses == len(NAMES)
    assert curve.loss_reports[0].reported == 0


def test_a_suite_goes_on_with_what_is_not_done(tmp_path: Path, follower: Follower) -> None:
    suite = plan_suite(follower.benchmark, ["long-gap"], [0.2, 0.4])
    jobs = list(suite.jobs(tmp_path))
    run(follower, jobs[:3])
    outcome = run(follower, jobs)
    assert (outcome.kept, outcome.done) == (3, len(jobs) - 3)


def test_what_cannot_be_planned_is_refused(follower: Follower) -> None:
    with pytest.raises(EvaluationError, match=r"unknown corruption 'fog'; known are missing-random"):
        plan_suite(follower.benchmark, ["fog"])
    with pytest.raises(EvaluationError, match=r"severity of misalignment is from 0 to"):
        plan_suite(follower.benchmark, ["misalignment"], [-3])


def test_sequences_that_lack_a_modality_are_left_out(follower: Follower) -> None:
    class ColourOnly:
        def __init__(self, name: str) -> None:
            self.name, self.attributes = name, ()
            self._whole = follower.benchmark.sequences["boat"]
            self.boxes = self._whole.boxes

        def pair(self, index: int) -> FramePair:
            return FramePair(self._whole.pair(index).rgb, None)

    mixed = {"colour": ColourOnly("colour"), "car": follower.benchmark.sequences["car"]}
    suite = plan_suite(Benchmark("mixed", VISIBLE, mixed), ["misalignment", "low-light", "dropped-frames"])
    assert suite.names == {
        "misalignment": ("car",),
        "low-light": ("colour", "car"),
        "dropped-frames": ("colour", "car"),
    }
    alone = Benchmark("colour", VISIBLE, {"colour": ColourOnly("colour")})
    with pytest.raises(EvaluationError, match="no sequence has rgb and thermal, which misalignment needs"):
        plan_suite(alone, ["misalignment"])
    assert "misalignment" not in plan_suite(alone, []).severities
    assert "occlusion" in plan_suite(alone, []).severities
