"""The WebSocket of a session: frames in, answers out."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
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
    ServerProtocol,
    TargetState,
    Timings,
    encode_message,
)
from duotrack_client.protocol.closing import fit_reason
from duotrack_service.endings import BYE, GONE, NO_SESSION, Ending, broken, internal_error, unusable_box
from duotrack_service.inbox import Inbox
from duotrack_service.sessions import Registry, Session, Tracked
from duotrack_service.settings import Settings

log = structlog.stdlib.get_logger(__name__)

STEP_GRACE_S: Final = 5.0  # for the step under way when a stream stops
CLOSE_GRACE_S: Final = 2.0  # for a peer that reads slowly to take our last words


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame and when it came, in seconds of ``time.perf_counter``."""

    event: FrameReceived | FrameRefused
    at: float


class Stream:
    """One WebSocket connection of a session, accepted already.

    Two tasks share the work: one reads messages into the inbox, one takes frames out and answers them. Whatever
    ends the stream goes through ``stop``; the first ending wins, and only ``run`` closes the socket.
    """

    def __init__(self, websocket: WebSocket, session: Session, sessions: Registry, settings: Settings) -> None:
        self._websocket = websocket
        self._session = session
        self._sessions = sessions
        self._settings = settings
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
                self._sessions.end(self._session, ending)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_GRACE_S):
                    await self._close(ending)
        finally:
            self._closed.set()
        return ending

    async def _serve(self) -> Ending:
        session = self._session
        limits = Limits(self._settings.max_frame_bytes, self._settings.max_pixels, self._settings.window)
        protocol = ServerProtocol(session.mode, limits, session.size, session.last_seq)
        inbox: Inbox[Arrival] = Inbox(session.mode, started=session.last_seq is not None)
        hello = protocol.hello(session.id, self._settings.heartbeat_s, self._settings.idle_s)
        if not await self._send(hello):
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
            session.size = protocol.size

    async def _read(self, protocol: ServerProtocol, inbox: Inbox[Arrival]) -> None:
        try:
            while (data := await self._receive()) is not None:
                event = protocol.receive(data)
                self._session.touch()
                if isinstance(event, ByeReceived):
                    self.stop(BYE)
                    return
                inbox.put(Arrival(event, time.perf_counter()))
            self.stop(GONE)
        except ProtocolError as error:
            self.stop(broken(error))
        except Exception:
            log.exception("reading failed", session=self._session.id)
            self.stop(internal_error())

    async def _answer(self, protocol: ServerProtocol, inbox: Inbox[Arrival]) -> None:
        try:
            while (arrival := await inbox.get()) is not None:
                if not await self._send(await self._step(protocol, arrival)):
                    self.stop(GONE)
                    return
                self._session.touch()
        except Exception:
            log.exception("a tracker step failed", session=self._session.id)
            self.stop(internal_error())

    async def _step(self, protocol: ServerProtocol, arrival: Arrival) -> str:
        """Track one frame; the message that answers it."""
        event = arrival.event
        if isinstance(event, FrameRefused):
            return protocol.error(event, event.code, event.message)
        try:
            tracked = await self._session.track(event.frame)
        except ImageError as error:
            return protocol.error(event, error.code, str(error))
        except FrameError as error:
            return protocol.error(event, ErrorCode.UNUSABLE_FRAME, str(error))
        except BoxError as error:
            self.stop(unusable_box(str(error)))
            return protocol.error(event, ErrorCode.UNUSABLE_BOX, str(error))
        result = tracked.result
        return protocol.result(
            event,
            box=Box.of(result.box),
            score=result.score,
            state=TargetState(result.state),
            timings=_timings(tracked, arrival),
        )

    async def _receive(self) -> bytes | str | None:
        """The next message, None when the peer is gone."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        data: bytes | str | None = message.get("bytes")
        return message["text"] if data is None else data

    async def _send(self, text: str) -> bool:
        """Send a message; False when the peer is gone."""
        try:
            await self._websocket.send_text(text)
        # The server below raises RuntimeError where it has closed by itself, on a message that is too long.
        except (WebSocketDisconnect, RuntimeError):
            return False
        return True

    async def _close(self, ending: Ending) -> None:
        if ending.code is None:
            return
        if ending.farewell is not None:
            await self._send(encode_message(ending.farewell))
        with suppress(WebSocketDisconnect, RuntimeError):
            await self._websocket.close(ending.code, fit_reason(ending.reason))


def _timings(tracked: Tracked, arrival: Arrival) -> Timings:
    total = (time.perf_counter() - arrival.at) * 1000
    queue = max(0.0, total - tracked.decode_ms - tracked.infer_ms)
    return Timings(
        queue=round(queue, 3),
        decode=round(tracked.decode_ms, 3),
        infer=round(tracked.infer_ms, 3),
        total=round(total, 3),
    )
