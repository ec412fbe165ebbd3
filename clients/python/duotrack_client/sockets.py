"""What the sync and the async client share around a WebSocket: its options, and its errors in our terms."""

from __future__ import annotations

from typing import Any, Final

from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from duotrack_client.errors import ConnectionFailed, SessionClosed
from duotrack_client.protocol import SUBPROTOCOL, ClientProtocol

CLOSE_TIMEOUT: Final = 5.0  # seconds to wait for the server's half of the closing handshake

# Frames are compressed images already: permessage-deflate would cost time and win nothing.
CONNECT_OPTIONS: Final[dict[str, Any]] = {
    "subprotocols": [Subprotocol(SUBPROTOCOL)],
    "compression": None,
    "close_timeout": CLOSE_TIMEOUT,
}


def connection_failed(url: str, error: Exception) -> ConnectionFailed:
    """The error for a service that could not be reached at ``url``."""
    return ConnectionFailed(f"cannot reach the service at {url}: {error or type(error).__name__}")


def no_answer(seconds: float) -> ConnectionFailed:
    """The error for a service that keeps silent."""
    return ConnectionFailed(f"the service did not answer within {seconds:g} s")


def session_closed(error: ConnectionClosed, protocol: ClientProtocol) -> SessionClosed:
    """The end of a stream, with the longest explanation that the server gave."""
    code = 1006 if error.rcvd is None else error.rcvd.code
    reason = "the connection was lost" if error.rcvd is None else error.rcvd.reason
    if protocol.farewell is not None:
        reason = protocol.farewell.message
    return SessionClosed(code, reason, protocol.goaway.reconnect_after if protocol.goaway else None)
