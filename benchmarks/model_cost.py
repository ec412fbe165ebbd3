"""What every size costs: parameters, multiply-accumulates, and time per pair, on one machine and one runtime.

    python benchmarks/model_cost.py [--rounds 15] [--calls 4] [--models teacher-b student-b …] [--folders DIR]

Random weights: they cost as much as trained ones. The models take turns within one run, so that a busy moment of the
machine falls on all of them alike. Exporting teacher-b takes minutes and several GB; ``--folders`` keeps the exports.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from duotrack.engine import Engine
from duotrack.engine.engine import proof
from duotrack.engine.providers import default_threads
from duotrack.errors import ModelError
from duotrack.evaluation.machine import cpu_name
from duotrack.export import export_model
from duotrack.nets.cost import count_macs, macs
from duotrack.nets.models import MODELS, build_model, named_config

RATIOS = (("teacher-b", "student-b"), ("teacher-s", "student-s"), ("teacher-s", "student-t"))
RUNTIMES = (("openvino", "bf16"), ("openvino", "fp32"), ("cpu", "fp32"))


def print_costs(names: list[str]) -> None:
    print(f"\n{'model':12} {'params M':>9} {'template':>9} {'search GMAC':>12} {'counted by torch':>17} {'GFLOP':>7}")
    for name in names:
        config = named_config(name)
        model = build_model(config).eval()
        parameters = sum(parameter.numel() for parameter in model.parameters())
        formula, counted = macs(config), count_macs(model)
        print(
            f"{name:12} {parameters / 1e6:9.1f} {formula.template / 1e9:9.2f} {formula.search / 1e9:12.2f} "
            f"{counted.search / 1e9:17.2f} {2 * formula.search / 1e9:7.1f}",
            flush=True,
        )


def export_all(names: list[str], folder: Path) -> None:
    for name in names:
        if not (folder / name / "model.json").is_file():
            torch.manual_seed(0)
            started = time.perf_counter()
            export_model(build_model(named_config(name)), folder / name, name)
            print(f"exported {name} in {time.perf_counter() - started:.0f} s", flush=True)


def open_all(names: list[str], folder: Path, provider: str, precision: str, threads: int) -> dict[str, Engine]:
    engines = {}
    for name in names:
        try:
            engines[name] = Engine.open(folder / name, provider=provider, precision=precision, threads=threads)
        except ModelError as error:
            print(f"not measured: {error}")
    return engines


def measure(engines: dict[str, Engine], rounds: int, calls: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Milliseconds of each search pass, and the median of the template passes, for each model."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    templates: dict[str, list[float]] = {name: [] for name in engines}
    for round_number in range(rounds + 1):
        for name, engine in engines.items():
            template, crop, present = proof.proof_input(engine.spec)
            started = time.perf_counter()
            features = engine.encode(template)
            once = time.perf_counter() - started
            for _ in range(calls):
                started = time.perf_counter()
                engine.search(crop, present, features)
                if round_number:  # the first round warms up
                    times[name].append((time.perf_counter() - started) * 1e3)
            if round_number:
                templates[name].append(once * 1e3)
    return times, {name: float(np.median(values)) for name, values in templates.items()}


def print_times(times: dict[str, list[float]], templates: dict[str, float]) -> None:
    medians = {name: float(np.median(values)) for name, values in times.items()}
    for name, values in times.items():
        low, high = np.percentile(values, (10, 90))
        print(
            f"  {name:12} {medians[name]:7.1f} ms/pair   10-90 %: {low:.1f}-{high:.1f}   template {templates[name]:.1f}"
        )
    for teacher, student in RATIOS:
        if teacher in medians and student in medians:
            work = macs(MODELS[teacher]).search / macs(MODELS[student]).search
            ratio = medians[teacher] / medians[student]
            print(f"  {teacher} / {student}: {ratio:.2f} in time, {work:.2f} in multiply-accumulates")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=sorted(MODELS, reverse=True))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--folders", type=Path, help="keep the exported models here, and take those that are there")
    arguments = parser.parse_args()
    print(f"{cpu_name()}, {default_threads()} cores, load average {os.getloadavg()[0]:.1f} at the start")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}")
    print_costs(arguments.models)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folders or Path(scratch)
        export_all(arguments.models, folder)
        for provider, precision in RUNTIMES:
            for threads in sorted({1, default_threads()}):
                runs = arguments.rounds * arguments.calls
                print(f"\n{provider} {precision}, {threads} thread(s), batch 1, {runs} runs:")
                engines = open_all(arguments.models, folder, provider, precision, threads)
                print_times(*measure(engines, arguments.rounds, arguments.calls))
                print(f"  load average {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
