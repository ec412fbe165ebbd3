"""WebSockets of peers that do not read, over raw sockets with small buffers, and of peers that are not read."""

from __future__ import annotations

import base64
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx2
import pytest

from duotrack_client import Client
from duotrack_service import guards

BUFFER = 65536  # of the kernel, at each end; with far less, one segment of loopback fills it and TCP waits


@pytest.fixture
def deaf(scene, wait) -> Iterator[Callable[..., tuple[socket.socket, object]]]:
    """Open a stream of a service whose client does not read; the client's socket, and the service's protocol."""
    opened: list[socket.socket] = []

    def open_stream(service) -> tuple[socket.socket, object]:
        body = {"box": dict(zip("xywh", scene.box.xywh, strict=True))}
        url = httpx2.URL(httpx2.post(f"{service.url}/v1/sessions", json=body).json()["stream_url"])
        stream = socket.socket()
        opened.append(stream)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        stream.settimeout(10)
        stream.connect((url.host, url.port))
        key = base64.b64encode(bytes(16)).decode()
        lines = [f"GET {url.path} HTTP/1.1", f"Host: {url.netloc.decode()}", "Upgrade: websocket"]
        lines += ["Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
        lines += ["Sec-WebSocket-Protocol: duotrack.v1", "", ""]
        stream.sendall("\r\n".join(lines).encode())
        assert stream.recv(12) == b"HTTP/1.1 101"
        wait(lambda: any(isinstance(one, guards.WebSocketsSansIOProtocol) for one in connections(service)))
        (protocol,) = [one for one in connections(service) if isinstance(one, guards.WebSocketsSansIOProtocol)]
        protocol.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        return stream, protocol

    yield open_stream
    for stream in opened:
        stream.close()


def connections(service) -> list[object]:
    return list(service.server.server_state.connections)


def ping(number: int) -> bytes:
    """A masked ping of 125 bytes that end with its number; the mask is 0."""
    return b"\x89\xfd\x00\x00\x00\x00" + bytes(117) + struct.pack(">Q", number)


def flood(stream: socket.socket, protocol) -> int:
    """Send pings until no more answers can be written, and 8,000 more; the number of the last.

    The kernel takes a little more of the answers at times, so that there is room again: once is not enough.
    """
    number, full = 0, 0
    while full < 8000:
        number += 1
        assert number < 200_000
        stream.sendall(ping(number))
        full += not protocol.writable.is_set()
    return number


def test_pings_of_a_peer_that_does_not_read_take_no_memory_and_the_last_is_answered(serve, deaf) -> None:
    stream, protocol = deaf(serve())
    last = flood(stream, protocol)
    received, most = b"", 0
    while struct.pack(">Q", last) not in received:
        most = max(most, protocol.transport.get_write_buffer_size())
        received = received[-8:] + stream.recv(1024)
    assert 0 < most < 400_000


def test_a_peer_that_does_not_read_is_cut_off(serve, deaf, wait, monkeypatch) -> None:
    monkeypatch.setattr(guards, "LINGER_S", 0.2)
    service = serve(heartbeat_s=1.0)
    stream, protocol = deaf(service)
    with suppress(OSError):
        flood(stream, protocol)
    wait(lambda: protocol not in connections(service))


def test_a_client_that_is_not_read_for_long_is_not_cut_off(serve, scene, gate) -> None:
    """The frames that wait take all the budget, so the next ones lie unread, and the answers to pings behind them."""
    service = serve(model=gate, max_bytes_in_flight=1024, heartbeat_s=0.3)
    with Client(service.url, reconnect_s=0) as client, client.session(scene.box) as session:
        threading.Timer(1.5, gate.opened.set).start()
        assert [result.seq for result in session.stream(scene.pairs)] == list(range(12))
