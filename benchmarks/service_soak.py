"""Whether the service gives back what it takes: sessions come and go in all the ways they can, for an hour.

    python benchmarks/service_soak.py [--seconds 3600] [--burst 45] [--clients 6] [--model NAME|DIR]

In each burst, clients visit the service one session after the other: some say bye, some vanish or come back, some send
damaged images or break the protocol. Then all is quiet until the last session has ended, and what the process still
holds is noted: memory, threads, open files, asyncio tasks. At rest these figures can be compared: a straight line
through memory must not rise, and of the others there must not always be more in the last third than in the first. They
may come and go a little, as idle threads of pools do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import httpx2
from websockets.exceptions import ConnectionClosed

from duotrack.errors import DuoTrackError
from duotrack.evaluation.machine import describe_machine
from duotrack_client.protocol import CloseCode, Frame, Mode, Payload
from load_clients import Feed, Footage, Server, create, film, opened, serving

IDLE_S = 4.0  # of the service: how long the sessions of clients that vanished stay
REST_TIMEOUT_S = 60.0
IN_FLIGHT = 3
ROWS = 16
WARMUP = 0.2  # the share of all samples that are left out of the verdict
CONFIDENT = 2.0  # standard errors

Visit: TypeAlias = Callable[[httpx2.AsyncClient, Footage, random.Random], Awaitable[None]]


async def say_bye(http: httpx2.AsyncClient, footage: Footage, chance: random.Random) -> None:
    async with opened(await create(http, footage.box, Mode.EVERY_FRAME)) as stream:
        await Feed(*stream, footage, []).every_frame(IN_FLIGHT, chance.randint(1, 40))


async def watch_live(http: httpx2.AsyncClient, footage: Footage, chance: random.Random) -> None:
    async with opened(await create(http, footage.box, Mode.LIVE)) as stream:
        with suppress(TimeoutError):
            await asyncio.wait_for(Feed(*stream, footage, []).live(30.0), chance.uniform(0.2, 3.0))


async def vanish(http: httpx2.AsyncClient, footage: Footage, chance: random.Random) -> None:
    async with opened(await create(http, footage.box, Mode.EVERY_FRAME), bye=False) as (stream, hello):
        await Feed(stream, hello, footage, []).every_frame(IN_FLIGHT, chance.randint(1, 20))
        stream.transport.abort()


async def never_connect(http: httpx2.AsyncClient, footage: Footage, _: random.Random) -> None:
    await create(http, footage.box, Mode.EVERY_FRAME)


async def come_back(http: httpx2.AsyncClient, footage: Footage, chance: random.Random) -> None:
    session = await create(http, footage.box, Mode.EVERY_FRAME)
    for bye in (False, False, True):
        async with opened(session, bye=bye) as stream:
            await Feed(*stream, footage, []).every_frame(IN_FLIGHT, chance.randint(1, 15))


async def send_damaged_images(http: httpx2.AsyncClient, footage: Footage, chance: random.Random) -> None:
    async with opened(await create(http, footage.box, Mode.EVERY_FRAME)) as stream:
        feed = Feed(*stream, footage, [])
        for _ in range(chance.randint(1, 10)):
            await feed.every_frame(1, 1)
            await feed.send(damaged(footage.frame(0), chance))
            if (await feed.receive()).used:
                raise DuoTrackError("a damaged image was tracked")


def damaged(frame: Frame, chance: random.Random) -> Frame:
    """``frame`` with the colour image cut off in its middle, so that its header is sound and its pixels are not."""
    assert frame.rgb is not None
    data = frame.rgb.data[: chance.randint(len(frame.rgb.data) // 4, len(frame.rgb.data) // 2)]
    return Frame(frame.seq, frame.capture_us, Payload(frame.rgb.codec, data), frame.thermal)


async def break_protocol(http: httpx2.AsyncClient, footage: Footage, chance: random.Random) -> None:
    async with opened(await create(http, footage.box, Mode.EVERY_FRAME), bye=False) as (stream, hello):
        await Feed(stream, hello, footage, []).every_frame(1, 2)
        await stream.send(chance.randbytes(64))
        await expect_close(stream.recv, CloseCode.PROTOCOL_ERROR)


async def be_deleted(http: httpx2.AsyncClient, footage: Footage, chance: random.Random) -> None:
    session = await create(http, footage.box, Mode.EVERY_FRAME)
    async with opened(session, bye=False) as (stream, hello):
        await Feed(stream, hello, footage, []).every_frame(1, chance.randint(1, 10))
        (await http.delete(f"/v1/sessions/{session['id']}")).raise_for_status()
        await expect_close(stream.recv, CloseCode.NORMAL)


async def expect_close(receive: Callable[[], Awaitable[str | bytes]], code: CloseCode) -> None:
    """Read on until the server closes, which it must do with ``code``."""
    try:
        while True:
            await receive()
    except ConnectionClosed as closed:
        if closed.rcvd is None or closed.rcvd.code != code:
            raise DuoTrackError(f"expected the close code {code}, got {closed.rcvd}") from closed


VISITS: dict[str, Visit] = {
    visit.__name__: visit
    for visit in (
        say_bye,
        watch_live,
        vanish,
        never_connect,
        come_back,
        send_damaged_images,
        break_protocol,
        be_deleted,
    )
}


@dataclass(frozen=True)
class Sample:
    """What the service holds at rest; ``tasks`` is None where it does not tell."""

    hours: float
    visits: int
    rss_mb: float
    threads: int
    files: int
    tasks: int | None


@dataclass(frozen=True)
class Line:
    """The slope of a straight line through samples of memory, in MB an hour, and its standard error."""

    slope: float
    error: float


def fit(samples: Sequence[Sample]) -> Line:
    """The least squares line through memory over time; its error is unknown, and infinite, with less than three."""
    hours, memory = [sample.hours for sample in samples], [sample.rss_mb for sample in samples]
    if len(samples) < 3:
        return Line(0.0, float("inf"))
    slope, level = statistics.linear_regression(hours, memory)
    residual = sum((y - level - slope * x) ** 2 for x, y in zip(hours, memory, strict=True))
    spread = sum((x - statistics.fmean(hours)) ** 2 for x in hours)
    return Line(slope, (residual / (len(samples) - 2) / spread) ** 0.5)


def findings(samples: Sequence[Sample], allowed: float) -> list[str]:
    """What is wrong, a sentence each; nothing where the service gave back all it took.

    Args:
        allowed: growth of memory in MB an hour.
    """
    kept = samples[int(len(samples) * WARMUP) :]
    if not kept:
        return ["there is no sample"]
    line, third = fit(kept), -(-len(kept) // 3)
    early, late = kept[:third], kept[-third:]
    wrong = [
        f"{name} at rest: {highest} at most in the first third, {lowest} at least in the last"
        for name, highest, lowest in (
            ("threads", max(one.threads for one in early), min(one.threads for one in late)),
            ("open files", max(one.files for one in early), min(one.files for one in late)),
            ("asyncio tasks", max(one.tasks or 0 for one in early), min(one.tasks or 0 for one in late)),
        )
        if lowest > highest
    ]
    if line.slope - CONFIDENT * line.error > allowed:
        wrong.append(f"memory grows by {line.slope:.1f} ± {line.error:.1f} MB an hour, more than {allowed:g}")
    elif line.slope + CONFIDENT * line.error > allowed:
        wrong.append(f"too short to tell: memory grows by {line.slope:.1f} ± {line.error:.1f} MB an hour")
    return wrong


async def burst(server: Server, footage: Footage, clients: int, seconds: float, seed: int) -> Counter[str]:
    """Let ``clients`` visit the server for ``seconds``; how many visits of each kind, and of each kind of failure."""
    done: Counter[str] = Counter()
    until = time.monotonic() + seconds

    async def visit_on(http: httpx2.AsyncClient, chance: random.Random) -> None:
        while time.monotonic() < until:
            name = chance.choice(list(VISITS))
            try:
                await asyncio.wait_for(VISITS[name](http, footage, chance), 120)
            except (ConnectionClosed, httpx2.HTTPError, DuoTrackError, OSError, TimeoutError, ExceptionGroup) as error:
                print(f"{name} failed: {error!r}", file=sys.stderr, flush=True)
                done[f"{name} failed"] += 1
            else:
                done[name] += 1

    async with httpx2.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as http:
        await asyncio.gather(*(visit_on(http, random.Random(f"{seed} {client}")) for client in range(clients)))
    return done


def rest(server: Server) -> int | None:
    """Wait until the last session has ended; the service's asyncio tasks then, where it tells.

    Raises:
        DuoTrackError: sessions stay.
    """
    deadline = time.monotonic() + REST_TIMEOUT_S
    with httpx2.Client(base_url=server.url, timeout=10, trust_env=False) as http:
        while (sessions := http.get("/health/ready").json()["sessions"]) and time.monotonic() < deadline:
            time.sleep(0.2)
        if sessions:
            raise DuoTrackError(f"{sessions} sessions are still there {REST_TIMEOUT_S:g} s after the last client left")
        time.sleep(1.0)  # what their end has set off
        metrics = http.get("/metrics")
    found = re.search(r"^duotrack_tasks (\S+)", metrics.text, re.MULTILINE) if metrics.status_code == 200 else None
    return None if found is None else int(float(found[1]))


def soak(server: Server, footage: Footage, arguments: argparse.Namespace) -> tuple[list[Sample], Counter[str]]:
    samples: list[Sample] = []
    visits: Counter[str] = Counter()
    began = time.monotonic()
    while (passed := time.monotonic() - began) < arguments.seconds:
        left = arguments.seconds - passed
        visits += asyncio.run(burst(server, footage, arguments.clients, min(arguments.burst, left), len(samples)))
        tasks = rest(server)
        hours = (time.monotonic() - began) / 3600
        samples.append(Sample(hours, visits.total(), server.rss_mb, server.threads, server.files, tasks))
        print(f"{hours * 60:.1f} min, {visits.total()} visits, {server.rss_mb:.1f} MB", file=sys.stderr, flush=True)
    return samples, visits


def table(samples: Sequence[Sample]) -> list[str]:
    """Rows of Markdown: at most ``ROWS`` of the samples, evenly, the last among them."""
    step = -(-len(samples) // ROWS) or 1
    shown = samples[(len(samples) - 1) % step :: step]
    return [
        "| minutes | visits | RSS MB | threads | open files | tasks |",
        "| ---: " * 6 + "|",
        *(
            f"| {sample.hours * 60:.1f} | {sample.visits} | {sample.rss_mb:.1f} | {sample.threads} | {sample.files} "
            f"| {'–' if sample.tasks is None else sample.tasks} |"
            for sample in shown
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--burst", type=float, default=45.0, help="seconds between two rests")
    parser.add_argument("--clients", type=int, default=6, help="sessions at a time")
    parser.add_argument("--allowed", type=float, default=10.0, help="MB an hour by which flat memory may grow")
    parser.add_argument("--model", default="student-t")
    parser.add_argument("--store", default=None, help="the service's store; SQLite in a temporary folder by default")
    arguments = parser.parse_args()
    footage = film()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        environ = {
            "DUOTRACK_IDLE_S": str(IDLE_S),
            "DUOTRACK_STORE": arguments.store or f"sqlite:///{scratch}/sessions.db",
            "DUOTRACK_MAX_SESSIONS": "1000",  # those of clients that vanished stay for a while
            "DUOTRACK_CREATIONS_PER_MINUTE": "1000000",
        }
        command = [sys.executable, "-m", "duotrack_service", "--host", "127.0.0.1", "--model", arguments.model]
        with serving(command, Path(scratch) / "service.log", environ) as server:
            samples, visits = soak(server, footage, arguments)
    for line in (*describe_machine().values(), f"load average {load:.1f} at the start"):
        print(line)
    print(f"{arguments.model}, {arguments.clients} clients at a time, bursts of {arguments.burst:g} s\n")
    print("\n".join(table(samples)))
    print("\n" + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sorted(visits.items())))
    line = fit(samples[int(len(samples) * WARMUP) :])
    print(f"memory: {line.slope:+.1f} ± {line.error:.1f} MB an hour after the first {WARMUP:.0%}")
    failed = [f"{name}: {count}" for name, count in visits.items() if name.endswith("failed")]
    wrong = findings(samples, arguments.allowed) + failed
    print("\n".join(wrong) if wrong else "flat: nothing is left behind")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
