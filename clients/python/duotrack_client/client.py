"""The synchronous client: a thin shell of sockets around ``duotrack_client.protocol``.

with Client("http://127.0.0.1:8000") as client, client.session(box=(10, 20, 30, 40)) as session:
    for result in session.stream(pairs):
        print(result.seq, result.box, result.score)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self

import httpx2
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from duotrack_client import rest
from duotrack_client.answers import Answer, OnRejected, accepted, settled, since
from duotrack_client.encoding import Encoding
from duotrack_client.errors import DuoTrackClientError, InvalidState, ProtocolError
from duotrack_client.pairs import Pair, PairLike
from duotrack_client.protocol import Box, BoxLike, ClientEvent, ClientProtocol, Error, Hello, Mode, Payload, Result
from duotrack_client.sockets import CLOSE_TIMEOUT, CONNECT_OPTIONS, connection_failed, no_answer, session_closed


class Client:
    """A DuoTrack service at ``url``, such as ``http://127.0.0.1:8000``.

    Args:
        url: the service; a path before ``/v1`` is kept.
        timeout: seconds to wait for any one answer.

    Raises:
        ConnectionFailed: ``url`` is no http or https URL.
    """

    def __init__(self, url: str, *, timeout: float = 30.0) -> None:
        self.url = rest.base_url(url)
        self.timeout = timeout
        self._http = httpx2.Client(base_url=self.url, timeout=timeout)

    def session(
        self,
        box: BoxLike,
        *,
        mode: Mode | str = Mode.EVERY_FRAME,
        model: str | None = None,
        encoding: Encoding | None = None,
    ) -> Session:
        """A new session, to be entered with ``with``.

        Args:
            box: the target in the first frame pair: x, y, w, h in pixels.
            mode: ``every_frame`` or ``live``.
            model: the model to track with; the service's own choice when None.
            encoding: how frames are compressed; JPEG for colour and PNG for thermal when None.

        Raises:
            BoxError: ``box`` is no box.
            ValueError: there is no such mode.
        """
        return Session(self, Box.of(box), Mode(mode), model, encoding or Encoding())

    def close(self) -> None:
        """Close the HTTP connections."""
        self._http.close()

    def request(self, method: str, path: str, json: dict[str, Any] | None = None) -> httpx2.Response:
        """Send one HTTP request to ``path`` below the service's URL; the answer, whatever its status.

        Raises:
            ConnectionFailed: the service cannot be reached.
        """
        try:
            return self._http.request(method, path, json=json)
        except httpx2.TransportError as error:
            raise connection_failed(self.url, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"


class Session:
    """One target followed through one sequence of frame pairs. Made by ``Client.session``; for one thread.

    The first pair starts the track: its result is the box that the session was made with.
    """

    def __init__(self, client: Client, box: Box, mode: Mode, model: str | None, encoding: Encoding) -> None:
        self.box = box
        self.mode = mode
        self.model = model
        self.encoding = encoding
        self._client = client
        self._protocol = ClientProtocol()
        self._created: rest.CreatedSession | None = None
        self._socket: ClientConnection | None = None
        self._resources = ExitStack()

    @property
    def id(self) -> str:
        """The session's id at the service."""
        if self._created is None:
            raise InvalidState("expected the session to be entered with `with` first")
        return self._created.id

    @property
    def hello(self) -> Hello:
        """What the service said at the start of the stream: its limits."""
        if self._protocol.hello is None:
            raise InvalidState("expected the session to be entered with `with` first")
        return self._protocol.hello

    def track(
        self,
        pair: PairLike | None = None,
        *,
        rgb: NDArray[Any] | None = None,
        thermal: NDArray[Any] | None = None,
    ) -> Result:
        """Send one frame pair, as ``pair`` or as its images, and wait for its result.

        Args:
            pair: anything with ``rgb`` and ``thermal``, such as ``Pair`` or ``duotrack.FramePair``.
            rgb: (H, W, 3) uint8 in R, G, B order.
            thermal: (H, W) uint8 or uint16.

        Raises:
            EncodingError: the pair cannot be sent.
            FrameRejected: the service could not use it; the session goes on.
            SessionClosed: the service has closed the stream.
            ConnectionFailed: the service does not answer in time.
        """
        payloads = self.encoding.encode(Pair(rgb, thermal) if pair is None else pair)
        while not self._protocol.can_send:  # left over from a stream that was not read to its end
            self._answer()
        seq = self._send(*payloads)
        while True:
            answer = self._answer()
            if answer.seq == seq:
                return accepted(answer)

    def stream(self, pairs: Iterable[PairLike], *, on_rejected: OnRejected | None = None) -> Iterator[Result]:
        """Send all ``pairs`` and yield their results, keeping several in flight.

        Results that have arrived are yielded between two pairs: where the pairs come slowly, as from a camera,
        and each result matters at once, take ``track`` or the async client.

        Args:
            pairs: the frame pairs, in order.
            on_rejected: called with each pair that the service could not use; when None, the error is raised.

        Raises:
            EncodingError: a pair cannot be sent.
            FrameRejected: the service could not use a pair, and ``on_rejected`` is None.
            SessionClosed: the service has closed the stream.
            ConnectionFailed: the service does not answer in time.
        """
        for answer in self._answers(pairs, first=self._protocol.next_seq):
            yield from settled(answer, on_rejected)

    def close(self) -> None:
        """End the session at the service. Does nothing when it has ended already."""
        if self._socket is not None:
            with suppress(ConnectionClosed):
                self._socket.send(self._protocol.bye())
            self._resources.close()
            self._socket = None
        if self._created is not None:
            # The session may be gone already, by our bye or by the service's own end: both are what we want.
            with suppress(DuoTrackClientError):
                self._client.request("DELETE", f"v1/sessions/{self._created.id}")

    def __enter__(self) -> Self:
        body = rest.create_request(self.box, self.mode, self.model)
        self._created = rest.read_created(self._client.request("POST", "v1/sessions", json=body))
        try:
            self._socket = self._connect(self._created.stream_url)
            if self._receive(self._client.timeout) is None:
                raise no_answer(self._client.timeout)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _connect(self, url: str) -> ClientConnection:
        try:
            connection: ClientConnection = connect(url, open_timeout=self._client.timeout, **CONNECT_OPTIONS)
        except (OSError, WebSocketException) as error:
            raise connection_failed(url, error) from error
        return self._resources.enter_context(connection)

    def _send(self, rgb: Payload | None, thermal: Payload | None) -> int:
        seq, message = self._protocol.frame(rgb, thermal, capture_us=time.time_ns() // 1000)
        try:
            self._open_socket.send(message)
        except ConnectionClosed as error:
            raise self._closed(error) from error
        return seq

    def _answers(self, pairs: Iterable[PairLike], first: int) -> Iterator[Answer]:
        """Send all ``pairs``; the answers to frames from ``first`` on, and none left over from before."""
        for pair in pairs:
            payloads = self.encoding.encode(pair)
            while not self._protocol.can_send:
                yield from since(first, self._answer())
            self._send(*payloads)
            while (answer := self._answer_within(0)) is not None:
                yield from since(first, answer)
        while self._protocol.in_flight:
            yield from since(first, self._answer())

    def _answer(self) -> Answer:
        """Wait for the next answer to a frame."""
        answer = self._answer_within(self._client.timeout)
        if answer is None:
            raise no_answer(self._client.timeout)
        return answer

    def _answer_within(self, timeout: float) -> Answer | None:
        """The next answer to a frame, or None when none comes within ``timeout`` seconds."""
        while (event := self._receive(timeout)) is not None:
            if isinstance(event, Result | Error) and event.seq is not None:
                return event
        return None

    def _receive(self, timeout: float) -> ClientEvent | None:
        try:
            return self._protocol.receive(self._open_socket.recv(timeout))
        except TimeoutError:
            return None
        except ConnectionClosed as error:
            raise session_closed(error, self._protocol) from error
        except ProtocolError as error:
            self._open_socket.close(error.close_code)
            raise

    def _closed(self, error: ConnectionClosed) -> DuoTrackClientError:
        """Why a send failed: what the server said before it closed is still waiting to be read."""
        try:
            while self._receive(CLOSE_TIMEOUT) is not None:
                pass
        except DuoTrackClientError as reason:
            return reason
        return session_closed(error, self._protocol)

    @property
    def _open_socket(self) -> ClientConnection:
        if self._socket is None:
            raise InvalidState("expected an open session: enter it with `with` first")
        return self._socket

    def __repr__(self) -> str:
        created = None if self._created is None else self._created.id
        return f"Session(id={created!r}, box={self.box.text()}, mode={self.mode})"
