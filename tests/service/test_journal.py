"""Write-behind against a store whose every answer is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from duotrack_service import journal as journal_module
from duotrack_service.journal import Durable, Frozen, Journal
from duotrack_service.store import LeaseLost, StoreError


@dataclass(eq=False)
class Session:
    id: str
    seq: int = 0
    key: str = "key"
    fence: int = 1
    durable: bool = False
    durable_seq: int | None = None

    def summary(self) -> bytes:
        return b"summary"

    def freeze(self) -> Frozen:
        seq = self.seq
        return Frozen(seq, lambda: str(seq).encode())


@dataclass
class Scripted:
    """A store that does what it is told: fail, refuse, or wait."""

    name: str = "scripted"
    down: bool = False
    lost: set[str] = field(default_factory=set)
    gate: asyncio.Event | None = None
    saved: list[tuple[str, int]] = field(default_factory=list)
    under_way: list[str] = field(default_factory=list)
    tried: int = 0

    async def save(self, session: str, *rest: object) -> None:
        snapshot = rest[-2]
        assert session not in self.under_way, "two saves of one session at once"
        self.tried += 1
        self.under_way.append(session)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if session in self.lost:
                raise LeaseLost(session)
            if self.down:
                raise StoreError("down")
            self.saved.append((session, int(snapshot)))
        finally:
            self.under_way.remove(session)


@dataclass
class Watched:
    journal: Journal
    store: Scripted
    lost: list[Durable]
    health: list[bool]
    milliseconds: list[float]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Watched]:
    monkeypatch.setattr(journal_module, "FIRST_WAIT_S", 0.005)
    monkeypatch.setattr(journal_module, "LONGEST_WAIT_S", 0.02)

    def build(interval_s: float = 0.0, **script: object) -> Watched:
        store, lost, health, milliseconds = Scripted(**script), [], [], []
        journal = Journal(
            store,
            "me",
            interval_s=interval_s,
            ttl_s=60,
            on_lost=lost.append,
            on_health=health.append,
            on_saved=milliseconds.append,
        )
        return Watched(journal, store, lost, health, milliseconds)

    return build


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


async def test_a_change_is_stored_a_moment_later(make) -> None:
    watched, session = make(), Session("s", seq=4)
    watched.journal.wrote(session)
    assert watched.store.saved == []
    await until(lambda: session.durable_seq == 4)
    assert session.durable
    assert watched.store.saved == [("s", 4)]
    assert len(watched.milliseconds) == 1
    assert await watched.journal.close(1) == 0


async def test_changes_that_come_faster_are_stored_together(make) -> None:
    watched, session = make(interval_s=0.05), Session("s")
    for session.seq in range(20):
        watched.journal.wrote(session)
        await asyncio.sleep(0.001)
    await until(lambda: session.durable_seq == 19)
    assert len(watched.store.saved) <= 3
    await watched.journal.close(1)


async def test_a_save_under_way_is_followed_by_one_with_what_came_since(make) -> None:
    watched, session = make(gate=asyncio.Event()), Session("s", seq=1)
    watched.journal.wrote(session)
    await until(lambda: watched.store.under_way == ["s"])
    session.seq = 2
    watched.journal.wrote(session)
    flush = asyncio.create_task(watched.journal.flush(session))
    await asyncio.sleep(0)
    watched.store.gate.set()
    assert await flush
    assert session.durable_seq == 2
    assert watched.store.saved == [("s", 1), ("s", 2)]
    await watched.journal.close(1)


async def test_a_store_that_is_down_is_tried_by_one_until_it_is_back(make) -> None:
    watched = make(down=True)
    sessions = [Session(str(number), seq=number, durable=True) for number in range(5)]
    for session in sessions:
        watched.journal.wrote(session)
    await until(lambda: watched.health == [False])
    assert not watched.journal.healthy
    await until(lambda: not any(session.durable for session in sessions))
    late = Session("late", seq=9, durable=True)
    watched.journal.wrote(late)
    assert not late.durable
    await until(lambda: watched.store.tried >= 10)
    watched.store.down = False
    await until(lambda: all(session.durable for session in [*sessions, late]))
    assert watched.health == [False, True]
    assert sorted(watched.store.saved) == [*((str(n), n) for n in range(5)), ("late", 9)]
    assert await watched.journal.close(1) == 0


async def test_when_the_one_who_tries_is_gone_another_goes_on(make) -> None:
    watched = make(down=True)
    first, second = Session("1"), Session("2", seq=7)
    watched.journal.wrote(first)
    await until(lambda: watched.store.tried >= 2)
    watched.journal.wrote(second)
    await until(lambda: watched.store.tried >= 4)
    watched.journal.forget(first)
    tried = watched.store.tried
    await until(lambda: watched.store.tried >= tried + 3)
    watched.store.down = False
    await until(lambda: second.durable_seq == 7)
    assert first.durable_seq is None
    assert await watched.journal.close(1) == 0


async def test_a_lost_session_is_told_once_and_not_stored_again(make) -> None:
    watched, session = make(lost={"s"}), Session("s")
    watched.journal.wrote(session)
    await until(lambda: watched.lost == [session])
    assert not await watched.journal.flush(session)
    assert watched.journal.healthy
    assert await watched.journal.close(1) == 0
    assert watched.store.saved == []


async def test_an_ended_session_is_forgotten_even_where_its_save_fails(make) -> None:
    watched, session = make(gate=asyncio.Event(), down=True), Session("s")
    watched.journal.wrote(session)
    await until(lambda: watched.store.under_way == ["s"])
    watched.journal.forget(session)
    watched.store.gate.set()
    await until(lambda: watched.health == [False])
    assert await watched.journal.close(1) == 0


async def test_closing_stores_what_is_left_and_counts_what_it_cannot(make) -> None:
    watched = make(interval_s=60)
    sessions = [Session(str(number), seq=1) for number in range(3)]
    for session in sessions:
        watched.journal.wrote(session)
    await until(lambda: all(session.durable for session in sessions))
    for session in sessions:
        session.seq = 2
        watched.journal.wrote(session)
    assert await watched.journal.close(1) == 0
    assert [session.durable_seq for session in sessions] == [2, 2, 2]


async def test_closing_does_not_wait_for_ever(make) -> None:
    watched, session = make(gate=asyncio.Event()), Session("s")
    watched.journal.wrote(session)
    await until(lambda: watched.store.under_way == ["s"])
    assert await watched.journal.close(0.05) == 1
    watched.store.gate.set()


async def test_flush_tells_whether_it_is_stored(make) -> None:
    watched, session = make(), Session("s", seq=3)
    assert await watched.journal.flush(session)
    watched.store.down = True
    assert not await watched.journal.flush(session)
    assert (session.durable, session.durable_seq) == (False, 3)
    assert await watched.journal.close(0.1) == 1


async def test_a_flush_that_fails_is_made_up_for_when_the_store_is_back(make) -> None:
    watched, session = make(down=True), Session("s", seq=3, durable=True)
    assert not await watched.journal.flush(session)
    assert not session.durable
    watched.store.down = False
    await until(lambda: session.durable_seq == 3)  # nobody has written or flushed again
    assert watched.store.saved == [("s", 3)]
    assert await watched.journal.close(1) == 0


async def test_nobody_need_listen() -> None:
    store = Scripted(down=True)
    journal = Journal(store, "me", interval_s=0, ttl_s=1, on_lost=lambda _: None)
    assert not await journal.flush(Session("s"))
    store.down = False
    assert await journal.flush(Session("s"))
