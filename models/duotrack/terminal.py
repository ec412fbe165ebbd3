"""What the commands share: errors as one line and an exit status, and a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from duotrack.errors import DuoTrackError


@contextmanager
def reported_errors(*others: type[Exception]) -> Iterator[None]:
    """Turn expected errors, and what the operating system refuses, into one line on stderr and a non-zero exit.

    Args:
        others: kinds of errors that are expected besides DuoTrack's own.
    """
    expected: tuple[type[Exception], ...] = (DuoTrackError, ValueError, *others)
    try:
        yield
    except expected as error:
        raise failure(str(error)) from error
    except OSError as error:
        raise failure(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
    except KeyboardInterrupt:
        sys.stderr.write("duotrack: interrupted; what was written so far is whole\n")
        raise typer.Exit(130) from None


def failure(message: str) -> typer.Exit:
    """Say what went wrong, and give the exception that ends the command."""
    sys.stderr.write(f"duotrack: {message}\n")
    return typer.Exit(1)


def progress_bar(console: Console) -> Progress:
    """A bar with a count, a free text ``state``, and the time left."""
    state = TextColumn("{task.fields[state]}")
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        state,
        TimeRemainingColumn(),
        console=console,
    )
