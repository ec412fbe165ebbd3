"""The text messages: JSON objects with a ``type``. Fields that this version does not know are ignored."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Final, TypeAlias, TypeVar

from duotrack_client.errors import BoxError, InvalidState, ProtocolError
from duotrack_client.protocol.boxes import Box
from duotrack_client.protocol.closing import CloseCode

SUBPROTOCOL: Final = "duotrack.v1"

_Name = TypeVar("_Name", bound=StrEnum)


class Mode(StrEnum):
    """What happens to frames that come faster than they are tracked.

    ``EVERY_FRAME``: none is dropped, and the client waits for credit. ``LIVE``: the newest wins, and the number
    of dropped ones is in the next result.
    """

    EVERY_FRAME = "every_frame"
    LIVE = "live"


class TargetState(StrEnum):
    """How sure the tracker is of the target."""

    TRACKING = "tracking"
    UNCERTAIN = "uncertain"
    LOST = "lost"
    COASTING = "coasting"


class ModalityHealth(StrEnum):
    """Whether a modality was there to track on."""

    OK = "ok"
    MISSING = "missing"


class ErrorCode(StrEnum):
    """What an ``error`` message is about. The first five concern one frame pair, and the session goes on."""

    CORRUPT_IMAGE = "corrupt_image"
    UNSUPPORTED_IMAGE = "unsupported_image"
    SIZE_MISMATCH = "size_mismatch"
    SIZE_CHANGED = "size_changed"
    UNUSABLE_FRAME = "unusable_frame"
    UNUSABLE_BOX = "unusable_box"
    PROTOCOL = "protocol"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one frame pair went, in milliseconds, from its arrival to its result."""

    queue: float
    decode: float
    infer: float
    total: float


@dataclass(frozen=True, slots=True)
class Modalities:
    """The health of the two modalities of a frame pair."""

    rgb: ModalityHealth
    thermal: ModalityHealth


@dataclass(frozen=True, slots=True)
class Hello:
    """The server's first message.

    Attributes:
        session: the session's id.
        mode: the session's mode.
        window: the frames that may be unanswered at first, or None in live mode, which has no such limit.
        max_frame_bytes: the longest binary message, header included.
        max_pixels: the most pixels of one image.
        codecs: the codecs that the server decodes.
        heartbeat_s: seconds between WebSocket pings of the server.
        idle_s: seconds without a frame after which the session ends.
        resumed_at_seq: the last frame that the session has tracked, or None in a new one. The next is above it.
    """

    type: ClassVar[str] = "hello"
    session: str
    mode: Mode
    window: int | None
    max_frame_bytes: int
    max_pixels: int
    codecs: tuple[str, ...]
    heartbeat_s: float
    idle_s: float
    resumed_at_seq: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """Where the target is in one frame pair.

    Attributes:
        seq: the number of the frame pair.
        box: the target, in pixels of the full frame.
        score: the confidence, 0 to 1.
        state: how sure the tracker is.
        modalities: which of the two images were there.
        dropped_since_last: the frames that a live session passed over since the last answer.
        credit: how many more frames the client may send for this answer; 0 in live mode.
        timings: where the time went.
    """

    type: ClassVar[str] = "result"
    seq: int
    box: Box
    score: float
    state: TargetState
    modalities: Modalities
    dropped_since_last: int
    credit: int
    timings: Timings


@dataclass(frozen=True, slots=True)
class Error:
    """A frame pair that could not be used or, without a ``seq``, why the server is about to close the stream."""

    type: ClassVar[str] = "error"
    code: str
    message: str
    seq: int | None = None
    credit: int = 0


@dataclass(frozen=True, slots=True)
class Goaway:
    """The server is about to close the stream for its own reasons; try again in ``reconnect_after`` seconds."""

    type: ClassVar[str] = "goaway"
    reason: str
    reconnect_after: float


@dataclass(frozen=True, slots=True)
class Bye:
    """The client is done: the session ends, and what is not answered yet is left undone."""

    type: ClassVar[str] = "bye"


Message: TypeAlias = Hello | Result | Error | Goaway | Bye


