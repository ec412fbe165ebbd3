"""Threads for work that would block the event loop, with the time that it took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Timed(Generic[Value]):
    """What a call returned, and how long it ran in milliseconds, without the wait for a thread."""

    value: Value
    milliseconds: float


class Workers:
    """``count`` threads that run blocking calls in the order of their coming.

    With one thread, no two calls overlap: that is how tracker steps are kept apart.
    """

    def __init__(self, name: str, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, call: Callable[[], Value]) -> Timed[Value]:
        """Run ``call`` in a thread. What it raises is raised here."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, _time, call)

    def close(self) -> None:
        """Finish the calls that run, and start no other."""
        self._executor.shutdown(cancel_futures=True)


def _time(call: Callable[[], Value]) -> Timed[Value]:
    start = time.perf_counter()
    value = call()
    return Timed(value, (time.perf_counter() - start) * 1000)
