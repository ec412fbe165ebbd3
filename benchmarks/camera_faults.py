"""What a switch of the tracker is worth when a camera fails, and what its checks cost.

    python benchmarks/camera_faults.py health [--model NAME|DIR] [--scenes 8] [--frames 60] [--threads 1]
    python benchmarks/camera_faults.py alignment [...]

Generated scenes that are in no training and no benchmark are made worse in one way at a time, and tracked with the
switch on and off. Printed: the mean overlap in % over the frames after the first (which tends to success AUC), and
milliseconds of CPU time that the checks take on pairs of 640×480.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np

from duotrack.alignment import Alignment
from duotrack.data.synthetic import Scene, SceneConfig
from duotrack.engine import Engine
from duotrack.evaluation.corruptions import CorruptionChoice, corrupted
from duotrack.evaluation.corruptions.corruption import remade
from duotrack.evaluation.machine import describe_machine
from duotrack.evaluation.sequences import BenchmarkPairs, GeneratedSequence
from duotrack.frames import FramePair
from duotrack.health import Health, examine
from duotrack.tracker import Tracker, TrackerOptions

FIRST_SEED = 2**41 + 5000
"""Training draws from 10**6, its validation from 500, the benchmark from 2**40, presence's calibration from 2**41."""
SOUND, FAULTY = 10, 20
"""Frames of either kind, in turns."""

Worse = Callable[[BenchmarkPairs], BenchmarkPairs]


def failing(change: Callable[[FramePair, FramePair], FramePair]) -> Worse:
    """Sound and faulty frames in turns. ``change`` makes a pair faulty, from it and the last sound one."""

    def worse(sequence: BenchmarkPairs) -> BenchmarkPairs:
        def make(index: int) -> FramePair:
            since = index % (SOUND + FAULTY) - SOUND
            pair = sequence.pair(index)
            return pair if since < 0 else change(pair, sequence.pair(index - since - 1))

        return remade(sequence, make)

    return worse


def black_or_white(modality: Literal["rgb", "thermal"], value: int) -> Worse:
    return failing(lambda pair, _: replace(pair, **{modality: np.full_like(getattr(pair, modality), value)}))


def slow(sequence: BenchmarkPairs) -> BenchmarkPairs:
    """Thermal with a third of colour's rate."""
    return remade(sequence, lambda index: FramePair(sequence.pair(index).rgb, sequence.pair(index - index % 3).thermal))


def by(name: str, severity: float) -> Worse:
    return lambda sequence: corrupted(sequence, CorruptionChoice(name, severity))


CHANGES: Mapping[str, Mapping[str, Worse]] = {
    "health": {
        "as it is": lambda sequence: sequence,
        "thermal frozen": failing(lambda pair, last: FramePair(pair.rgb, last.thermal)),
        "colour frozen": failing(lambda pair, last: FramePair(last.rgb, pair.thermal)),
        "thermal at a third of the rate": slow,
        "thermal black": black_or_white("thermal", 0),
        "thermal white": black_or_white("thermal", 255),
        "colour black": black_or_white("rgb", 0),
        "colour white": black_or_white("rgb", 255),
        "low-light 6": by("low-light", 6),
        "low-light 10": by("low-light", 10),
    },
    "alignment": {
        "as it is": lambda sequence: sequence,
        "misalignment 8": by("misalignment", 8),
        "misalignment 16": by("misalignment", 16),
        "misalignment-drift 16": by("misalignment-drift", 16),
        "misalignment-drift 24": by("misalignment-drift", 24),
    },
}


def drawn(config: SceneConfig) -> BenchmarkPairs:
    """A scene whose pairs are drawn once, and kept."""
    sequence = GeneratedSequence(config)
    pairs = [sequence.pair(index) for index in range(config.frames)]
    return remade(sequence, pairs.__getitem__)


def overlap(engine: Engine, options: TrackerOptions, sequence: BenchmarkPairs) -> float:
    tracker, boxes = Tracker(engine, options), list(sequence.boxes)
    assert boxes[0] is not None
    tracker.init(sequence.pair(0), boxes[0])
    found = []
    for index in range(1, len(boxes)):
        box, true = tracker.update(sequence.pair(index)).box, boxes[index]
        if true is not None:
            found.append(100 * box.iou(true))
    return float(np.mean(found))


def cost(frames: int = 40) -> None:
    scene = Scene(SceneConfig(width=640, height=480, frames=frames, seed=FIRST_SEED))
    pairs = [each.pair for each in scene]
    cv2.setNumThreads(1)
    for name in ("health", "alignment"):
        rounds = []
        for _ in range(5):
            health, alignment = Health(), Alignment((0.0, 0.0), None, 0)
            start = time.process_time()
            for pair in pairs:
                if name == "health":
                    health = examine(health, pair).health
                else:
                    alignment = alignment.follow(pair)
            rounds.append((time.process_time() - start) / frames * 1e3)
        print(f"{name}: {np.median(rounds):.3f} ms a frame at 640x480")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("switch", choices=list(CHANGES))
    parser.add_argument("--model")
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print("; ".join(describe_machine().values()))
    cost()
    engine = Engine.open(arguments.model, threads=arguments.threads)
    scenes = [
        drawn(SceneConfig(width=320, height=240, frames=arguments.frames, seed=FIRST_SEED + index, exits=False))
        for index in range(arguments.scenes)
    ]
    for name, worse in CHANGES[arguments.switch].items():
        on, off = (
            [overlap(engine, TrackerOptions(**{arguments.switch: value}), worse(scene)) for scene in scenes]
            for value in (True, False)
        )
        change = np.array(on) - np.array(off)
        error = change.std(ddof=1) / np.sqrt(len(scenes))
        print(
            f"{name:32} on {np.mean(on):5.1f}  off {np.mean(off):5.1f}  {change.mean():+5.1f} ± {error:.1f}", flush=True
        )


if __name__ == "__main__":
    main()
