"""The synchronous client: a thin shell of sockets around ``duotrack_client.protocol``.

with Client("http://127.0.0.1:8000") as client, client.session(box=(10, 20, 30, 40)) as session:
    for result in session.stream(pairs):
        print(result.seq, result.box, result.score)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
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
from duotrack_client.errors import ConnectionFailed, DuoTrackClientError, InvalidState, ProtocolError, SessionClosed
from duotrack_client.pairs import Pair, PairLike
from duotrack_client.plans import OnLost, OnReconnect, SessionPlan
from duotrack_client.protocol import Box, BoxLike, ClientEvent, ClientProtocol, Error, Hello, Mode, Payload, Result
from duotrack_client.proxies import find_proxy
from duotrack_client.resume import Waits, gave_up, may_return, report_gaps
from duotrack_client.sockets import agreed_wire, connect_options, connection_failed, no_answer, session_closed


class Client:
    """A DuoTrack service at ``url``, such as ``http://127.0.0.1:8000``.

    Args:
        url: the service; a path before ``/v1`` is kept.
        api_key: shown with every request; that of the variable ``DUOTRACK_API_KEY`` when None.
        timeout: seconds to wait for any one answer.
        reconnect_s: how long sessions whose connection breaks try to get another one; 0 to give up at once.

    Raises:
        ConnectionFailed: ``url`` is no http or https URL.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout: float = 30.0, reconnect_s: float = 60.0
    ) -> None:
        self.url = rest.base_url(url)
        self.timeout = timeout
        self.reconnect_s = reconnect_s
        self._http = httpx2.Client(
            base_url=self.url,
            timeout=timeout,
            headers=rest.headers(rest.find_key(api_key)),
            transport=httpx2.HTTPTransport(proxy=find_proxy(self.url)),
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
    ) -> Session:
        """A new session, to be entered with ``with``.

        Args:
            box: the target in the first frame pair: x, y, w, h in pixels.
            mode: ``every_frame`` or ``live``.
            model: the model to track with; the service's own choice when None.
            encoding: how frames are compressed; JPEG for colour and PNG, or zstd of 16 bits, for thermal when None.
            options: switches of the tracker, such as ``{"redetection": True}``.
            ttl: seconds that the session may live in all.
            msgpack: whether to ask for results in MessagePack, which are smaller and faster to read.
            on_reconnect: called with the reason when the connection is lost and another is sought.
            on_lost: called with frames that a lost connection has cost; when None, the error is raised.

        Raises:
            BoxError: ``box`` is no box.
            ValueError: there is no such mode.
        """
        plan = SessionPlan(
            Box.of(box), Mode(mode), model, encoding or Encoding(), options, ttl, msgpack, on_reconnect, on_lost
        )
        return Session(self, plan)

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
    """One sequence of frame pairs and the targets in it. Made by ``Client.session``; for one thread.

    The first pair starts the track: its result is the box that the session was made with. When the connection is lost,
    the session finds another, sends again what the service may not have seen, and goes on: each result comes once and
    in order.

    Attributes:
        plan: what it was made with.
        reconnects: how many connections it has lost and replaced.
    """

    def __init__(self, client: Client, plan: SessionPlan) -> None:
        self.plan = plan
        self.reconnects = 0
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
        payloads = self.plan.encoding.encode(Pair(rgb, thermal) if pair is None else pair)
        seq, connection = self._send(*payloads), self.reconnects
        while True:
            answer = self._answer()
            if answer is not None and answer.seq == seq:
                return accepted(answer)
            if self.hello.mode is Mode.LIVE and self.reconnects > connection:  # it went with the connection
                seq, connection = self._send(*payloads), self.reconnects

    def init(self, box: BoxLike, target: int = 0) -> None:
        """Start target number ``target``, or start it anew, on ``box`` of the next pair, in pixels.

        Raises:
            BoxError: ``box`` is no box.
            InvalidState: the service takes no such number.
            SessionClosed: the service has closed the stream.
        """
        self._settled()
        self._write(self._protocol.init(box, target))

    def configure(self, *, targets: Iterable[int] | None = None, redetection: bool | None = None) -> None:
        """Change settings from the next pair on; what is None stays as it is.

        Args:
            targets: numbers of the targets to go on with; all others are forgotten.
            redetection: whether the whole frame is searched for a lost target.

        Raises:
            InvalidState: no target is left.
            SessionClosed: the service has closed the stream.
        """
        self._settled()
        self._write(self._protocol.config(targets, redetection))

    def stream(self, pairs: Iterable[PairLike], *, on_rejected: OnRejected | None = None) -> Iterator[Result]:
        """Send all ``pairs`` and yield their results, keeping several in flight.

        Results that have arrived are yielded between two pairs: where the pairs come slowly, as from a camera,
        and each result matters at once, take ``track`` or the async client. An error of ``pairs`` is raised after the
        results of the pairs before it.

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
        plan = self.plan
        body = rest.create_request(plan.box, plan.mode, plan.model, plan.options, plan.ttl)
        self._created = rest.read_created(self._client.request("POST", "v1/sessions", json=body))
        try:
            try:
                self._open(self._client.timeout)
            except (ConnectionFailed, SessionClosed) as error:
                self._reconnect(error)
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

    def _open(self, timeout: float) -> None:
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
            connection = connect(created.stream_url, open_timeout=timeout, **options)
            self._socket = self._resources.enter_context(connection)
        except (OSError, EOFError, WebSocketException) as error:
            raise connection_failed(created.stream_url, error) from error
        self._protocol.reconnected()
        self._protocol.wire = agreed_wire(self._socket.subprotocol)
        try:
            self._protocol.receive(self._socket.recv(max(0.0, due - time.monotonic())))
            self._replay()
        except TimeoutError as error:
            self._resources.close()
            raise no_answer(timeout) from error
        except ConnectionClosed as error:
            raise session_closed(error, self._protocol) from error

    def _reconnect(self, reason: ConnectionFailed | SessionClosed) -> None:
        """Open another connection in place of one that broke.

        Raises:
            SessionClosed: the service meant it, or does so now.
            ConnectionFailed: it cannot be reached for as long as the client tries.
            FramesLost: something cannot be sent again, and nobody wants to be told.
        """
        self._resources.close()
        waits = Waits(self._client.reconnect_s, getattr(reason, "reconnect_after", None))
        if not may_return(reason, self._protocol) or waits.total <= 0:
            raise reason
        if self.plan.on_reconnect is not None:
            self.plan.on_reconnect(reason)
        for wait in waits:
            time.sleep(wait)
            try:
                self._open(waits.patience(self._client.timeout))
            except (ConnectionFailed, SessionClosed) as error:
                if not may_return(error, self._protocol):
                    raise
            else:
                self.reconnects += 1
                report_gaps(self._protocol.gaps, self.plan.on_lost)
                return
        raise gave_up(reason, waits.spent) from reason

    def _send(self, rgb: Payload | None, thermal: Payload | None) -> int:
        self._settled()
        seq, message = self._protocol.frame(rgb, thermal, capture_us=time.time_ns() // 1000)
        self._write(message)
        return seq

    def _settled(self) -> None:
        """Read answers until there is room for another frame."""
        while not self._protocol.can_send:
            self._answer()

    def _write(self, message: str | bytes) -> None:
        # Where the connection is gone, the next receive will tell, after what has come before; and the protocol has
        # kept the message, to send it again.
        with suppress(ConnectionClosed):
            self._open_socket.send(message)

    def _replay(self) -> None:
        while (message := self._protocol.next_replay()) is not None:
            self._write(message)

    def _answers(self, pairs: Iterable[PairLike], first: int) -> Iterator[Answer]:
        """Send all ``pairs``; the answers to frames from ``first`` on, and none left over from before."""
        encoded = map(self.plan.encoding.encode, pairs)
        while True:
            try:
                payloads = next(encoded, None)
            except Exception:  # the source broke, or a pair cannot be sent: those before it are tracked all the same
                yield from self._rest(first)
                raise
            if payloads is None:
                break
            while not self._protocol.can_send:
                yield from since(first, self._answer())
            self._send(*payloads)
            while (answer := self._answer_within(0)) is not None:
                yield from since(first, answer)
        yield from self._rest(first)

    def _rest(self, first: int) -> Iterator[Answer]:
        """The answers to all that is in flight."""
        while self._protocol.in_flight:
            yield from since(first, self._answer())

    def _answer(self) -> Answer | None:
        """Wait for the next answer to a frame; None where a new connection has come instead."""
        connection = self.reconnects
        answer = self._answer_within(self._client.timeout)
        if answer is None and self.reconnects == connection:
            raise no_answer(self._client.timeout)
        return answer

    def _answer_within(self, timeout: float) -> Answer | None:
        """The next answer to a frame, or None when none comes within ``timeout`` seconds, or on this connection."""
        connection = self.reconnects
        while (event := self._receive(timeout)) is not None:
            if isinstance(event, Result | Error) and event.seq is not None:
                return event
            if self.reconnects > connection:
                return None
        return None

    def _receive(self, timeout: float) -> ClientEvent | None:
        """The next message, or None when none comes within ``timeout`` seconds, or the connection is another now."""
        try:
            event = self._protocol.receive(self._open_socket.recv(timeout))
            self._replay()
        except TimeoutError:
            return None
        except ConnectionClosed as error:
            self._reconnect(session_closed(error, self._protocol))
            return None
        except ProtocolError as error:
            self._open_socket.close(error.close_code)
            raise
        return event

    @property
    def _open_socket(self) -> ClientConnection:
        if self._socket is None:
            raise InvalidState("expected an open session: enter it with `with` first")
        return self._socket

    def __repr__(self) -> str:
        created = None if self._created is None else self._created.id
        return f"Session(id={created!r}, box={self.plan.box.text()}, mode={self.plan.mode})"
