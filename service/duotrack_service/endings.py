"""Why a stream ends, and what the client is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from duotrack_client.errors import ProtocolError
from duotrack_client.protocol import CloseCode, Error, ErrorCode, Goaway


@dataclass(frozen=True, slots=True)
class Ending:
    """How a stream ends.

    Attributes:
        code: the close code; None when the peer is gone already.
        reason: why, in words.
        ends_session: whether the session ends with its stream, or waits for the client to come back.
        farewell: a last message before the close, which says more than the 123 bytes of a close frame.
    """

    code: CloseCode | None
    reason: str
    ends_session: bool = False
    farewell: Error | Goaway | None = None


GONE: Final = Ending(None, "the client went away")
BYE: Final = Ending(CloseCode.NORMAL, "bye", ends_session=True)
DELETED: Final = Ending(CloseCode.NORMAL, "the session was deleted", ends_session=True)
IDLE: Final = Ending(CloseCode.IDLE, "no frame came in time", ends_session=True)
NO_SESSION: Final = Ending(CloseCode.NO_SESSION, "this session does not exist or has ended")
EXPIRED: Final = Ending(CloseCode.EXPIRED, "the session's time to live is over", ends_session=True)
UNAUTHORIZED: Final = Ending(CloseCode.UNAUTHORIZED, "expected a valid key, ticket or resume token")
REVOKED: Final = Ending(CloseCode.UNAUTHORIZED, "the key that made this session was revoked", ends_session=True)
STORE_DOWN: Final = Ending(CloseCode.TRY_AGAIN, "stored sessions cannot be reached: try again in a moment")
MOVED: Final = Ending(CloseCode.TAKEN_OVER, "the session goes on in another process, or has ended there")
TAKEN_OVER: Final = Ending(CloseCode.TAKEN_OVER, "another connection took the session over")


def broken(error: ProtocolError) -> Ending:
    """The client broke the protocol or a limit."""
    return Ending(CloseCode(error.close_code), str(error), farewell=Error(ErrorCode.PROTOCOL, str(error)))


def unusable_box(reason: str) -> Ending:
    """The box of the session cannot start a track."""
    return Ending(CloseCode.POLICY, reason, ends_session=True)


def internal_error() -> Ending:
    """The service failed. The log has the details, the client gets none."""
    reason = "the service met an error of its own"
    return Ending(CloseCode.INTERNAL_ERROR, reason, ends_session=True, farewell=Error(ErrorCode.INTERNAL, reason))


def restart(reconnect_after: float) -> Ending:
    """The service is about to stop."""
    reason = "the service is stopping"
    return Ending(CloseCode.RESTART, reason, farewell=Goaway(reason, reconnect_after))
