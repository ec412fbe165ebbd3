"""The batches of a data loader, whose workers neither outlive an error nor wrap it in a traceback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from duotrack.errors import DuoTrackError, TrainingError

T = TypeVar("T")


@contextmanager
def open_loader(batches: Iterable[T]) -> Iterator[Iterator[T]]:
    """Batches one by one; the workers that make them have ended when this ends, whatever ends it.

    Workers that ignore SIGTERM would not: the traceback of an error keeps the loader's iterator, and the interpreter
    then waits for them for ever.

    Raises:
        DuoTrackError: a worker raised it; torch's account of where it did is left out.
        TrainingError: a worker died.
    """
    iterator = iter(batches)
    try:
        yield iterator
    except DuoTrackError as error:
        kind = type(error)
        message = str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].rstrip()
        if message == str(error):
            raise
        raise kind(message) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise TrainingError(f"{error}: out of memory, perhaps; fewer data.workers take less") from error
    finally:
        end_workers = getattr(iterator, "_shutdown_workers", None)
        if end_workers is not None:
            end_workers()
