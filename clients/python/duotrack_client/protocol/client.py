"""The client's side of a stream, as a state machine that outlives its connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from duotrack_client.errors import EncodingError, InvalidState, ProtocolError
from duotrack_client.protocol.boxes import Box, BoxLike
from duotrack_client.protocol.closing import CloseCode
from duotrack_client.protocol.frames import Frame, Payload, encode_frame
from duotrack_client.protocol.messages import (
    Bye,
    Command,
    Config,
    Error,
    Goaway,
    Hello,
    Init,
    Mode,
    Ping,
    Pong,
    Result,
)
from duotrack_client.protocol.replay import MAX_REPLAY_BYTES, ReplayLog, SentFrame
from duotrack_client.protocol.wire import Wire, decode_message, encode_message


@dataclass(frozen=True, slots=True)
class Replayed:
    """The answer to a frame that the caller has had an answer to already, on a former connection."""

    seq: int


class GapKind(StrEnum):
    """What is lost of the frames in a gap.

    ``ANSWERS``: the server has tracked them, but its answers did not arrive and will not be repeated. ``FRAMES``: the
    server has not tracked them, and they cannot be sent again. In live mode only frames with commands make a gap.
    """

    ANSWERS = "answers"
    FRAMES = "frames"


@dataclass(frozen=True, slots=True)
class Gap:
    """Frames ``first`` to ``last`` that a lost connection has cost."""

    first: int
    last: int
    kind: GapKind


ClientEvent: TypeAlias = Hello | Result | Error | Goaway | Pong | Replayed


class ClientProtocol:
    """Numbers the frames, keeps count of the credit, checks the order of what the server sends, and resumes.

    In the mode ``every_frame`` each frame is answered to the caller exactly once and in order, or named in ``gaps``:
    after a new connection, ``next_replay`` gives the messages that the server has to see again.

    Args:
        wire: how the server's messages are written, as agreed on in the handshake.
        replay: whether to keep frames, so that they can be sent again.
        max_replay_bytes: of kept frames; beyond it the oldest are forgotten.

    Attributes:
        wire: as above; another connection may agree on another.
        hello: the server's greeting on this connection, None until it has come.
        goaway: the server's warning that it is about to close, None until it has come.
        farewell: the error without a frame that precedes a close, None until it has come.
        gaps: what this connection's greeting has shown to be lost; empty where nothing is.
    """

    def __init__(self, wire: Wire = Wire.JSON, replay: bool = True, max_replay_bytes: int = MAX_REPLAY_BYTES) -> None:
        self.wire = wire
        self.hello: Hello | None = None
        self.goaway: Goaway | None = None
        self.farewell: Error | None = None
        self.gaps: tuple[Gap, ...] = ()
        self._replays = replay
        self._log = ReplayLog(max_replay_bytes)
        self._former: Hello | None = None  # of the connection before
        self._next_seq = 0
        self._delivered = -1  # the last frame that the caller has had an answer to, or will not have one to
        self._pings = 0
        self._commands: list[str] = []  # sent since the last frame
        self._starts_targets = False  # whether an init is among them
        self._starting: int | None = None  # the unanswered frame of a live stream that came with an init
        self._reset()

    @property
    def next_seq(self) -> int:
        """The number that the next frame will have."""
        return self._next_seq

    @property
    def in_flight(self) -> int:
        """Frames that were sent and may still be answered to the caller, on this connection or after another."""
        return self._next_seq - self._delivered - 1

    @property
    def caught_up(self) -> bool:
        """Whether the server has said hello, and has been sent again all that it has to see again."""
        return self.hello is not None and not self._replay

    @property
    def can_send(self) -> bool:
        """Whether one more frame may be sent now."""
        if self.hello is None or not self.caught_up:
            return False
        if self.hello.mode is Mode.EVERY_FRAME:
            return self._credit > 0
        # A frame with an init is never passed over, so these alone can pile up at the server: one at a time.
        return not self._starts_targets or self._starting is None

    def reconnected(self) -> None:
        """Begin a new connection of the same session: the server's hello is the next to come."""
        self._former = self.hello or self._former
        self.hello = self.goaway = self.farewell = None
        self.gaps = ()
        self._reset()

    def next_replay(self) -> str | bytes | None:
        """The next message to send again before anything else is sent; None when done, or without credit for now."""
        if self.hello is None or not self._replay:
            return None
        head = self._replay[0]
        if isinstance(head, SentFrame):
            if self._credit <= 0:
                return None
            self._credit -= 1
            self._unanswered.append(head.seq)
        self._replay.popleft()
        return head.message if isinstance(head, SentFrame) else head

    def receive(self, data: str | bytes) -> ClientEvent:
        """Take one message of the server.

        Raises:
            ProtocolError: the message is broken, or comes out of turn.
        """
        if isinstance(data, str) is not (self.wire is Wire.JSON):
            raise ProtocolError(
                f"expected {self.wire} messages from the server, got {_described(data)}", CloseCode.UNSUPPORTED
            )
        message = decode_message(data)
        if isinstance(message, Command):
            raise _broken(f"expected a message of the server, got {message.type}, which only a client sends")
        if isinstance(message, Hello):
            self._greet(message)
        elif isinstance(message, Goaway):
            self.goaway = message
        elif isinstance(message, Pong):
            self._match(message)
        elif message.seq is None:
            self.farewell = message
        else:
            return self._settle(message.seq, message)
        return message

    def frame(self, rgb: Payload | None, thermal: Payload | None, capture_us: int) -> tuple[int, bytes]:
        """The next frame pair: its number, and the message to send.

        Raises:
            EncodingError: both images are missing, or the message is longer than the server takes.
            InvalidState: there is no credit, the server has not said hello, or there is something to send again first.
        """
        hello = self._ready("the first frame")
        if not self.can_send:
            raise InvalidState(f"expected an answer to one of {self.in_flight} frames before the next is sent")
        if rgb is None and thermal is None:
            raise EncodingError("a frame pair needs a colour image, a thermal image, or both; got neither")
        seq = self._next_seq
        message = encode_frame(Frame(seq, capture_us, rgb, thermal))
        if len(message) > hello.max_frame_bytes:
            raise EncodingError(
                f"the encoded frame pair has {len(message)} bytes, the service takes at most "
                f"{hello.max_frame_bytes}: use a stronger compression or smaller frames"
            )
        self._next_seq += 1
        if hello.mode is Mode.EVERY_FRAME:
            self._credit -= 1
            self._unanswered.append(seq)
            self._log.add(SentFrame(seq, tuple(self._commands), message))
        elif self._commands:
            self._log.add(SentFrame(seq, tuple(self._commands), b""))
            self._starting = seq if self._starts_targets else self._starting
        self._commands, self._starts_targets = [], False
        return seq, message

    def init(self, box: BoxLike, target: int = 0) -> str:
        """The message that starts target number ``target``, or starts it anew, on ``box`` of the next frame.

        Raises:
            BoxError: ``box`` is no box.
            InvalidState: the server takes no such number, has not said hello, or has to see other messages again first.
        """
        hello = self._ready("an init")
        if not 0 <= target < hello.max_targets:
            raise InvalidState(f"expected a target number from 0 to {hello.max_targets - 1}, got {target}")
        self._starts_targets = True
        return self._command(Init(Box.of(box), target))

    def config(self, targets: Iterable[int] | None = None, redetection: bool | None = None) -> str:
        """The message that changes settings from the next frame on; what is None stays as it is.

        Args:
            targets: numbers of the targets to go on with; all others are forgotten.
            redetection: whether the whole frame is searched for a lost target.

        Raises:
            InvalidState: no target is left, the server has not said hello, or has to see other messages again first.
        """
        self._ready("a config")
        kept = None if targets is None else tuple(targets)
        if kept == ():
            raise InvalidState("expected at least one target to keep, got none")
        return self._command(Config(kept, redetection))

    def ping(self) -> str:
        """The message that asks for a pong.

        Raises:
            InvalidState: the server has not said hello.
        """
        if self.hello is None:
            raise InvalidState("expected hello from the server before a ping")
        self._pings += 1
        self._unponged.append(self._pings)
        return encode_message(Ping(self._pings))

    def bye(self) -> str:
        """The message that ends the session."""
        return encode_message(Bye())

    def _reset(self) -> None:
        """Forget what belongs to a connection, and not to the session."""
        self._credit = 0
        self._unanswered: deque[int] = deque()  # frames sent on this connection, in the mode every_frame
        self._unponged: deque[int] = deque()
        self._replay: deque[str | SentFrame] = deque()
        self._repeats_to = -1  # the last frame whose answer the server is about to repeat

    def _ready(self, what: str) -> Hello:
        if self.hello is None:
            raise InvalidState(f"expected hello from the server before {what}")
        if not self.caught_up:
            raise InvalidState(f"expected {len(self._replay)} messages to be sent again before {what}")
        return self.hello

    def _command(self, message: Init | Config) -> str:
        text = encode_message(message)
        self._commands.append(text)
        return text

    def _greet(self, hello: Hello) -> None:
        if self.hello is not None:
            raise _broken("expected one hello, got a second")
        if hello.mode is Mode.EVERY_FRAME and not hello.window:
            raise _broken(f"expected a window of at least one frame, got {hello.window}")
        resumed = -1 if hello.resumed_at_seq is None else hello.resumed_at_seq
        if hello.repeats_from is not None and hello.repeats_from > resumed:
            raise _broken(f"expected answers up to frame {resumed} to be repeated, got {hello.repeats_from}")
        former = self._former
        if former is not None and (hello.session, hello.mode) != (former.session, former.mode):
            raise _broken(
                f"expected session {former.session!r} in mode {former.mode}, got {hello.session!r} in {hello.mode}"
            )
        self.hello = hello
        if former is None:
            self._join(hello, resumed)
        elif hello.mode is Mode.LIVE:
            self._resume_live(resumed)
        else:
            self._resume_every_frame(hello, resumed)

    def _join(self, hello: Hello, resumed: int) -> None:
        """Begin to send; what was tracked before was the business of another."""
        self._delivered, self._next_seq = resumed, resumed + 1
        self._credit = hello.window or 0
        if hello.mode is Mode.EVERY_FRAME and not self._replays:
            self._log.max_bytes = 0
        self._repeats_to = -1 if hello.repeats_from is None else resumed

    def _resume_live(self, resumed: int) -> None:
        """Go on with new frames. What is lost is only worth a word where it came with commands."""
        lost = [frame.seq for frame in self._log.after(resumed)]
        self.gaps = (Gap(lost[0], lost[-1], GapKind.FRAMES),) if lost else ()
        self._delivered = max(resumed, self._next_seq - 1)
        self._next_seq = self._delivered + 1
        self._starting = None
        self._log.forget(self._delivered)
        self._replay.extend(self._commands)

    def _resume_every_frame(self, hello: Hello, resumed: int) -> None:
        """Find out which answers come again, which frames have to be sent again, and what is lost."""
        gaps = []
        repeated = resumed + 1 if hello.repeats_from is None else hello.repeats_from
        if resumed >= self._next_seq:  # somebody else has gone on with the session
            repeated, self._next_seq = resumed + 1, resumed + 1
        if repeated > self._delivered + 1:
            gaps.append(Gap(self._delivered + 1, repeated - 1, GapKind.ANSWERS))
            self._delivered = repeated - 1
        self._repeats_to = -1 if hello.repeats_from is None else resumed
        # An answer that is to come again takes its place in the window: the server can repeat no more than that.
        self._credit = max(0, (hello.window or 0) - max(0, resumed - self._delivered))
        if self._log.forgotten > resumed:
            gaps.append(Gap(resumed + 1, self._log.forgotten, GapKind.FRAMES))
            if self._delivered >= resumed:
                self._delivered = max(self._delivered, self._log.forgotten)
        self.gaps = tuple(gaps)
        for frame in self._log.after(resumed):
            self._replay.extend((*frame.commands, frame))
        self._replay.extend(self._commands)

    def _settle(self, seq: int, answer: Result | Error) -> Result | Error | Replayed:
        if self.hello is None:
            raise _broken(f"expected hello, got {answer.type} for frame {seq}")
        if self._repeats_to >= 0:
            return self._settle_repeated(seq, answer)
        if self.hello.mode is Mode.LIVE:
            self._settle_live(seq)
        elif self._unanswered and seq == self._unanswered[0]:
            self._unanswered.popleft()
        else:
            expected = f"frame {self._unanswered[0]}" if self._unanswered else "no frame, none is unanswered"
            raise _broken(f"expected an answer to {expected}, got one to frame {seq}")
        self._credit += answer.credit
        return self._deliver(seq, answer)

    def _settle_live(self, seq: int) -> None:
        if not self._delivered < seq < self._next_seq:
            frames = f"frames {self._delivered + 1} to {self._next_seq - 1}"
            expected = frames if self.in_flight else "no frame, none is unanswered"
            raise _broken(f"expected an answer to {expected}, got one to frame {seq}")
        if self._starting is not None and seq >= self._starting:
            self._starting = None
        self._log.forget(seq)

    def _settle_repeated(self, seq: int, answer: Result | Error) -> Result | Error | Replayed:
        if seq > min(self._repeats_to, self._delivered + 1):
            raise _broken(f"expected the answers up to frame {self._repeats_to} once more, got one to frame {seq}")
        new = seq > self._delivered
        event = self._deliver(seq, answer)
        self._credit += new
        if seq == self._repeats_to:
            self._repeats_to = -1
            self._delivered = max(self._delivered, self._log.forgotten)
        return event

    def _deliver(self, seq: int, answer: Result | Error) -> Result | Error | Replayed:
        if isinstance(answer, Result):
            self._log.settle(answer)
        if seq <= self._delivered:
            return Replayed(seq)
        self._delivered = seq
        return answer

    def _match(self, pong: Pong) -> None:
        if not self._unponged or pong.id != self._unponged[0]:
            expected = f"a pong to ping {self._unponged[0]}" if self._unponged else "no pong, no ping is unanswered"
            raise _broken(f"expected {expected}, got one to ping {pong.id}")
        self._unponged.popleft()


def _described(data: str | bytes) -> str:
    return f"{len(data)} characters of text" if isinstance(data, str) else f"{len(data)} bytes of binary"


def _broken(message: str) -> ProtocolError:
    return ProtocolError(message, CloseCode.PROTOCOL_ERROR)
