"""Connections that do not waste the service's time: the head of a request must come, and there are only so many.

Uvicorn waits for a request's head for ever. A client that sends one byte a minute, on a thousand connections, would
hold a thousand sockets (Slowloris, 2009). Bodies have their time-out in ``bodies``, WebSockets theirs in the stream.
Uvicorn also waits for ever until a WebSocket that it closes has read all, and answers pings into memory.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from duotrack_service.settings import Settings

LINGER_S: Final = 10.0  # for the peer of a WebSocket that ends to read the last of it


class Doorman:
    """Counts connections, in all and by address.

    Args:
        most, most_per_address: how many may be open at a time.
    """

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._open: Counter[str] = Counter()

    def admit(self, address: str) -> bool:
        """Let a connection in, unless there are too many."""
        if self._open.total() >= self._most or self._open[address] >= self._most_per_address:
            return False
        self._open[address] += 1
        return True

    def leave(self, address: str) -> None:
        """A connection that was let in is gone."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]


@dataclass(frozen=True, slots=True)
class Guarded:
    """Uvicorn's protocols with limits: HTTP, and what its connections turn into."""

    http: type[HttpToolsProtocol]
    websocket: type[WebSocketsSansIOProtocol]


def guarded(settings: Settings) -> Guarded:
    """Uvicorn's protocols with the limits of ``settings``, which count the connections of both together."""
    doorman = Doorman(settings.max_connections, settings.max_connections_per_address)

    class GuardedHttp(HttpToolsProtocol):
        _admitted = False
        _head_due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._admitted = doorman.admit(_address(transport))
            if self._admitted:
                self._expect_head()
            else:
                transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_head()
            if self._admitted:
                doorman.leave(_address(self.transport))
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._head_due is None:  # of a request after the first, whose time runs from its first byte
                self._expect_head()

        def on_headers_complete(self) -> None:
            self._forget_head()
            super().on_headers_complete()

        def _expect_head(self) -> None:
            self._head_due = self.loop.call_later(settings.header_timeout_s, self.transport.abort)

        def _forget_head(self) -> None:
            if self._head_due is not None:
                self._head_due.cancel()
                self._head_due = None

    class GuardedWebSocket(WebSocketsSansIOProtocol):
        _end_due: asyncio.TimerHandle | None = None
        _owed_pong = b""

        def connection_lost(self, exc: Exception | None) -> None:
            if self._end_due is not None:
                self._end_due.cancel()
            doorman.leave(_address(self.transport))
            super().connection_lost(exc)

        async def run_asgi(self) -> None:
            await super().run_asgi()
            self._expect_end()

        async def send(self, message: Any) -> None:
            await super().send(message)
            if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
                self.handshake_complete = True  # refused; else uvicorn logs an error of the application

        async def receive(self) -> Any:
            message = await super().receive()
            if self.pong_timer is not None:  # the pong may come behind this message, which shows as well that it lives
                self._expect_pong()
            return message

        def keepalive_timeout(self) -> None:
            if self.read_paused and self.writable.is_set():  # the pong may lie unread
                self._expect_pong()
                return
            super().keepalive_timeout()
            self._expect_end()

        def handle_ping(self) -> None:
            if self.writable.is_set():
                super().handle_ping()
            elif pongs := self.conn.data_to_send():
                self._owed_pong = pongs[-1]  # the peer does not read: the last is enough (RFC 6455, section 5.5.3)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._owed_pong and not self.close_sent:
                self.transport.write(self._owed_pong)
            self._owed_pong = b""

        def _expect_pong(self) -> None:
            """Give the peer its time anew, unless it does not read either."""
            if self.writable.is_set():
                if self.pong_timer is not None:
                    self.pong_timer.cancel()
                self.pong_timer = self.loop.call_later(settings.heartbeat_s, self.keepalive_timeout)

        def _expect_end(self) -> None:
            # A transport closes when all is written, which is never where the peer does not read.
            if self._end_due is None and not self.disconnected:
                self._end_due = self.loop.call_later(LINGER_S, self.transport.abort)

    return Guarded(GuardedHttp, GuardedWebSocket)


def _address(transport: Any) -> str:
    peer = transport.get_extra_info("peername")
    return peer[0] if isinstance(peer, tuple) else "unix"