def encode_message(message: Message) -> str:
    """``message`` as JSON text.

    Raises:
        InvalidState: a number is not finite.
    """
    try:
        return json.dumps({"type": message.type, **asdict(message)}, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise InvalidState(f"only finite numbers can be sent, got {message!r}") from error


def decode_message(text: str) -> Message:
    """Read a text message.

    Raises:
        ProtocolError: it is not JSON (1007), or not a message of this protocol (1002).
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        shown = _excerpt(repr(text))
        raise ProtocolError(f"expected a JSON message, got {shown} ({error})", CloseCode.INVALID_TEXT) from error
    if not isinstance(document, dict):
        raise _broken(f"expected a JSON object, got {_excerpt(repr(text))}")
    kind = document.get("type")
    decode = _DECODERS.get(kind) if isinstance(kind, str) else None
    if decode is None:
        raise _broken(f"expected a message type among {', '.join(_DECODERS)}, got {_excerpt(repr(kind))}")
    return decode(_Fields(str(kind), document))


@dataclass(frozen=True, slots=True)
class _Fields:
    """Typed access to the fields of one JSON object; each method names what was expected and what came."""

    path: str
    values: Mapping[str, Any] = field(repr=False)

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a text", value)
        return value

    def number(self, name: str, at_least: float = -math.inf) -> float:
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number", value)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number) or number < at_least:
            raise self._wrong(name, f"a finite number of at least {at_least:g}", value)
        return number

    def count(self, name: str) -> int:
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
            raise self._wrong(name, "a whole number from 0 to 2^64 - 1", value)
        return value

    def name_in(self, name: str, names: type[_Name]) -> _Name:
        value = self.values.get(name)
        if not isinstance(value, str) or value not in list(names):
            raise self._wrong(name, f"one of {', '.join(names)}", value)
        return names(value)

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.values.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, "a list of texts", value)
        return tuple(value)

    def inner(self, name: str) -> _Fields:
        value = self.values.get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object", value)
        return _Fields(f"{self.path}.{name}", value)

    def _wrong(self, name: str, expected: str, value: object) -> ProtocolError:
        return _broken(f"expected {expected} in {self.path}.{name}, got {_excerpt(repr(value))}")


def _decode_hello(fields: _Fields) -> Hello:
    return Hello(
        session=fields.text("session"),
        mode=fields.name_in("mode", Mode),
        window=fields.count("window") if fields.has("window") else None,
        max_frame_bytes=fields.count("max_frame_bytes"),
        max_pixels=fields.count("max_pixels"),
        codecs=fields.texts("codecs"),
        heartbeat_s=fields.number("heartbeat_s", at_least=0),
        idle_s=fields.number("idle_s", at_least=0),
        resumed_at_seq=fields.count("resumed_at_seq") if fields.has("resumed_at_seq") else None,
    )


def _decode_result(fields: _Fields) -> Result:
    modalities, timings = fields.inner("modalities"), fields.inner("timings")
    return Result(
        seq=fields.count("seq"),
        box=_decode_box(fields.inner("box")),
        score=fields.number("score"),
        state=fields.name_in("state", TargetState),
        modalities=Modalities(
            rgb=modalities.name_in("rgb", ModalityHealth),
            thermal=modalities.name_in("thermal", ModalityHealth),
        ),
        dropped_since_last=fields.count("dropped_since_last"),
        credit=fields.count("credit"),
        timings=Timings(
            queue=timings.number("queue"),
            decode=timings.number("decode"),
            infer=timings.number("infer"),
            total=timings.number("total"),
        ),
    )


def _decode_box(fields: _Fields) -> Box:
    try:
        return Box(fields.number("x"), fields.number("y"), fields.number("w"), fields.number("h"))
    except BoxError as error:
        raise _broken(f"expected a box in {fields.path}: {error}") from error


def _decode_error(fields: _Fields) -> Error:
    return Error(
        code=fields.text("code"),
        message=fields.text("message"),
        seq=fields.count("seq") if fields.has("seq") else None,
        credit=fields.count("credit"),
    )


def _decode_goaway(fields: _Fields) -> Goaway:
    return Goaway(reason=fields.text("reason"), reconnect_after=fields.number("reconnect_after", at_least=0))


def _decode_bye(_: _Fields) -> Bye:
    return Bye()


_DECODERS: Final[dict[str, Callable[[_Fields], Message]]] = {
    Hello.type: _decode_hello,
    Result.type: _decode_result,
    Error.type: _decode_error,
    Goaway.type: _decode_goaway,
    Bye.type: _decode_bye,
}


def _excerpt(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}… ({len(text)} characters)"


def _broken(message: str) -> ProtocolError:
    return ProtocolError(message, CloseCode.PROTOCOL_ERROR)
