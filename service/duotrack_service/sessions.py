"""A session: targets followed for one client, from the first box to the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, Self

from duotrack.boxes import Box
from duotrack.errors import BoxError
from duotrack_client.protocol import Answer, Config, FrameReceived, FrameRefused
from duotrack_service.endings import TAKEN_OVER, Ending
from duotrack_service.inference import Model, Track
from duotrack_service.journal import Frozen
from duotrack_service.record import Progress, Terms, encode_progress, encode_summary
from duotrack_service.scheduler import Scheduler
from duotrack_service.steps import Job, Step
from duotrack_service.tracing import span


class SessionState(StrEnum):
    """Where a session is in its life: never connected yet, connected, or waiting for its client to come back."""

    CREATED = "created"
    STREAMING = "streaming"
    WAITING = "waiting"


class Connection(Protocol):
    """What feeds a session, as the session sees it."""

    def stop(self, ending: Ending) -> None:
        """Ask the stream to end; the first to ask says why."""

    async def stopped(self) -> None:
        """Wait until the stream takes no more steps of the session."""

    async def closed(self) -> None:
        """Wait until the stream has said its farewell."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a client has asked for since the last frame that was tracked, to be done with the next.

    Attributes:
        starts: boxes of targets to start, by number.
        keep: the targets to keep; all where None.
        redetection: the switch of that name; as it is where None.
    """

    starts: Mapping[int, Box]
    keep: frozenset[int] | None = None
    redetection: bool | None = None

    @classmethod
    def of(cls, event: FrameReceived | FrameRefused) -> Self:
        """What came with a frame; its boxes count after its configuration."""
        starts = {init.target: Box(*init.box.xywh) for init in event.inits}
        config = event.config or Config()
        return cls(starts, None if config.targets is None else frozenset(config.targets), config.redetection)

    def then(self, later: Changes) -> Changes:
        """These, and ``later`` after them."""
        if later.keep is None:
            starts, keep = dict(self.starts), self.keep
        else:
            starts = {target: box for target, box in self.starts.items() if target in later.keep}
            keep = later.keep if self.keep is None else self.keep & later.keep
        redetection = self.redetection if later.redetection is None else later.redetection
        return Changes(starts | dict(later.starts), keep, redetection)


NO_CHANGES = Changes({})


class Session:
    """Targets of one client, and the connection that feeds them, of which there is one at a time.

    Args:
        terms: what was agreed on at its creation.
        scheduler: the lanes of its model.
        fence: the number under which this process may store it.

    Attributes:
        size: width and height of its frames in pixels, None before the first.
        last_seq: the last frame that was tracked, None before the first.
        frames: how many frames were tracked.
        answers: to the last frames, which may be on their way to the client still.
        durable: whether the store works and has the session.
        durable_seq: the last frame whose outcome is stored.
    """

    def __init__(self, terms: Terms, scheduler: Scheduler, fence: int) -> None:
        self.terms = terms
        self.fence = fence
        self.size: tuple[int, int] | None = None
        self.last_seq: int | None = None
        self.frames = 0
        self.answers: tuple[Answer, ...] = ()
        self.durable = False
        self.durable_seq: int | None = None
        self.ended = False
        self.last_active = time.monotonic()
        self.connection: Connection | None = None
        self._tracks: Mapping[int, Track] = {}
        self._options = dict(terms.options)
        self._changes = Changes({0: terms.box})
        self._underway = NO_CHANGES  # of the frame that is tracked at the moment
        self._scheduler = scheduler
        self._connected_before = False
        self._attaching = asyncio.Lock()
        self._steps = 0

    @classmethod
    def restored(cls, terms: Terms, scheduler: Scheduler, fence: int, progress: Progress) -> Session:
        """A session that another process, or this one before a restart, has brought as far as ``progress``.

        Raises:
            duotrack.errors.StateError: a target's state is damaged, or comes from another model or version.
        """
        session = cls(terms, scheduler, fence)
        session.size, session.last_seq, session.frames = progress.size, progress.seq, progress.frames
        session._tracks = {target: scheduler.model.restore(data) for target, data in progress.tracks.items()}
        session._options = dict(progress.options)
        session.answers = progress.answers
        session._changes = Changes(progress.starts)
        session._connected_before = True
        session.durable, session.durable_seq = True, progress.seq
        return session

    @property
    def id(self) -> str:
        return self.terms.id

    @property
    def key(self) -> str:
        """Name of the principal that it belongs to."""
        return self.terms.key

    @property
    def model(self) -> Model:
        return self._scheduler.model

    @property
    def targets(self) -> tuple[int, ...]:
        """Numbers of the targets that are followed, or wait to be, by rising number; none before the first frame."""
        return tuple(sorted({*self._tracks, *self._changes.starts})) if self._tracks else ()

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

    def note(self, event: FrameReceived | FrameRefused) -> None:
        """Remember what came with a frame that is not tracked, for the next that is."""
        self._changes = self._changes.then(Changes.of(event))

    async def track(self, take: Callable[[], FrameReceived | None]) -> tuple[FrameReceived, Step] | None:
        """Wait for the session's turn and track the frame that ``take`` hands out then; None when it has none.

        Raises:
            Untracked: the frame cannot be used, or something broke.
        """
        taken: FrameReceived | None = None

        def turn() -> Job | None:
            nonlocal taken
            taken = take()
            return None if taken is None else self._job(taken)

        self._steps += 1
        try:
            with span("duotrack.step", session=self.id):
                step = await self._scheduler.step(turn)
        except asyncio.CancelledError:
            self._changes = self._underway.then(self._changes)
            raise
        except Exception as error:
            if taken is None:
                raise
            # A box that cannot start a track is not tried again; one in a frame that cannot be used is.
            lost = isinstance(error, BoxError) and bool(self._tracks)
            self._changes = self._changes if lost else self._underway.then(self._changes)
            raise Untracked(taken, error) from error
        finally:
            self._underway = NO_CHANGES
            self._steps -= 1
            self.touch()
        if step is None or taken is None:
            return None
        self._tracks = step.tracks
        self.last_seq = taken.seq
        self.frames += 1
        return taken, step

    def _job(self, event: FrameReceived) -> Job:
        self.note(event)
        changes, self._underway, self._changes = self._changes, self._changes, NO_CHANGES
        tracks = self._tracks
        if changes.keep is not None:
            tracks = {target: track for target, track in tracks.items() if target in changes.keep}
        if changes.redetection is not None:
            self._options["redetection"] = changes.redetection
            tracks = {target: self.model.configure(track, changes.redetection) for target, track in tracks.items()}
        return Job(event.frame, tracks, changes.starts, dict(self._options))

    def summary(self) -> bytes:
        """The session's terms, for the store."""
        return encode_summary(self.terms, self.frames)

    def freeze(self) -> Frozen:
        """How far the session has come, for the store: a value, whose packing may take its time in another thread."""
        model, tracks, options = self.model, self._tracks, dict(self._options)
        seq, frames, size, answers = self.last_seq, self.frames, self.size, self.answers
        starts = self._underway.then(self._changes).starts

        def pack() -> bytes:
            saved = {target: model.save(track) for target, track in tracks.items()}
            return encode_progress(Progress(seq, frames, size, starts, saved, options, answers))

        return Frozen(seq, pack)


class Untracked(Exception):  # noqa: N818 - it names an event
    """A frame was not tracked.

    Attributes:
        event: the frame.
        reason: ImageError, BoxError or FrameError where the frame is to blame, else what broke.
    """

    def __init__(self, event: FrameReceived, reason: Exception) -> None:
        super().__init__(f"frame {event.seq} was not tracked: {reason}")
        self.event = event
        self.reason = reason
