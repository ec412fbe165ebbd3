"""Sessions between processes: two registries on one store, in one event loop, and a store that fails."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable

import pytest

from duotrack.boxes import Box
from duotrack_client.encoding import Encoding
from duotrack_client.protocol import Credential, Frame, FrameReceived, Mode
from duotrack_service import registry as registry_module
from duotrack_service.auth import ANONYMOUS, Authenticator, Principal
from duotrack_service.endings import DELETED, Ending
from duotrack_service.metrics import Metrics
from duotrack_service.problems import Problem
from duotrack_service.registry import Refused, Registry
from duotrack_service.sessions import Session
from duotrack_service.settings import Settings
from duotrack_service.store import StoreError
from duotrack_service.store.memory import MemoryStore

BOX = Box(20, 30, 24, 24)


class Shared(MemoryStore):
    """A store that outlives its processes, and fails when told to."""

    name = "shared"
    down = False

    def __getattribute__(self, name: str) -> object:
        asked = name in ("create", "claim", "save", "end", "read", "list", "put_ticket", "take_ticket", "sweep")
        if asked and object.__getattribute__(self, "down"):
            return self._fail
        return object.__getattribute__(self, name)

    async def _fail(self, *_: object) -> None:
        raise StoreError("down")


@pytest.fixture
def store() -> Shared:
    return Shared()


Make = Callable[..., Registry]


@pytest.fixture
async def make(store: Shared, match) -> AsyncIterator[Make]:
    made: list[Registry] = []

    def build(names: tuple[str, ...] = ("match",), **settings: object) -> Registry:
        models = [match(name=name) for name in names]
        given = Settings(**{"store": "memory:", "snapshot_s": 0.0, **settings})
        made.append(Registry(given, models, store, Metrics(), limit=8, authenticator=Authenticator()))
        return made[-1]

    yield build
    for registry in made:
        await registry.close()


async def create(registry: Registry, principal: Principal = ANONYMOUS, **terms: object) -> tuple[Session, str]:
    given = {"options": {}, "ttl_s": None, "source": {}, **terms}
    return await registry.create(principal, BOX, Mode.EVERY_FRAME, given.pop("model", None), **given)


async def track(session: Session, pair, seq: int) -> Box:
    event = FrameReceived(Frame(seq, 0, *Encoding(rgb="png").encode(pair)), 1)
    tracked = await session.track(lambda: event)
    assert tracked is not None
    return tracked[1].results[0].box


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


def code(refused: pytest.ExceptionInfo[Refused]) -> int:
    assert refused.value.ending.code is not None
    return int(refused.value.ending.code)


async def test_a_session_moves_with_all_that_it_was(make: Make, scene) -> None:
    one, two = make(), make()
    session, _ = await create(one, options={"motion": False}, source={"camera": "left"})
    assert await track(session, scene.pairs[0], 0) == scene.boxes[0]
    assert await track(session, scene.pairs[1], 1) == scene.boxes[1]
    session.size = (240, 180)
    await one.flush(session)
    moved = await two.open(session.id, ANONYMOUS, None)
    assert moved is not session
    assert (moved.terms, moved.last_seq, moved.frames, moved.size) == (session.terms, 1, 2, (240, 180))
    assert (moved.durable, moved.durable_seq, moved.fence) == (True, 1, 2)
    assert await track(moved, scene.pairs[2], 2) == scene.boxes[2]
    # The former owner learns of it when it next writes, and forgets the session.
    await track(session, scene.pairs[2], 2)
    one.wrote(session)
    await until(lambda: session.ended)
    assert one.find(session.id, ANONYMOUS) is None
    assert two.find(session.id, ANONYMOUS) is moved
    # And fetches it back when the client comes to it again.
    await two.flush(moved)
    back = await one.open(session.id, ANONYMOUS, None)
    assert (back.last_seq, back.fence) == (2, 3)


async def test_a_session_that_is_here_and_was_taken_is_fetched_anew(make: Make, scene) -> None:
    one, two = make(), make()
    session, _ = await create(one)
    await track(session, scene.pairs[0], 0)
    await one.flush(session)
    moved = await two.open(session.id, ANONYMOUS, None)
    await track(moved, scene.pairs[1], 1)
    await two.flush(moved)
    back = await one.open(session.id, ANONYMOUS, None)
    assert back is not session
    assert back.last_seq == 1
    assert await one.open(session.id, ANONYMOUS, None) is back


async def test_a_session_before_its_first_frame_moves_too(make: Make, scene) -> None:
    one, two = make(), make()
    session, token = await create(one)
    moved = await two.open(session.id, None, Credential("resume", token))
    assert await track(moved, scene.pairs[0], 0) == scene.boxes[0]


async def test_sessions_of_other_processes_are_described_listed_and_ended(make: Make) -> None:
    one, two = make(), make()
    session, _ = await create(one)
    here, _ = await create(two)
    terms, frames = await two.describe(session.id, ANONYMOUS)
    assert (terms, frames) == (session.terms, 0)
    listed = await two.all(ANONYMOUS)
    assert [one if isinstance(one, tuple) else one.id for one in listed] == [(session.terms, 0), here.id]
    for stranger in (Principal("other"),):
        with pytest.raises(Problem, match="does not exist"):
            await two.describe(session.id, stranger)
        assert await two.all(stranger) == []
    ticket = await two.ticket(session.id, ANONYMOUS)
    assert await one.open(session.id, None, Credential("ticket", ticket)) is session
    await two.delete(session.id, ANONYMOUS)
    one.wrote(session)
    await until(lambda: session.ended)
    with pytest.raises(Refused) as refused:
        await one.open(session.id, ANONYMOUS, None)
    assert code(refused) == 4404


async def test_an_end_reaches_a_session_that_has_moved(make: Make) -> None:
    """Also where it is asked of the process that had it, and has not heard of the move."""
    one, two = make(), make()
    session, token = await create(one)
    moved = await two.open(session.id, None, Credential("resume", token))
    await one.delete(session.id, ANONYMOUS)
    two.wrote(moved)
    await until(lambda: moved.ended)


async def test_nothing_keeps_a_session_that_has_ended(make: Make) -> None:
    """A session holds its targets' templates and last answers: half a megabyte that waited for its idle time."""
    registry = make()
    session, _ = await create(registry)
    kept = weakref.ref(session)
    await registry.delete(session.id, ANONYMOUS)
    del session
    await asyncio.sleep(0.05)
    gc.collect()
    assert kept() is None


