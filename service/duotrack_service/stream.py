"""The WebSocket of a session: frames in, answers out."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from duotrack.errors import BoxError, FrameError
from duotrack_client.errors import ImageError, ProtocolError
from duotrack_client.protocol import (
    Box,
    ByeReceived,
    ErrorCode,
    FrameReceived,
    FrameRefused,
    Limits,
    Modalities,
    ModalityHealth,
    Mode,
    PingReceived,
    ServerProtocol,
    TargetResult,
    TargetState,
    Timings,
    Wire,
    encode_message,
)
from duotrack_client.protocol.closing import fit_reason
from duotrack_service.budget import Budget
from duotrack_service.endings import BYE, GONE, MOVED, NO_SESSION, Ending, broken, internal_error, unusable_box
from duotrack_service.inbox import Inbox
from duotrack_service.inference import TrackResult
from duotrack_service.metrics import Metrics
from duotrack_service.registry import Registry
from duotrack_service.sessions import Session, Untracked
from duotrack_service.settings import Settings
from duotrack_service.steps import Step

log = structlog.stdlib.get_logger(__name__)

STEP_GRACE_S: Final = 5.0  # for the step under way when a stream stops
SAVE_GRACE_S: Final = 5.0  # for the store; what it has not taken by then is tried again later
CLOSE_GRACE_S: Final = 2.0  # for a peer that reads slowly to take our last words


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame that waits.

    Attributes:
        at: when it came, in seconds of ``time.perf_counter``.
        length: bytes of its message.
        kept: whether a box belongs to it, so that it is never passed over.
    """

    event: FrameReceived | FrameRefused
    at: float
    length: int
    kept: bool


