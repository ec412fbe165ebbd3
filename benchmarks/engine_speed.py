"""Milliseconds per frame pair of the engine, for every provider and precision that runs here, with one thread and more.

    python benchmarks/engine_speed.py [--model NAME|DIR] [--rounds 5]

The configurations take turns within one run, so that a busy moment of the machine falls on all of them alike.
"""

from __future__ import annotations

import argparse
import os
import platform
import time

import numpy as np
import onnxruntime

from duotrack.boxes import Box, CropWindow
from duotrack.crops import crop_pair
from duotrack.engine import Engine
from duotrack.engine.engine import proof
from duotrack.engine.providers import PROVIDERS, default_threads
from duotrack.errors import ModelError
from duotrack.evaluation.machine import cpu_name
from duotrack.frames import FramePair

CALLS = 20


def open_all(model: str | None) -> dict[str, Engine]:
    engines = {}
    for provider in PROVIDERS:
        for precision in ("bf16", "fp32"):
            for threads in sorted({1, default_threads()}):
                try:
                    engine = Engine.open(model, provider=provider, precision=precision, threads=threads)
                except ModelError as error:
                    print(f"not measured: {error}")
                    break
                engines[f"{provider:16} {precision} {threads} thread{'s' if threads > 1 else ' '}"] = engine
    return engines


def time_calls(engine: Engine) -> tuple[list[float], float]:
    """Milliseconds of each search call, and of one template call."""
    template, crop, present = proof.proof_input(engine.spec)
    started = time.perf_counter()
    features = engine.encode(template)
    once = (time.perf_counter() - started) * 1e3
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        engine.search(crop, present, features)
        times.append((time.perf_counter() - started) * 1e3)
    return times, once


def time_crops() -> list[float]:
    """Milliseconds to cut a search crop from a 640×480 pair."""
    rng = np.random.default_rng(0)
    pair = FramePair(rng.integers(0, 256, (480, 640, 3), np.uint8), rng.integers(0, 256, (480, 640), np.uint8))
    window = CropWindow.around(Box(250, 180, 60, 80), 4.0, 256)
    times = []
    for _ in range(200):
        started = time.perf_counter()
        crop_pair(pair, window, None)
        times.append((time.perf_counter() - started) * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{cpu_name()}, {default_threads()} cores, load average {load:.1f} at the start")
    print(f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}")
    engines = open_all(arguments.model)
    times: dict[str, list[float]] = {name: [] for name in engines}
    templates: dict[str, list[float]] = {name: [] for name in engines}
    for round_number in range(arguments.rounds + 1):
        for name, engine in engines.items():
            calls, once = time_calls(engine)
            if round_number:  # the first round warms up
                times[name] += calls
                templates[name].append(once)
    print(f"\n{'ms per pair, batch 1':36} {'median':>7} {'min':>7} {'p99':>7} {'template':>9}")
    for name, values in times.items():
        row = np.median(values), min(values), np.percentile(values, 99), np.median(templates[name])
        print(f"{name:36} {row[0]:7.2f} {row[1]:7.2f} {row[2]:7.2f} {row[3]:9.2f}")
    crops = time_crops()
    print(f"{'crop of a 640x480 pair (1 thread)':36} {np.median(crops):7.2f} {min(crops):7.2f}")


if __name__ == "__main__":
    main()
