"""What the load scripts in benchmarks/ compute, against other sources, and their clients against a small server."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from duotrack import Box, TargetState, TrackResult
from duotrack.errors import DuoTrackError
from duotrack_client.protocol import SUBPROTOCOL, Codec, Hello, Payload, Result, decode_frame, decode_message

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The scripts, which find each other as they do when they run."""
    names = ("load_clients", "naive_service", "service_load", "service_soak")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def clients(modules: dict[str, ModuleType]) -> Any:
    return modules["load_clients"]


@pytest.fixture(scope="module")
def load(modules: dict[str, ModuleType]) -> Any:
    return modules["service_load"]


@pytest.fixture(scope="module")
def soak(modules: dict[str, ModuleType]) -> Any:
    return modules["service_soak"]


def tiny(clients: Any, count: int) -> Any:
    """Footage of ``count`` pairs that tell their place by their first byte."""
    pairs = [
        (Payload(Codec.JPEG8, bytes([place, 1])), Payload(Codec.JPEG8, bytes([place, 2]))) for place in range(count)
    ]
    return clients.Footage(Box(1, 2, 3, 4), pairs)


def test_footage_goes_forth_and_back_without_a_jump(clients):
    footage = tiny(clients, 4)
    places = [footage.frame(seq).rgb.data[0] for seq in range(13)]
    assert places == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    assert [footage.frame(seq).seq for seq in (0, 9)] == [0, 9]
    assert [tiny(clients, 1).frame(seq).thermal.data[0] for seq in range(3)] == [0, 0, 0]
    assert footage.mean_bytes == 4


def test_film_is_640_by_480_in_jpeg_of_both_kinds(clients):
    footage = clients.film(frames=2, seed=3)
    rgb, thermal = footage.pairs[1]
    assert simplejpeg.decode_jpeg_header(rgb.data)[:2] == (480, 640)
    assert simplejpeg.decode_jpeg_header(thermal.data)[:3] == (480, 640, "Gray")
    assert footage.box.w > 0


def test_a_process_is_read_as_it_sees_itself(clients):
    me = clients.Server("", os.getpid())
    before, worked = me.cpu_s, time.process_time()
    while time.process_time() < worked + 0.3:
        sum(range(100_000))
    assert me.cpu_s - before == pytest.approx(time.process_time() - worked, abs=0.05)  # it counts in ticks of 10 ms
    assert me.threads >= threading.active_count()
    assert 10 < me.rss_mb < 1e5
    files = me.files
    with Path(__file__).open("rb"):
        assert me.files == files + 1


