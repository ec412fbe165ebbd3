"""Sessions: one target followed by one client, from the first box to the end."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

import structlog

from duotrack.boxes import Box
from duotrack.frames import FramePair
from duotrack_client.protocol import Frame, Mode
from duotrack_service import problems
from duotrack_service.decoding import decode_pair
from duotrack_service.endings import DELETED, IDLE, TAKEN_OVER, Ending, restart
from duotrack_service.inference import Engine, Tracker, TrackResult
from duotrack_service.settings import Settings
from duotrack_service.workers import Workers

log = structlog.stdlib.get_logger(__name__)


class SessionState(StrEnum):
    """Where a session is in its life: never connected yet, connected, or waiting for its client to come back."""

    CREATED = "created"
    STREAMING = "streaming"
    WAITING = "waiting"


class Connection(Protocol):
    """The stream of a session, as the session sees it."""

    def stop(self, ending: Ending) -> None:
        """Ask the stream to end; the first to ask says why."""

    async def stopped(self) -> None:
        """Wait until the stream takes no more steps of the session."""

    async def closed(self) -> None:
        """Wait until the stream has said its farewell."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """A tracker step and its cost in milliseconds."""

    result: TrackResult
    decode_ms: float
    infer_ms: float


class Session:
    """One target, its tracker, and the connection that feeds it, of which there is one at a time.

    Attributes:
        size: width and height of its frames in pixels, None before the first.
        last_seq: the last frame that was tracked, None before the first.
        frames: how many frames were tracked.
    """

    def __init__(
        self, box: Box, mode: Mode, model: str, tracker: Tracker, decoders: Workers, trackers: Workers
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        self.box = box
        self.mode = mode
        self.model = model
        self.created_at = datetime.now(UTC)
        self.size: tuple[int, int] | None = None
        self.last_seq: int | None = None
        self.frames = 0
        self.ended = False
        self.last_active = time.monotonic()
        self.connection: Connection | None = None
        self._connected_before = False
        self._attaching = asyncio.Lock()
        self._tracker = tracker
        self._decoders = decoders
        self._trackers = trackers
        self._steps = 0

    @property
    def state(self) -> SessionState:
        if self.connection is not None:
            return SessionState.STREAMING
        return SessionState.WAITING if self._connected_before else SessionState.CREATED

    @property
    def busy(self) -> bool:
        """Whether a step is under way."""
        return self._steps > 0

    def touch(self) -> None:
        """Note that the session is in use."""
        self.last_active = time.monotonic()

    async def attach(self, connection: Connection) -> None:
        """Make ``connection`` the session's one connection, after the former has stopped."""
        async with self._attaching:
            if self.connection is not None:
                self.connection.stop(TAKEN_OVER)
                await self.connection.stopped()
            self.connection = connection
            self._connected_before = True
            self.touch()

    def detach(self, connection: Connection) -> None:
        """Forget ``connection``, unless another has taken its place."""
        if self.connection is connection:
            self.connection = None
            self.touch()

    async def track(self, frame: Frame) -> Tracked:
        """Decode ``frame`` and take one tracker step, both in worker threads. The first frame starts the track.

        Raises:
            ImageError: an image is damaged.
            duotrack.errors.BoxError: the session's box cannot start a track on its first frame.
            duotrack.errors.FrameError: the tracker cannot use the frame.
        """
        self._steps += 1
        try:
            decoded = await self._decoders.run(lambda: decode_pair(frame))
            step = await self._trackers.run(lambda: self._step(decoded.value))
        finally:
            self._steps -= 1
            self.touch()
        self.last_seq = frame.seq
        self.frames += 1
        return Tracked(step.value, decoded.milliseconds, step.milliseconds)

    def _step(self, pair: FramePair) -> TrackResult:
        if self.last_seq is None:
            return self._tracker.init(pair, self.box)
        return self._tracker.update(pair)


class Registry:
    """All sessions of this process, and the threads that they share: some to decode, one for all tracker steps."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._sessions: dict[str, Session] = {}
        self._decoders = Workers("decode", settings.decode_threads)
        self._trackers = Workers("infer", 1)
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether the service is about to stop and takes nothing new."""
        return self._stopping

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def create(self, box: Box, mode: Mode, model: str | None) -> Session:
        """A new session.

        Raises:
            Problem: the model is not there (422), or there is no room (503).
        """
        if self._stopping:
            raise problems.stopping()
        if model not in (None, self._engine.model):
            raise problems.unknown_model(str(model), [self._engine.model])
        if len(self._sessions) >= self._settings.max_sessions:
            raise problems.too_many_sessions(self._settings.max_sessions)
        tracker = self._engine.tracker()
        session = Session(box, mode, self._engine.model, tracker, self._decoders, self._trackers)
        self._sessions[session.id] = session
        self._watch(session, self._settings.idle_s)
        log.info("session created", session=session.id, mode=mode, box=box.text())
        return session

    def find(self, session_id: str) -> Session | None:
        """The session, or None when there is none or it has ended."""
        return self._sessions.get(session_id)

    def get(self, session_id: str) -> Session:
        """The session.

        Raises:
            Problem: there is none, or it has ended (404).
        """
        session = self.find(session_id)
        if session is None:
            raise problems.no_session(session_id)
        return session

    def delete(self, session_id: str) -> None:
        """End a session and close its stream.

        Raises:
            Problem: there is none, or it has ended (404).
        """
        self.end(self.get(session_id), DELETED)

    def end(self, session: Session, ending: Ending) -> None:
        """End a session, and its stream if it has one. Does nothing when it has ended already."""
        if self._sessions.pop(session.id, None) is None:
            return
        session.ended = True
        if session.connection is not None:
            session.connection.stop(ending)
        log.info("session ended", session=session.id, reason=ending.reason, frames=session.frames)

    async def stop(self) -> None:
        """Take nothing new, and close every stream with a farewell."""
        self._stopping = True
        connections = [session.connection for session in self if session.connection is not None]
        for connection in connections:
            connection.stop(restart(self._settings.reconnect_after_s))
        await asyncio.gather(*(connection.closed() for connection in connections))

    def close(self) -> None:
        """Forget all sessions and end the threads."""
        for session in list(self):
            self.end(session, restart(self._settings.reconnect_after_s))
        self._decoders.close()
        self._trackers.close()

    def _watch(self, session: Session, delay: float) -> None:
        asyncio.get_running_loop().call_later(delay, self._expire, session)

    def _expire(self, session: Session) -> None:
        if session.ended:
            return
        left = session.last_active + self._settings.idle_s - time.monotonic()
        if session.busy:
            self._watch(session, self._settings.idle_s)
        elif left > 0:
            self._watch(session, left)
        else:
            self.end(session, IDLE)
