"""The WebSocket close codes that this protocol uses."""

from __future__ import annotations

from enum import IntEnum

MAX_REASON_BYTES = 123  # RFC 6455, section 5.5: a control frame carries 125 bytes, two of which are the code


class CloseCode(IntEnum):
    """Why a stream ended. Codes from 4000 on are this protocol's own; the others are registered ones."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    UNSUPPORTED = 1003
    INVALID_TEXT = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTART = 1012
    TRY_AGAIN = 1013
    UNAUTHORIZED = 4401
    NO_SESSION = 4404
    IDLE = 4408
    TAKEN_OVER = 4409
    EXPIRED = 4410
    OVERRUN = 4429


def fit_reason(text: str) -> str:
    """``text`` cut to what a close frame carries, at a character border."""
    encoded = text.encode()
    if len(encoded) <= MAX_REASON_BYTES:
        return text
    return encoded[: MAX_REASON_BYTES - 3].decode(errors="ignore") + "…"