async def test_who_only_pings_keeps_its_session_in_the_store_too(make: Make, store: Shared, monkeypatch) -> None:
    registry = make(idle_s=0.1)
    session, _ = await create(registry)
    await until(lambda: session.durable)
    saved = []
    keep = store.save

    async def save(session_id: str, *rest: object) -> None:
        saved.append(session_id)
        await keep(session_id, *rest)

    monkeypatch.setattr(store, "save", save)
    async with asyncio.timeout(5):
        while len(saved) < 3:
            session.touch()
            await asyncio.sleep(0.01)
    assert not session.ended


async def test_without_its_store_all_that_is_here_goes_on(make: Make, store: Shared, scene) -> None:
    one, two = make(), make()
    before, token = await create(one)
    elsewhere, _ = await create(two)
    await one.flush(before)
    store.down = True
    session, new_token = await create(one)
    assert not session.durable
    await track(session, scene.pairs[0], 0)
    assert await one.open(before.id, None, Credential("resume", token)) is before
    assert await one.open(session.id, None, Credential("resume", new_token)) is session
    ticket = await one.issue_ticket(session.id)
    assert await one.open(session.id, None, Credential("ticket", ticket)) is session
    assert {held.id for held in await one.all(ANONYMOUS)} == {before.id, session.id}
    await until(lambda: not one.durable)
    for asked in (one.describe(elsewhere.id, ANONYMOUS), one.ticket(elsewhere.id, ANONYMOUS)):
        with pytest.raises(Problem, match="the store does not answer"):
            await asked
    with pytest.raises(Refused) as refused:
        await one.open(elsewhere.id, ANONYMOUS, None)
    assert code(refused) == 1013
    one.end(before, DELETED)
    store.down = False
    await until(lambda: session.durable)
    assert one.durable


async def test_a_delete_that_the_store_must_do_waits_for_it(make: Make, store: Shared, monkeypatch) -> None:
    one, two = make(), make()
    session, _ = await create(one)

    async def fail(*_: object) -> None:
        raise StoreError("down")

    monkeypatch.setattr(store, "end", fail)
    with pytest.raises(Problem, match="the store does not answer"):
        await two.delete(session.id, ANONYMOUS)
    one.end(session, DELETED)
    await asyncio.sleep(0.01)


async def test_what_cannot_be_read_is_as_if_it_were_gone(make: Make, store: Shared, scene) -> None:
    one = make()
    for name, summary, snapshot in (
        ("a", b"no summary", None),
        ("b", None, b"no snapshot"),
        ("c", None, None),
    ):
        session, token = await create(one, model="match")
        await track(session, scene.pairs[0], 0)
        await one.flush(session)
        row = store._rows[session.id]
        kept = {"summary": summary or row.summary, "snapshot": snapshot or row.snapshot}
        store._rows[session.id] = type(row)(**{**{f: getattr(row, f) for f in type(row).__slots__}, **kept})
        other = make(("another",)) if name == "c" else make()
        with pytest.raises(Refused) as refused:
            await other.open(session.id, ANONYMOUS, None)
        assert code(refused) == 4404
        if name == "a":
            assert await other.all(ANONYMOUS) == []
            with pytest.raises(Refused) as refused:
                await other.open(session.id, None, Credential("resume", token))
            assert code(refused) == 4401
        store._rows.clear()


async def test_models_stand_side_by_side(make: Make) -> None:
    one = make(("small", "large"))
    assert [model.name for model in one.models] == ["small", "large"]
    assert (await create(one))[0].model.name == "small"
    assert (await create(one, model="large"))[0].model.name == "large"
    with pytest.raises(Problem, match="expected a model among small, large, got 'huge'"):
        await create(one, model="huge")


