"""Batches of a ``PairDataset`` made on the device: planned by number in threads, augmented many at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from duotrack.data.device_augment import PairSources, augment_batch
from duotrack.data.frame_bank import FrameBank
from duotrack.data.pairs import Batchable, PairDataset


class DeviceBatches:
    """Samples ``start`` to ``stop`` in order, ``batch`` at a time; what does not fill a batch at the end is left out.

    The same samples, in the same batches, as a ``DataLoader`` of the data set gives that takes their numbers in order:
    a run may go on with one where it stopped with the other.

    Args:
        bank: of the device to make the batches on.
        numbers: take these samples in this order, in place of ``start`` to ``stop``.
        workers: threads that draw plans and read frames. Processes would have to send every frame through a pipe.
        ahead: batches that the threads prepare before they are asked for.
    """

    def __init__(
        self,
        dataset: PairDataset,
        bank: FrameBank,
        *,
        batch: int,
        start: int = 0,
        stop: int | None = None,
        numbers: Sequence[int] | None = None,
        workers: int = 2,
        ahead: int = 2,
    ) -> None:
        self._dataset = dataset
        self._bank = bank
        self._batch = batch
        self._numbers = range(start, len(dataset) if stop is None else stop) if numbers is None else numbers
        self._workers = workers
        self._ahead = ahead

    def __len__(self) -> int:
        return len(self._numbers) // self._batch

    def __iter__(self) -> Iterator[Batchable]:
        threads = ThreadPoolExecutor(self._workers, "augment")
        numbers = iter(self._numbers[: len(self) * self._batch])
        waiting: deque[Future[PairSources]] = deque()

        def ask(count: int) -> None:
            waiting.extend(threads.submit(self._read, number) for number in islice(numbers, count))

        try:
            ask(self._batch * self._ahead)
            for _ in range(len(self)):
                ask(self._batch)
                pairs = [waiting.popleft().result() for _ in range(self._batch)]
                yield augment_batch(pairs, self._bank)
        finally:
            threads.shutdown(cancel_futures=True)

    def _read(self, number: int) -> PairSources:
        return PairSources.read(self._dataset.planned(number), self._dataset.occluders, self._bank)
