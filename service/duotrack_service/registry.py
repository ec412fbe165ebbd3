"""The sessions of this process: who may have one, which are there, and where those of other processes are."""

from __future__ import annotations

import asyncio
import hmac
import math
import secrets
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

import structlog

from duotrack.boxes import Box
from duotrack.errors import DuoTrackError
from duotrack_client.protocol import Credential, Mode
from duotrack_service import problems
from duotrack_service.auth import Authenticator, Principal
from duotrack_service.endings import (
    DELETED,
    EXPIRED,
    IDLE,
    MOVED,
    NO_SESSION,
    REVOKED,
    STORE_DOWN,
    UNAUTHORIZED,
    Ending,
    restart,
)
from duotrack_service.inference import Model
from duotrack_service.journal import Durable, Journal
from duotrack_service.metrics import Metrics
from duotrack_service.rates import CreationRate, FrameRates
from duotrack_service.record import RecordError, Terms, decode_progress, decode_summary, encode_summary
from duotrack_service.scheduler import Scheduler
from duotrack_service.sessions import Session
from duotrack_service.settings import Settings
from duotrack_service.store import Store, StoreError
from duotrack_service.tickets import digest, new_secret

log = structlog.stdlib.get_logger(__name__)

SWEEP_S: Final = 30.0  # between looks for what has expired in the store
REVOKED_S: Final = 5.0  # between looks for sessions whose key was revoked
STOP_GRACE_S: Final = 12.0  # for the steps under way (5), the saves (5) and the farewells (2) of a stopping service
CLOSE_GRACE_S: Final = 5.0  # for the last snapshots of a stopping service


class Refused(Exception):  # noqa: N818 - it names an event
    """A stream may not have the session that it asks for.

    Attributes:
        ending: what to tell the client.
    """

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.reason)
        self.ending = ending


