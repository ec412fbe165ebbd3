"""A session as it is stored: its terms, which never change, and how far it has come. Versioned, never pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Final, Literal

import msgpack
from pydantic import (
    AwareDatetime,
    BaseModel,
    Field,
    StrictBool,
    StrictBytes,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from duotrack.boxes import Box
from duotrack.errors import BoxError
from duotrack_client.errors import ProtocolError
from duotrack_client.protocol import Answer, Error, Mode, Result, Wire, decode_message, encode_message

RECORD_VERSION: Final = 1


class RecordError(Exception):
    """A stored session cannot be read: it is damaged, or of another version."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed on when a session was made.

    Attributes:
        id: the session's id.
        key: name of the principal that it belongs to.
        model: name of the model that tracks.
        mode: what happens to frames that come too fast.
        box: the first target in the first frame, in pixels.
        options: switches of the tracker.
        created_at, expires_at: UTC; without ``expires_at`` it may live on as long as it is used.
        resume_digest: of the token that opens the session's stream without a key.
        frames_per_second: of all sessions of its principal together; None for no limit of its own.
        source: what the client says of its cameras; not looked at.
        key_digest: of the key that made the session; None where none did, or its service did not note it yet.
    """

    id: str
    key: str
    model: str
    mode: Mode
    box: Box
    options: Mapping[str, bool]
    created_at: datetime
    expires_at: datetime | None
    resume_digest: str = field(repr=False)
    frames_per_second: float | None = None
    source: Mapping[str, str | float | bool | None] = field(default_factory=dict)
    key_digest: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a session has come.

    Attributes:
        seq: the last frame that was tracked, None before the first.
        frames: how many were.
        size: width and height of its frames in pixels, None before the first.
        starts: boxes of targets that start with the next frame, by number.
        tracks: the targets, by number, as their model saves them.
        options: switches of the tracker, as they are now.
        answers: to the last frames, which may be on their way to the client still.
    """

    seq: int | None
    frames: int
    size: tuple[int, int] | None
    starts: Mapping[int, Box]
    tracks: Mapping[int, bytes]
    options: Mapping[str, bool]
    answers: tuple[Answer, ...] = ()


class _Summary(BaseModel):
    version: Literal[1] = RECORD_VERSION
    id: StrictStr
    key: StrictStr
    model: StrictStr
    mode: Mode
    box: tuple[StrictFloat, StrictFloat, StrictFloat, StrictFloat]
    options: dict[StrictStr, StrictBool]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    resume_digest: StrictStr
    frames_per_second: StrictFloat | None = None
    source: dict[StrictStr, StrictStr | StrictBool | StrictFloat | None]
    key_digest: StrictStr | None = None
    frames: Annotated[StrictInt, Field(ge=0)]


class _Progress(BaseModel):
    version: Literal[1] = RECORD_VERSION
    seq: Annotated[StrictInt, Field(ge=0)] | None
    frames: Annotated[StrictInt, Field(ge=0)]
    size: tuple[StrictInt, StrictInt] | None
    starts: dict[StrictInt, tuple[StrictFloat, StrictFloat, StrictFloat, StrictFloat]]
    tracks: dict[StrictInt, StrictBytes]
    options: dict[StrictStr, StrictBool]
    answers: list[StrictBytes]


def encode_summary(terms: Terms, frames: int) -> bytes:
    """The terms of a session and the number of its frames as JSON."""
    fields = {name: getattr(terms, name) for name in Terms.__dataclass_fields__} | {"box": terms.box.xywh}
    return _Summary(**fields, frames=frames).model_dump_json().encode()


def decode_summary(data: bytes) -> tuple[Terms, int]:
    """What ``encode_summary`` wrote.

    Raises:
        RecordError: it is damaged, or of another version.
    """
    try:
        fields = dict(_Summary.model_validate_json(data))
        box, frames, _ = Box(*fields.pop("box")), fields.pop("frames"), fields.pop("version")
        return Terms(**fields, box=box), frames
    except (ValidationError, BoxError) as error:
        raise RecordError(f"the summary of a stored session cannot be read: {_reason(error)}") from error


def encode_progress(progress: Progress) -> bytes:
    """``progress`` as MessagePack."""
    fields = {name: getattr(progress, name) for name in Progress.__dataclass_fields__}
    starts = {target: box.xywh for target, box in progress.starts.items()}
    answers = [encode_message(answer, Wire.MSGPACK) for answer in progress.answers]
    packed: bytes = msgpack.packb({"version": RECORD_VERSION, **fields, "starts": starts, "answers": answers})
    return packed


def decode_progress(data: bytes) -> Progress:
    """What ``encode_progress`` wrote.

    Raises:
        RecordError: it is damaged, or of another version.
    """
    try:
        document = msgpack.unpackb(data, max_ext_len=0, strict_map_key=False)
        fields = dict(_Progress.model_validate(document))
        del fields["version"]
        starts = {target: Box(*box) for target, box in fields.pop("starts").items()}
        answers = tuple(_read_answer(answer) for answer in fields.pop("answers"))
        return Progress(**fields, starts=starts, answers=answers)
    except (ValueError, ProtocolError, msgpack.UnpackException) as error:
        raise RecordError(f"the snapshot of a stored session cannot be read: {_reason(error)}") from error


def _read_answer(data: bytes) -> Answer:
    message = decode_message(data)
    if not isinstance(message, Result | Error):
        raise ValueError(f"expected an answer, got {message.type}")
    return message


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}, got {str(first['input'])[:60]!r}"
