"""What a source of training pairs can be asked for."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from numpy.random import Generator

from duotrack.data.images import View
from duotrack.data.negatives import without_target

TRIES = 3
"""Pairs that are drawn in search of one whose target can be covered."""


class PairSource(Protocol):
    """Draws two views of one target: how it looks in the template, and how it looks in the search frame.

    The draw depends on ``rng`` and ``progress`` alone. ``progress``, from 0 to 1, is how far the training is.
    """

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]: ...


@runtime_checkable
class AbsentSource(PairSource, Protocol):
    """A source that knows better than anyone how its search frames look without the target.

    ``draw_absent`` is as ``draw``, but the second view lacks the target; its box is where the target would be, and what
    looks like the target is left around it. None where this draw cannot be had without its target.
    """

    def draw_absent(self, rng: Generator, progress: float = 1.0) -> tuple[View, View] | None: ...


def draw_absent(source: PairSource, rng: Generator, progress: float = 1.0) -> tuple[View, View] | None:
    """A template view, and a search view of the target's place without it; None where this draw cannot give one.

    Sources that are no ``AbsentSource`` have the target covered with background (``negatives.without_target``).
    """
    if isinstance(source, AbsentSource):
        return source.draw_absent(rng, progress)
    for _ in range(TRIES):
        template, search = source.draw(rng, progress)
        emptied = without_target(search, rng)
        if emptied is not None:
            return template, emptied
    return None