class Registry:
    """All sessions of this process, the models that they share, and the store behind them.

    Args:
        settings: the service's.
        models: what sessions may track with; the first is the default.
        store: where sessions are kept.
        metrics: what is counted.
        limit: sessions at a time. Sessions that come back from the store are let in beyond it: they were promised.
        authenticator: whose keys sessions depend on.
    """

    def __init__(
        self,
        settings: Settings,
        models: Sequence[Model],
        store: Store,
        metrics: Metrics,
        limit: int,
        authenticator: Authenticator,
    ) -> None:
        self.limit = limit
        self.owner = secrets.token_hex(8)
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._authenticator = authenticator
        self._schedulers = {
            model.name: Scheduler(model, partial(metrics.batch, model.name), settings.decode_threads)
            for model in models
        }
        self._default = models[0].name
        self._sessions: dict[str, Session] = {}
        self._tickets: dict[str, tuple[str, float]] = {}
        self._opening: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._background: set[asyncio.Task[Any]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._journal = Journal(
            store,
            self.owner,
            interval_s=settings.snapshot_s,
            ttl_s=self._kept_s,
            on_lost=self._lost,
            on_health=metrics.store_health,
            on_saved=metrics.store_saved,
        )
        self._survives = store.name != "memory"
        self._creations = CreationRate(settings.creations_per_minute)
        self._frame_rates = FrameRates(settings.frames_per_second)
        self._stopping = False
        self._watching = [self._spawn(self._sweep()), self._spawn(self._look_for_revoked())]

    @property
    def stopping(self) -> bool:
        """Whether the service is about to stop and takes nothing new."""
        return self._stopping

    @property
    def models(self) -> list[Model]:
        """What sessions may track with, the default first."""
        return [scheduler.model for scheduler in self._schedulers.values()]

    @property
    def durable(self) -> bool:
        """Whether sessions survive this process: there is a store, and it works."""
        return self._survives and self._journal.healthy

    @property
    def store_name(self) -> str:
        return self._store.name

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    async def create(
        self,
        principal: Principal,
        box: Box,
        mode: Mode,
        model: str | None,
        *,
        options: Mapping[str, bool],
        ttl_s: float | None,
        source: Mapping[str, str | float | bool | None],
    ) -> tuple[Session, str]:
        """A new session for ``box``, and the token that opens its stream again.

        Raises:
            Problem: the model is not there (422), there is no room (429, 503), or they come too fast (429).
        """
        if self._stopping:
            raise problems.stopping()
        if (wait := self._creations.wait(principal)) > 0:
            self._metrics.refused("rate")
            raise problems.too_fast(wait, f"{principal.name!r} may make {self._creations.per_minute} sessions a minute")
        scheduler = self._schedulers.get(model or self._default)
        if scheduler is None:
            raise problems.unknown_model(str(model), list(self._schedulers))
        self._admit(principal)
        resume_token = new_secret()
        now = datetime.now(UTC)
        terms = Terms(
            id=secrets.token_urlsafe(16),
            key=principal.name,
            model=scheduler.model.name,
            mode=mode,
            box=box,
            options=dict(options),
            created_at=now,
            expires_at=None if ttl_s is None else now + timedelta(seconds=ttl_s),
            resume_digest=digest(resume_token),
            frames_per_second=principal.frames_per_second,
            source=dict(source),
            key_digest=principal.key_digest,
        )
        session = Session(terms, scheduler, fence=1)
        self._add(session)  # at once, so that the limit holds while the store is asked
        try:
            session.fence = await self._store.create(
                session.id, self.owner, session.key, encode_summary(terms, 0), self._kept_s
            )
            session.durable = self._survives
        except StoreError as error:
            log.warning("session not stored", session=session.id, reason=str(error))
        self.wrote(session)
        self._metrics.session_created(terms.model)
        log.info(
            "session created",
            session=session.id,
            principal=session.key,
            mode=mode,
            box=box.text(),
            durable=session.durable,
        )
        return session, resume_token

    def _admit(self, principal: Principal) -> None:
        if len(self._sessions) >= self.limit:
            self._metrics.refused("full")
            raise problems.too_many_sessions(self.limit)
        own = principal.max_sessions
        if own is not None and sum(session.key == principal.name for session in self) >= own:
            self._metrics.refused("key_full")
            raise problems.too_many_sessions(own, f"{principal.name!r}")

    def find(self, session_id: str, principal: Principal) -> Session | None:
        """A session of this process that belongs to ``principal``."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.key == principal.name else None

    async def describe(self, session_id: str, principal: Principal) -> Session | tuple[Terms, int]:
        """A session of ``principal``: itself, or its terms and frames where it is not in this process.

        Raises:
            Problem: there is none, or it has ended (404); the store cannot be asked (503).
        """
        if (session := self.find(session_id, principal)) is not None:
            return session
        try:
            summary = await self._store.read(session_id)
        except StoreError as error:
            raise problems.store_down() from error
        stored = None if summary is None else _read_summary(session_id, summary)
        if stored is None or stored[0].key != principal.name:
            raise problems.no_session(session_id)
        return stored

    async def all(self, principal: Principal) -> list[Session | tuple[Terms, int]]:
        """All sessions of ``principal``, in this process and out of it, oldest first. Without the store, those here."""
        found: dict[str, Session | tuple[Terms, int]] = {}
        try:
            for summary in await self._store.list(principal.name):
                if (stored := _read_summary("?", summary)) is not None:
                    found[stored[0].id] = stored
        except StoreError as error:
            log.warning("stored sessions are not listed", reason=str(error))
        found |= {session.id: session for session in self if session.key == principal.name}
        return sorted(found.values(), key=lambda one: (one.terms if isinstance(one, Session) else one[0]).created_at)

    async def ticket(self, session_id: str, principal: Principal) -> str:
        """A ticket that opens the stream of a session once.

        Raises:
            Problem: there is no such session (404), or the store cannot be asked (503).
        """
        await self.describe(session_id, principal)
        return await self.issue_ticket(session_id)

    async def issue_ticket(self, session_id: str) -> str:
        """A ticket for a session that its caller knows to be there."""
        ticket = new_secret()
        try:
            await self._store.put_ticket(digest(ticket), session_id, self._settings.ticket_s)
        except StoreError:  # then it opens the stream in this process only
            self._tickets[digest(ticket)] = session_id, time.monotonic() + self._settings.ticket_s
        return ticket

    async def open(self, session_id: str, principal: Principal | None, credential: Credential | None) -> Session:
        """The session for a stream, fetched from the store where this process does not have it.

        Args:
            principal: who asks, None where it has not shown a key.
            credential: a ticket or a resume token.

        Raises:
            Refused: there is no such session, or who asks has no right to it.
        """
        lock = self._opening.setdefault(session_id, asyncio.Lock())
        async with lock:
            try:
                await self._authorize(session_id, principal, credential)
                session = await self._fetch(session_id)
            except StoreError as error:
                log.warning("session not opened", session=session_id, reason=str(error))
                raise Refused(STORE_DOWN) from error
        if not self._keeps(session):
            await self.finish(session, REVOKED)
            raise Refused(REVOKED)
        return session

    async def _authorize(self, session_id: str, principal: Principal | None, credential: Credential | None) -> None:
        if credential is not None and credential.kind == "ticket":
            if await self._take_ticket(digest(credential.secret)) != session_id:
                raise Refused(UNAUTHORIZED)
            return
        terms = await self._terms(session_id)
        if credential is not None:
            expected = terms.resume_digest if terms is not None else digest("")
            if not hmac.compare_digest(digest(credential.secret), expected):
                raise Refused(UNAUTHORIZED)
        elif principal is None:
            raise Refused(UNAUTHORIZED)
        elif terms is None or terms.key != principal.name:
            raise Refused(NO_SESSION)

    async def _terms(self, session_id: str) -> Terms | None:
        if (session := self._sessions.get(session_id)) is not None:
            return session.terms
        summary = await self._store.read(session_id)
        stored = None if summary is None else _read_summary(session_id, summary)
        return None if stored is None else stored[0]

    async def _take_ticket(self, ticket_digest: str) -> str | None:
        session_id, until = self._tickets.pop(ticket_digest, (None, 0.0))
        if session_id is not None:
            return session_id if time.monotonic() < until else None
        return await self._store.take_ticket(ticket_digest)

    async def _fetch(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is not None:
            # Where another process has claimed it since, this save fails and the session is forgotten here.
            await self.flush(session)
            if not session.ended:
                return session
        claim = await self._store.claim(session_id, self.owner, self._kept_s)
        if claim is None:
            raise Refused(NO_SESSION)
        try:
            terms, _ = decode_summary(claim.summary)
            if _left(terms) <= 0:  # while no process had it
                raise Refused(NO_SESSION)
            scheduler = self._schedulers.get(terms.model)
            if scheduler is None:
                raise RecordError(
                    f"it tracks with {terms.model!r}, and this service runs {', '.join(self._schedulers)}"
                )
            if claim.snapshot is None:
                session = Session(terms, scheduler, claim.fence)
            else:
                progress = decode_progress(claim.snapshot)
                # The templates go through the network again, which takes its milliseconds.
                session = await asyncio.to_thread(Session.restored, terms, scheduler, claim.fence, progress)
        except (RecordError, DuoTrackError) as error:
            log.error("session not restored", session=session_id, reason=str(error))
            raise Refused(NO_SESSION) from error
        session.durable = True
        self._add(session)
        self._metrics.resumed()
        log.info("session restored", session=session_id, seq=session.last_seq, former_owner=claim.former_owner)
        return session

    async def delete(self, session_id: str, principal: Principal) -> None:
        """End a session of ``principal`` and close its stream, wherever it is.

        Raises:
            Problem: there is none, or it has ended (404); the store cannot be asked (503).
        """
        session = await self.describe(session_id, principal)
        if isinstance(session, Session):
            await self.finish(session, DELETED)
            return
        try:
            await self._store.end(session_id, None)
        except StoreError as error:
            raise problems.store_down() from error

    async def finish(self, session: Session, ending: Ending) -> None:
        """End a session, and wait until the store knows: after that, no crash brings it back."""
        if (stored := self.end(session, ending)) is not None:
            await asyncio.shield(stored)

    def end(self, session: Session, ending: Ending) -> asyncio.Task[None] | None:
        """End a session, and its stream; the task that tells the store, None where the session has ended already."""
        if not self._forget(session, ending):
            return None
        self._journal.forget(session)
        self._metrics.session_ended(ending.reason)
        log.info("session ended", session=session.id, reason=ending.reason, frames=session.frames)
        # A deleted session ends without a fence: another process may have taken it over, unknown to this one.
        return self._spawn(self._end_stored(session.id, None if ending is DELETED else session.fence))

    def pause(self, session: Session) -> float:
        """Seconds that the next frame of ``session`` must wait, by the rate of who owns it. To ask is to count it."""
        return self._frame_rates.wait(session.key, session.terms.frames_per_second, time.monotonic())

    def wrote(self, session: Session) -> None:
        """Note that a session has changed, and is to be stored."""
        if self._survives and not session.ended:
            self._journal.wrote(session)

    async def flush(self, session: Session) -> None:
        """Store a session now."""
        if self._survives and not session.ended:
            await self._journal.flush(session)

    async def stop(self) -> None:
        """Take nothing new, store every session as it is, and close every stream with a farewell."""
        self._stopping = True
        connections = [session.connection for session in self if session.connection is not None]
        for connection in connections:
            connection.stop(restart(self._settings.reconnect_after_s))
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_GRACE_S):
                await asyncio.gather(*(connection.closed() for connection in connections))

    async def close(self) -> None:
        """Store what is not stored yet, and end the threads. Sessions wait in the store for their clients."""
        unsaved = await self._journal.close(CLOSE_GRACE_S)
        if unsaved:
            log.error("sessions not stored", count=unsaved)
        for session in list(self):
            self._forget(session, restart(self._settings.reconnect_after_s))
        for watching in self._watching:
            watching.cancel()
        if self._background:  # among them ends of which the store has yet to know
            await asyncio.wait(self._background, timeout=CLOSE_GRACE_S)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for scheduler in self._schedulers.values():
            scheduler.close()
        await self._store.close()

    @property
    def _kept_s(self) -> float:
        # Twice the idle time: whoever still feeds a session writes it more often than that.
        return 2 * self._settings.idle_s

    def _add(self, session: Session) -> None:
        self._sessions[session.id] = session
        self._metrics.sessions(len(self._sessions))
        self._watch(session, self._settings.idle_s)

    def _forget(self, session: Session, ending: Ending) -> bool:
        if self._sessions.get(session.id) is not session:
            return False
        del self._sessions[session.id]
        self._timers.pop(session.id).cancel()  # it would keep the session, with its templates, for an idle time
        session.ended = True
        self._metrics.sessions(len(self._sessions))
        if session.connection is not None:
            session.connection.stop(ending)
        return True

    def _lost(self, durable: Durable) -> None:
        """Another process has the session now, or it was ended there."""
        session = self._sessions.get(durable.id)
        if session is not None and self._forget(session, MOVED):
            log.info("session moved", session=session.id, frames=session.frames)

    async def _end_stored(self, session_id: str, fence: int | None) -> None:
        try:
            await self._store.end(session_id, fence)
        except StoreError as error:  # it expires there by itself
            log.warning("ended session stays in the store", session=session_id, reason=str(error))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = time.monotonic()
            self._tickets = {ticket: held for ticket, held in self._tickets.items() if held[1] > now}
            try:
                await self._store.sweep()
            except StoreError as error:
                log.warning("the store was not swept", reason=str(error))

    async def _look_for_revoked(self) -> None:
        while True:
            await asyncio.sleep(REVOKED_S)
            for session in list(self):
                if not self._keeps(session):
                    self.end(session, REVOKED)

    def _keeps(self, session: Session) -> bool:
        """Whether the key that made the session has not been revoked."""
        return self._authenticator.keeps(session.key, session.terms.key_digest)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def _watch(self, session: Session, delay: float) -> None:
        delay = max(0.0, min(delay, _left(session.terms)))
        self._timers[session.id] = asyncio.get_running_loop().call_later(delay, self._expire, session)

    def _expire(self, session: Session) -> None:
        if session.ended:
            return
        idle = session.last_active + self._settings.idle_s - time.monotonic()
        if _left(session.terms) <= 0:
            self.end(session, EXPIRED)
        elif session.busy or idle > 0:
            self._watch(session, self._settings.idle_s if session.busy else idle)
            self.wrote(session)  # pings keep it, too, and would not by themselves keep it in the store
        else:
            self.end(session, IDLE)


def _left(terms: Terms) -> float:
    """Seconds that a session may live at most."""
    until = terms.expires_at
    return math.inf if until is None else (until - datetime.now(UTC)).total_seconds()


def _read_summary(session_id: str, summary: bytes) -> tuple[Terms, int] | None:
    """The terms and frames of a stored session; None where it cannot be read, or its time to live is over."""
    try:
        terms, frames = decode_summary(summary)
    except RecordError as error:
        log.error("a stored session cannot be read", session=session_id, reason=str(error))
        return None
    return (terms, frames) if _left(terms) > 0 else None
