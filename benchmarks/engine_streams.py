"""Frame pairs per second of the engine by streams, threads and batch: what a service should run its sessions with.

    python benchmarks/engine_streams.py [--model NAME|DIR] [--provider NAME] [--rounds 5] [--seconds 0.4]

As many callers as there are streams call ``search`` one batch after the other. The configurations take turns within one
run, so that a busy moment of the machine falls on all of them alike.
"""

from __future__ import annotations

import argparse
import os
import platform
import threading
import time
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from duotrack.engine import Engine
from duotrack.engine.engine import proof
from duotrack.engine.providers import default_threads
from duotrack.evaluation.machine import cpu_name


@dataclass(frozen=True)
class Setting:
    streams: int
    threads: int
    batch: int


@dataclass(frozen=True)
class Slice:
    """What one setting did in a stretch of time.

    Attributes:
        pairs_per_second: of all callers together.
        cpu_ms: time of the process on all its cores, for each pair.
        calls_ms: how long each call took.
    """

    pairs_per_second: float
    cpu_ms: float
    calls_ms: list[float]


def settings(cores: int, batches: list[int]) -> list[Setting]:
    """One thread alone, and then all cores, divided among 1, 2, 4 … streams."""
    streams = sorted({min(2**power, cores) for power in range(cores.bit_length() + 1)})
    return [Setting(1, 1, batch) for batch in batches] + [
        Setting(count, cores, batch) for count in streams if cores > 1 for batch in batches
    ]


def run(engine: Engine, setting: Setting, seconds: float) -> Slice:
    template, crop, present = proof.proof_input(engine.spec)
    crops, presents = crop.repeat(setting.batch, axis=0), present.repeat(setting.batch, axis=0)
    features = engine.encode(template).repeat(setting.batch, axis=0)
    calls_ms: list[list[float]] = [[] for _ in range(setting.streams)]
    ready = threading.Barrier(setting.streams + 1)

    def call(times: list[float]) -> None:
        ready.wait()
        while time.perf_counter() < began + seconds:
            start = time.perf_counter()
            engine.search(crops, presents, features)
            times.append((time.perf_counter() - start) * 1e3)

    callers = [threading.Thread(target=call, args=(times,)) for times in calls_ms]
    for caller in callers:
        caller.start()
    began, worked = time.perf_counter(), time.process_time()
    ready.wait()
    for caller in callers:
        caller.join()
    elapsed, worked = time.perf_counter() - began, time.process_time() - worked
    calls = [duration for times in calls_ms for duration in times]
    pairs = len(calls) * setting.batch
    return Slice(pairs / elapsed, worked * 1e3 / pairs, calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--provider", default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4, help="length of each measurement")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8])
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{cpu_name()}, {default_threads()} cores, load average {load:.1f} at the start")
    versions = ", ".join(f"{package} {version(package)}" for package in ("onnxruntime", "openvino"))
    print(f"Python {platform.python_version()}, {versions}")
    slices: dict[Setting, list[Slice]] = {setting: [] for setting in settings(default_threads(), arguments.batches)}
    engines = {
        (streams, threads): Engine.open(arguments.model, provider=arguments.provider, threads=threads, streams=streams)
        for streams, threads in sorted({(setting.streams, setting.threads) for setting in slices})
    }
    report = next(iter(engines.values())).report
    print(f"{report.model} on {report.provider} ({report.runtime}), {report.precision}")
    for round_number in range(arguments.rounds + 1):
        for setting, measured in slices.items():
            one = run(engines[setting.streams, setting.threads], setting, arguments.seconds)
            if round_number:  # the first round warms up
                measured.append(one)
    print(f"\n{'':22} {'pairs per second':>17} {'ms per call':>15} {'CPU ms':>9}")
    print(
        f"{'streams':>7} {'threads':>7} {'batch':>6} {'median':>9} {'best':>7} {'median':>7} {'p99':>7} {'per pair':>9}"
    )
    for setting, measured in slices.items():
        rates = [one.pairs_per_second for one in measured]
        calls = [duration for one in measured for duration in one.calls_ms]
        print(
            f"{setting.streams:7} {setting.threads:7} {setting.batch:6} {np.median(rates):9.1f} {max(rates):7.1f} "
            f"{np.median(calls):7.1f} {np.percentile(calls, 99):7.1f} {min(one.cpu_ms for one in measured):9.2f}"
        )


if __name__ == "__main__":
    main()
