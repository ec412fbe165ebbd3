"""Both clients over connections that break at any point, with the tests' model: each result once, in order."""

import asyncio
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from duotrack_client import AsyncClient, Client, ConnectionFailed, SessionClosed


class Cutter:
    """A TCP proxy that cuts each of its connections after a number of bytes.

    After each cut it accepts and resets ``resets`` connections, as Docker's does while the container starts again.
    """

    def __init__(self, port: int, seed: int, most: int, resets: int) -> None:
        self._backend = port
        self._random = random.Random(seed)
        self._most = most
        self._resets, self._down = resets, 0
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        try:
            while True:
                here, _ = self._listener.accept()
                if self._down:
                    self._down -= 1
                    here.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    here.close()
                    continue
                there = socket.create_connection(("127.0.0.1", self._backend))
                budget = [self._random.randrange(2_000, self._most)]
                for source, sink in ((here, there), (there, here)):
                    threading.Thread(target=self._copy, args=(source, sink, budget), daemon=True).start()
        except OSError:
            return

    def _copy(self, source: socket.socket, sink: socket.socket, budget: list[int]) -> None:
        try:
            while data := source.recv(4096):
                budget[0] -= len(data)
                if budget[0] < 0:
                    self.cuts += 1
                    self._down = self._resets
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def cut(service) -> Iterator:
    made: list[Cutter] = []

    def make(seed: int, most: int = 250_000, resets: int = 0) -> Cutter:
        made.append(Cutter(int(service.url.rsplit(":", 1)[1]), seed, most, resets))
        return made[-1]

    yield make
    for cutter in made:
        cutter.close()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("msgpack", [False, True])
def test_every_result_comes_once_and_in_order(cut, scenes, seed: int, msgpack: bool) -> None:
    scene = scenes(frames=24, seed=seed)
    cutter = cut(seed, resets=seed % 3)
    reasons: list[Exception] = []
    with Client(cutter.url, timeout=10) as client:
        session = client.session(scene.box, msgpack=msgpack, on_reconnect=reasons.append)
        with session:
            results = list(session.stream(scene.pairs))
    assert [result.seq for result in results] == list(range(24))
    assert [result.box.x for result in results] == [box.x for box in scene.boxes]
    assert session.reconnects == len(reasons) > 0


@pytest.mark.parametrize("seed", range(6))
async def test_the_async_client_too(cut, scenes, seed: int) -> None:
    scene = scenes(frames=24, seed=seed)
    cutter = cut(seed + 100, resets=seed % 3)
    async with AsyncClient(cutter.url, timeout=10) as client, client.session(scene.box) as session:
        results = [result async for result in session.stream(scene.pairs)]
        reconnects = session.reconnects
    assert [result.seq for result in results] == list(range(24))
    assert [result.box.x for result in results] == [box.x for box in scene.boxes]
    assert reconnects > 0


@pytest.mark.parametrize("seed", range(3))
def test_one_by_one_in_both_modes(cut, scenes, seed: int) -> None:
    scene = scenes(frames=16, seed=seed)
    for mode in ("every_frame", "live"):
        cutter = cut(seed + 200, most=300_000)
        with Client(cutter.url, timeout=10) as client, client.session(scene.box, mode=mode) as session:
            results = [session.track(pair) for pair in scene.pairs]
            assert session.reconnects > 0
        assert [result.box.x for result in results] == [box.x for box in scene.boxes]


def test_targets_are_started_on_the_other_side_of_a_cut(cut, scenes) -> None:
    scene = scenes(frames=16)
    cutter = cut(7, most=300_000)
    with Client(cutter.url, timeout=10) as client, client.session((150, 100, 30, 20)) as session:
        for seq, pair in enumerate(scene.pairs):
            if seq in (3, 7):
                session.init(scene.boxes[seq], target=seq)
            result = session.track(pair)
            assert [other.target for other in result.others] == [3] * (seq >= 3) + [7] * (seq >= 7)
            assert all(other.box.x == scene.boxes[seq].x for other in result.others)
        session.configure(targets=[7])
        assert session.track(scene.pairs[-1]).target == 7
        assert session.reconnects > 0


def test_a_service_that_does_not_come_back(serve, scene) -> None:
    service = serve(reconnect_after_s=0)
    with Client(service.url, reconnect_s=0.5) as client, client.session(scene.box) as session:
        session.track(scene.pairs[0])
        service.stop()
        with pytest.raises(ConnectionFailed, match=r"no other was found within \d s"):
            session.track(scene.pairs[1])


async def test_an_async_service_that_does_not_come_back(serve, scene) -> None:
    service = serve(reconnect_after_s=0)
    async with AsyncClient(service.url, reconnect_s=0.5) as client, client.session(scene.box) as session:
        await session.track(scene.pairs[0])
        await asyncio.to_thread(service.stop)
        with pytest.raises(ConnectionFailed, match=r"no other was found within \d s"):
            [result async for result in session.stream(scene.pairs[1:])]


def silent(service) -> socket.socket:
    """Stop ``service``; in its place, a port that accepts connections and says nothing, as before a frozen process."""
    service.stop()
    return socket.create_server(("127.0.0.1", int(service.url.rsplit(":", 1)[1])))


def test_a_service_that_is_silent_is_given_up_in_time(serve, scene) -> None:
    service = serve(reconnect_after_s=0)
    with Client(service.url, reconnect_s=0.5) as client, client.session(scene.box) as session:
        session.track(scene.pairs[0])
        with silent(service):
            began = time.monotonic()
            with pytest.raises(ConnectionFailed, match=r"no other was found within \d s"):
                session.track(scene.pairs[1])
        assert time.monotonic() - began < client.timeout / 2


async def test_a_service_that_is_silent_is_given_up_by_the_async_client_in_time(serve, scene) -> None:
    service = serve(reconnect_after_s=0)
    async with AsyncClient(service.url, reconnect_s=0.5) as client, client.session(scene.box) as session:
        await session.track(scene.pairs[0])
        with await asyncio.to_thread(silent, service):
            began = time.monotonic()
            with pytest.raises(ConnectionFailed, match=r"no other was found within \d s"):
                await session.track(scene.pairs[1])
        assert time.monotonic() - began < client.timeout / 2


def test_an_end_that_was_meant_is_not_undone(serve, scene) -> None:
    with Client(serve(idle_s=0.3).url) as client, client.session(scene.box) as session:
        session.track(scene.pairs[0])
        with pytest.raises(SessionClosed, match="4408"):
            list(session.stream(_slow(scene.pairs[1:])))
        assert session.reconnects == 0


def _slow(pairs) -> Iterator:
    threading.Event().wait(1.0)
    yield from pairs
