"""What a model does with all lanes busy: on a clock of our own, so that the figures are known."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from duotrack.boxes import Box
from duotrack.engine import Engine
from duotrack.errors import FrameError
from duotrack.frames import FramePair
from duotrack.health import Health, examine
from duotrack.motion import Motion, expect
from duotrack.tracker import TargetState, TrackResult
from duotrack_service import capacity, steps
from duotrack_service.capacity import BOX, FRAMES, RADIUS, Capacity, admission_limit, generated_scene, measure
from duotrack_service.decoding import decode_pair
from duotrack_service.inference import Moved, NetworkModel, Track

STEP_S = 0.01


class Clock(threading.local):
    """Time that passes only where somebody works, for each thread by itself."""

    now = 0.0


@dataclass
class CountingModel:
    """Each update takes ``STEP_S`` of its thread, and moves each track, which is a number, on by one."""

    lanes: int = 1
    max_batch: int = 1
    clock: Clock = field(default_factory=Clock)
    worked: float = 0.0
    started: int = 0
    batches: list[list[tuple[Track, FramePair]]] = field(default_factory=list)
    during: Callable[[], None] = lambda: None
    answer: Callable[[Moved], Moved | FrameError] = lambda moved: moved
    name: str = "counting"
    provider: str = "CPU"
    precision: str = "fp32"

    def start(self, pair: FramePair, box: Box, options: Mapping[str, bool]) -> Moved:
        assert (pair.width, pair.height, dict(options)) == (640, 480, {})
        self.started += 1
        return 0, TrackResult(box, 1.0, TargetState.TRACKING)

    def update(self, work: Sequence[tuple[Track, FramePair]]) -> list[Moved | FrameError]:
        self.batches.append(list(work))
        self.during()
        self.clock.now += STEP_S
        self.worked += STEP_S
        result = TrackResult(BOX, 1.0, TargetState.TRACKING)
        return [self.answer((track + 1, result)) for track, _ in work if isinstance(track, int)]

    def save(self, track: Track) -> bytes:
        raise NotImplementedError

    restore = configure = save  # type: ignore[assignment]


@pytest.fixture
def on_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[CountingModel], CountingModel]:
    def use(model: CountingModel) -> CountingModel:
        stub = SimpleNamespace(perf_counter=lambda: model.clock.now, process_time=lambda: model.worked)
        monkeypatch.setattr(capacity, "time", stub)
        monkeypatch.setattr(steps, "time", stub)
        return model

    return use


@pytest.mark.parametrize(("lanes", "max_batch"), [(1, 1), (1, 4), (2, 1), (3, 2)])
def test_the_figures_are_those_of_the_clock(
    on_clock: Callable[[CountingModel], CountingModel], lanes: int, max_batch: int
) -> None:
    found = measure(on_clock(CountingModel(lanes, max_batch)), 0.1)
    assert found.pairs_per_second == pytest.approx(lanes * max_batch / STEP_S)
    assert found.update_ms == pytest.approx(STEP_S * 1000)
    assert found.decode_ms == 0
    if lanes == 1:  # the threads of a model with lanes add to ``worked`` without a lock
        assert found.cpu_s_per_pair == pytest.approx(STEP_S / max_batch)


def test_a_track_follows_the_scene_round(on_clock: Callable[[CountingModel], CountingModel]) -> None:
    model = on_clock(CountingModel())
    measure(model, 0.995 * 2 * FRAMES * STEP_S)
    scene = [decode_pair(frame) for frame in generated_scene()]
    assert model.started == 1
    assert [track for ((track, _),) in model.batches] == list(range(len(model.batches)))
    assert len(model.batches) >= 2 * FRAMES
    for number, ((_, pair),) in enumerate(model.batches, start=1):
        right = scene[number % FRAMES]
        assert np.array_equal(pair.rgb, right.rgb)
        assert np.array_equal(pair.thermal, right.thermal)


def test_all_lanes_work_at_once_on_full_batches() -> None:
    """Each update waits for one of every other lane; without time, a lane takes a step to warm up, and one more."""
    meeting = threading.Barrier(3)
    model = CountingModel(lanes=3, max_batch=2, during=lambda: (meeting.wait(10), None)[1])
    found = measure(model, 0)
    assert [len(batch) for batch in model.batches] == [2] * 6
    assert sorted(track for batch in model.batches for track, _ in batch) == [0] * 6 + [1] * 6
    assert found.decode_ms > 0


def test_the_pairs_of_a_batch_are_decoded_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = threading.Barrier(2)

    def decode(_: object) -> FramePair:
        meeting.wait(10)
        return FramePair(np.zeros((480, 640, 3), np.uint8), None)

    monkeypatch.setattr(steps, "decode_pair", decode)
    assert measure(CountingModel(max_batch=2), 0, decode_threads=2).pairs_per_second > 0


def test_what_the_model_raises_is_raised() -> None:
    def fail() -> None:
        raise ZeroDivisionError("a bug in the model")

    with pytest.raises(ZeroDivisionError, match="a bug in the model"):
        measure(CountingModel(lanes=2, during=fail), 0.1)


def test_a_pair_that_the_model_refuses_is_no_measurement() -> None:
    with pytest.raises(FrameError, match="too dark"):
        measure(CountingModel(answer=lambda _: FrameError("too dark")), 0.1)


@pytest.mark.parametrize(
    ("pairs_per_second", "each", "sessions"),
    [(100.0, 10.0, 10), (99.9, 10.0, 9), (109.9, 10.0, 10), (5.0, 10.0, 1), (0.0, 10.0, 1), (1000.0, 0.5, 2000)],
)
def test_the_limit_is_what_the_machine_carries_and_one_at_least(
    pairs_per_second: float, each: float, sessions: int
) -> None:
    assert admission_limit(Capacity(pairs_per_second, 1, 10, 0.02), each) == sessions


def test_no_camera_of_the_scene_counts_as_faulty() -> None:
    """Else the model would be measured on pairs of which it leaves out one half; the scene is taken twice round."""
    health = Health()
    for frame in generated_scene() * 2:
        examined = examine(health, decode_pair(frame))
        health = examined.health
        assert examined.faults == ()


def test_the_camera_moves_as_far_as_it_should() -> None:
    """The tracker sees the motion, that of a point of the ground: from frame 0 to frame 1 of 12, on a circle."""
    first, second = (decode_pair(frame) for frame in generated_scene()[:2])
    forecast = expect(Motion.start(first, None), second, BOX, None)
    moved = forecast.centers[1] - np.array(BOX.center)
    assert moved == pytest.approx([round(RADIUS * (1 - np.cos(np.pi / 6))), -RADIUS / 2], abs=0.7)


def test_a_shipped_model_is_measured() -> None:
    engine = Engine.open("student-t", threads=2, streams=2)
    report = engine.report
    began = time.process_time()
    found = measure(NetworkModel(engine, report.model, report.provider, report.precision, lanes=2), 0.2)
    assert found.pairs_per_second > 1
    assert 0 < found.decode_ms < found.update_ms
    assert 0 < found.cpu_s_per_pair < time.process_time() - began
    assert admission_limit(found, found.pairs_per_second / 3.5) == 3
