"""Which provider runs, at which precision, and that none is trusted unproved."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.synthetic import Scene, SceneConfig
from duotrack.engine import DEFAULT_MODEL, Engine, available_models, proof, providers
from duotrack.engine.models import open_model
from duotrack.engine.providers import PROVIDERS, Arrays, Graph, Opened, Precision, ProviderUnavailableError
from duotrack.errors import ModelError
from duotrack.frames import FramePair
from duotrack.network import ModelSpec, Prediction
from duotrack.tracker import TargetState, Tracker

if TYPE_CHECKING:
    from conftest import ExportedModel, NetworkInput


def engine_or_skip(model: str | Path, provider: str, precision: Precision | None) -> Engine:
    """An engine on ``provider``; skips with the provider's own reason where it cannot run here."""
    try:
        PROVIDERS[provider](1, 1, precision)
    except ProviderUnavailableError as reason:
        pytest.skip(f"{provider}: {reason}")
    return Engine.open(model, provider=provider, precision=precision, threads=1)


def answers(engine: Engine, given: NetworkInput) -> Prediction:
    return engine.search(given.search, given.present, engine.encode(given.template))


def expected(exported: ExportedModel, given: NetworkInput) -> Prediction:
    network = exported.network
    return network.search(given.search, given.present, network.encode(given.template))


@pytest.mark.parametrize("provider", ["cpu", "openvino", "openvino-plugin", "cuda", "tensorrt"])
def test_fp32_agrees_with_torch(exported: ExportedModel, network_input: NetworkInput, provider: str) -> None:
    engine = engine_or_skip(exported.directory, provider, "fp32")
    found, right = answers(engine, network_input), expected(exported, network_input)
    assert np.abs(found.score_map - right.score_map).max() < 1e-3
    assert np.abs(found.box_map - right.box_map).max() < 1e-3
    assert np.abs(found.presence - right.presence).max() < 1e-3


@pytest.mark.parametrize("provider", ["openvino", "openvino-plugin"])
def test_bf16_agrees_with_fp32(exported: ExportedModel, network_input: NetworkInput, provider: str) -> None:
    """The trap: in bf16 a 16 × 16 patch embedding of 4 channels written as a convolution is garbage on AMX.

    Then every box is; rounding moves the box at the score map's peak by less than one pixel of the 256-pixel crop.
    """
    if provider == "openvino-plugin" and not providers.cpu_flags() & {"amx_bf16", "avx512_bf16"}:
        pytest.skip("this CPU has no bf16 arithmetic")
    engine = engine_or_skip(exported.directory, provider, "bf16")
    assert engine.report.precision == "bf16"
    found, right = answers(engine, network_input), expected(exported, network_input)
    moved = []
    for session in range(3):
        row, column = divmod(int(right.score_map[session].argmax()), 16)
        moved.append(np.abs(found.box_map[session, :, row, column] - right.box_map[session, :, row, column]) * 256)
    assert np.max(moved) < 1
    assert np.mean(moved) < 0.5
    assert np.abs(found.score_map - right.score_map).max() < 0.06
    # Not fp32 under another name, and not boxes that are the same for whatever is seen:
    assert np.abs(found.box_map - right.box_map).max() > 1e-5
    assert np.abs(right.box_map[0] - right.box_map[1]).max() * 256 > 5


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_the_report_says_what_runs(exported: ExportedModel, provider: str) -> None:
    engine = engine_or_skip(exported.directory, provider, None)
    report = engine.report
    assert (report.model, report.provider, report.threads, report.streams) == ("tiny", provider, 1, 1)
    assert report.skipped == {}
    assert sum(report.assignment.values()) > 10
    if provider == "cpu":
        assert report.precision == "fp32"
        assert set(report.assignment) == {"CPUExecutionProvider"}
    assert repr(engine) == f"Engine(tiny, {provider}, {report.precision}, threads=1, streams=1)"


def test_the_best_provider_is_chosen_and_the_others_are_explained(exported: ExportedModel) -> None:
    report = Engine.open(exported.directory, threads=1).report
    order = list(PROVIDERS)
    assert list(report.skipped) == order[: order.index(report.provider)]
    for provider, reason in report.skipped.items():
        with pytest.raises(ModelError) as caught:
            Engine.open(exported.directory, provider=provider)
        assert reason in str(caught.value)
        assert provider in str(caught.value)


