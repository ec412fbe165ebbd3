"""When a broken connection is worth another one, and when to try."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from duotrack_client.errors import ConnectionFailed, FramesLost, SessionClosed
from duotrack_client.protocol import ClientProtocol, CloseCode, Gap, GapKind

FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 5.0
LEAST_PATIENCE: Final = 1.0  # of the last attempt, which may begin when the time is over

# The service meant these: trying again would meet the same, or take the session from whoever has it now.
_MEANT: Final = frozenset(
    {
        CloseCode.NORMAL,
        CloseCode.PROTOCOL_ERROR,
        CloseCode.UNSUPPORTED,
        CloseCode.INVALID_TEXT,
        CloseCode.POLICY,
        CloseCode.TOO_BIG,
        CloseCode.UNAUTHORIZED,
        CloseCode.NO_SESSION,
        CloseCode.IDLE,
        CloseCode.TAKEN_OVER,
        CloseCode.EXPIRED,
        CloseCode.OVERRUN,
    }
)


def may_return(reason: ConnectionFailed | SessionClosed, protocol: ClientProtocol) -> bool:
    """Whether another connection may succeed after one that failed or ended for ``reason``."""
    if isinstance(reason, ConnectionFailed):
        return not reason.final
    broke = reason.code == CloseCode.INTERNAL_ERROR and protocol.farewell is not None
    return not (broke or reason.code in _MEANT)


def gave_up(reason: ConnectionFailed | SessionClosed, seconds: float) -> ConnectionFailed:
    """The error for a service that did not come back."""
    return ConnectionFailed(f"the connection was lost, and no other was found within {seconds:.0f} s: {reason}")


def report_gaps(gaps: Iterable[Gap], on_lost: Callable[[FramesLost], None] | None) -> None:
    """Tell what a lost connection has cost.

    Raises:
        FramesLost: it has cost something, and ``on_lost`` is None.
    """
    for gap in gaps:
        lost = FramesLost(gap.first, gap.last, answers=gap.kind is GapKind.ANSWERS)
        if on_lost is None:
            raise lost
        on_lost(lost)


@dataclass
class Waits:
    """How long to wait before each attempt: doubling, with jitter, so that the clients of a server do not come as one.

    Args:
        total: seconds after which to give up, those of the attempts among them; 0 for no attempt at all.
        first: seconds before the first, where the service said so.
    """

    total: float
    first: float | None = None
    _began: float = field(default_factory=time.monotonic, init=False)

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def patience(self, timeout: float) -> float:
        """Seconds that an attempt may wait for an answer: ``timeout``, or what is left where that is less."""
        return min(timeout, max(self.total - self.spent, LEAST_PATIENCE))

    def __iter__(self) -> Iterator[float]:
        wait = FIRST_WAIT
        if self.first is not None and self.first <= self.total:
            yield self.first
        while (left := self.total - self.spent) > 0:
            yield min(wait * random.uniform(0.5, 1.0), left)
            wait = min(2 * wait, LONGEST_WAIT)
