"""The asynchronous client: a thin shell of sockets around ``duotrack_client.protocol``.

    async with AsyncClient("http://127.0.0.1:8000") as client, client.session(box=(10, 20, 30, 40)) as session:
        async for result in session.stream(pairs):
            print(result.seq, result.box, result.score)

Frames are encoded in worker threads, so the event loop stays free.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable
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
from duotrack_client.errors import DuoTrackClientError, InvalidState, ProtocolError
from duotrack_client.pairs import Pair, PairLike
from duotrack_client.protocol import Box, BoxLike, ClientEvent, ClientProtocol, Error, Hello, Mode, Payload, Result
from duotrack_client.sockets import CLOSE_TIMEOUT, CONNECT_OPTIONS, connection_failed, no_answer, session_closed


class AsyncClient:
    """A DuoTrack service at ``url``. Arguments and errors are those of ``Client``."""

    def __init__(self, url: str, *, timeout: float = 30.0) -> None:
        self.url = rest.base_url(url)
        self.timeout = timeout
        self._http = httpx2.AsyncClient(base_url=self.url, timeout=timeout)

    def session(
        self,
        box: BoxLike,
        *,
        mode: Mode | str = Mode.EVERY_FRAME,
        model: str | None = None,
        encoding: Encoding | None = None,
    ) -> AsyncSession:
        """A new session, to be entered with ``async with``. Arguments and errors are those of ``Client.session``."""
        return AsyncSession(self, Box.of(box), Mode(mode), model, encoding or Encoding())

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
    """One target followed through one sequence of frame pairs. Made by ``AsyncClient.session``; for one task.

    The first pair starts the track: its result is the box that the session was made with.
    """

    def __init__(self, client: AsyncClient, box: Box, mode: Mode, model: str | None, encoding: Encoding) -> None:
        self.box = box
        self.mode = mode
        self.model = model
        self.encoding = encoding
        self._client = client
        self._protocol = ClientProtocol()
        self._answered = asyncio.Event()
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
        payloads = await asyncio.to_thread(self.encoding.encode, Pair(rgb, thermal) if pair is None else pair)
        while not self._protocol.can_send:  # left over from a stream that was not read to its end
            await self._answer()
        try:
            seq = await self._send(*payloads)
        except ConnectionClosed as error:
            raise await self._closed(error) from error
        while True:
            answer = await self._answer()
            if answer.seq == seq:
                return accepted(answer)

    async def stream(
        self,
        pairs: Iterable[PairLike] | AsyncIterable[PairLike],
        *,
        on_rejected: OnRejected | None = None,
    ) -> AsyncIterator[Result]:
        """Send all ``pairs`` and yield their results as they arrive, keeping several in flight.

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
            while (answer := await self._answer_beside(sender)) is not None:
                for own in since(first, answer):
                    for result in settled(own, on_rejected):
                        yield result
        except ConnectionClosed as error:
            raise await self._closed(error) from error
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
        body = rest.create_request(self.box, self.mode, self.model)
        self._created = rest.read_created(await self._client.request("POST", "v1/sessions", json=body))
        try:
            self._socket = await self._connect(self._created.stream_url)
            await self._greeting()
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

    async def _connect(self, url: str) -> ClientConnection:
        try:
            return await connect(url, open_timeout=self._client.timeout, **CONNECT_OPTIONS)
        except (OSError, WebSocketException) as error:
            raise connection_failed(url, error) from error

    async def _greeting(self) -> None:
        try:
            async with asyncio.timeout(self._client.timeout):
                await self._receive()
        except TimeoutError:
            raise no_answer(self._client.timeout) from None

    async def _send_all(self, pairs: Iterable[PairLike] | AsyncIterable[PairLike]) -> None:
        async for pair in pairs if isinstance(pairs, AsyncIterable) else _in_thread(pairs):
            payloads = await asyncio.to_thread(self.encoding.encode, pair)
            while not self._protocol.can_send:
                self._answered.clear()
                await self._answered.wait()
            await self._send(*payloads)

    async def _send(self, rgb: Payload | None, thermal: Payload | None) -> int:
        seq, message = self._protocol.frame(rgb, thermal, capture_us=time.time_ns() // 1000)
        await self._open_socket.send(message)
        return seq

    async def _answer(self) -> Answer:
        """Wait for the next answer to a frame."""
        try:
            async with asyncio.timeout(self._client.timeout):
                return await self._next_answer()
        except TimeoutError:
            raise no_answer(self._client.timeout) from None

    async def _answer_beside(self, sender: asyncio.Task[None]) -> Answer | None:
        """The next answer to a frame, or None when the sender is done and nothing is in flight.

        Raises:
            ConnectionClosed: the sender met the end of the stream first; and whatever else stopped it.
        """
        receiver = asyncio.create_task(self._next_answer())
        try:
            while not receiver.done():
                if sender.done():
                    sender.result()
                    if not self._protocol.in_flight:
                        return None
                due = self._protocol.in_flight > 0
                done, _ = await asyncio.wait(
                    {receiver} if sender.done() else {receiver, sender},
                    timeout=self._client.timeout,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if due and not done:
                    raise no_answer(self._client.timeout)
            return receiver.result()
        finally:
            receiver.cancel()
            await asyncio.gather(receiver, return_exceptions=True)

    async def _next_answer(self) -> Answer:
        while True:
            event = await self._receive()
            if isinstance(event, Result | Error) and event.seq is not None:
                return event

    async def _receive(self) -> ClientEvent:
        try:
            event = self._protocol.receive(await self._open_socket.recv())
        except ConnectionClosed as error:
            raise session_closed(error, self._protocol) from error
        except ProtocolError as error:
            await self._open_socket.close(error.close_code)
            raise
        self._answered.set()
        return event

    async def _closed(self, error: ConnectionClosed) -> DuoTrackClientError:
        """Why a send failed: what the server said before it closed is still waiting to be read."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                while True:
                    await self._receive()
        except DuoTrackClientError as reason:
            return reason
        except TimeoutError:
            return session_closed(error, self._protocol)

    @property
    def _open_socket(self) -> ClientConnection:
        if self._socket is None:
            raise InvalidState("expected an open session: enter it with `async with` first")
        return self._socket

    def __repr__(self) -> str:
        created = None if self._created is None else self._created.id
        return f"AsyncSession(id={created!r}, box={self.box.text()}, mode={self.mode})"


async def _in_thread(pairs: Iterable[PairLike]) -> AsyncIterator[PairLike]:
    iterator = iter(pairs)
    while (pair := await asyncio.to_thread(next, iterator, None)) is not None:
        yield pair