def test_a_server_that_does_not_start_is_reported_with_its_last_words(clients, tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('no model here')"]
    with pytest.raises(DuoTrackError, match="no model here"), clients.serving(command, tmp_path / "log", {}):
        pass


def greeting(mode: str, window: int | None) -> str:
    return json.dumps(
        {"type": "hello", "session": "s", "mode": mode, "window": window, "max_frame_bytes": 1000, "max_pixels": 1000}
        | {
            "codecs": ["jpeg8"],
            "heartbeat_s": 20,
            "idle_s": 60,
            "resumed_at_seq": None,
            "targets": [],
            "max_targets": 1,
        }
    )


def result(seq: int, credit: int, dropped: int = 0) -> str:
    return json.dumps(
        {"type": "result", "seq": seq, "score": 1, "state": "tracking", "credit": credit, "dropped_since_last": dropped}
        | {"box": {"x": 0, "y": 0, "w": 1, "h": 1}, "modalities": {"rgb": "ok", "thermal": "ok"}}
        | {"timings": {"queue": 0, "decode": 0, "infer": 0, "total": 0}, "target": 0, "others": []}
        | {"durable": False, "durable_seq": None}
    )


@pytest.mark.parametrize(("in_flight", "window"), [(100, 3), (2, 3)])
async def test_every_frame_keeps_to_the_credit_and_to_what_may_be_in_flight(clients, in_flight, window):
    together: list[int] = []  # how many pairs came before the client waited for answers

    async def answer_when_it_waits(stream: ServerConnection) -> None:
        await stream.send(greeting("every_frame", window))
        unanswered: list[int] = []
        while True:
            try:
                message = await asyncio.wait_for(stream.recv(), 0.05)
            except TimeoutError:
                together.append(len(unanswered))
                for seq in unanswered:
                    await stream.send(result(seq, credit=1))
                unanswered = []
                continue
            if isinstance(message, str):
                assert json.loads(message) == {"type": "bye"}
                return
            unanswered.append(decode_frame(message).seq)

    answers: list[Any] = []
    async with serve(answer_when_it_waits, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as server:
        session = {"stream_url": f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"}
        async with clients.opened(session) as stream:
            await clients.Feed(*stream, tiny(clients, 4), answers).every_frame(in_flight, frames=9)
    assert max(together) == min(in_flight, window)
    assert len(answers) == 9
    assert all(answer.used and answer.latency_ms > 0 for answer in answers)
    assert [answer.received_s for answer in answers] == sorted(answer.received_s for answer in answers)


async def test_live_sends_on_without_answers_and_counts_what_was_passed_over(clients):
    async def answer_every_third(stream: ServerConnection) -> None:
        await stream.send(greeting("live", window=None))
        async for message in stream:
            if isinstance(message, bytes) and (seq := decode_frame(message).seq) % 3 == 2:
                await stream.send(result(seq, credit=0, dropped=2))

    answers: list[Any] = []
    async with serve(answer_every_third, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as server:
        session = {"stream_url": f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"}
        async with clients.opened(session) as stream:
            feeding = asyncio.create_task(clients.Feed(*stream, tiny(clients, 4), answers).live(200.0))
            while len(answers) < 3:
                await asyncio.sleep(0.01)
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
    assert [answer.dropped for answer in answers[:3]] == [2, 2, 2]


def test_the_naive_service_speaks_the_protocol(modules):
    naive = modules["naive_service"]
    hello = decode_message(json.dumps(naive.hello("s", "every_frame", 8)))
    assert isinstance(hello, Hello)
    assert hello.window == 8
    tracked = TrackResult(Box(1, 2, 3, 4), 0.5, TargetState.UNCERTAIN)
    answer = decode_message(json.dumps(naive.answer(7, tracked, 1, 2.0, 3.0)))
    assert isinstance(answer, Result)
    assert (answer.seq, answer.box.xywh, answer.state, answer.timings.total) == (7, (1, 2, 3, 4), "uncertain", 5.0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.sampled_from([0, 1, 50, 95, 99, 100]))
def test_percentiles_are_those_of_the_nearest_rank(load, values, percent):
    assert load.percentile(values, percent) == np.percentile(values, percent, method="inverted_cdf")


def watched(load: Any, *, pairs: int, rss_mb: float = 100.0, others: float = 0.0) -> Any:
    return load.Slice(
        elapsed_s=2.0,
        latencies_ms=[float(value) for value in range(1, pairs + 1)],
        polite_ms=[],
        polite_dropped=0,
        server_cpu_s=3.0,
        clients_cpu_s=0.4,
        others_cpu_s=others,
        rss_mb=rss_mb,
    )


def test_the_table_has_medians_ratios_and_memory(load, monkeypatch):
    monkeypatch.setattr(load, "default_threads", lambda: 2)
    one, many = load.Crowd(1, 2), load.Crowd(5, 2)
    slices = {
        ("service", one): [watched(load, pairs=100), watched(load, pairs=200), watched(load, pairs=999)],
        ("service", many): [watched(load, pairs=200, rss_mb=110.0, others=0.6)] * 3,
    }
    *_, first, second = load.load_table(slices, [one, many], cost_s=0.01)
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    # 100 pairs/s × 10 ms is 1 core of 2, of the 1.8 that the clients leave, and of the 1.5 that the others leave too
    assert cells == ["service", "1", "100.0", "100.0", "198.0", "15.00", "2.00", "0.00", "0.50", "0.56", "0.56", "–"]
    cells = [cell.strip() for cell in second.strip("|").split("|")]
    assert cells[7:] == ["0.30", "0.50", "0.56", "0.67", "2.50"]


def samples(soak: Any, memory: list[float], files: list[int] | None = None) -> list[Any]:
    files = files or [10] * len(memory)
    return [
        soak.Sample(hours=index / 60, visits=index, rss_mb=value, threads=5, files=open_files, tasks=None)
        for index, (value, open_files) in enumerate(zip(memory, files, strict=True))
    ]


def test_the_line_through_memory_is_that_of_numpy(soak):
    random = np.random.default_rng(4)
    memory = (200 + 30 * np.arange(40) / 60 + random.normal(0, 1, 40)).tolist()
    coefficients, covariance = np.polyfit(np.arange(40) / 60, memory, 1, cov=True)
    line = soak.fit(samples(soak, memory))
    assert line.slope == pytest.approx(coefficients[0])
    assert line.error == pytest.approx(covariance[0, 0] ** 0.5)


def test_flat_memory_passes_and_a_leak_is_found(soak):
    noise = np.random.default_rng(5).normal(0, 0.5, 60)
    flat = (200 + noise).tolist()
    leak = (200 + 60 * np.arange(60) / 60 + noise).tolist()
    assert soak.findings(samples(soak, flat), allowed=10) == []
    (found,) = soak.findings(samples(soak, leak), allowed=10)
    assert found.startswith("memory grows by 6")


def test_growth_of_the_warm_up_is_no_leak_and_a_short_run_says_so(soak):
    warming = [100 + 10 * index for index in range(12)] + [220.0] * 48
    assert soak.findings(samples(soak, warming), allowed=10) == []
    (found,) = soak.findings(samples(soak, [200.0, 203.0, 199.0, 204.0]), allowed=10)
    assert found.startswith("too short to tell")


def test_files_that_stay_open_are_found_and_those_that_come_and_go_are_not(soak):
    memory = [200.0] * 30
    leaking = [10 + index // 3 for index in range(30)]
    (found,) = soak.findings(samples(soak, memory, leaking), allowed=10)
    assert found.startswith("open files at rest: ")
    assert soak.findings(samples(soak, memory, [10, 11, 12] * 10), allowed=10) == []


def test_the_table_of_a_long_soak_is_short_and_ends_with_the_last_sample(soak):
    rows = soak.table(samples(soak, [200.0] * 100))
    assert len(rows) <= soak.ROWS + 2
    assert rows[-1].startswith("| 99.0 | 99 |")
    assert len(soak.table(samples(soak, [200.0]))) == 3


def test_damaged_images_have_a_sound_header_and_do_not_decode(soak, clients):
    import random

    frame = soak.damaged(clients.film(frames=1).frame(0), random.Random(1))
    assert simplejpeg.decode_jpeg_header(frame.rgb.data)[:2] == (480, 640)
    with pytest.raises(ValueError, match="Premature"):
        simplejpeg.decode_jpeg(frame.rgb.data)
