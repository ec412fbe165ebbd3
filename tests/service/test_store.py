"""What every store must do, asked of each of them; and what each does when its ground gives way."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from duotrack_client import Client
from duotrack_service import app as app_module
from duotrack_service.settings import default_store
from duotrack_service.store import LeaseLost, Store, StoreError, open_store
from duotrack_service.store import sqlite as sqlite_module
from duotrack_service.store.memory import MemoryStore
from duotrack_service.store.redis import RedisStore
from duotrack_service.store.sqlite import SqliteStore

LONG = 60.0


class RedisServer:
    """A server of the tests' own that forgets all when it ends."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._folder = folder
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen([*command, "--dir", str(self._folder)], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(10)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "redis":
        opened = open_store(request.getfixturevalue("redis").url)
        await opened._redis.flushall()  # type: ignore[attr-defined]
    else:
        opened = open_store("memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/a folder/sessions.db")
    assert opened.name == request.param
    await opened.ping()
    yield opened
    await opened.close()


async def save(store: Store, fence: int, snapshot: bytes | None = b"state", owner: str = "a") -> None:
    await store.save("s", owner, fence, "key", b"summary", snapshot, LONG)


async def test_a_session_is_made_read_saved_and_claimed(store: Store) -> None:
    assert await store.read("s") is None
    assert await store.claim("s", "b", LONG) is None
    assert await store.create("s", "a", "key", b"first", LONG) == 1
    assert await store.read("s") == b"first"
    claim = await store.claim("s", "b", LONG)
    assert claim is not None
    assert (claim.fence, claim.former_owner, claim.former_fence) == (2, "a", 1)
    assert (claim.summary, claim.snapshot) == (b"first", None)
    await save(store, 2, b"\x00state\xff", owner="b")
    await save(store, 2, None, owner="b")
    claim = await store.claim("s", "c", LONG)
    assert claim is not None
    assert (claim.fence, claim.former_owner) == (3, "b")
    assert (claim.summary, claim.snapshot) == (b"summary", b"\x00state\xff")
    assert "state" not in repr(claim)


async def test_a_former_owner_writes_nothing(store: Store) -> None:
    await store.create("s", "a", "key", b"first", LONG)
    await store.claim("s", "b", LONG)
    with pytest.raises(LeaseLost):
        await save(store, 1)
    assert not await store.end("s", 1)
    assert await store.read("s") == b"first"
    await save(store, 2, owner="b")


async def test_an_ended_session_does_not_come_back(store: Store) -> None:
    await store.create("s", "a", "key", b"first", LONG)
    assert await store.end("s", 1)
    assert await store.read("s") is None
    assert await store.claim("s", "b", LONG) is None
    assert await store.list("key") == []
    with pytest.raises(LeaseLost):
        await save(store, 1)
    assert not await store.end("s", None)
    # One that was never stored, since the store was down, and ends now that it is back.
    assert not await store.end("other", 1)
    with pytest.raises(LeaseLost):
        await store.save("other", "a", 1, "key", b"", b"", LONG)


async def test_anyone_may_end_a_session_without_a_fence(store: Store) -> None:
    await store.create("s", "a", "key", b"first", LONG)
    await store.claim("s", "b", LONG)
    assert await store.end("s", None)
    with pytest.raises(LeaseLost):
        await save(store, 2, owner="b")


async def test_what_the_store_has_lost_is_written_anew(store: Store) -> None:
    await save(store, 7)
    claim = await store.claim("s", "b", LONG)
    assert claim is not None
    assert (claim.fence, claim.former_owner, claim.snapshot) == (8, "a", b"state")
    assert await store.list("key") == [b"summary"]


async def test_sessions_are_listed_by_key_oldest_first(store: Store) -> None:
    for name in "abc":
        await store.create(name, "p", "mine", name.encode(), LONG)
    await store.create("d", "p", "other", b"d", LONG)
    assert await store.list("mine") == [b"a", b"b", b"c"]
    await store.end("b", None)
    assert await store.list("mine") == [b"a", b"c"]
    assert await store.list("nobody") == []


async def test_what_is_not_written_again_expires(store: Store) -> None:
    await store.create("s", "a", "key", b"first", 0.05)
    await store.put_ticket("t", "s", 0.05)
    await asyncio.sleep(0.1)
    assert await store.read("s") is None
    assert await store.list("key") == []
    assert await store.claim("s", "b", LONG) is None
    assert await store.take_ticket("t") is None
    await store.create("s", "a", "key", b"first", 0.05)
    await store.put_ticket("u", "s", 0.05)
    await asyncio.sleep(0.1)
    assert await store.sweep() == (0 if store.name == "redis" else 2)
    await save(store, 1)
    assert await store.read("s") == b"summary"


async def test_a_ticket_is_taken_once_whoever_asks(store: Store) -> None:
    await store.put_ticket("t", "s", LONG)
    assert sorted(filter(None, await asyncio.gather(*(store.take_ticket("t") for _ in range(8))))) == ["s"]
    assert await store.take_ticket("t") is None


async def test_of_many_that_claim_at_once_one_may_write(store: Store) -> None:
    await store.create("s", "p", "key", b"first", LONG)
    claims = await asyncio.gather(*(store.claim("s", str(n), LONG) for n in range(8)))
    fences = sorted(claim.fence for claim in claims if claim is not None)
    assert fences == list(range(2, 10))
    wrote = []
    for fence in fences:
        with suppress(LeaseLost):
            await save(store, fence)
            wrote.append(fence)
    assert wrote == [9]


async def test_the_memory_store_forgets_by_its_clock() -> None:
    now = [0.0]
    store = MemoryStore(lambda: now[0])
    await store.create("s", "a", "key", b"", 10)
    now[0] = 9.9
    assert await store.read("s") == b""
    now[0] = 10.0
    assert await store.read("s") is None


async def test_a_sqlite_file_is_shared_by_processes(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    writer = f"""
import asyncio, sys
from pathlib import Path
from duotrack_service.store.sqlite import SqliteStore
async def main():
    store = SqliteStore(Path({str(path)!r}))
    for number in range(40):
        name = f"{{sys.argv[1]}}-{{number}}"
        await store.create(name, sys.argv[1], "key", b"", 60)
        await store.save(name, sys.argv[1], 1, "key", b"summary", bytes(100_000), 60)
        await store.claim("shared", sys.argv[1], 60)
    await store.close()
asyncio.run(main())
"""
    store = SqliteStore(path)
    await store.create("shared", "p", "other", b"", LONG)
    processes = [subprocess.Popen([sys.executable, "-c", writer, name]) for name in "ab"]
    assert [await asyncio.to_thread(process.wait, 60) for process in processes] == [0, 0]
    assert await store.list("key") == [b"summary"] * 80
    claim = await store.claim("shared", "p", LONG)
    assert claim is not None
    assert claim.fence == 82
    await store.close()


async def test_a_kill_in_mid_write_leaves_each_record_old_or_new(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    writer = f"""
import asyncio
from pathlib import Path
from duotrack_service.store.sqlite import SqliteStore
async def main():
    store = SqliteStore(Path({str(path)!r}))
    await store.create("s", "a", "key", b"", 60)
    for number in range(10**9):
        await store.save("s", "a", 1, "key", str(number).encode(), str(number).encode() * 20_000, 60)
        print(number, flush=True)
asyncio.run(main())
"""
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", writer], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(20):
            last = int(process.stdout.readline())
        process.kill()
        process.communicate(timeout=10)
        store = SqliteStore(path)
        claim = await store.claim("s", "b", LONG)
        await store.close()
        assert claim is not None
        assert int(claim.summary) >= last
        assert claim.snapshot == claim.summary * 20_000


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "text.db").write_text("no database, but long enough to be taken for the header of one " * 20)
    for path, reason in (
        (tmp_path / "file" / "x.db", "cannot open the store"),
        (tmp_path / "text.db", "not a database"),
    ):
        with pytest.raises(StoreError, match=reason):
            SqliteStore(path)


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(StoreError, match="has version 9, this DuoTrack reads version 1"):
        SqliteStore(path)


async def test_a_sqlite_file_that_fails_is_a_store_error(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "sessions.db")
    with sqlite3.connect(tmp_path / "sessions.db") as other:
        other.execute("DROP TABLE sessions")
    other.close()
    with pytest.raises(StoreError, match="fails: no such table"):
        await store.read("s")
    await store.close()


class Ice:
    """A clock that does not answer while it is frozen, and neither does the store that asks it, in mid-transaction."""

    def __init__(self) -> None:
        self.thawed = threading.Event()
        self.thawed.set()

    def __call__(self) -> float:
        self.thawed.wait(10)
        return time.time()


@pytest.fixture
def ice(monkeypatch) -> Iterator[Ice]:
    monkeypatch.setattr(sqlite_module, "TIMEOUT_S", 0.3)
    ice = Ice()
    yield ice
    ice.thawed.set()


async def test_a_frozen_sqlite_file_is_a_store_error_in_time_and_works_again(tmp_path: Path, ice: Ice) -> None:
    store = SqliteStore(tmp_path / "sessions.db", ice)
    await store.create("s", "a", "key", b"first", LONG)
    ice.thawed.clear()
    began = time.monotonic()
    waited = await asyncio.gather(*(store.read("s") for _ in range(6)), return_exceptions=True)
    assert [str(error) for error in waited] == [f"the store {store.path} fails: it does not answer"] * 6
    with pytest.raises(StoreError, match="does not answer"):
        await store.ping()
    assert time.monotonic() - began < 5
    ice.thawed.set()
    while True:
        with suppress(StoreError):
            assert await store.read("s") == b"first"
            break
        assert time.monotonic() - began < 20
        await asyncio.sleep(0.01)
    ice.thawed.clear()
    with pytest.raises(StoreError, match="does not answer"):
        await store.read("s")
    await asyncio.wait_for(store.close(), 5)


def test_a_service_with_a_frozen_sqlite_file_goes_on_and_stops(tmp_path, ice: Ice, serve, scene, monkeypatch) -> None:
    store = SqliteStore(tmp_path / "sessions.db", ice)
    monkeypatch.setattr(app_module, "_open_store", lambda _: store)
    service = serve(snapshot_s=0)
    with Client(service.url, timeout=10, reconnect_s=0) as client, client.session(scene.box) as session:
        session.track(scene.pairs[0])
        ice.thawed.clear()
        results = [session.track(pair) for pair in scene.pairs[1:4]]
        deadline = time.monotonic() + 10
        while results[-1].durable:
            assert time.monotonic() < deadline
            results.append(session.track(scene.pairs[4]))
        with client.session(scene.box) as other:
            assert not other.track(scene.pairs[0]).durable
        began = time.monotonic()
        service.stop()
        assert time.monotonic() - began < 8


async def test_a_frozen_redis_is_a_store_error_in_time_and_works_again(redis: RedisServer) -> None:
    store = RedisStore(redis.url)
    await store.create("s", "a", "key", b"first", LONG)
    redis.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"does not answer|Timeout"):
        await store.read("s")
    assert time.monotonic() - began < 8
    redis.process.send_signal(signal.SIGCONT)
    assert await store.read("s") == b"first"
    await store.close()


async def test_a_redis_that_was_restarted_works_at_once(redis: RedisServer) -> None:
    store = RedisStore(redis.url)
    await store.create("s", "a", "key", b"first", LONG)
    redis.stop()
    with pytest.raises(StoreError, match=f"redis://127.0.0.1:{redis.port}/0 fails"):
        await store.ping()
    redis.start()
    await save(store, 1)
    assert await store.read("s") == b"summary"
    await store.close()


async def test_a_path_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    for url, path in (
        ("sqlite:///~/sessions.db", tmp_path / "sessions.db"),
        (default_store(), tmp_path / ".local/state/duotrack/sessions.db"),
        (f"sqlite:///{tmp_path}/other.db", tmp_path / "other.db"),
    ):
        store = open_store(url)
        assert isinstance(store, SqliteStore)
        assert store.path == path
        await store.close()


def test_a_home_folder_that_is_not_known_is_told(monkeypatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", Mock(side_effect=KeyError))
    with pytest.raises(StoreError, match="the home folder is not known; set DUOTRACK_STORE"):
        open_store(default_store())


@pytest.mark.parametrize(
    "url", ["", "memory:x", "sqlite:relative.db", "sqlite:///", "postgres://host/db", "redis://[bad", "redis://host:x"]
)
def test_a_url_of_no_store_is_named(url: str) -> None:
    with pytest.raises(StoreError, match="expected a store"):
        open_store(url)


async def test_a_password_is_never_shown() -> None:
    store = open_store("redis://user:hunter2@127.0.0.1:1/0?password=hunter3")
    with pytest.raises(StoreError) as caught:
        await store.ping()
    assert "hunter" not in f"{caught.value} {store!r}"
    assert "user:***@127.0.0.1:1" in repr(store)
    await store.close()
    await open_store("redis://127.0.0.1:1/0", password="x").close()


def test_a_url_without_a_password_is_shown_as_it_is() -> None:
    assert repr(RedisStore("redis://127.0.0.1:1/0")) == "RedisStore('redis://127.0.0.1:1/0')"
