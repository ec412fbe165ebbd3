"""Write-behind: sessions are stored a moment after their frames, beside the stream and never in its way."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol
from weakref import WeakSet, WeakValueDictionary

import structlog

from duotrack_service.store import LeaseLost, Store, StoreError

log = structlog.stdlib.get_logger(__name__)

FIRST_WAIT_S: Final = 0.2
LONGEST_WAIT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Frozen:
    """How far a session has come, at one moment.

    Attributes:
        seq: the last frame that was tracked.
        pack: makes the bytes to store; called in a worker thread.
    """

    seq: int | None
    pack: Callable[[], bytes]


class Durable(Protocol):
    """A session as the journal sees it, which sets the last two attributes."""

    fence: int
    durable: bool
    durable_seq: int | None

    @property
    def id(self) -> str: ...
    @property
    def key(self) -> str: ...

    def summary(self) -> bytes:
        """Its terms."""
        ...

    def freeze(self) -> Frozen:
        """How far it has come."""
        ...


class Journal:
    """Stores sessions that have changed. For one event loop.

    Each session has at most one save under way and one to come, and what is saved is how the session is when the save
    begins: a store that is slow is asked less often, and never for what is out of date. While the store is down, one
    session at a time tries it, with growing pauses, and all that has changed is stored when it is back.

    Args:
        store: where sessions are kept.
        owner: this process.
        interval_s: between two saves of a session.
        ttl_s: how long the store keeps a session after a save.
        on_lost: called with a session that another process holds now, or that has ended there.
        on_health: called when the store fails, and when it works again.
        on_saved: called with the milliseconds of each save.
    """

    def __init__(
        self,
        store: Store,
        owner: str,
        *,
        interval_s: float,
        ttl_s: float,
        on_lost: Callable[[Durable], None],
        on_health: Callable[[bool], None] | None = None,
        on_saved: Callable[[float], None] | None = None,
    ) -> None:
        self.healthy = True
        self._store = store
        self._owner = owner
        self._interval_s = interval_s
        self._ttl_s = ttl_s
        self._on_lost = on_lost
        self._on_health = on_health or (lambda _: None)
        self._on_saved = on_saved or (lambda _: None)
        self._dirty: dict[str, Durable] = {}
        self._saving: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._forgotten: WeakSet[Durable] = WeakSet()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._trying = asyncio.Lock()
        self._back = asyncio.Event()
        self._back.set()

    def wrote(self, session: Durable) -> None:
        """Note that ``session`` has changed."""
        self._dirty[session.id] = session
        if not self.healthy:
            session.durable = False
        self._ensure_followed(session.id)

    async def flush(self, session: Durable) -> bool:
        """Store ``session`` now, as it is; whether that succeeded. False also where the session is lost.

        Where the store fails, the session is stored once it is back, like one that has changed.
        """
        self._dirty[session.id] = session
        try:
            return await self._save(session.id)
        finally:
            if session.id in self._dirty:
                self._ensure_followed(session.id)

    def forget(self, session: Durable) -> None:
        """Store ``session`` no more: it has ended."""
        self._forgotten.add(session)
        self._dirty.pop(session.id, None)

    async def close(self, timeout_s: float) -> int:
        """Store all that has changed, within ``timeout_s`` seconds; how many sessions were not stored."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        saves = [asyncio.create_task(self._save(session)) for session in list(self._dirty)]
        if saves:
            await asyncio.wait(saves, timeout=timeout_s)
        for save in saves:
            save.cancel()
        await asyncio.gather(*saves, return_exceptions=True)
        return len(self._dirty)

    def _ensure_followed(self, session: str) -> None:
        if session not in self._tasks:
            self._tasks[session] = asyncio.get_running_loop().create_task(self._follow(session))

    async def _follow(self, session: str) -> None:
        """Store one session until it has not changed for an interval."""
        try:
            while session in self._dirty:
                if await self._save(session):
                    await asyncio.sleep(self._interval_s)
                elif session in self._dirty:
                    await self._recover(session)
        finally:
            self._tasks.pop(session, None)

    async def _recover(self, session: str) -> None:
        """Wait until the store is back: one session tries it, and the others wait for that one."""
        if self._trying.locked():
            await self._back.wait()
            return
        async with self._trying:
            self._back.clear()
            wait = FIRST_WAIT_S
            try:
                while True:
                    await asyncio.sleep(wait * random.uniform(0.8, 1.2))
                    if await self._save(session):  # or it is not there any more
                        break
                    wait = min(2 * wait, LONGEST_WAIT_S)
            finally:  # where this session ended before the store came back, those who wait try for themselves
                self._back.set()

    async def _save(self, session_id: str) -> bool:
        lock = self._saving.setdefault(session_id, asyncio.Lock())
        async with lock:
            session = self._dirty.pop(session_id, None)
            return session is None or await self._write(session)  # None: someone else has just stored it

    async def _write(self, session: Durable) -> bool:
        frozen = session.freeze()
        began = time.perf_counter()
        try:
            snapshot = await asyncio.to_thread(frozen.pack)
            await self._store.save(
                session.id, self._owner, session.fence, session.key, session.summary(), snapshot, self._ttl_s
            )
        except LeaseLost:
            self._dirty.pop(session.id, None)
            self._on_lost(session)
            return False
        except (StoreError, asyncio.CancelledError) as error:
            session.durable = False
            if session not in self._forgotten:
                self._dirty.setdefault(session.id, session)
            if isinstance(error, asyncio.CancelledError):
                raise
            self._set_health(False, str(error))
            return False
        session.durable, session.durable_seq = True, frozen.seq
        self._on_saved((time.perf_counter() - began) * 1000)
        self._set_health(True, "")
        return True

    def _set_health(self, healthy: bool, reason: str) -> None:
        if healthy == self.healthy:
            return
        self.healthy = healthy
        self._on_health(healthy)
        if healthy:
            self._back.set()
            log.info("the store works again")
        else:
            self._back.clear()
            for session in self._dirty.values():
                session.durable = False
            log.warning("the store fails", reason=reason)
