"""The server's side of a stream, as a state machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from duotrack_client.errors import ImageError, InvalidState, ProtocolError
from duotrack_client.protocol.boxes import Box
from duotrack_client.protocol.closing import CloseCode
from duotrack_client.protocol.codecs import RGB_CODECS, THERMAL_CODECS
from duotrack_client.protocol.frames import Frame, Payload, decode_frame
from duotrack_client.protocol.images import ImageHeader, inspect_image
from duotrack_client.protocol.messages import (
    Bye,
    Error,
    ErrorCode,
    Hello,
    Modalities,
    ModalityHealth,
    Mode,
    Result,
    TargetState,
    Timings,
    decode_message,
    encode_message,
)

MAX_TEXT_LENGTH: Final = 16 * 1024  # a client only sends short commands as text


@dataclass(frozen=True, slots=True)
class Limits:
    """What one frame pair may cost, checked before anything is decoded.

    Attributes:
        max_frame_bytes: the longest binary message, header included.
        max_pixels: the most pixels of one image.
        window: the frames that may be unanswered in the mode ``every_frame``.
    """

    max_frame_bytes: int
    max_pixels: int
    window: int


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """A frame pair whose headers are sound, to be answered with ``ServerProtocol.result`` or ``error``.

    Attributes:
        number: its place among the frames of this connection, from 1.
    """

    frame: Frame
    number: int

    @property
    def seq(self) -> int:
        return self.frame.seq


@dataclass(frozen=True, slots=True)
class FrameRefused:
    """A frame pair that must not be decoded, to be answered in its turn with ``ServerProtocol.error``."""

    seq: int
    number: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ByeReceived:
    """The client is done with the session."""


ServerEvent: TypeAlias = FrameReceived | FrameRefused | ByeReceived


class ServerProtocol:
    """Checks what a client sends against the limits, and writes the answers.

    Every frame is answered once and in order; in the mode ``live``, frames may be passed over.

    Args:
        mode: the session's mode.
        limits: what one frame pair may cost.
        size: width and height of the session's frames, when a former connection has fixed them.
        last_seq: the last frame that the session has tracked, or None.
    """

    def __init__(
        self, mode: Mode, limits: Limits, size: tuple[int, int] | None = None, last_seq: int | None = None
    ) -> None:
        self.mode = mode
        self.limits = limits
        self.size = size
        self._resumed_at = last_seq
        self._last_seq = -1 if last_seq is None else last_seq
        self._received = 0
        self._answered = 0
        self._greeted = False
        self._dropped = 0
        self._unproven: int | None = None  # the number of the frame that fixed the size, until it is answered

    def hello(self, session: str, heartbeat_s: float, idle_s: float) -> str:
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
        )
        return encode_message(hello)

    def receive(self, data: bytes | str) -> ServerEvent:
        """Take one message of the client.

        Raises:
            ProtocolError: the stream must be closed with the error's code: a broken message (1002, 1007), one
                that is too big (1009), or a frame beyond the credit (4429).
            InvalidState: ``hello`` has not been sent.
        """
        if not self._greeted:
            raise InvalidState("expected hello to be sent before anything is received")
        return self._receive_text(data) if isinstance(data, str) else self._receive_frame(data)

    def result(
        self,
        event: FrameReceived,
        *,
        box: Box,
        score: float,
        state: TargetState,
        timings: Timings,
    ) -> str:
        """The answer to a frame pair that was tracked.

        Raises:
            InvalidState: it is not this frame's turn, or a number is not finite.
        """
        credit = self._answer(event)
        frame = event.frame
        modalities = Modalities(rgb=_health(frame.rgb), thermal=_health(frame.thermal))
        self._unproven = None
        dropped, self._dropped = self._dropped, 0
        return encode_message(Result(frame.seq, box, score, state, modalities, dropped, credit, timings))

    def error(self, event: FrameReceived | FrameRefused, code: str, message: str) -> str:
        """The answer to a frame pair that could not be used.

        Raises:
            InvalidState: it is not this frame's turn.
        """
        credit = self._answer(event)
        if event.number == self._unproven:  # its headers said a size, but there was no image behind them
            self.size = self._unproven = None
        return encode_message(Error(code=code, message=message, seq=event.seq, credit=credit))

    def _receive_text(self, text: str) -> ByeReceived:
        if len(text) > MAX_TEXT_LENGTH:
            raise ProtocolError(
                f"expected a text message of at most {MAX_TEXT_LENGTH} characters, got {len(text)}", CloseCode.TOO_BIG
            )
        message = decode_message(text)
        if not isinstance(message, Bye):
            raise ProtocolError(f"expected bye from the client, got {message.type}", CloseCode.PROTOCOL_ERROR)
        return ByeReceived()

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
        if self.mode is Mode.EVERY_FRAME and self._received - self._answered >= self.limits.window:
            raise ProtocolError(
                f"expected at most {self.limits.window} unanswered frames, got frame {frame.seq} beyond the credit",
                CloseCode.OVERRUN,
            )
        self._last_seq = frame.seq
        self._received += 1
        try:
            size = self._inspect(frame)
        except ImageError as error:
            return FrameRefused(frame.seq, self._received, error.code, str(error))
        if self.size is None:
            self.size, self._unproven = size, self._received
        return FrameReceived(frame, self._received)

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
        if self.size is not None and present.size != self.size:
            raise ImageError(
                ErrorCode.SIZE_CHANGED,
                f"expected {_text(self.size)}, the size of the session's first pair, got {_text(present.size)}",
            )
        return present.size

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
        self._answered = event.number
        self._dropped += passed_over
        return 1 if self.mode is Mode.EVERY_FRAME else 0


def _health(payload: Payload | None) -> ModalityHealth:
    return ModalityHealth.MISSING if payload is None else ModalityHealth.OK


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
