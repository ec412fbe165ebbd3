"""The messages of a stream beside the frame pairs. How they are written is in ``duotrack_client.protocol.wire``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, TypeAlias

from duotrack_client.protocol.boxes import Box


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
    """Whether a modality was there to track on, and what was wrong with its frame if not all was well."""

    OK = "ok"
    MISSING = "missing"
    BLANK = "blank"
    SATURATED = "saturated"
    NOISE = "noise"
    FROZEN = "frozen"


class ErrorCode(StrEnum):
    """What an ``error`` message is about. The first five concern one frame pair, and the session goes on."""

    CORRUPT_IMAGE = "corrupt_image"
    UNSUPPORTED_IMAGE = "unsupported_image"
    SIZE_MISMATCH = "size_mismatch"
    SIZE_CHANGED = "size_changed"
    UNUSABLE_FRAME = "unusable_frame"
    LATE = "late"
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
        repeats_from: the server sends its answers to the frames from here to ``resumed_at_seq`` once more, right
            after this message: some may have been on their way when the former connection broke. None: no answers.
        targets: the numbers of the targets that are tracked now; empty before the first frame.
        max_targets: targets have numbers below this.
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
    repeats_from: int | None = None
    targets: tuple[int, ...] = ()
    max_targets: int = 1


@dataclass(frozen=True, slots=True)
class TargetResult:
    """Where one target is in a frame pair.

    Attributes:
        target: its number in the session.
        box: in pixels of the full frame.
        score: the confidence, 0 to 1.
        state: how sure the tracker is.
    """

    target: int
    box: Box
    score: float
    state: TargetState


@dataclass(frozen=True, slots=True)
class Result:
    """Where the targets are in one frame pair.

    Attributes:
        seq: the number of the frame pair.
        box, score, state: those of the target with the lowest number, as in ``TargetResult``.
        modalities: which of the two images were there.
        dropped_since_last: the frames that a live session passed over since the last answer.
        credit: how many more frames the client may send for this answer; 0 in live mode.
        timings: where the time went.
        target: the number of that first target.
        others: the other targets, by rising number.
        durable: whether the store works and has this session.
        durable_seq: the last frame whose outcome is stored, or None. A client may forget frames up to it, and should
            be able to send those above it again.
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
    target: int = 0
    others: tuple[TargetResult, ...] = ()
    durable: bool = False
    durable_seq: int | None = None

    @property
    def targets(self) -> tuple[TargetResult, ...]:
        """All targets, by rising number."""
        return (TargetResult(self.target, self.box, self.score, self.state), *self.others)


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
class Pong:
    """The server's answer to ``Ping``, with its number."""

    type: ClassVar[str] = "pong"
    id: int


@dataclass(frozen=True, slots=True)
class Init:
    """Start target number ``target``, or start it anew, on ``box`` of the client's next frame pair."""

    type: ClassVar[str] = "init"
    box: Box
    target: int = 0


@dataclass(frozen=True, slots=True)
class Config:
    """Settings from the client's next frame pair on; None leaves one as it is.

    Attributes:
        targets: the numbers of the targets to go on with. All others are forgotten.
        redetection: whether the whole frame is searched for a target that is lost.
    """

    type: ClassVar[str] = "config"
    targets: tuple[int, ...] | None = None
    redetection: bool | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask the server for a sign of life, which comes ahead of what waits to be tracked."""

    type: ClassVar[str] = "ping"
    id: int


@dataclass(frozen=True, slots=True)
class Bye:
    """The client is done: the session ends, and what is not answered yet is left undone."""

    type: ClassVar[str] = "bye"


Command: TypeAlias = Init | Config | Ping | Bye
"""What a client says beside its frame pairs."""

ServerMessage: TypeAlias = Hello | Result | Error | Goaway | Pong
"""What a server says."""

Message: TypeAlias = ServerMessage | Command
