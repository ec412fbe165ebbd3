"""Frames that never arrive: what is left is a shorter sequence in which everything moves further between frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from duotrack.data.synthetic.noise import stream
from duotrack.evaluation.corruptions.corruption import Corruption, remade
from duotrack.evaluation.sequences import BenchmarkPairs
from duotrack.frames import FramePair

BURST = 5
"""Frames lost in a row, about."""


def dropping(sequence: BenchmarkPairs, first: FramePair, share: float, seed: int) -> BenchmarkPairs:  # noqa: ARG001
    """The sequence without a share of its frames. The first stays, and one after it."""
    left = remaining(len(sequence.boxes), share, stream(seed, "dropped-frames", sequence.name))
    boxes = [sequence.boxes[number] for number in left.tolist()]
    return remade(sequence, lambda index: sequence.pair(int(left[index])), boxes)


def remaining(frames: int, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Numbers of the frames that arrive, ascending, 0 first.

    The bursts lie after frames drawn from those that arrive, each frame at most once; so they are longer where hardly
    any frame arrives.
    """
    lost = min(round(share * (frames - 1)), max(frames - 2, 0))
    kept = frames - lost
    bursts = min(max(round(lost / BURST), 1), kept)
    after = rng.choice(kept, bursts, replace=False)
    gaps = np.zeros(kept, np.int64)
    gaps[after] = lost // bursts
    gaps[after[: lost % bursts]] += 1
    return np.asarray(np.arange(kept) + np.cumsum(gaps) - gaps)


DROPPED_FRAMES = {
    "dropped-frames": Corruption(
        title="dropped frames",
        unit="share of frames",
        severities=(0.1, 0.25, 0.5, 0.7, 0.85),
        largest=0.95,
        does=f"This share of the frames is left out, some {BURST} in a row; the rest is the sequence.",
        apply=dropping,
    )
}
