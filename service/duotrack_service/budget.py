"""How much of something may be in use at a time, such as the bytes of frames that wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

ALPHA: Final = 4
"""What one principal may hold of what is free: alone, four fifths of all."""


class Budget:
    """``limit`` units for all, and for each principal at most ``ALPHA`` times what is free (Choudhury & Hahne 1998).

    So one whose frames wait for long leaves a part to the others, whatever it sends, and nothing is set aside for
    those who send nothing. Whoever finds its part spent waits, and what it has taken in the meantime still counts: the
    limit may be passed by what each of those who wait took last, one message of each connection.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._held: Counter[str] = Counter()
        self._freed = asyncio.Event()

    @property
    def used(self) -> int:
        return self._used

    def take(self, principal: str, units: int) -> None:
        """Count ``units`` as in use by ``principal``."""
        self._used += units
        self._held[principal] += units

    def give_back(self, principal: str, units: int) -> None:
        """Count ``units`` of ``principal`` as free again."""
        self._used -= units
        self._held[principal] -= units
        if not self._held[principal]:
            del self._held[principal]
        self._freed.set()

    async def room(self, principal: str) -> None:
        """Wait until ``principal`` holds less than its part."""
        while self._held[principal] >= ALPHA * (self._limit - self._used):
            self._freed.clear()
            await self._freed.wait()
