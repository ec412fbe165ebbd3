"""What a precision costs in accuracy and gains in speed: success AUC on the held-out tracks, and milliseconds a pair.

    python benchmarks/precision_auc.py --data ../shared/data [--model NAME|DIR] [--weights FILE.safetensors]

Each row is a form of the same network: how its weights are stored, and what a runtime computes in. The int8 form is
made on the spot, from training images; ``--weights`` adds rows for weights that were never rounded, and for bf16 ones.
Timings take turns within one run, so that a busy moment of the machine falls on all rows alike.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from duotrack.data.images import read_sequences
from duotrack.engine import DEFAULT_MODEL, Engine
from duotrack.engine.engine import proof
from duotrack.engine.models import open_model
from duotrack.engine.providers import default_threads
from duotrack.errors import ModelError
from duotrack.evaluation.in_memory import evaluate, overlap_in_one_step
from duotrack.evaluation.machine import cpu_name
from duotrack.evaluation.metrics import mean_scores
from duotrack.evaluation.trackers import NetworkTracker
from duotrack.export import export_model
from duotrack.export.calibration import calibration_sources, draw_samples
from duotrack.export.quantize import quantize_folder
from duotrack.nets.models import load_model

CALLS = 10


@dataclass(frozen=True)
class Row:
    stored: str
    computed: str
    engine: Engine


def model_folders(arguments: argparse.Namespace, scratch: Path) -> dict[str, Path]:
    """Folders by how their weights are stored."""
    source = open_model(arguments.model)
    folders = {"fp16": source.directory}
    if arguments.weights is not None:
        for storage in ("fp32", "bf16", "fp16"):
            model, name = load_model(arguments.weights)
            export_model(model, scratch / storage, name, storage)
            folders[storage] = scratch / storage
        source = open_model(folders["fp16"])
    started = time.perf_counter()
    samples = draw_samples(calibration_sources(arguments.data), source.spec, arguments.samples)
    error = quantize_folder(source, scratch / "int8", samples, symmetric=False)
    print(
        f"int8 calibrated on {len(samples)} crops of training images in {time.perf_counter() - started:.0f} s; "
        f"its recorded run differs by {error:.4f}"
    )
    return folders | {"int8": scratch / "int8"}


def open_rows(folders: dict[str, Path], threads: int) -> list[Row]:
    rows = []
    for stored, folder in folders.items():
        for provider, precision in (("cpu", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")):
            try:
                engine = Engine.open(folder, provider=provider, precision=precision, threads=threads)
            except ModelError as error:
                print(f"not measured: {error}")
                continue
            computed = f"int8 + {precision}" if stored == "int8" else precision
            rows.append(Row(stored, f"{computed} ({provider})", engine))
    return rows


def time_rows(rows: list[Row], rounds: int) -> list[float]:
    """Median milliseconds of a search pass, for each row."""
    times: list[list[float]] = [[] for _ in rows]
    for round_number in range(rounds + 1):
        for index, row in enumerate(rows):
            template, crop, present = proof.proof_input(row.engine.spec)
            features = row.engine.encode(template)
            for _ in range(CALLS):
                started = time.perf_counter()
                row.engine.search(crop, present, features)
                if round_number:  # the first round warms up
                    times[index].append((time.perf_counter() - started) * 1e3)
    return [float(np.median(values)) for values in times]


def size_in_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".onnx", ".bin")) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a shipped name or a model folder with float weights")
    parser.add_argument("--weights", type=Path, help="weights of the same network that were not rounded")
    parser.add_argument("--samples", type=int, default=256, help="crops to calibrate int8 on")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{cpu_name()}, {default_threads()} cores, {arguments.threads} threads used, load average {load:.1f}")
    versions = [f"Python {platform.python_version()}", f"onnxruntime {onnxruntime.__version__}"]
    try:
        import openvino

        versions.append(f"openvino {openvino.__version__}")
    except ModuleNotFoundError:
        versions.append("no openvino")
    print(", ".join(versions))
    sequences = read_sequences(arguments.data / "rgb-sequences", held_out=True)
    frames = sum(len(sequence.frames) - 1 for sequence in sequences)
    print(f"{len(sequences)} held-out sequences, {frames} frames: {', '.join(entry.name for entry in sequences)}")
    with tempfile.TemporaryDirectory() as scratch:
        folders = model_folders(arguments, Path(scratch))
        rows = open_rows(folders, arguments.threads)
        times = time_rows(rows, arguments.rounds)
        heading = f"{'AUC':>6} {'P@20':>6} {'1 step':>7} {'ms':>6}"
        print(f"{'weights':8} {'MB':>6} {'computed in':24} {heading}   AUC of each sequence")
        for row, spent in zip(rows, times, strict=True):
            scores = [evaluate(NetworkTracker(row.engine), sequence) for sequence in sequences]
            mean, size = mean_scores(scores), size_in_mb(folders[row.stored])
            one_step = np.mean([overlap_in_one_step(row.engine, sequence) for sequence in sequences])
            figures = f"{mean.success:6.3f} {mean.precision:6.3f} {one_step:7.4f} {spent:6.1f}"
            each = " ".join(f"{entry.success:.3f}" for entry in scores)
            print(f"{row.stored:8} {size:6.1f} {row.computed:24} {figures}   {each}", flush=True)


if __name__ == "__main__":
    main()