async def test_what_has_expired_is_swept_and_old_tickets_too(make: Make, store: Shared, monkeypatch) -> None:
    monkeypatch.setattr(registry_module, "SWEEP_S", 0.01)
    one = make(ticket_s=0.05)
    session, _ = await create(one)
    store.down = True
    await one.issue_ticket(session.id)
    assert len(one._tickets) == 1
    await until(lambda: not one._tickets)
    store.down = False
    await store.create("old", "p", "key", b"", 0.001)
    await until(lambda: "old" not in store._rows)


async def test_a_service_that_stops_stores_what_is_left(make: Make, scene) -> None:
    one = make(snapshot_s=60)
    session, _ = await create(one)
    await until(lambda: session.durable_seq is None and session.durable)
    await track(session, scene.pairs[0], 0)
    one.wrote(session)
    await one.stop()
    with pytest.raises(Problem, match="nothing new is taken"):
        await create(one)
    await one.close()
    moved = await make().open(session.id, ANONYMOUS, None)
    assert moved.last_seq == 0


async def test_a_service_whose_store_is_down_when_it_stops_says_what_is_lost(make: Make, store: Shared, scene) -> None:
    one = make()
    session, _ = await create(one)
    store.down = True
    await track(session, scene.pairs[0], 0)
    one.wrote(session)
    await one.close()
    assert session.ended
    assert not session.durable


class Stuck:
    """A connection that does not end."""

    def stop(self, ending: Ending) -> None:
        pass

    async def stopped(self) -> None:
        await asyncio.Event().wait()

    closed = stopped


async def test_a_connection_that_does_not_end_does_not_keep_the_service_from_its_end(make: Make, monkeypatch) -> None:
    monkeypatch.setattr(registry_module, "STOP_GRACE_S", 0.1)
    one = make()
    session, _ = await create(one)
    await session.attach(Stuck())
    await asyncio.wait_for(one.stop(), 5)


async def test_a_session_whose_time_is_over_does_not_come_back(make: Make) -> None:
    one, two = make(), make()
    session, token = await create(one, ttl_s=0.3)
    await one.flush(session)
    ticket = await one.issue_ticket(session.id)
    one._timers[session.id].cancel()  # as if the process had been killed
    await asyncio.sleep(0.4)
    for principal, credential, expected in (
        (ANONYMOUS, None, 4404),
        (None, Credential("resume", token), 4401),
        (None, Credential("ticket", ticket), 4404),
    ):
        with pytest.raises(Refused) as refused:
            await two.open(session.id, principal, credential)
        assert code(refused) == expected
    with pytest.raises(Problem, match="does not exist or has ended"):
        await two.describe(session.id, ANONYMOUS)
    assert await two.all(ANONYMOUS) == []


async def test_who_shows_nothing_gets_nothing(make: Make) -> None:
    one = make()
    session, _ = await create(one)
    with pytest.raises(Refused) as refused:
        await one.open(session.id, None, None)
    assert code(refused) == 4401
    with pytest.raises(Refused) as refused:
        await one.open("none", ANONYMOUS, None)
    assert code(refused) == 4404
    with pytest.raises(Refused) as refused:
        await one.open("none", None, Credential("ticket", "none"))
    assert code(refused) == 4401


async def test_an_end_counts_once(make: Make) -> None:
    one = make()
    session, _ = await create(one)
    one.end(session, DELETED)
    one.end(session, DELETED)
    one.wrote(session)
    await one.flush(session)
    one._lost(session)
    one._expire(session)
    text = one._metrics.render()[0].decode()
    assert 'duotrack_sessions_ended_total{reason="deleted"} 1.0' in text


async def test_only_its_own_connection_leaves_a_session(make: Make) -> None:
    session, _ = await create(make())
    mine, other = object(), object()
    await session.attach(mine)
    session.detach(other)
    assert session.connection is mine
    session.detach(mine)
    assert session.connection is None


async def test_a_turn_that_fails_before_it_has_a_frame_is_nobodys_frame(make: Make) -> None:
    session, _ = await create(make())

    def fail() -> FrameReceived:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        await session.track(fail)
    assert not session.busy


async def test_what_was_to_be_done_with_a_frame_is_not_forgotten_when_it_is_given_up(make: Make, scene) -> None:
    session, _ = await create(make())
    giving_up = asyncio.create_task(track(session, scene.pairs[0], 0))
    await asyncio.sleep(0)
    giving_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await giving_up
    assert await track(session, scene.pairs[0], 1) == scene.boxes[0]


async def test_a_ticket_of_a_session_that_has_ended_opens_nothing(make: Make, store: Shared) -> None:
    one = make()
    session, _ = await create(one)
    ticket = await one.issue_ticket(session.id)
    one.end(session, DELETED)
    await until(lambda: store._rows[session.id].ended)
    with pytest.raises(Refused) as refused:
        await one.open(session.id, None, Credential("ticket", ticket))
    assert code(refused) == 4404
