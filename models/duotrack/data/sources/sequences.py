"""Pairs from annotated sequences."""

from __future__ import annotations

from dataclasses import dataclass, field

from numpy.random import Generator

from duotrack.data.figures import Cutout, Figure, sequence_figures, tinted
from duotrack.data.images import Sequence, View
from duotrack.data.negatives import without_target
from duotrack.data.pasting import crowd
from duotrack.data.recordings import gap_at
from duotrack.data.sources.source import TRIES
from duotrack.errors import SourceError


@dataclass(frozen=True, slots=True, eq=False)
class SequencePairs:
    """Two frames of one sequence, in either order and at most a gap apart that grows to ``largest_gap``.

    Args:
        crowded: share of the search views that get a distractor beside the target: the target itself as another frame
            shows it, or that of another sequence. Only sequences with masks lend their targets.

    Raises:
        SourceError: there is no sequence, or one never shows its target.
    """

    sequences: list[Sequence]
    largest_gap: int = 60
    crowded: float = 0.3
    _figures: dict[str, list[Figure]] = field(init=False)

    def __post_init__(self) -> None:
        if not self.sequences:
            raise SourceError("no sequences to draw pairs from: expected at least one")
        for sequence in self.sequences:
            if not any(sequence.boxes):
                raise SourceError(f"sequence {sequence.name} never shows its target: no frame of it has a box")
        figures = {sequence.name: sequence_figures(sequence) for sequence in self.sequences}
        object.__setattr__(self, "_figures", {name: runs for name, runs in figures.items() if runs})

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:
        template, search = self._pair(rng, progress)
        if self._figures and rng.random() < self.crowded:
            search = self._crowd(search, rng, twins=0.6)
        return template, search

    def draw_absent(self, rng: Generator, progress: float = 1.0) -> tuple[View, View] | None:
        """The target is covered with background, and half of the time another sequence's stands near."""
        for _ in range(TRIES):
            template, search = self._pair(rng, progress)
            emptied = without_target(search, rng)
            if emptied is not None:
                crowded = rng.random() < 0.5
                return template, self._crowd(emptied, rng, twins=0.0) if crowded else emptied
        return None

    def _pair(self, rng: Generator, progress: float) -> tuple[View, View]:
        sequence = self.sequences[rng.integers(len(self.sequences))]
        visible = [index for index, box in enumerate(sequence.boxes) if box is not None]
        first = visible[rng.integers(len(visible))]
        gap = gap_at(progress, self.largest_gap)
        near = [index for index in visible if abs(index - first) <= gap]
        return sequence_view(sequence, first), sequence_view(sequence, near[rng.integers(len(near))])

    def _crowd(self, view: View, rng: Generator, *, twins: float) -> View:
        """``view`` with another object beside its target: one of the same sequence with the chance ``twins``."""
        name = str(view.scene)
        others = [other for other in self._figures if other != name]
        if name in self._figures and rng.random() < twins:
            return crowd(view, tinted(self._pose(name, rng), rng), rng)
        if not others:
            return view
        return crowd(view, self._pose(others[rng.integers(len(others))], rng), rng)

    def _pose(self, name: str, rng: Generator) -> Cutout:
        runs = self._figures[name]
        figure = runs[rng.integers(len(runs))]
        return figure.pose(int(rng.integers(len(figure))))


def sequence_view(sequence: Sequence, index: int) -> View:
    """Frame ``index``, in which the target must be present, as a view."""
    box = sequence.boxes[index]
    assert box is not None
    mask = sequence.masks[index] if sequence.masks is not None else None
    return View(sequence.frames[index], None, box, mask, sequence.name)
