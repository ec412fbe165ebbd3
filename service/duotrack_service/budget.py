"""How much of something may be in use at a time, such as the bytes of frames that wait."""

from __future__ import annotations

import asyncio


class Budget:
    """``limit`` units for all. Whoever finds them spent waits, and what it has taken in the meantime still counts.

    So the limit may be passed by what each of those who wait took last: one message of each connection.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._freed = asyncio.Event()

    @property
    def used(self) -> int:
        return self._used

    def take(self, units: int) -> None:
        """Count ``units`` as in use."""
        self._used += units

    def give_back(self, units: int) -> None:
        """Count ``units`` as free again."""
        self._used -= units
        if self._used < self._limit:
            self._freed.set()

    async def room(self) -> None:
        """Wait until less than the limit is in use."""
        while self._used >= self._limit:
            self._freed.clear()
            await self._freed.wait()