def test_a_provider_that_is_not_there_says_why(exported: ExportedModel) -> None:
    if "TensorrtExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has TensorRT")
    with pytest.raises(ModelError, match=r"no provider can run tiny: tensorrt: .*built without TensorrtExecution"):
        Engine.open(exported.directory, provider="tensorrt")


def test_openvino_that_is_not_installed_says_so(exported: ExportedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> Any:
        return None if "openvino" in name else find_spec(name)

    monkeypatch.setattr(providers, "find_spec", without)
    report = Engine.open(exported.directory, threads=1).report
    assert "openvino is not installed (pip install 'duotrack[cpu]')" in report.skipped["openvino"]
    assert "onnxruntime-ep-openvino is not installed" in report.skipped["openvino-plugin"]
    assert report.provider == "cpu"


def test_an_unknown_provider_is_named_with_the_known_ones(exported: ExportedModel) -> None:
    with pytest.raises(ModelError, match=r"unknown provider 'gpu': expected one of tensorrt, cuda, .*cpu"):
        Engine.open(exported.directory, provider="gpu")


def test_the_cpu_provider_has_no_bf16(exported: ExportedModel) -> None:
    with pytest.raises(ModelError, match="CPUExecutionProvider computes in fp32 only"):
        Engine.open(exported.directory, provider="cpu", precision="bf16")


@pytest.mark.parametrize("threads", [0, -2])
def test_threads_are_counted_from_one(exported: ExportedModel, threads: int) -> None:
    with pytest.raises(ModelError, match=f"threads must be at least 1, got {threads}"):
        Engine.open(exported.directory, provider="cpu", threads=threads)


@pytest.mark.parametrize("streams", [0, -1])
def test_streams_are_counted_from_one(exported: ExportedModel, streams: int) -> None:
    with pytest.raises(ModelError, match=f"streams must be at least 1, got {streams}"):
        Engine.open(exported.directory, provider="cpu", streams=streams)


@pytest.mark.parametrize(("threads", "streams", "total"), [(1, 1, 1), (4, 2, 4), (1, 3, 3)])
def test_each_stream_has_a_thread(exported: ExportedModel, threads: int, streams: int, total: int) -> None:
    report = Engine.open(exported.directory, provider="cpu", threads=threads, streams=streams).report
    assert (report.threads, report.streams) == (total, streams)


class Disturbed:
    """A graph whose box map comes out wrong, as from a provider with a broken kernel."""

    def __init__(self, graph: Graph, disturb: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        self._graph, self._disturb = graph, disturb

    def run(self, inputs: Arrays) -> Arrays:
        outputs = self._graph.run(inputs)
        return {name: self._disturb(value) if name != "features" else value for name, value in outputs.items()}

    def assignment(self) -> dict[str, int]:
        return self._graph.assignment()


def broken_provider(disturb: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[int, Precision | None], Opened]:
    def opened(threads: int, streams: int, precision: Precision | None) -> Opened:
        right = PROVIDERS["cpu"](threads, streams, precision)
        return Opened(right.runtime, right.precision, lambda path: Disturbed(right.load(path), disturb))

    return opened


def noise(values: NDArray[Any]) -> NDArray[Any]:
    return values + np.random.default_rng(0).normal(0, 0.01, values.shape).astype(values.dtype)


def test_a_provider_that_computes_wrongly_is_passed_over(
    exported: ExportedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duotrack.engine.engine.PROVIDERS", {"broken": broken_provider(noise), "cpu": PROVIDERS["cpu"]})
    report = Engine.open(exported.directory, threads=1).report
    assert report.provider == "cpu"
    assert "it computes wrongly: fp32 outputs differ by 0.0" in report.skipped["broken"]
    assert "allowed: 0.001" in report.skipped["broken"]


def test_a_provider_asked_for_that_computes_wrongly_is_refused(
    exported: ExportedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROVIDERS, "cuda", broken_provider(noise))
    with pytest.raises(ModelError, match="no provider can run tiny: cuda: it computes wrongly"):
        Engine.open(exported.directory, provider="cuda")


def test_a_provider_that_fails_while_loading_is_passed_over(
    exported: ExportedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: Path) -> Graph:
        raise RuntimeError(f"no kernel for Softmax in {path.name}")

    def opened(threads: int, streams: int, precision: Precision | None) -> Opened:
        return Opened(f"failing, {threads} threads, {streams} streams", precision or "fp32", load)

    monkeypatch.setattr("duotrack.engine.engine.PROVIDERS", {"failing": opened, "cpu": PROVIDERS["cpu"]})
    report = Engine.open(exported.directory, threads=1).report
    assert report.provider == "cpu"
    assert report.skipped["failing"] == "failed to load the model: no kernel for Softmax in template.onnx"


def test_the_proof_measures_the_largest_error() -> None:
    """Over all scores, the presence, and the boxes of the ten best cells only: others are never used."""
    rng = np.random.default_rng(0)
    score_map, box_map = rng.random((1, 16, 16), np.float32), rng.random((1, 4, 16, 16), np.float32)
    right = Prediction(score_map, box_map, np.array([0.7], np.float32))
    check = proof.record(right)
    assert proof.largest_error(lambda: right, check) < 1e-6
    order = np.argsort(score_map[0], axis=None)
    for cell, error in ((order[-1], 0.3), (order[-10], 0.3), (order[0], 0.0)):
        moved = box_map.copy()
        moved[(0, 2, *np.unravel_index(cell, (16, 16)))] += 0.3
        wrong = Prediction(score_map, moved, right.presence)
        assert proof.largest_error(lambda wrong=wrong: wrong, check) == pytest.approx(error, abs=1e-5)
    worse = score_map.copy()
    worse[0, 3, 4] -= 0.2
    assert proof.largest_error(lambda: Prediction(worse, box_map, right.presence), check) == pytest.approx(0.2, 1e-4)
    absent = Prediction(score_map, box_map, np.array([0.2], np.float32))
    assert proof.largest_error(lambda: absent, check) == pytest.approx(0.5, 1e-4)


@pytest.mark.parametrize(
    "where",
    ["score_map", "box_map", "presence"],
)
def test_not_a_number_is_an_infinite_error(where: str) -> None:
    rng = np.random.default_rng(0)
    outputs = {
        "score_map": rng.random((1, 16, 16), np.float32),
        "box_map": rng.random((1, 4, 16, 16), np.float32),
        "presence": np.array([0.7], np.float32),
    }
    check = proof.record(Prediction(**outputs))
    outputs[where] = np.full_like(outputs[where], np.nan)
    assert proof.largest_error(lambda: Prediction(**outputs), check) == np.inf


def test_a_provider_that_returns_nan_boxes_is_passed_over(
    exported: ExportedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nan_boxes(values: NDArray[Any]) -> NDArray[Any]:
        return np.full_like(values, np.nan) if values.ndim == 4 else values

    monkeypatch.setitem(PROVIDERS, "cuda", broken_provider(nan_boxes))
    with pytest.raises(ModelError, match="computes wrongly"):
        Engine.open(exported.directory, provider="cuda")


def test_the_proof_scene_shows_the_template_in_the_middle_of_the_search_crop() -> None:
    template, crop, present = proof.proof_input(ModelSpec("any"))
    assert np.array_equal(template.crop[0], crop[0, 64:192, 64:192])
    assert crop.shape == (1, 256, 256, 4)
    assert crop.reshape(-1, 4).std(0).min() > 20
    assert present.tolist() == [[1, 1]]
    again = proof.proof_input(ModelSpec("any"))
    assert np.array_equal(crop, again[1])


@pytest.fixture
def copied(exported: ExportedModel, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported.directory, tmp_path / "copied"))


def change(folder: Path, **values: object) -> None:
    record = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    (folder / "model.json").write_text(json.dumps(record | values), encoding="utf-8")


def test_a_model_is_found_by_folder_and_by_its_record(copied: Path) -> None:
    for path in (copied, str(copied), copied / "model.json"):
        assert open_model(path).directory == copied
    assert open_model(copied).spec == ModelSpec("tiny")


@pytest.mark.parametrize("name", ["weights.bin", "search.onnx", "template.onnx"])
def test_a_damaged_file_is_named(copied: Path, name: str) -> None:
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(ModelError, match=rf"{name} is damaged: its SHA-256 differs"):
        Engine.open(copied)


def test_a_missing_file_is_named(copied: Path) -> None:
    (copied / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights\.bin cannot be read: No such file"):
        Engine.open(copied)


def test_another_format_is_refused(copied: Path) -> None:
    change(copied, format=2)
    with pytest.raises(ModelError, match="model format 2, this DuoTrack reads format 1"):
        Engine.open(copied)


def test_a_record_that_is_no_json_is_refused(copied: Path) -> None:
    (copied / "model.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=r"cannot read .*model\.json"):
        Engine.open(copied)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "tiny", "colour": 3}, "does not fit this version of DuoTrack: .*colour"),
        ({}, "does not fit this version of DuoTrack: .*name"),
        ({"name": "tiny", "grid": "16"}, "grid must be a whole number, got '16'"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused(copied: Path, spec: dict[str, object], message: str) -> None:
    change(copied, spec=spec)
    with pytest.raises(ModelError, match=message):
        Engine.open(copied)


def test_sums_that_are_no_object_are_refused(copied: Path) -> None:
    change(copied, sha256=["weights.bin"])
    with pytest.raises(ModelError):
        Engine.open(copied)


def test_an_unknown_model_is_named_with_what_ships(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model 'student-xxl': expected a shipped name \(.*or the path"):
        Engine.open("student-xxl")
    with pytest.raises(ModelError, match=r"no model .*nowhere"):
        Engine.open(tmp_path / "nowhere")


def engines_here(exported: ExportedModel, streams: int = 1) -> Iterator[Engine]:
    """An engine on the CPU provider, and one on OpenVINO where that runs."""
    yield Engine.open(exported.directory, provider="cpu", threads=streams, streams=streams)
    with suppress(ModelError):
        yield Engine.open(exported.directory, provider="openvino", threads=streams, streams=streams)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_no_runtime_leaves_telemetry_at_home(exported: ExportedModel, tmp_path: Path, provider: str) -> None:
    engine_or_skip(exported.directory, provider, "fp32")
    code = f"from duotrack.engine import Engine; Engine.open({str(exported.directory)!r}, provider={provider!r})"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "HOME": str(tmp_path)}, check=True, timeout=60)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("streams", [1, 2])
def test_many_threads_may_share_an_engine(exported: ExportedModel, network_input: NetworkInput, streams: int) -> None:
    for engine in engines_here(exported, streams):
        features = engine.encode(network_input.template)
        alone = [
            engine.search(network_input.search[i : i + 1], network_input.present[i : i + 1], features[i : i + 1])
            for i in range(3)
        ]
        wrong: list[int] = []

        def work(
            session: int, engine: Engine = engine, features: Any = features, alone: Any = alone, wrong: Any = wrong
        ) -> None:
            crop, present = network_input.search[session : session + 1], network_input.present[session : session + 1]
            for _ in range(5):
                found = engine.search(crop, present, features[session : session + 1])
                if not np.allclose(found.box_map, alone[session].box_map, atol=1e-6):
                    wrong.append(session)

        workers = [threading.Thread(target=work, args=(session,)) for session in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert wrong == []


class Meeting:
    """Counts the calls of a method that run at the same time; each waits until ``expected`` of them do."""

    def __init__(self, method: Callable[..., Any], expected: int) -> None:
        self._method, self._barrier = method, threading.Barrier(expected)
        self._lock = threading.Lock()
        self._running = 0
        self.most = 0

    def __call__(self, *arguments: Any) -> Any:
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        try:
            self._barrier.wait(10)
            return self._method(*arguments)
        finally:
            with self._lock:
                self._running -= 1


@pytest.mark.parametrize("streams", [1, 2, 3])
def test_as_many_calls_run_at_once_as_there_are_streams(
    exported: ExportedModel, network_input: NetworkInput, monkeypatch: pytest.MonkeyPatch, streams: int
) -> None:
    """Twice as many threads as streams call. Were there fewer requests than streams, they would wait for ever."""
    engine_or_skip(exported.directory, "openvino", None)
    engine = Engine.open(exported.directory, provider="openvino", threads=1, streams=streams)
    features = engine.encode(network_input.template)
    meeting = Meeting(providers.OpenVinoGraph._run_one, streams)
    monkeypatch.setattr(providers.OpenVinoGraph, "_run_one", lambda *arguments: meeting(*arguments))
    found: list[Prediction] = []

    def work() -> None:
        found.append(engine.search(network_input.search[:1], network_input.present[:1], features[:1]))

    workers = [threading.Thread(target=work, daemon=True) for _ in range(2 * streams)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert meeting.most == streams
    assert len(found) == 2 * streams


def test_the_callers_of_onnxruntime_count_among_its_threads() -> None:
    """Its pool has one thread fewer than this option says, and serves all callers."""
    for threads, streams, option in [(1, 1, 1), (2, 1, 2), (2, 2, 1), (8, 2, 7)]:
        assert providers._session_options(threads, streams).intra_op_num_threads == option


def test_a_call_that_fails_leaves_its_stream_to_the_next(exported: ExportedModel, network_input: NetworkInput) -> None:
    for engine in engines_here(exported):
        features = engine.encode(network_input.template)
        with pytest.raises(Exception, match=r"shape|dimension"):
            engine.search(network_input.search[:, :100], network_input.present, features)
        assert engine.search(network_input.search, network_input.present, features).presence.shape == (3,)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("model", ["student-s", "student-t"])
def test_a_shipped_model_answers_each_pair_of_a_batch_as_if_it_came_alone(model: str, provider: str) -> None:
    """ONNX Runtime sums in another order in a larger batch, and so rounds otherwise; OpenVINO runs row by row.

    fp32 has 24 bits, and a dozen layers of sums over some hundred terms leave at least 13 of them: the tolerance is a
    tenth of what a provider is allowed, and 0.03 pixels of the search crop.
    """
    engine = engine_or_skip(model, provider, None)
    template, crop, present = proof.proof_input(engine.spec)
    crops = np.concatenate([crop, np.roll(crop, (9, -21), (1, 2)), 255 - crop])
    presents = np.concatenate([present, present, [[1, 0]]]).astype(np.float32)
    features = np.repeat(engine.encode(template), 3, axis=0)
    together = engine.search(crops, presents, features)
    alone = [engine.search(crops[i : i + 1], presents[i : i + 1], features[:1]) for i in range(3)]
    tolerance = 1e-4 if provider == "cpu" else 0
    for name in ("score_map", "box_map", "presence"):
        rows = np.concatenate([getattr(prediction, name) for prediction in alone])
        assert getattr(together, name).shape == rows.shape
        assert np.abs(getattr(together, name) - rows).max() <= tolerance
    # The rows differ, so a mix-up of rows shows.
    assert np.abs(np.diff(together.box_map, axis=0)).max(axis=(1, 2, 3)).min() > 10 * tolerance + 1e-3


def test_outputs_are_not_written_to_later(exported: ExportedModel, network_input: NetworkInput) -> None:
    for engine in engines_here(exported):
        features = engine.encode(network_input.template)
        first = engine.search(network_input.search, network_input.present, features)
        kept = first.score_map.copy()
        engine.search(255 - network_input.search, network_input.present, features)
        assert np.array_equal(first.score_map, kept)


def test_a_tracker_runs_on_an_exported_model(exported: ExportedModel) -> None:
    tracker = Tracker.open(exported.directory, threads=1)
    pair = FramePair(np.full((120, 160, 3), 90, np.uint8), np.full((120, 160), 9000, np.uint16))
    tracker.init(pair, Box(60, 50, 30, 30))
    result = tracker.update(pair)
    assert 0 <= result.score <= 1
    assert result.state in set(TargetState)
    assert 0 <= result.box.x <= 150


# The default model (weights/student-t): these need it, and are not to be skipped where it is missing.
def test_the_default_model_ships_and_proves_itself() -> None:
    assert DEFAULT_MODEL in available_models()
    engine = Engine.open()
    assert engine.report.model == DEFAULT_MODEL == "student-t"
    calibration = {"presence_scale": engine.spec.presence_scale, "presence_bias": engine.spec.presence_bias}
    crops = {"search_size": 224, "template_factor": 1.6, "search_factor": 1.6 * 224 / 128, "widening": 1.4}
    assert engine.spec == ModelSpec("student-t", grid=14, **crops, **calibration)
    assert engine.spec.presence_bias < 0  # it has been calibrated: uncalibrated, it says present too easily
    assert engine.report.assignment


@pytest.mark.parametrize("seed", range(3))
def test_the_shipped_model_follows_a_generated_target(seed: int) -> None:
    """A lone target without occlusion or distractors: a floor that any working student passes."""
    scene = Scene(
        SceneConfig(
            width=320, height=240, frames=40, seed=seed, thermal_bits=16, occlusion=False, exits=False, crossover=False,
            distractors=0, misalignment=0, view="plaza",
        )
    )  # fmt: skip
    first = scene[0]
    assert first.box is not None
    tracker = Tracker.open(threads=1)
    tracker.init(first.pair, first.box)
    overlaps = [
        tracker.update(frame.pair).box.iou(frame.box) for frame in map(scene.__getitem__, range(1, 40)) if frame.box
    ]
    assert np.mean(overlaps) > 0.5
