"""The client's side of a stream, as a state machine."""

from __future__ import annotations

from typing import TypeAlias

from duotrack_client.errors import EncodingError, InvalidState, ProtocolError
from duotrack_client.protocol.closing import CloseCode
from duotrack_client.protocol.frames import Frame, Payload, encode_frame
from duotrack_client.protocol.messages import (
    Bye,
    Error,
    Goaway,
    Hello,
    Mode,
    Result,
    decode_message,
    encode_message,
)

ClientEvent: TypeAlias = Hello | Result | Error | Goaway


class ClientProtocol:
    """Numbers the frames, keeps count of the credit, and checks the order of what the server sends.

    Attributes:
        hello: the server's greeting, None until it has come.
        goaway: the server's warning that it is about to close, None until it has come.
        farewell: the error without a frame that precedes a close, None until it has come.
    """

    def __init__(self) -> None:
        self.hello: Hello | None = None
        self.goaway: Goaway | None = None
        self.farewell: Error | None = None
        self._next_seq = 0
        self._last_answered = -1
        self._credit = 0

    @property
    def next_seq(self) -> int:
        """The number that the next frame will have."""
        return self._next_seq

    @property
    def in_flight(self) -> int:
        """Frames that were sent and may still be answered."""
        return self._next_seq - self._last_answered - 1

    @property
    def can_send(self) -> bool:
        """Whether there is credit for one more frame now."""
        return self.hello is not None and (self.hello.mode is Mode.LIVE or self._credit > 0)

    def receive(self, data: str | bytes) -> ClientEvent:
        """Take one message of the server.

        Raises:
            ProtocolError: the message is broken, or comes out of turn.
        """
        if not isinstance(data, str):
            raise _broken(f"expected a text message from the server, got {len(data)} bytes of binary")
        message = decode_message(data)
        if isinstance(message, Bye):
            raise _broken("expected a message of the server, got bye, which only a client sends")
        if isinstance(message, Hello):
            self._greet(message)
        elif isinstance(message, Goaway):
            self.goaway = message
        elif message.seq is None:
            self.farewell = message
        else:
            self._settle(message.seq, message)
        return message

    def frame(self, rgb: Payload | None, thermal: Payload | None, capture_us: int) -> tuple[int, bytes]:
        """The next frame pair: its number, and the message to send.

        Raises:
            EncodingError: both images are missing, or the message is longer than the server takes.
            InvalidState: there is no credit, or the server has not said hello.
        """
        if self.hello is None:
            raise InvalidState("expected hello from the server before the first frame")
        if not self.can_send:
            raise InvalidState(f"expected an answer to one of {self.in_flight} frames before the next is sent")
        if rgb is None and thermal is None:
            raise EncodingError("a frame pair needs a colour image, a thermal image, or both; got neither")
        seq = self._next_seq
        message = encode_frame(Frame(seq, capture_us, rgb, thermal))
        if len(message) > self.hello.max_frame_bytes:
            raise EncodingError(
                f"the encoded frame pair has {len(message)} bytes, the service takes at most "
                f"{self.hello.max_frame_bytes}: use a stronger compression or smaller frames"
            )
        self._next_seq += 1
        self._credit -= 1
        return seq, message

    def bye(self) -> str:
        """The message that ends the session."""
        return encode_message(Bye())

    def _greet(self, hello: Hello) -> None:
        if self.hello is not None:
            raise _broken("expected one hello, got a second")
        if hello.mode is Mode.EVERY_FRAME and not hello.window:
            raise _broken(f"expected a window of at least one frame, got {hello.window}")
        self.hello = hello
        self._credit = hello.window or 0
        if hello.resumed_at_seq is not None:
            self._last_answered = hello.resumed_at_seq
            self._next_seq = hello.resumed_at_seq + 1

    def _settle(self, seq: int, answer: Result | Error) -> None:
        if self.hello is None:
            raise _broken(f"expected hello, got {answer.type} for frame {seq}")
        first = self._last_answered + 1
        last = first if self.hello.mode is Mode.EVERY_FRAME else self._next_seq - 1
        if not (first <= seq <= last and seq < self._next_seq):
            expected = f"frames {first} to {self._next_seq - 1}" if self.in_flight else "no frame, none is unanswered"
            raise _broken(f"expected an answer to {expected}, got one to frame {seq}")
        self._last_answered = seq
        self._credit += answer.credit


def _broken(message: str) -> ProtocolError:
    return ProtocolError(message, CloseCode.PROTOCOL_ERROR)
