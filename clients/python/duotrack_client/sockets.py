"""What the sync and the async client share around a WebSocket: its options, and its errors in our terms."""

from __future__ import annotations

from typing import Any, Final

from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.typing import Subprotocol

from duotrack_client.errors import ConnectionFailed, SessionClosed
from duotrack_client.protocol import MSGPACK_SUBPROTOCOL, SUBPROTOCOL, ClientProtocol, Wire
from duotrack_client.proxies import find_proxy, shown

CLOSE_TIMEOUT: Final = 5.0  # seconds to wait for the server's half of the closing handshake

_RETRIED_STATUSES: Final = frozenset({429, 500, 502, 503, 504})


def connect_options(url: str, resume_token: str | None, msgpack: bool) -> dict[str, Any]:
    """How the stream at ``url`` is opened: what is offered, what shows that we may, and through which proxy."""
    offered = [MSGPACK_SUBPROTOCOL, SUBPROTOCOL] if msgpack else [SUBPROTOCOL]
    return {
        "subprotocols": [Subprotocol(name) for name in offered],
        # Frames are compressed images already: permessage-deflate would cost time and win nothing.
        "compression": None,
        "close_timeout": CLOSE_TIMEOUT,
        "proxy": find_proxy(url),
        "additional_headers": {} if resume_token is None else {"Authorization": f"Bearer {resume_token}"},
    }


def agreed_wire(subprotocol: str | None) -> Wire:
    """How the server's messages are written, by the subprotocol that it took."""
    return Wire.MSGPACK if subprotocol == MSGPACK_SUBPROTOCOL else Wire.JSON


def _worth_another(error: Exception) -> bool:
    """Whether a failed attempt to open a stream may succeed later: the service is down, restarting, or full."""
    if isinstance(error, InvalidStatus):
        return error.response.status_code in _RETRIED_STATUSES
    # Where a proxy stands before a service that is not up yet, the connection opens, and is reset.
    return isinstance(error, OSError | EOFError | InvalidMessage | TimeoutError | ConnectionClosed)


def connection_failed(url: str, error: Exception) -> ConnectionFailed:
    """The error for a service that could not be reached at ``url``."""
    reason = str(error) or type(error).__name__
    proxy = find_proxy(url)
    way = "" if proxy is None else f" through the proxy {shown(proxy)}"
    return ConnectionFailed(f"cannot reach the service at {url}{way}: {reason}", final=not _worth_another(error))


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
