"""Whose frame is tracked next: a model's lanes, and the sessions that wait for them.

The scheduler is work-conserving: a lane that becomes free takes what waits, at once and up to the model's batch. A
session waits with one frame at a time, in the order of coming, so that one with many frames takes no more turns than
one with few. Which frame it is is asked only when its turn has come: in the mode ``live`` that is the newest.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from duotrack_service.inference import Model
from duotrack_service.steps import Job, Outcome, Step, run

Take: TypeAlias = Callable[[], Job | None]


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    take: Take
    outcome: asyncio.Future[Step | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Scheduler:
    """The lanes of one model. For one event loop.

    Args:
        model: what runs.
        on_batch: called with the size of each batch and its milliseconds.
        decode_threads: threads that decode the frames of a batch, where the model takes more than one.
    """

    def __init__(
        self,
        model: Model,
        on_batch: Callable[[int, float], None] | None = None,
        decode_threads: int = 1,
    ) -> None:
        self.model = model
        self._on_batch = on_batch or (lambda *_: None)
        self._free = model.lanes
        self._waiting: deque[_Turn] = deque()
        self._threads = ThreadPoolExecutor(model.lanes, thread_name_prefix=f"lane-{model.name}")
        self._decoders = ThreadPoolExecutor(decode_threads, f"decode-{model.name}") if model.max_batch > 1 else None

    @property
    def waiting(self) -> int:
        """Sessions that wait for a lane."""
        return len(self._waiting)

    async def step(self, take: Take) -> Step | None:
        """Wait for a lane, then track the frame that ``take`` hands out; None when it has none.

        Raises:
            ImageError, BoxError, FrameError: the frame cannot be used.
            Exception: whatever else the model met with it.
        """
        turn = _Turn(take)
        self._waiting.append(turn)
        self._dispatch()
        return await turn.outcome

    def close(self) -> None:
        """Finish what runs, and start nothing more."""
        while self._waiting:
            self._waiting.popleft().outcome.cancel()
        self._threads.shutdown(cancel_futures=True)
        if self._decoders is not None:
            self._decoders.shutdown()

    def _dispatch(self) -> None:
        while self._free and (batch := self._gather()):
            self._free -= 1
            jobs = [job for _, job in batch]
            running = asyncio.get_running_loop().run_in_executor(self._threads, self._run, jobs)
            running.add_done_callback(partial(self._finish, [turn for turn, _ in batch]))

    def _gather(self) -> list[tuple[_Turn, Job]]:
        batch: list[tuple[_Turn, Job]] = []
        while self._waiting and len(batch) < self.model.max_batch:
            turn = self._waiting.popleft()
            if turn.outcome.done():  # its session gave up waiting
                continue
            job = turn.take()
            if job is None:
                turn.outcome.set_result(None)
            else:
                batch.append((turn, job))
        return batch

    def _finish(self, turns: list[_Turn], running: asyncio.Future[tuple[list[Outcome], float]]) -> None:
        self._free += 1
        if running.cancelled():
            for turn in turns:
                turn.outcome.cancel()
            return
        outcomes, milliseconds = running.result()
        for turn, outcome in zip(turns, outcomes, strict=True):
            if turn.outcome.done():
                continue
            if isinstance(outcome, Exception):
                turn.outcome.set_exception(outcome)
            else:
                turn.outcome.set_result(outcome)
        self._on_batch(len(turns), milliseconds)
        self._dispatch()

    def _run(self, jobs: list[Job]) -> tuple[list[Outcome], float]:
        began = time.perf_counter()
        outcomes = run(self.model, jobs, map if self._decoders is None else self._decoders.map)
        return outcomes, (time.perf_counter() - began) * 1000
