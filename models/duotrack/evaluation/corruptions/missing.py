"""A modality that is missing for some of the time, in the patterns in which links and cameras fail.

One of the two is always there, and both are in the first pair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from duotrack.data.synthetic.noise import stream
from duotrack.evaluation.corruptions.corruption import Apply, Corruption, Modality, remade
from duotrack.evaluation.sequences import BenchmarkPairs
from duotrack.frames import FramePair

Pattern: TypeAlias = NDArray[np.int8]
"""(N,) what is missing in each frame: ``NOTHING``, ``RGB`` or ``THERMAL``."""

NOTHING, RGB, THERMAL = -1, 0, 1
BOTH: tuple[Modality, ...] = ("rgb", "thermal")
INTERVAL = 60
"""Frames from one gap of an interval pattern to the next."""


def without(sequence: BenchmarkPairs, pattern: Pattern) -> BenchmarkPairs:
    """The sequence without what the pattern says, except where that would leave a pair empty."""

    def make(index: int) -> FramePair:
        pair = sequence.pair(index)
        if index and pattern[index] == RGB and pair.thermal is not None:
            return FramePair(None, pair.thermal)
        if index and pattern[index] == THERMAL and pair.rgb is not None:
            return FramePair(pair.rgb, None)
        return pair

    return remade(sequence, make)


def at_random(frames: int, share: float, rng: np.random.Generator) -> Pattern:
    """Each frame lacks a modality with probability ``share``, either as likely."""
    gone = rng.random(frames) < share
    return np.where(gone, rng.integers(2, size=frames), NOTHING).astype(np.int8)


def at_intervals(frames: int, share: float, rng: np.random.Generator) -> Pattern:
    """One modality is gone for ``share`` of every ``INTERVAL`` frames."""
    modality, phase = rng.integers(2), rng.integers(INTERVAL)
    gone = (np.arange(frames) + phase) % INTERVAL < round(share * INTERVAL)
    return np.where(gone, modality, NOTHING).astype(np.int8)


def from_some_frame_on(modality: int) -> Callable[[int, float, np.random.Generator], Pattern]:
    """``modality`` is gone for the last ``share`` of the frames after the first."""

    def pattern(frames: int, share: float, rng: np.random.Generator) -> Pattern:  # noqa: ARG001 - nothing is random
        gone = np.arange(frames) >= frames - round(share * (frames - 1))
        return np.where(gone, modality, NOTHING).astype(np.int8)

    return pattern


def in_turns(frames: int, turn: float, rng: np.random.Generator) -> Pattern:
    """From the second frame on, colour is gone for ``turn`` frames, then thermal, and so on; or thermal first."""
    first = rng.integers(2)
    return ((np.arange(-1, frames - 1) // int(turn) + first) % 2).astype(np.int8)


def in_one_stretch(frames: int, share: float, rng: np.random.Generator) -> Pattern:
    """One modality is gone for ``share`` of the frames after the first, without a break, somewhere."""
    modality, place = rng.integers(2), rng.random()
    length = round(share * (frames - 1))
    start = 1 + round(place * (frames - 1 - length))
    number = np.arange(frames)
    return np.where((number >= start) & (number < start + length), modality, NOTHING).astype(np.int8)


def _by(label: str, plan: Callable[[int, float, np.random.Generator], Pattern]) -> Apply:
    def apply(sequence: BenchmarkPairs, first: FramePair, severity: float, seed: int) -> BenchmarkPairs:  # noqa: ARG001
        rng = stream(seed, label, sequence.name)
        return without(sequence, plan(len(sequence.boxes), severity, rng))

    return apply


MISSING = {
    "missing-random": Corruption(
        title="modality missing at random",
        unit="share of frames",
        severities=(0.1, 0.25, 0.5, 0.75, 1.0),
        largest=1.0,
        does="Each frame lacks colour or thermal, either as likely, with this probability.",
        apply=_by("missing-random", at_random),
        needs=BOTH,
    ),
    "missing-interval": Corruption(
        title="modality missing in intervals",
        unit="share of frames",
        severities=(0.1, 0.25, 0.5, 0.75, 0.9),
        largest=1.0,
        does=f"One modality, drawn for the sequence, is gone for this share of every {INTERVAL} frames.",
        apply=_by("missing-interval", at_intervals),
        needs=BOTH,
    ),
    "rgb-off": Corruption(
        title="colour switched off",
        unit="share of frames",
        severities=(0.25, 0.5, 0.75, 1.0),
        largest=1.0,
        does="Colour is switched off for the last part of the sequence; with 1, from the second frame on.",
        apply=_by("rgb-off", from_some_frame_on(RGB)),
        needs=BOTH,
    ),
    "thermal-off": Corruption(
        title="thermal switched off",
        unit="share of frames",
        severities=(0.25, 0.5, 0.75, 1.0),
        largest=1.0,
        does="Thermal is switched off for the last part of the sequence; with 1, from the second frame on.",
        apply=_by("thermal-off", from_some_frame_on(THERMAL)),
        needs=BOTH,
    ),
    "alternating": Corruption(
        title="modalities in turns",
        unit="frames a turn",
        severities=(1, 5, 15, 30, 60),
        largest=10_000,
        whole=True,
        does="Colour and thermal take turns, each alone for so many frames; which is first is drawn.",
        apply=_by("alternating", in_turns),
        needs=BOTH,
    ),
    "long-gap": Corruption(
        title="one long gap in a modality",
        unit="share of frames",
        severities=(0.1, 0.2, 0.4, 0.6, 0.8),
        largest=1.0,
        does="One modality, drawn for the sequence, is gone for one stretch of this share, somewhere.",
        apply=_by("long-gap", in_one_stretch),
        needs=BOTH,
    ),
}
