"""Where the frames of a session wait for the tracker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from duotrack_client.protocol import Mode

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """A queue in the mode ``every_frame``, one slot in the mode ``live``.

    In the slot the newest item wins, except over an item that is kept: a frame with a box of its own.

    Args:
        mode: the session's mode.
        on_drop: called with each item that is passed over, and with those that are left when the inbox closes.
    """

    def __init__(self, mode: Mode, on_drop: Callable[[Item], None] | None = None) -> None:
        self._mode = mode
        self._on_drop = on_drop or (lambda _: None)
        self._items: deque[tuple[Item, bool]] = deque()
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, item: Item, *, keep: bool = False) -> None:
        """Add an item; in the mode ``live`` in place of the one that waits, unless that is kept."""
        if self._closed:
            self._on_drop(item)
            return
        if self._mode is Mode.LIVE and self._items and not self._items[-1][1]:
            self._on_drop(self._items.pop()[0])
        self._items.append((item, keep))
        self._changed.set()

    async def wait(self) -> bool:
        """Wait for an item; False once the inbox is closed, whatever was left in it."""
        while not self._items and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        return not self._closed

    def take(self) -> Item | None:
        """The next item, if there is one."""
        return self._items.popleft()[0] if self._items else None

    def close(self) -> None:
        """Hand out nothing more."""
        self._closed = True
        while self._items:
            self._on_drop(self._items.popleft()[0])
        self._changed.set()
