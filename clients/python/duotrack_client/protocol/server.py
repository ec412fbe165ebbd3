"""The server's side of a stream, as a state machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, TypeAlias

from duotrack_client.errors import ImageError, InvalidState, ProtocolError
from duotrack_client.protocol.closing import CloseCode
from duotrack_client.protocol.codecs import RGB_CODECS, THERMAL_CODECS
from duotrack_client.protocol.frames import Frame, Payload, decode_frame
from duotrack_client.protocol.images import ImageHeader, inspect_image
from duotrack_client.protocol.messages import (
    Bye,
    Config,
    Error,
    ErrorCode,
    Hello,
    Init,
    Modalities,
    Mode,
    Ping,
    Pong,
    Result,
    TargetResult,
    Timings,
)
from duotrack_client.protocol.targets import Targets
from duotrack_client.protocol.wire import Wire, decode_message, encode_message

MAX_TEXT_LENGTH: Final = 16 * 1024  # a client only sends short commands as text

Answer: TypeAlias = Result | Error


@dataclass(frozen=True, slots=True)
class Limits:
    """What one frame pair may cost, checked before anything is decoded.

    Attributes:
        max_frame_bytes: the longest binary message, header included.
        max_pixels: the most pixels of one image.
        window: the frames that may be unanswered in the mode ``every_frame``; in the mode ``live``, those that may
            be unanswered and come with boxes of their own.
        max_targets: targets have numbers below this.
    """

    max_frame_bytes: int
    max_pixels: int
    window: int
    max_targets: int = 8


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """A frame pair whose headers are sound, to be answered with ``ServerProtocol.result`` or ``error``.

    Attributes:
        number: its place among the frames of this connection, from 1.
        inits: targets to start on it, by rising number. Such a frame is never passed over.
        config: settings from it on, None where nothing changes. The targets of ``inits`` are among those it keeps.
        size: width and height in pixels, as its headers say.
    """

    frame: Frame
    number: int
    inits: tuple[Init, ...] = ()
    config: Config | None = None
    size: tuple[int, int] | None = None

    @property
    def seq(self) -> int:
        return self.frame.seq


@dataclass(frozen=True, slots=True)
class FrameRefused:
    """A frame pair that must not be decoded, to be answered in its turn with ``ServerProtocol.error``.

    Attributes:
        inits, config: as in ``FrameReceived``; they are still to be done, with the next frame that can be used.
    """

    seq: int
    number: int
    code: str
    message: str
    inits: tuple[Init, ...] = ()
    config: Config | None = None


@dataclass(frozen=True, slots=True)
class PingReceived:
    """The client wants a sign of life, to be answered with ``ServerProtocol.pong`` at once."""

    id: int


@dataclass(frozen=True, slots=True)
class ByeReceived:
    """The client is done with the session."""


ServerEvent: TypeAlias = FrameReceived | FrameRefused | PingReceived | ByeReceived


class ServerProtocol:
    """Checks what a client sends against the limits, and writes the answers.

    Every frame is answered once and in order; in the mode ``live``, frames may be passed over, but for those with
    boxes of their own.

    Args:
        mode: the session's mode.
        limits: what one frame pair may cost.
        size: width and height of the session's frames, when a former connection has fixed them; else the first frame
            with a result does.
        last_seq: the last frame that the session has tracked, or None.
        wire: how messages to the client are written.
        targets: the numbers of the targets that the session tracks.
        answers: the last answers of a former connection, to be repeated on this one in the mode ``every_frame``.
    """

    def __init__(
        self,
        mode: Mode,
        limits: Limits,
        size: tuple[int, int] | None = None,
        last_seq: int | None = None,
        wire: Wire = Wire.JSON,
        targets: Iterable[int] = (),
        answers: Iterable[Answer] = (),
    ) -> None:
        self.mode = mode
        self.limits = limits
        self.size = size
        self.wire = wire
        self._tracked = tuple(sorted(targets))
        self._targets = Targets(self._tracked, limits.max_targets)
        self._resumed_at = last_seq
        self._last_seq = -1 if last_seq is None else last_seq
        self._answers = deque(_repeatable(mode, answers, self._last_seq), maxlen=max(1, limits.window))
        self._received = 0
        self._answered = 0
        self._greeted = False
        self._dropped = 0
        self._with_inits: deque[int] = deque()  # numbers of the unanswered frames that start targets

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The last answers, which may still be on their way: for the ``ServerProtocol`` of the next connection."""
        return tuple(self._answers)

    def hello(self, session: str, heartbeat_s: float, idle_s: float) -> str | bytes:
        """The first message to send."""
        self._greeted = True
        hello = Hello(
            session=session,
            mode=self.mode,
            window=self.limits.window if self.mode is Mode.EVERY_FRAME else None,
            max_frame_bytes=self.limits.max_frame_bytes,
            max_pixels=self.limits.max_pixels,
            codecs=tuple(codec.label for codec in sorted(RGB_CODECS | THERMAL_CODECS)),
            heartbeat_s=heartbeat_s,
            idle_s=idle_s,
            resumed_at_seq=self._resumed_at,
            repeats_from=self._answers[0].seq if self._answers else None,
            targets=self._tracked,
            max_targets=self.limits.max_targets,
        )
        return encode_message(hello, self.wire)

    def repeats(self) -> list[str | bytes]:
        """The answers of the former connection once more, to be sent right after ``hello``: they may have been lost."""
        return [encode_message(replace(answer, credit=0), self.wire) for answer in self._answers]

    def receive(self, data: bytes | str) -> ServerEvent | None:
        """Take one message of the client; None for an ``init`` or ``config``, which come with the next frame.

        Raises:
            ProtocolError: the stream must be closed with the error's code: a broken message (1002, 1007), one
                that is too big (1009), targets that cannot be (1008), or a frame beyond the credit (4429).
            InvalidState: ``hello`` has not been sent.
        """
        if not self._greeted:
            raise InvalidState("expected hello to be sent before anything is received")
        return self._receive_text(data) if isinstance(data, str) else self._receive_frame(data)

    def result(
        self,
        event: FrameReceived,
        *,
        targets: Sequence[TargetResult],
        modalities: Modalities,
        timings: Timings,
        durable: bool = False,
        durable_seq: int | None = None,
    ) -> str | bytes:
        """The answer to a frame pair that was tracked.

        Args:
            targets: all targets, at least one, by rising number.

        Raises:
            InvalidState: it is not this frame's turn, the targets are none or out of order, or a number is not finite.
        """
        numbers = [target.target for target in targets]
        if not numbers or any(one >= other for one, other in pairwise(numbers)):
            raise InvalidState(f"expected at least one target, by rising number, got {numbers}")
        credit = self._answer(event)
        self._targets.confirm(event.number, numbers)
        self.size = self.size or event.size
        dropped, self._dropped = self._dropped, 0
        first, *others = targets
        result = Result(
            seq=event.seq,
            box=first.box,
            score=first.score,
            state=first.state,
            modalities=modalities,
            dropped_since_last=dropped,
            credit=credit,
            timings=timings,
            target=first.target,
            others=tuple(others),
            durable=durable,
            durable_seq=durable_seq,
        )
        return self._keep(result)

    def error(self, event: FrameReceived | FrameRefused, code: str, message: str) -> str | bytes:
        """The answer to a frame pair that could not be used.

        Raises:
            InvalidState: it is not this frame's turn.
        """
        credit = self._answer(event)
        return self._keep(Error(code=code, message=message, seq=event.seq, credit=credit))

    def turn(self, event: FrameReceived) -> FrameReceived | FrameRefused:
        """``event`` when all before it are answered: refused where one of them has fixed another size since it came."""
        try:
            self._check_size(event.size)
        except ImageError as error:
            return FrameRefused(event.seq, event.number, error.code, str(error), event.inits, event.config)
        return event

    def pong(self, id: int) -> str | bytes:
        """The answer to ``PingReceived``, in no order with the others."""
        return encode_message(Pong(id), self.wire)

    def _receive_text(self, text: str) -> PingReceived | ByeReceived | None:
        if len(text) > MAX_TEXT_LENGTH:
            raise ProtocolError(
                f"expected a text message of at most {MAX_TEXT_LENGTH} characters, got {len(text)}", CloseCode.TOO_BIG
            )
        message = decode_message(text)
        if isinstance(message, Ping):
            return PingReceived(message.id)
        if isinstance(message, Bye):
            return ByeReceived()
        if isinstance(message, Init):
            self._targets.init(message, self._received + 1)
        elif isinstance(message, Config):
            self._targets.configure(message, self._received + 1)
        else:
            raise ProtocolError(
                f"expected init, config, ping or bye from the client, got {message.type}", CloseCode.PROTOCOL_ERROR
            )
        return None

    def _receive_frame(self, data: bytes) -> FrameReceived | FrameRefused:
        if len(data) > self.limits.max_frame_bytes:
            raise ProtocolError(
                f"expected a frame pair of at most {self.limits.max_frame_bytes} bytes, got {len(data)}",
                CloseCode.TOO_BIG,
            )
        frame = decode_frame(data)
        if frame.seq <= self._last_seq:
            raise ProtocolError(
                f"expected a frame number above {self._last_seq}, got {frame.seq}", CloseCode.PROTOCOL_ERROR
            )
        self._require_credit(frame.seq)
        self._last_seq = frame.seq
        self._received += 1
        number = self._received
        inits, config = self._targets.take()
        if inits:
            self._with_inits.append(number)
        try:
            size = self._inspect(frame)
        except ImageError as error:
            return FrameRefused(frame.seq, number, error.code, str(error), inits, config)
        return FrameReceived(frame, number, inits, config, size)

    def _require_credit(self, seq: int) -> None:
        window = self.limits.window
        if self.mode is Mode.EVERY_FRAME and self._received - self._answered >= window:
            raise ProtocolError(
                f"expected at most {window} unanswered frames, got frame {seq} beyond the credit", CloseCode.OVERRUN
            )
        # The one kind of frame that waits for its turn in this mode, however many there are.
        if self.mode is Mode.LIVE and self._targets.starts_any and len(self._with_inits) >= window:
            raise ProtocolError(
                f"expected at most {window} unanswered frames with an init, got frame {seq} beyond them",
                CloseCode.OVERRUN,
            )

    def _inspect(self, frame: Frame) -> tuple[int, int]:
        rgb = self._inspect_image("colour", frame.rgb, channels=3)
        thermal = self._inspect_image("thermal", frame.thermal, channels=1)
        if rgb is not None and thermal is not None and rgb.size != thermal.size:
            raise ImageError(
                ErrorCode.SIZE_MISMATCH,
                f"colour and thermal images must have the same size, got {_text(rgb.size)} and {_text(thermal.size)}",
            )
        present = rgb or thermal
        assert present is not None  # a frame without any image is a broken header
        self._check_size(present.size)
        return present.size

    def _check_size(self, size: tuple[int, int] | None) -> None:
        if self.size is not None and size is not None and size != self.size:
            raise ImageError(
                ErrorCode.SIZE_CHANGED,
                f"expected {_text(self.size)}, the size of the session's first pair, got {_text(size)}",
            )

    def _inspect_image(self, modality: str, payload: Payload | None, channels: int) -> ImageHeader | None:
        if payload is None:
            return None
        header = inspect_image(payload, channels)
        if header.pixels > self.limits.max_pixels:
            raise ProtocolError(
                f"expected a {modality} image of at most {self.limits.max_pixels} pixels, "
                f"got {_text(header.size)} = {header.pixels}",
                CloseCode.TOO_BIG,
            )
        return header

    def _answer(self, event: FrameReceived | FrameRefused) -> int:
        """Count an answer; the credit that it gives back."""
        passed_over = event.number - self._answered - 1
        in_turn = passed_over == 0 if self.mode is Mode.EVERY_FRAME else passed_over >= 0
        if not in_turn or event.number > self._received:
            raise InvalidState(f"expected an answer to frame {self._answered + 1} of the stream, got {event.number}")
        if self._with_inits and self._with_inits[0] <= event.number:
            if (due := self._with_inits[0]) < event.number:
                raise InvalidState(f"expected an answer to frame {due} of the stream, which has boxes of its own")
            self._with_inits.popleft()
        self._answered = event.number
        self._dropped += passed_over
        return 1 if self.mode is Mode.EVERY_FRAME else 0

    def _keep(self, answer: Answer) -> str | bytes:
        """The message of ``answer``, which may have to be repeated on the next connection."""
        message = encode_message(answer, self.wire)
        if self.mode is Mode.EVERY_FRAME:
            self._answers.append(answer)
        return message


def _repeatable(mode: Mode, answers: Iterable[Answer], last_seq: int) -> list[Answer]:
    """The answers that the client cannot have by sending the frame again."""
    if mode is Mode.LIVE:
        return []
    kept = [answer for answer in answers if answer.seq is not None and answer.seq <= last_seq]
    return kept if kept and kept[-1].seq == last_seq else []  # without the last, there would be a hole


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
