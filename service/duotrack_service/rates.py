"""How fast a principal may make sessions and send frames."""

from __future__ import annotations

import time
from typing import Final

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from duotrack_service.auth import Principal

BURST_S: Final = 1.0
"""Frames that a principal has not sent are saved up for so long."""


class CreationRate:
    """Sessions that each principal may make in any minute."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._item = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def wait(self, principal: Principal) -> float:
        """Count a new session of ``principal``; 0 where it may be made, or the seconds to wait where it may not."""
        if self._limiter.hit(self._item, principal.name):
            return 0.0
        return max(0.0, self._limiter.get_window_stats(self._item, principal.name).reset_time - time.time())


class FrameRates:
    """When each principal's next frame may be tracked: a leaky bucket (GCRA, ITU-T I.371) that holds ``BURST_S``.

    A library's limiter says yes or no; a stream needs to know how long to wait, and books its turn by asking.

    Args:
        default: frames a second of a principal whose key does not say; None for no limit.
    """

    def __init__(self, default: float | None) -> None:
        self._default = default
        self._due: dict[str, float] = {}

    def wait(self, principal: str, rate: float | None, now: float) -> float:
        """Count a frame at ``now``, in seconds; the seconds to wait before it may be tracked, mostly 0."""
        rate = rate or self._default
        if rate is None:
            return 0.0
        due = max(self._due.get(principal, 0.0), now - BURST_S)
        self._due[principal] = due + 1 / rate
        return max(0.0, due - now)
