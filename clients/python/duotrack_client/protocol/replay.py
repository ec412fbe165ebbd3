"""The frames that a client may have to send again, because the server could still forget their outcome."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from duotrack_client.protocol.messages import Result

MAX_REPLAY_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SentFrame:
    """A frame as it was sent.

    Attributes:
        seq: its number.
        commands: the texts that were sent since the frame before, and belong to this one.
        message: the frame itself.
    """

    seq: int
    commands: tuple[str, ...]
    message: bytes = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of memory, but for what the object itself takes."""
        return len(self.message) + sum(map(len, self.commands))


class ReplayLog:
    """Sent frames by rising number, from the first that the server might not remember.

    A server with a store says in its results up to which frame it cannot forget. One without forgets nothing but when
    it ends, and then all; so an answered frame is done with.

    Args:
        max_bytes: beyond it, the oldest frames are forgotten though they might be needed.

    Attributes:
        forgotten: the last frame that cannot be sent again, -1 where there is none.
    """

    def __init__(self, max_bytes: int = MAX_REPLAY_BYTES) -> None:
        self.max_bytes = max_bytes
        self.forgotten = -1
        self._frames: deque[SentFrame] = deque()
        self._bytes = 0
        self._ever_durable = False

    @property
    def bytes(self) -> int:
        """Bytes of the frames that are kept."""
        return self._bytes

    def add(self, frame: SentFrame) -> None:
        """Keep a frame that is sent for the first time."""
        self._frames.append(frame)
        self._bytes += frame.size
        while self._bytes > self.max_bytes:
            self._forget_first()

    def settle(self, result: Result) -> None:
        """Forget what the server cannot forget any more, by what ``result`` says."""
        self._ever_durable |= result.durable or result.durable_seq is not None
        if result.durable_seq is not None:
            self.forget(result.durable_seq)
        elif not self._ever_durable:
            self.forget(result.seq)

    def forget(self, seq: int) -> None:
        """Forget all frames up to number ``seq``."""
        while self._frames and self._frames[0].seq <= seq:
            self._forget_first()

    def after(self, seq: int) -> Iterator[SentFrame]:
        """The kept frames above number ``seq``, in order."""
        return (frame for frame in self._frames if frame.seq > seq)

    def _forget_first(self) -> None:
        frame = self._frames.popleft()
        self._bytes -= frame.size
        self.forgotten = frame.seq
