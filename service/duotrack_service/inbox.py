"""Where the frames of a session wait for the tracker."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

from duotrack_client.protocol import Mode

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """A queue in the mode ``every_frame``, one slot in the mode ``live``.

    In the slot the newest item wins. Only the first item of a session has a place of its own: it starts the track,
    on the box that the client saw in it.

    Args:
        mode: the session's mode.
        started: whether the session has tracked a frame before.
    """

    def __init__(self, mode: Mode, started: bool) -> None:
        self._mode = mode
        self._kept = 0 if started else 1
        self._items: deque[Item] = deque()
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, item: Item) -> None:
        """Add an item; in the mode ``live`` in place of the one that waits."""
        if self._mode is Mode.LIVE and len(self._items) > self._kept:
            self._items.pop()
        self._items.append(item)
        self._changed.set()

    async def get(self) -> Item | None:
        """Wait for the next item; None once the inbox is closed, whatever is left in it."""
        while not self._items and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        if self._closed:
            return None
        self._kept = 0
        return self._items.popleft()

    def close(self) -> None:
        """Hand out nothing more."""
        self._closed = True
        self._changed.set()
