"""The asynchronous client: a thin shell of sockets around ``duotrack_client.protocol``.

    async with AsyncClient("http://127.0.0.1:8000") as client, client.session(box=(10, 20, 30, 40)) as session:
        async for result in session.stream(pairs):
            print(result.seq, result.box, result.score)

Frames are encoded in worker threads, so the event loop stays free.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import httpx2
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from duotrack_client import rest
from duotrack_client.answers import Answer, OnRejected, accepted, settled, since
from duotrack_client.encoding import Encoding
from duotrack_client.errors import ConnectionFailed, DuoTrackClientError, InvalidState, ProtocolError, SessionClosed
from duotrack_client.pairs import Pair, PairLike
from duotrack_client.plans import OnLost, OnReconnect, SessionPlan
from duotrack_client.protocol import Box, BoxLike, ClientEvent, ClientProtocol, Error, Hello, Mode, Payload, Result
from duotrack_client.proxies import find_proxy
from duotrack_client.resume import Waits, gave_up, may_return, report_gaps
from duotrack_client.sockets import agreed_wire, connect_options, connection_failed, no_answer, session_closed


class AsyncClient:
    """A DuoTrack service at ``url``. Arguments and errors are those of ``Client``."""

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout: float = 30.0, reconnect_s: float = 60.0
    ) -> None:
        self.url = rest.base_url(url)
        self.timeout = timeout
        self.reconnect_s = reconnect_s
        self._http = httpx2.AsyncClient(
            base_url=self.url,
            timeout=timeout,
            headers=rest.headers(rest.find_key(api_key)),
            transport=httpx2.AsyncHTTPTransport(proxy=find_proxy(self.url)),
        )

    def session(
        self,
        box: BoxLike,
        *,
        mode: Mode | str = Mode.EVERY_FRAME,
        model: str | None = None,
        encoding: Encoding | None = None,
        options: Mapping[str, bool] | None = None,
        ttl: float | None = None,
        msgpack: bool = False,
        on_reconnect: OnReconnect | None = None,
        on_lost: OnLost | None = None,
    ) -> AsyncSession:
        """A new session, to be entered with ``async with``. Arguments and errors are those of ``Client.session``."""
        plan = SessionPlan(
            Box.of(box), Mode(mode), model, encoding or Encoding(), options, ttl, msgpack, on_reconnect, on_lost
        )
        return AsyncSession(self, plan)

    async def aclose(self) -> None:
        """Close the HTTP connections."""
        await self._http.aclose()

    async def request(self, method: str, path: str, json: dict[str, Any] | None = None) -> httpx2.Response:
        """Send one HTTP request to ``path`` below the service's URL; the answer, whatever its status.

        Raises:
            ConnectionFailed: the service cannot be reached.
        """
        try:
            return await self._http.request(method, path, json=json)
        except httpx2.TransportError as error:
            raise connection_failed(self.url, error) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"


class AsyncSession:
    """One sequence of frame pairs and the targets in it. Made by ``AsyncClient.session``; for one task.

    It starts, resumes and has attributes as ``duotrack_client.Session``.
    """

    def __init__(self, client: AsyncClient, plan: SessionPlan) -> None:
        self.plan = plan
        self.reconnects = 0
        self._client = client
        self._opening = asyncio.Lock()
        self._protocol = ClientProtocol()
        self._changed = asyncio.Event()  # credit has come, or a connection
        self._created: rest.CreatedSession | None = None
        self._socket: ClientConnection | None = None

    @property
    def id(self) -> str:
        """The session's id at the service."""
        if self._created is None:
            raise InvalidState("expected the session to be entered with `async with` first")
        return self._created.id

    @property
    def hello(self) -> Hello:
        """What the service said at the start of the stream: its limits."""
        if self._protocol.hello is None:
            raise InvalidState("expected the session to be entered with `async with` first")
        return self._protocol.hello

    async def track(
        self,
        pair: PairLike | None = None,
        *,
        rgb: NDArray[Any] | None = None,
        thermal: NDArray[Any] | None = None,
    ) -> Result:
        """Send one frame pair and wait for its result. Arguments and errors are those of ``Session.track``."""
        given = Pair(rgb, thermal) if pair is None else pair
        payloads = await asyncio.to_thread(self.plan.encoding.encode, given)
        seq, connection = await self._send(*payloads), self.reconnects
        while True:
            answer = await self._answer()
            if answer is not None and answer.seq == seq:
                return accepted(answer)
            if self.hello.mode is Mode.LIVE and self.reconnects > connection:  # it went with the connection
                seq, connection = await self._send(*payloads), self.reconnects

    async def init(self, box: BoxLike, target: int = 0) -> None:
        """Start target number ``target``, or start it anew, on ``box`` of the next pair. Errors: ``Session.init``."""
        await self._settled()
        await self._write(self._protocol.init(box, target))

    async def configure(self, *, targets: Iterable[int] | None = None, redetection: bool | None = None) -> None:
        """Change settings from the next pair on. Arguments and errors are those of ``Session.configure``."""
        await self._settled()
        await self._write(self._protocol.config(targets, redetection))

    async def stream(
        self,
        pairs: Iterable[PairLike] | AsyncIterable[PairLike],
        *,
        on_rejected: OnRejected | None = None,
    ) -> AsyncIterator[Result]:
        """Send all ``pairs`` and yield their results as they arrive, keeping several in flight.

        An error of ``pairs`` is raised after the results of the pairs before it.

        Args:
            pairs: the frame pairs, in order. A plain iterable is read in a worker thread.
            on_rejected: called with each pair that the service could not use; when None, the error is raised.

        Raises:
            EncodingError: a pair cannot be sent.
            FrameRejected: the service could not use a pair, and ``on_rejected`` is None.
            SessionClosed: the service has closed the stream.
            ConnectionFailed: the service does not answer in time.
        """
        first = self._protocol.next_seq
        sender = asyncio.create_task(self._send_all(pairs))
        try:
            async for answer in self._answers_beside(sender):
                for own in since(first, answer):
                    for result in settled(own, on_rejected):
                        yield result
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def aclose(self) -> None:
        """End the session at the service. Does nothing when it has ended already."""
        if self._socket is not None:
            with suppress(ConnectionClosed):
                await self._socket.send(self._protocol.bye())
            await self._socket.close()
            self._socket = None
        if self._created is not None:
            # The session may be gone already, by our bye or by the service's own end: both are what we want.
            with suppress(DuoTrackClientError):
                await self._client.request("DELETE", f"v1/sessions/{self._created.id}")

    async def __aenter__(self) -> Self:
        plan = self.plan
        body = rest.create_request(plan.box, plan.mode, plan.model, plan.options, plan.ttl)
        self._created = rest.read_created(await self._client.request("POST", "v1/sessions", json=body))
        try:
            try:
                await self._open(self._client.timeout)
            except (ConnectionFailed, SessionClosed) as error:
                await self._reconnect(error)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _open(self, timeout: float) -> None:
        """Connect, and read the service's hello, within ``timeout`` seconds.

        Raises:
            ConnectionFailed: the service cannot be reached, or does not answer.
            SessionClosed: it has closed the stream at once.
        """
        created = self._created
        assert created is not None
        options = connect_options(created.stream_url, created.resume_token, self.plan.msgpack)
        due = time.monotonic() + timeout
        try:
            socket = await connect(created.stream_url, open_timeout=timeout, **options)
        except (OSError, EOFError, WebSocketException) as error:
            raise connection_failed(created.stream_url, error) from error
        self._socket = socket
        self._protocol.reconnected()
        self._protocol.wire = agreed_wire(socket.subprotocol)
        try:
            async with asyncio.timeout(due - time.monotonic()):
                self._protocol.receive(await socket.recv())
            await self._replay()
        except TimeoutError as error:
            await socket.close()
            raise no_answer(timeout) from error
        except ConnectionClosed as error:
            raise session_closed(error, self._protocol) from error
        self._changed.set()

    async def _reconnect(self, reason: ConnectionFailed | SessionClosed) -> None:
        """Open another connection in place of one that broke. Errors are those of ``Session``."""
        if self._socket is not None:
            await self._socket.close()
        waits = Waits(self._client.reconnect_s, getattr(reason, "reconnect_after", None))
        if not may_return(reason, self._protocol) or waits.total <= 0:
            raise reason
        if self.plan.on_reconnect is not None:
            self.plan.on_reconnect(reason)
        for wait in waits:
            await asyncio.sleep(wait)
            try:
                await self._open(waits.patience(self._client.timeout))
            except (ConnectionFailed, SessionClosed) as error:
                if not may_return(error, self._protocol):
                    raise
            else:
                self.reconnects += 1
                report_gaps(self._protocol.gaps, self.plan.on_lost)
                return
        raise gave_up(reason, waits.spent) from reason

    async def _send_all(self, pairs: Iterable[PairLike] | AsyncIterable[PairLike]) -> None:
        async for pair in pairs if isinstance(pairs, AsyncIterable) else _in_thread(pairs):
            payloads = await asyncio.to_thread(self.plan.encoding.encode, pair)
            while not self._protocol.can_send:
                self._changed.clear()
                await self._changed.wait()
            await self._transmit(*payloads)

    async def _send(self, rgb: Payload | None, thermal: Payload | None) -> int:
        await self._settled()
        return await self._transmit(rgb, thermal)

    async def _transmit(self, rgb: Payload | None, thermal: Payload | None) -> int:
        seq, message = self._protocol.frame(rgb, thermal, capture_us=time.time_ns() // 1000)
        await self._write(message)
        return seq

    async def _settled(self) -> None:
        """Read answers until there is room for another frame."""
        while not self._protocol.can_send:
            await self._answer()

    async def _write(self, message: str | bytes) -> None:
        # Where the connection is gone, the next receive will tell, after what has come before; and the protocol has
        # kept the message, to send it again.
        with suppress(ConnectionClosed):
            await self._open_socket.send(message)

    async def _replay(self) -> None:
        while (message := self._protocol.next_replay()) is not None:
            await self._write(message)

    async def _answer(self) -> Answer | None:
        """Wait for the next answer to a frame; None where a new connection has come instead."""
        receiver = asyncio.create_task(self._next_answer())
        try:
            while not receiver.done():
                connection = self.reconnects
                await asyncio.wait({receiver}, timeout=self._client.timeout)
                if not receiver.done() and not self._opening.locked() and self.reconnects == connection:
                    raise no_answer(self._client.timeout)
            return receiver.result()
        finally:
            receiver.cancel()
            await asyncio.gather(receiver, return_exceptions=True)

    async def _answers_beside(self, sender: asyncio.Task[None]) -> AsyncIterator[Answer | None]:
        """The answers to frames, until the sender is done and nothing is in flight.

        Raises:
            ConnectionFailed: an answer that is due does not come in time.
            Exception: whatever has stopped the sender, after the answers to what it has sent.
        """
        while True:
            receiver = asyncio.create_task(self._next_answer())
            try:
                while not receiver.done():
                    if sender.done() and not self._protocol.in_flight:
                        sender.result()
                        return
                    due, connection = self._protocol.in_flight > 0, self.reconnects
                    done, _ = await asyncio.wait(
                        {receiver} if sender.done() else {receiver, sender},
                        timeout=self._client.timeout,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    if due and not done and not self._opening.locked() and self.reconnects == connection:
                        raise no_answer(self._client.timeout)
            finally:
                if not receiver.done():
                    receiver.cancel()
                    await asyncio.gather(receiver, return_exceptions=True)
            yield receiver.result()

    async def _next_answer(self) -> Answer | None:
        """The next answer to a frame; None where the connection is another now."""
        connection = self.reconnects
        while True:
            event = await self._receive()
            if isinstance(event, Result | Error) and event.seq is not None:
                return event
            if self.reconnects > connection:
                return None

    async def _receive(self) -> ClientEvent | None:
        """The next message; None where the connection broke, and is another now."""
        try:
            event = self._protocol.receive(await self._open_socket.recv())
        except ConnectionClosed as error:
            async with self._opening:
                await self._reconnect(session_closed(error, self._protocol))
            return None
        except ProtocolError as error:
            await self._open_socket.close(error.close_code)
            raise
        if not self._protocol.caught_up:  # shielded: half of a replay would be none
            await asyncio.shield(self._replay())
        self._changed.set()
        return event

    @property
    def _open_socket(self) -> ClientConnection:
        if self._socket is None:
            raise InvalidState("expected an open session: enter it with `async with` first")
        return self._socket

    def __repr__(self) -> str:
        created = None if self._created is None else self._created.id
        return f"AsyncSession(id={created!r}, box={self.plan.box.text()}, mode={self.plan.mode})"


async def _in_thread(pairs: Iterable[PairLike]) -> AsyncIterator[PairLike]:
    iterator = iter(pairs)
    while (pair := await asyncio.to_thread(next, iterator, None)) is not None:
        yield pair
