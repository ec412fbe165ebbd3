"""Messages as documents: what JSON and MessagePack have in common. Fields that are not known are ignored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from duotrack_client.errors import ProtocolError
from duotrack_client.protocol.closing import CloseCode
from duotrack_client.protocol.fields import Fields, excerpt
from duotrack_client.protocol.messages import (
    Bye,
    Config,
    Error,
    Goaway,
    Hello,
    Init,
    Message,
    Modalities,
    ModalityHealth,
    Mode,
    Ping,
    Pong,
    Result,
    TargetResult,
    TargetState,
    Timings,
)


def to_document(message: Message) -> dict[str, Any]:
    """``message`` as an object of plain values, its ``type`` first."""
    return {"type": message.type, **asdict(message)}


def from_document(document: object) -> Message:
    """The message that a decoded object is.

    Raises:
        ProtocolError: it is not a message of this protocol (1002).
    """
    if not isinstance(document, dict):
        raise ProtocolError(f"expected an object, got {excerpt(document)}", CloseCode.PROTOCOL_ERROR)
    kind = document.get("type")
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise ProtocolError(
            f"expected a message type among {', '.join(_READERS)}, got {excerpt(kind)}", CloseCode.PROTOCOL_ERROR
        )
    return read(Fields(str(kind), document))


def _hello(fields: Fields) -> Hello:
    return Hello(
        session=fields.text("session"),
        mode=fields.name_in("mode", Mode),
        window=_count_or_none(fields, "window"),
        max_frame_bytes=fields.count("max_frame_bytes"),
        max_pixels=fields.count("max_pixels"),
        codecs=fields.texts("codecs"),
        heartbeat_s=fields.number("heartbeat_s", at_least=0),
        idle_s=fields.number("idle_s", at_least=0),
        resumed_at_seq=_count_or_none(fields, "resumed_at_seq"),
        repeats_from=_count_or_none(fields, "repeats_from"),
        targets=fields.counts("targets") if fields.has("targets") else (),
        max_targets=fields.count("max_targets") if fields.has("max_targets") else 1,
    )


def _result(fields: Fields) -> Result:
    modalities, timings = fields.inner("modalities"), fields.inner("timings")
    return Result(
        seq=fields.count("seq"),
        box=fields.box("box"),
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
        target=fields.count("target") if fields.has("target") else 0,
        others=tuple(_target(one) for one in fields.each("others")) if fields.has("others") else (),
        durable=fields.flag("durable") if fields.has("durable") else False,
        durable_seq=_count_or_none(fields, "durable_seq"),
    )


def _target(fields: Fields) -> TargetResult:
    return TargetResult(
        target=fields.count("target"),
        box=fields.box("box"),
        score=fields.number("score"),
        state=fields.name_in("state", TargetState),
    )


def _error(fields: Fields) -> Error:
    return Error(
        code=fields.text("code"),
        message=fields.text("message"),
        seq=_count_or_none(fields, "seq"),
        credit=fields.count("credit"),
    )


def _goaway(fields: Fields) -> Goaway:
    return Goaway(reason=fields.text("reason"), reconnect_after=fields.number("reconnect_after", at_least=0))


def _pong(fields: Fields) -> Pong:
    return Pong(id=fields.count("id"))


def _init(fields: Fields) -> Init:
    return Init(box=fields.box("box"), target=fields.count("target") if fields.has("target") else 0)


def _config(fields: Fields) -> Config:
    return Config(
        targets=fields.counts("targets") if fields.has("targets") else None,
        redetection=fields.flag("redetection") if fields.has("redetection") else None,
    )


def _ping(fields: Fields) -> Ping:
    return Ping(id=fields.count("id"))


def _bye(_: Fields) -> Bye:
    return Bye()


def _count_or_none(fields: Fields, name: str) -> int | None:
    return fields.count(name) if fields.has(name) else None


_READERS: Final[dict[str, Callable[[Fields], Message]]] = {
    Hello.type: _hello,
    Result.type: _result,
    Error.type: _error,
    Goaway.type: _goaway,
    Pong.type: _pong,
    Init.type: _init,
    Config.type: _config,
    Ping.type: _ping,
    Bye.type: _bye,
}
