"""The service as processes that are killed, frozen and cut off, with the real tracker and a client that knows nothing.

Whatever happens, the client gets every result once and in order, and the boxes of a run in which nothing happened.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from duotrack.data.synthetic import Scene, SceneConfig
from duotrack_client import Client, Pair, Result, SessionClosed

FRAMES = 48


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


@dataclass
class Server:
    """One ``duotrack-serve`` process on a port of its own, which keeps it over restarts."""

    store: str
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, **settings: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DUOTRACK_")}
        defaults = {"MAX_SESSIONS": "8", "SNAPSHOT_S": "0.1", "THREADS": "1", "LANES": "1", "RECONNECT_AFTER_S": "0.1"}
        environment |= {f"DUOTRACK_{name}": value for name, value in (defaults | settings).items()}
        command = [sys.executable, "-m", "duotrack_service", "--port", str(self.port), "--model", "student-t"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--provider", "cpu", "--store", self.store], env=environment, stdout=log, stderr=log
            )
        wait_until(self.ready)

    def ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with suppress(httpx2.TransportError):
            return httpx2.get(f"{self.url}/health/ready", trust_env=False).status_code == 200
        return False

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait()

    def wait(self, timeout: float = 20.0) -> int:
        assert self.process is not None
        return self.process.wait(timeout)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.kill()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    made: list[Server] = []

    def make(store: str) -> Server:
        made.append(Server(store, tmp_path / f"server-{len(made)}.log"))
        return made[-1]

    yield make
    for server in made:
        server.close()


class Balancer:
    """A TCP proxy in front of several servers, as a fleet has: new connections go to the one that is chosen."""

    def __init__(self, port: int) -> None:
        self.backend = port
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        serving = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._pass_on, "127.0.0.1", self.port), self._loop
        )
        self._server = serving.result(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def switch(self, port: int) -> None:
        """Send new connections to ``port``, and cut those that are open."""
        self.backend = port
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        other = None
        try:
            there, other = await asyncio.open_connection("127.0.0.1", self.backend)
            self._writers.add(other)
            await asyncio.gather(_copy(reader, other), _copy(there, writer))
        except OSError:
            pass
        finally:
            for end in (writer, other):
                if end is not None:
                    self._writers.discard(end)
                    end.close()

    async def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        await self._cut()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.wait(tasks, timeout=5) if tasks else None


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
def balancers() -> Iterator[Callable[[int], Balancer]]:
    made: list[Balancer] = []

    def make(port: int) -> Balancer:
        made.append(Balancer(port))
        return made[-1]

    yield make
    for balancer in made:
        balancer.close()


@dataclass
class Redis:
    """A Redis server of the test's own that forgets all when it ends."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen([*command, "--dir", str(self.folder)], stdout=subprocess.DEVNULL)
        wait_until(self._answers)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Redis(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(SceneConfig(frames=FRAMES, seed=7, width=320, height=256))


@pytest.fixture(scope="module")
def pairs(scene: Scene) -> list[Pair]:
    return [Pair(frame.pair.rgb, frame.pair.thermal) for frame in scene]


def boxes(results: list[Result]) -> list[tuple[float, float, float, float]]:
    return [result.box.xywh for result in results]


def check(results: list[Result], unbroken: list[Result]) -> None:
    assert [result.seq for result in results] == list(range(FRAMES))
    assert boxes(results) == boxes(unbroken)


def track(url: str, scene: Scene, pairs: list[Pair], at: dict[int, Callable[[], object]] | None = None) -> list[Result]:
    """All results of a session, calling ``at[n]`` when n results have come."""
    results: list[Result] = []
    with Client(url, timeout=10, reconnect_s=30) as client, client.session(scene[0].box) as session:
        for result in session.stream(pairs):
            results.append(result)
            if at is not None and len(results) in at:
                at[len(results)]()
    return results


@pytest.fixture(scope="module")
def unbroken(scene: Scene, pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """The results of a run in which nothing happens."""
    server = Server("memory:", tmp_path_factory.mktemp("unbroken") / "server.log")
    server.start()
    try:
        results = track(server.url, scene, pairs)
    finally:
        server.close()
    check(results, results)
    return results


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/sessions.db"


def test_a_killed_server_comes_back_and_nothing_is_lost(servers, sqlite, scene, pairs, unbroken) -> None:
    server = servers(sqlite)
    server.start()

    def again() -> None:
        server.kill()
        server.start()

    check(track(server.url, scene, pairs, {5: again, 30: again}), unbroken)


def test_a_server_killed_before_its_first_result_starts_anew_on_the_same_box(
    servers, sqlite, scene, pairs, unbroken
) -> None:
    server = servers(sqlite)
    server.start()
    with Client(server.url, timeout=10, reconnect_s=30) as client, client.session(scene[0].box) as session:
        server.kill()
        server.start()
        check(list(session.stream(pairs)), unbroken)


def test_a_server_that_is_told_to_stop_hands_over_and_ends_in_time(servers, sqlite, scene, pairs, unbroken) -> None:
    server = servers(sqlite)
    server.start()
    statuses = []

    def restart() -> None:
        began = time.monotonic()
        server.send(signal.SIGTERM)
        statuses.append(server.wait(timeout=15))
        assert time.monotonic() - began < 10
        server.start()

    check(track(server.url, scene, pairs, {12: restart}), unbroken)
    assert statuses == [-signal.SIGTERM]


def test_another_server_goes_on_where_one_was_killed(servers, balancers, redis, scene, pairs, unbroken) -> None:
    first, second = servers(redis.url), servers(redis.url)
    first.start()
    second.start()
    balancer = balancers(first.port)

    def fail_over() -> None:
        first.kill()
        balancer.switch(second.port)

    check(track(balancer.url, scene, pairs, {20: fail_over}), unbroken)


def test_a_frozen_server_that_wakes_up_writes_nothing(servers, balancers, redis, scene, pairs, unbroken) -> None:
    first, second = servers(redis.url), servers(redis.url)
    first.start()
    second.start()
    balancer = balancers(first.port)
    results: list[Result] = []
    with Client(balancer.url, timeout=10, reconnect_s=30) as client, client.session(scene[0].box) as session:
        for result in session.stream(pairs):
            results.append(result)
            if len(results) == 20:
                first.send(signal.SIGSTOP)
                balancer.switch(second.port)
            if len(results) == 30:
                first.send(signal.SIGCONT)
                wait_until(lambda: "session moved" in first.log.read_text())
        check(results, unbroken)
        # The second server's word stands in the store, and both tell the same of the session.
        for server in (first, second):
            wait_until(lambda url=server.url: httpx2.get(f"{url}/v1/sessions/{session.id}").json()["frames"] == FRAMES)


def test_without_its_store_the_service_goes_on_and_says_so(servers, redis, scene, pairs, unbroken) -> None:
    server = servers(redis.url)
    server.start()

    def durable() -> bool:
        return bool(httpx2.get(f"{server.url}/health/ready", trust_env=False).json()["durable"])

    results: list[Result] = []
    with Client(server.url, timeout=10, reconnect_s=30) as client, client.session(scene[0].box) as session:
        for index, pair in enumerate(pairs):
            if index == 10:
                redis.kill()
            if index == 12:
                wait_until(lambda: not durable())
            if index == 20:
                redis.start()
                wait_until(durable)
            results.append(session.track(pair))
    check(results, unbroken)
    assert [results[index].durable for index in (9, 15, FRAMES - 1)] == [True, False, True]


def test_a_session_that_redis_forgot_is_stored_again(servers, redis, scene, pairs, unbroken) -> None:
    server = servers(redis.url)
    server.start()

    def forget_then_restart() -> None:
        redis.kill()
        redis.start()
        wait_until(lambda: httpx2.get(f"{server.url}/health/ready", trust_env=False).json()["durable"])

    def restart() -> None:
        server.send(signal.SIGTERM)
        server.wait()
        server.start()

    check(track(server.url, scene, pairs, {10: forget_then_restart, 30: restart}), unbroken)


def test_the_connection_is_cut_again_and_again(servers, balancers, sqlite, scene, pairs, unbroken) -> None:
    server = servers(sqlite)
    server.start()
    balancer = balancers(server.port)
    cuts = dict.fromkeys(range(3, FRAMES, 7), lambda: balancer.switch(server.port))
    check(track(balancer.url, scene, pairs, cuts), unbroken)


def test_an_ended_session_does_not_come_back(servers, sqlite, scene, pairs) -> None:
    server = servers(sqlite)
    server.start()
    with Client(server.url, timeout=10, reconnect_s=5) as client, client.session(scene[0].box) as session:
        session.track(pairs[0])
        assert httpx2.delete(f"{server.url}/v1/sessions/{session.id}").status_code == 204
        server.kill()
        server.start()
        with pytest.raises(SessionClosed, match=r"\((1000|4404)\)"):
            session.track(pairs[1])
