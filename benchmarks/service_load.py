"""How many frame pairs a second the service tracks for N sessions, how long each takes, and how near that is to the
machine's bound.

    python benchmarks/service_load.py [--sessions 1 4 16 64] [--naive] [--polite] [--model NAME|DIR] [--rounds 3]

Every client is real: JPEG pairs of 640×480 over a WebSocket of its own, from this process to ``duotrack-serve`` in
another, with ``--in-flight`` pairs unanswered at a time. A p50 of a full service is therefore a queue's length: it is
about in-flight × sessions / pairs per second.

The bound is what the machine's cores would do if they did nothing but decode, crop, infer and update: cores / CPU
seconds of the library alone for one pair, on one thread, measured between the services in the same run. The clients
need CPU time of the same cores, and so does whatever else runs on the machine: the ratio to the bound is given as it
is, for what the clients left of the cores, and for what they and all others left.

``--naive`` puts ``naive_service.py`` beside it. ``--polite`` adds one live session of 10 pairs a second, alone and
beside nine that send all that their credit allows. Services start afresh in every round, and take turns in coming
first; figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx2
import uvloop

from duotrack import Tracker
from duotrack.engine import Engine
from duotrack.engine.providers import default_threads
from duotrack.evaluation.machine import describe_machine
from duotrack_client.protocol import Mode
from duotrack_service.decoding import decode_pair
from load_clients import Answer, Feed, Footage, Server, create, film, opened, serving

POLITE_FPS = 10.0
GREEDY = 9
WHOLE_WINDOW = 1_000_000  # pairs in flight: as many as the server's credit allows


@dataclass(frozen=True)
class Crowd:
    """Who streams at a time.

    Attributes:
        sessions: sessions of every_frame.
        in_flight: pairs that each of them leaves unanswered, at most.
        polite: whether a live session of ``POLITE_FPS`` is among them.
    """

    sessions: int
    in_flight: int
    polite: bool = False


@dataclass(frozen=True)
class Slice:
    """What happened in a stretch of time. CPU times are in seconds of one core.

    Attributes:
        latencies_ms: from send to result of each pair that the every_frame sessions got answered.
        polite_ms, polite_dropped: those of the polite session, and its pairs that were passed over.
    """

    elapsed_s: float
    latencies_ms: list[float]
    polite_ms: list[float]
    polite_dropped: int
    server_cpu_s: float
    clients_cpu_s: float
    others_cpu_s: float
    rss_mb: float

    @property
    def pairs(self) -> int:
        return len(self.latencies_ms)

    @property
    def pairs_per_second(self) -> float:
        return self.pairs / self.elapsed_s


async def stream(server: Server, footage: Footage, crowd: Crowd, warmup_s: float, seconds: float) -> Slice:
    """Let ``crowd`` stream, wait until all have got answers for ``warmup_s``, and watch for ``seconds``."""
    modes = [Mode.EVERY_FRAME] * crowd.sessions + [Mode.LIVE] * crowd.polite
    answers: list[list[Answer]] = [[] for _ in modes]
    async with httpx2.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as http, AsyncExitStack() as stack:
        tasks = []
        for mode, own in zip(modes, answers, strict=True):
            session = await create(http, footage.box, mode)
            feed = Feed(*await stack.enter_async_context(opened(session)), footage, own)
            work = feed.live(POLITE_FPS) if mode is Mode.LIVE else feed.every_frame(crowd.in_flight)
            tasks.append(asyncio.create_task(work))
        while not all(answers):
            _require_running(tasks)
            await asyncio.sleep(0.05)
        await asyncio.sleep(warmup_s)
        before = _clocks(server)
        await asyncio.sleep(seconds)
        after = _clocks(server)
        rss_mb = server.rss_mb
        _require_running(tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    elapsed, server_cpu, clients_cpu, machine_cpu = (end - start for start, end in zip(before, after, strict=True))
    seen = [[answer for answer in own if before[0] <= answer.received_s < after[0]] for own in answers]
    polite = seen.pop() if crowd.polite else []
    return Slice(
        elapsed_s=elapsed,
        latencies_ms=[answer.latency_ms for own in seen for answer in own],
        polite_ms=[answer.latency_ms for answer in polite],
        polite_dropped=sum(answer.dropped for answer in polite),
        server_cpu_s=server_cpu,
        clients_cpu_s=clients_cpu,
        others_cpu_s=max(0.0, machine_cpu - server_cpu - clients_cpu),
        rss_mb=rss_mb,
    )


def _require_running(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()


def _clocks(server: Server) -> tuple[float, float, float, float]:
    """Time now, and CPU time so far: of the server, of this process, of all that the machine runs."""
    # user nice system idle iowait irq softirq steal guest guest_nice, in ticks; user and nice hold the guests
    ticks = [int(value) for value in Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=9)[1:9]]
    busy = sum(ticks) - ticks[3] - ticks[4]
    return time.perf_counter(), server.cpu_s, time.process_time(), busy / os.sysconf("SC_CLK_TCK")


def alone(engine: Engine, footage: Footage, seconds: float) -> float:
    """CPU seconds of the library for one pair: decode, crop, infer, update."""
    tracker = Tracker(engine)
    tracker.init(decode_pair(footage.frame(0)), footage.box)
    pairs, began, worked = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() < began + seconds:
        pairs += 1
        tracker.update(decode_pair(footage.frame(pairs)))
    return (time.process_time() - worked) / pairs


def commands(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """The services to compare, by name, as commands that lack only the port."""
    options = ["--model", arguments.model]
    for name in ("provider", "threads"):
        if (value := getattr(arguments, name)) is not None:
            options += [f"--{name}", str(value)]
    services = {"service": [sys.executable, "-m", "duotrack_service", "--host", "127.0.0.1", *options]}
    if arguments.naive:
        services["naive"] = [sys.executable, str(Path(__file__).with_name("naive_service.py")), *options]
    return services


def run(
    arguments: argparse.Namespace, crowds: Sequence[Crowd], footage: Footage, scratch: Path
) -> tuple[list[float], dict[tuple[str, Crowd], list[Slice]]]:
    """CPU seconds per pair of the library alone, and what each service did with each crowd; both for each round."""
    engine = Engine.open(arguments.model, provider=arguments.provider, threads=1)
    services = commands(arguments)
    most = max(crowd.sessions for crowd in crowds) + 1
    environ = {
        "DUOTRACK_MAX_SESSIONS": str(2 * most),
        "DUOTRACK_STORE": "memory:",
        "DUOTRACK_CREATIONS_PER_MINUTE": "1000000",
    }
    costs: list[float] = []
    slices: dict[tuple[str, Crowd], list[Slice]] = {(name, crowd): [] for name in services for crowd in crowds}
    alone(engine, footage, 1.0)  # warms up
    for round_number in range(arguments.rounds):
        for name in sorted(services, reverse=round_number % 2 == 0):
            costs.append(alone(engine, footage, arguments.seconds / 2))
            with serving(services[name], scratch / f"{name}.log", environ) as server:
                for crowd in crowds:
                    watched = uvloop.run(stream(server, footage, crowd, arguments.warmup, arguments.seconds))
                    slices[name, crowd].append(watched)
        print(f"round {round_number + 1} of {arguments.rounds} done", file=sys.stderr, flush=True)
    return costs, slices


def middle(slices: Sequence[Slice], figure: Callable[[Slice], float]) -> float:
    """The median over the rounds."""
    return statistics.median(figure(one) for one in slices)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of all are not above, by the nearest rank; NaN of none."""
    ranked = sorted(values)
    return ranked[max(0, -int(-percent * len(ranked) // 100) - 1)] if ranked else float("nan")


def load_table(slices: dict[tuple[str, Crowd], list[Slice]], crowds: Sequence[Crowd], cost_s: float) -> list[str]:
    """Rows of Markdown: what each service did with each number of sessions."""
    cores = default_threads()
    rows = [
        "| server | sessions | pairs/s | p50 ms | p99 ms | server CPU ms/pair | clients CPU ms/pair "
        "| other load, cores | of the bound | of what clients leave | of what all others leave | MB/session |",
        "| --- " + "| ---: " * 11 + "|",
    ]
    for (name, crowd), seen in slices.items():
        if crowd not in crowds:
            continue
        rate = middle(seen, lambda one: one.pairs_per_second)
        clients = middle(seen, lambda one: one.clients_cpu_s / one.elapsed_s)
        others = middle(seen, lambda one: one.others_cpu_s / one.elapsed_s)
        row = (
            name,
            str(crowd.sessions),
            f"{rate:.1f}",
            f"{middle(seen, lambda one: percentile(one.latencies_ms, 50)):.1f}",
            f"{middle(seen, lambda one: percentile(one.latencies_ms, 99)):.1f}",
            f"{middle(seen, lambda one: one.server_cpu_s / one.pairs) * 1e3:.2f}",
            f"{middle(seen, lambda one: one.clients_cpu_s / one.pairs) * 1e3:.2f}",
            f"{others:.2f}",
            f"{rate * cost_s / cores:.2f}",
            f"{rate * cost_s / (cores - clients):.2f}",
            f"{rate * cost_s / (cores - clients - others):.2f}",
            session_memory(seen, slices[name, crowds[0]], crowd.sessions - crowds[0].sessions),
        )
        rows.append(f"| {' | '.join(row)} |")
    return rows


def session_memory(many: Sequence[Slice], few: Sequence[Slice], more: int) -> str:
    """Megabytes that each of ``more`` sessions adds."""
    if more <= 0:
        return "–"
    growth = [(after.rss_mb - before.rss_mb) / more for after, before in zip(many, few, strict=True)]
    return f"{statistics.median(growth):.2f}"


def polite_table(slices: dict[tuple[str, Crowd], list[Slice]]) -> list[str]:
    """Rows of Markdown: what became of the polite session."""
    rows = [
        "| server | beside it | p50 ms | p99 ms | answers/s | dropped/s | greedy pairs/s |",
        "| --- | --- " + "| ---: " * 5 + "|",
    ]
    for (name, crowd), seen in slices.items():
        if crowd.polite:
            row = (
                name,
                f"{crowd.sessions} greedy" if crowd.sessions else "nobody",
                f"{middle(seen, lambda one: percentile(one.polite_ms, 50)):.1f}",
                f"{middle(seen, lambda one: percentile(one.polite_ms, 99)):.1f}",
                f"{middle(seen, lambda one: len(one.polite_ms) / one.elapsed_s):.1f}",
                f"{middle(seen, lambda one: one.polite_dropped / one.elapsed_s):.1f}",
                f"{middle(seen, lambda one: one.pairs_per_second):.1f}",
            )
            rows.append(f"| {' | '.join(row)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--in-flight", type=int, default=2, help="unanswered pairs of a session")
    parser.add_argument("--model", default="student-t")
    parser.add_argument("--provider", default=None)
    parser.add_argument("--threads", type=int, default=None, help="threads of the services' model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds before each measurement")
    parser.add_argument("--naive", action="store_true", help="compare with the naive design")
    parser.add_argument("--polite", action="store_true", help="one polite live session, alone and beside nine greedy")
    arguments = parser.parse_args()
    footage = film()
    load = [Crowd(count, arguments.in_flight) for count in sorted(arguments.sessions)]
    polite = [Crowd(count, WHOLE_WINDOW, polite=True) for count in (0, GREEDY)] if arguments.polite else []
    loads_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        costs, slices = run(arguments, load + polite, footage, Path(scratch))
    cost = statistics.median(costs)
    for line in (*describe_machine().values(), f"load average {loads_before:.1f} at the start"):
        print(line)
    print(", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "openvino", "uvicorn", "websockets")))
    print(
        f"{arguments.model}, pairs of {footage.mean_bytes / 1e3:.0f} kB, {arguments.in_flight} in flight; medians of "
        f"{arguments.rounds} rounds of {arguments.seconds:g} s\n"
    )
    cores = default_threads()
    print(
        f"The library alone: {cost * 1e3:.2f} ms of CPU per pair ({min(costs) * 1e3:.2f} to {max(costs) * 1e3:.2f}), "
        f"so the bound of {cores} cores is {cores / cost:.1f} pairs/s.\n"
    )
    print("\n".join(load_table(slices, load, cost)))
    if polite:
        print(f"\nA polite live session, {POLITE_FPS:g} pairs a second:\n")
        print("\n".join(polite_table(slices)))


if __name__ == "__main__":
    main()
