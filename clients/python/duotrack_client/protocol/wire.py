"""How messages are written: JSON text or, where both sides agreed on it, MessagePack.

A client offers the subprotocols ``duotrack.v1.msgpack`` and ``duotrack.v1``, or one of them, in the handshake. The
agreement is about the server's messages. A client's commands are JSON text always, for its binary messages are frames.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final, Literal, NoReturn, overload

import msgpack

from duotrack_client.errors import InvalidState, ProtocolError
from duotrack_client.protocol.closing import CloseCode
from duotrack_client.protocol.documents import from_document, to_document
from duotrack_client.protocol.fields import excerpt
from duotrack_client.protocol.messages import Message

SUBPROTOCOL: Final = "duotrack.v1"
MSGPACK_SUBPROTOCOL: Final = "duotrack.v1.msgpack"

MAX_MESSAGE_LENGTH: Final = 256 * 1024
"""Characters or bytes of a message; a result with a hundred targets has a twentieth of it."""


class Wire(StrEnum):
    """How the server's messages are written."""

    JSON = "json"
    MSGPACK = "msgpack"

    @property
    def subprotocol(self) -> str:
        """The WebSocket subprotocol that stands for it."""
        return MSGPACK_SUBPROTOCOL if self is Wire.MSGPACK else SUBPROTOCOL


def choose_wire(offered: Iterable[str]) -> Wire | None:
    """What a server takes of the subprotocols that a client offers: MessagePack first, in whatever order they come.

    None where neither is among them.
    """
    names = set(offered)
    return next((wire for wire in (Wire.MSGPACK, Wire.JSON) if wire.subprotocol in names), None)


@overload
def encode_message(message: Message, wire: Literal[Wire.JSON] = ...) -> str: ...
@overload
def encode_message(message: Message, wire: Wire) -> str | bytes: ...
def encode_message(message: Message, wire: Wire = Wire.JSON) -> str | bytes:
    """``message`` as JSON text, or as the bytes of one MessagePack map.

    Raises:
        InvalidState: a number is not finite, or does not fit 64 bits.
    """
    document = to_document(message)
    try:
        if wire is Wire.JSON:
            return json.dumps(document, separators=(",", ":"), allow_nan=False)
        _require_finite(document)
        packed: bytes = msgpack.packb(document)
    except (ValueError, OverflowError) as error:
        raise InvalidState(f"only finite numbers of 64 bits and proper text can be sent, got {message!r}") from error
    return packed


def decode_message(data: str | bytes) -> Message:
    """Read a message: JSON when it is text, MessagePack when it is bytes.

    Raises:
        ProtocolError: it is too long (1009), it is neither JSON nor MessagePack (1007), or it is not a message of
            this protocol (1002).
    """
    if len(data) > MAX_MESSAGE_LENGTH:
        raise ProtocolError(
            f"expected a message of at most {MAX_MESSAGE_LENGTH} characters or bytes, got {len(data)}",
            CloseCode.TOO_BIG,
        )
    return from_document(_read_json(data) if isinstance(data, str) else _read_msgpack(data))


def _read_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(
            f"expected a JSON message, got {excerpt(text)} ({error})", CloseCode.INVALID_TEXT
        ) from error


def _read_msgpack(data: bytes) -> object:
    try:
        return msgpack.unpackb(
            data,
            strict_map_key=True,
            max_str_len=len(data),
            max_array_len=len(data),
            max_map_len=len(data),
            max_bin_len=0,
            max_ext_len=0,
            ext_hook=_refuse_extension,
        )
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError(
            f"expected a MessagePack message, got {excerpt(data)} ({error})", CloseCode.INVALID_TEXT
        ) from error


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code} of {len(data)} bytes is not part of the protocol")


def _require_finite(value: Any) -> None:
    """JSON's writer checks this by itself, MessagePack's does not."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, tuple | list):
        return
    for inner in value:
        _require_finite(inner)
