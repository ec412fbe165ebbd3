"""Pairs from stills that move."""

from __future__ import annotations

from dataclasses import dataclass, field

from numpy.random import Generator

from duotrack.data.figures import Figures
from duotrack.data.homography import Motion
from duotrack.data.images import Pixels, View
from duotrack.data.moving_still import MovingStill, move_still
from duotrack.data.recordings import gap_at
from duotrack.errors import SourceError

FRAMES = 120


@dataclass(frozen=True, slots=True, eq=False)
class MovingStills:
    """Two frames of a still over which a camera moves, with objects moving before it; new motion at every draw.

    Args:
        stills: colour and aligned thermal; one of the two may be None.
        figures: objects to paste.
        pasted: share of the draws whose target is a pasted object; in the others it is a region of the still.

    Raises:
        SourceError: there is no still.
    """

    stills: list[tuple[Pixels | None, Pixels | None]]
    figures: Figures
    largest_gap: int = 60
    pasted: float = 0.65
    motion: Motion = field(default_factory=lambda: Motion(misalignment=2.0))

    def __post_init__(self) -> None:
        if not self.stills:
            raise SourceError("no stills to move: expected at least one")

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:
        sequence = self._move(rng, paste_target=bool(rng.random() < self.pasted))
        first, second = self._frames(sequence, rng, progress)
        template, search = sequence.view(first), sequence.view(second)
        assert template is not None
        assert search is not None
        return template, search

    def draw_absent(self, rng: Generator, progress: float = 1.0) -> tuple[View, View] | None:
        """The search view has everything but the pasted target."""
        sequence = self._move(rng, paste_target=True)
        first, second = self._frames(sequence, rng, progress)
        template, search = sequence.view(first), sequence.plate(second)
        return None if template is None or search is None else (template, search)

    def _move(self, rng: Generator, *, paste_target: bool) -> MovingStill:
        rgb, thermal = self.stills[rng.integers(len(self.stills))]
        scene = id(rgb if rgb is not None else thermal)
        return move_still(
            rgb,
            thermal,
            seed=int(rng.integers(2**32)),
            name=f"still {scene}",
            frames=FRAMES,
            motion=self.motion,
            figures=self.figures,
            paste_target=paste_target,
            distractors=int(rng.integers(0, 3)),
            scene=scene,
        )

    def _frames(self, sequence: MovingStill, rng: Generator, progress: float) -> tuple[int, int]:
        """A frame in which most of the target is visible, and one near it in which half of it is."""
        gap = gap_at(progress, self.largest_gap)
        for _ in range(8):
            first = int(rng.integers(FRAMES))
            if sequence.visibility(first) < 0.8:
                continue
            for _ in range(4):
                second = int(rng.integers(max(first - gap, 0), min(first + gap, FRAMES - 1) + 1))
                if sequence.visibility(second) > 0.5:
                    return first, second
            return first, first
        return 0, 0  # which shows it by construction
