"""Success AUC on the held-out colour sequences: the shipped student beside its untrained self and two baselines.

    python benchmarks/validation_auc.py --data ../shared/data [--model NAME|DIR|FILE.safetensors]

CSRT needs opencv-contrib, which cannot live beside opencv-python-headless: run this in an environment of its own with
``pip install opencv-contrib-python-headless`` and ``--only csrt``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2

from duotrack.data.images import Sequence, read_sequences
from duotrack.evaluation.in_memory import evaluate
from duotrack.evaluation.metrics import mean_scores
from duotrack.evaluation.trackers import NetworkTracker, SequenceTracker, StaticBox, TrackerChoice


def print_row(name: str, tracker: SequenceTracker, sequences: list[Sequence]) -> None:
    started = time.perf_counter()
    scores = [evaluate(tracker, sequence) for sequence in sequences]
    frames = sum(len(sequence.frames) - 1 for sequence in sequences)
    mean = mean_scores(scores)
    each = " ".join(f"{entry.success:6.3f}" for entry in scores)
    pace = (time.perf_counter() - started) / frames * 1e3
    print(f"{name:28} {mean.success:6.3f} {mean.precision:6.3f}   {each}   {pace:6.1f} ms/frame", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default=None, help="a shipped name, a model folder, or weights")
    parser.add_argument("--pretrained", type=Path, help="the untrained row starts from these weights, as training does")
    parser.add_argument("--only", nargs="+", choices=["student", "untrained", "static", "csrt"])
    arguments = parser.parse_args()
    rows = arguments.only or ["student", "untrained", "static"] + ["csrt"] * hasattr(cv2, "TrackerCSRT_create")
    sequences = read_sequences(arguments.data / "rgb-sequences", held_out=True)
    print("sequences:", ", ".join(f"{sequence.name} ({len(sequence.frames)})" for sequence in sequences))
    print(f"{'tracker':28} {'AUC':>6} {'P@20':>6}   " + " ".join(f"{sequence.name[:6]:>6}" for sequence in sequences))
    if "student" in rows:
        if str(arguments.model).endswith(".safetensors"):
            from duotrack.nets.models import load_model
            from duotrack.nets.network import TorchNetwork

            network, name = load_model(Path(arguments.model))
            print_row(f"{name} (torch, fp32)", NetworkTracker(TorchNetwork(network)), sequences)
        else:
            from duotrack.engine import Engine

            engine = Engine.open(arguments.model)
            report = engine.report
            print_row(f"{report.model} ({report.provider}, {report.precision})", NetworkTracker(engine), sequences)
    if "untrained" in rows:
        from duotrack.nets.models import build_model, named_config
        from duotrack.nets.network import TorchNetwork
        from duotrack.nets.warm_start import warm_start

        untrained = build_model(named_config("student-s"))
        if arguments.pretrained:
            warm_start(untrained, arguments.pretrained)
        print_row("student-s untrained", NetworkTracker(TorchNetwork(untrained)), sequences)
    if "static" in rows:
        print_row("box that never moves", StaticBox(), sequences)
    if "csrt" in rows:
        print_row(f"CSRT (OpenCV {cv2.__version__})", TrackerChoice("csrt").open().tracker, sequences)


if __name__ == "__main__":
    main()