class Stream:
    """One WebSocket connection of a session, accepted already.

    Two tasks share the work: one reads messages into the inbox, one has frames tracked and answers them. Whatever
    ends the stream goes through ``stop``; the first ending wins, and only ``run`` closes the socket.

    Args:
        wire: how messages to the client are encoded, as agreed on in the handshake.
        budget: bytes of frames that may wait in this process.
    """

    def __init__(
        self,
        websocket: WebSocket,
        session: Session,
        sessions: Registry,
        settings: Settings,
        wire: Wire,
        budget: Budget,
        metrics: Metrics,
    ) -> None:
        self._websocket = websocket
        self._session = session
        self._sessions = sessions
        self._settings = settings
        self._wire = wire
        self._budget = budget
        self._metrics = metrics
        self._mode = session.terms.mode
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._stopped = asyncio.Event()
        self._closed = asyncio.Event()

    def stop(self, ending: Ending) -> None:
        """Ask the stream to end; the first to ask says why."""
        if not self._ending.done():
            self._ending.set_result(ending)

    async def stopped(self) -> None:
        """Wait until the stream takes no more steps of the session."""
        await self._stopped.wait()

    async def closed(self) -> None:
        """Wait until the stream has said its farewell."""
        await self._closed.wait()

    async def run(self) -> Ending:
        """Serve the connection to its end."""
        await self._session.attach(self)
        try:
            if self._session.ended:  # while it waited for the former connection to stop
                self.stop(NO_SESSION)
            try:
                ending = await self._serve()
            finally:
                self._session.detach(self)
                self._stopped.set()
            if ending.ends_session:  # before the close: who sees that may rely on it
                await self._sessions.finish(self._session, ending)
            elif ending is not MOVED:  # so that whoever goes on from here finds all of it
                with suppress(TimeoutError):
                    async with asyncio.timeout(SAVE_GRACE_S):
                        await self._sessions.flush(self._session)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_GRACE_S):
                    await self._close(ending)
        finally:
            self._closed.set()
        return ending

    async def _serve(self) -> Ending:
        session = self._session
        limits = Limits(
            self._settings.max_frame_bytes, self._settings.max_pixels, self._settings.window, self._settings.max_targets
        )
        protocol = ServerProtocol(
            self._mode, limits, session.size, session.last_seq, self._wire, session.targets, session.answers
        )
        inbox: Inbox[Arrival] = Inbox(self._mode, on_drop=self._drop)
        hello = protocol.hello(session.id, self._settings.heartbeat_s, self._settings.idle_s)
        for greeting in (hello, *protocol.repeats()):
            if not await self._send(greeting):
                return GONE
        reading = asyncio.create_task(self._read(protocol, inbox))
        answering = asyncio.create_task(self._answer(protocol, inbox))
        try:
            return await asyncio.shield(self._ending)
        finally:
            inbox.close()
            reading.cancel()
            await asyncio.wait({answering}, timeout=STEP_GRACE_S)
            answering.cancel()
            await asyncio.gather(reading, answering, return_exceptions=True)

    async def _read(self, protocol: ServerProtocol, inbox: Inbox[Arrival]) -> None:
        starting = self._session.last_seq is None
        try:
            while (data := await self._receive()) is not None:
                event = protocol.receive(data)
                self._session.touch()
                if isinstance(event, ByeReceived):
                    self.stop(BYE)
                    return
                if isinstance(event, PingReceived):
                    if not await self._send(protocol.pong(event.id)):
                        break
                elif event is not None:
                    # The box of the session belongs to its first frame, and that of an init to the frame after it.
                    kept, starting = starting or bool(event.inits), False
                    self._budget.take(self._session.key, len(data))
                    self._metrics.frame_received(len(data))
                    inbox.put(Arrival(event, time.perf_counter(), len(data), kept), keep=kept)
                    # Until there is room, this client's messages wait in its socket.
                    await self._budget.room(self._session.key)
            self.stop(GONE)
        except ProtocolError as error:
            self.stop(broken(error))
        except Exception:
            log.exception("reading failed", session=self._session.id)
            self.stop(internal_error())

    async def _answer(self, protocol: ServerProtocol, inbox: Inbox[Arrival]) -> None:
        try:
            while await inbox.wait():
                if (seconds := self._sessions.pause(self._session)) > 0:
                    # Until then, a live session's frames give way to newer ones, and another's credit stays spent.
                    await asyncio.sleep(seconds)
                answer = await self._step(protocol, inbox)
                if answer is not None and not await self._send(answer):
                    self.stop(GONE)
                    return
                self._session.touch()
        except Exception:
            log.exception("a tracker step failed", session=self._session.id)
            self.stop(internal_error())

    async def _step(self, protocol: ServerProtocol, inbox: Inbox[Arrival]) -> str | bytes | None:
        """Wait for the session's turn and track the frame whose turn it is; the message that answers it, if any."""
        taken: Arrival | None = None

        def take() -> FrameReceived | None:
            nonlocal taken
            taken = inbox.take()
            if taken is None:
                return None
            self._budget.give_back(self._session.key, taken.length)
            event = taken.event if isinstance(taken.event, FrameRefused) else protocol.turn(taken.event)
            taken = replace(taken, event=event)
            return None if isinstance(event, FrameRefused) or self._is_late(taken) else event

        try:
            tracked = await self._session.track(take)
        except Untracked as failure:
            return self._refuse(protocol, failure)
        if taken is None:
            return None
        if tracked is None:
            event = taken.event
            self._session.note(event)
            if isinstance(event, FrameRefused):
                return self._error(protocol, event, event.code, event.message)
            self._metrics.frames_dropped(1, "deadline")
            waited = time.perf_counter() - taken.at
            limit = self._settings.live_deadline_s
            return self._error(
                protocol, event, ErrorCode.LATE, f"the pair has waited for {waited:.1f} s, and the limit is {limit:g} s"
            )
        event, step = tracked
        total_ms = (time.perf_counter() - taken.at) * 1000
        message = answer(protocol, self._session, event, step, total_ms, self._metrics)
        self._session.size = protocol.size
        self._sessions.wrote(self._session)
        return message

    def _refuse(self, protocol: ServerProtocol, failure: Untracked) -> str | bytes:
        event, reason = failure.event, failure.reason
        if isinstance(reason, ImageError):
            code, message = reason.code, str(reason)
        elif isinstance(reason, FrameError):
            code, message = ErrorCode.UNUSABLE_FRAME, str(reason)
        elif isinstance(reason, BoxError):
            code, message = ErrorCode.UNUSABLE_BOX, str(reason)
            if not self._session.targets:
                self.stop(unusable_box(message))
        else:
            raise failure
        return self._error(protocol, event, code, message)

    def _error(
        self, protocol: ServerProtocol, event: FrameReceived | FrameRefused, code: str, message: str
    ) -> str | bytes:
        self._metrics.frame_refused(code)
        text = protocol.error(event, code, message)
        self._session.answers = protocol.answers
        return text

    def _is_late(self, arrival: Arrival) -> bool:
        """Whether a live frame has waited too long; the box of an init is worth the wait."""
        waited = time.perf_counter() - arrival.at
        return self._mode is Mode.LIVE and not arrival.kept and waited > self._settings.live_deadline_s

    def _drop(self, arrival: Arrival) -> None:
        self._budget.give_back(self._session.key, arrival.length)
        if self._mode is Mode.LIVE:  # in the other mode only a closing stream drops, and its client sends all again
            self._session.note(arrival.event)
            self._metrics.frames_dropped(1, "superseded")

    async def _receive(self) -> bytes | str | None:
        """The next message, None when the peer is gone."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        data: bytes | str | None = message.get("bytes")
        return message["text"] if data is None else data

    async def _send(self, data: str | bytes) -> bool:
        """Send a message; False when the peer is gone."""
        try:
            if isinstance(data, str):
                await self._websocket.send_text(data)
            else:
                await self._websocket.send_bytes(data)
        # The server below raises RuntimeError where it has closed by itself, on a message that is too long.
        except (WebSocketDisconnect, RuntimeError):
            return False
        return True

    async def _close(self, ending: Ending) -> None:
        if ending.code is None:
            return
        if ending.farewell is not None:
            await self._send(encode_message(ending.farewell, self._wire))
        with suppress(WebSocketDisconnect, RuntimeError):
            await self._websocket.close(ending.code, fit_reason(ending.reason))


def answer(
    protocol: ServerProtocol, session: Session, event: FrameReceived, step: Step, total_ms: float, metrics: Metrics
) -> str | bytes:
    """The message that says what became of a frame; ``total_ms`` is from its arrival on."""
    timings = Timings(
        queue=round(max(0.0, total_ms - step.decode_ms - step.infer_ms), 3),
        decode=round(step.decode_ms, 3),
        infer=round(step.infer_ms, 3),
        total=round(total_ms, 3),
    )
    metrics.frame_answered(session.model.name, timings)
    message = protocol.result(
        event,
        targets=[
            TargetResult(target, Box.of(result.box), result.score, TargetState(result.state))
            for target, result in step.results.items()
        ],
        modalities=_modalities(event, step),
        timings=timings,
        durable=session.durable,
        durable_seq=session.durable_seq,
    )
    session.answers = protocol.answers
    return message


def _modalities(event: FrameReceived, step: Step) -> Modalities:
    first = next(iter(step.results.values()))
    return Modalities(
        rgb=_health("rgb", event.frame.rgb is None, first),
        thermal=_health("thermal", event.frame.thermal is None, first),
    )


def _health(modality: str, missing: bool, result: TrackResult) -> ModalityHealth:
    if missing:
        return ModalityHealth.MISSING
    kinds = [fault.kind for fault in result.faults if fault.modality == modality]
    return ModalityHealth(kinds[0]) if kinds else ModalityHealth.OK
