"""Running a tracker over a benchmark: in several processes if wanted, and going on where an earlier run stopped.

A run folder holds ``run.json`` (what runs), ``results/NAME.txt`` (boxes, as the set's own tools read them),
``frames/NAME.csv`` (everything the tracker said, and times) and, at the end, ``scores.json``. A sequence is done when
its result file is there, and that appears whole and last; so that a run which was interrupted, killed, or failed on
some sequence goes on with the sequences that are not done.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any

from duotrack.data.whole_file import whole_file
from duotrack.engine.providers import default_threads
from duotrack.errors import DuoTrackError, EvaluationError
from duotrack.evaluation.benchmark import Benchmark, BenchmarkChoice, open_benchmark
from duotrack.evaluation.box_formats import format_rows
from duotrack.evaluation.corruptions import CorruptionChoice, corrupted
from duotrack.evaluation.machine import describe_machine
from duotrack.evaluation.scores import read_json, write_json
from duotrack.evaluation.sequences import BenchmarkPairs
from duotrack.evaluation.track import follow, write_track
from duotrack.evaluation.trackers import OpenedTracker, TrackerChoice

Report = Callable[[str, int], None]
"""Called with the name of a sequence and how many more of its frames are done."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What runs over what."""

    benchmark: BenchmarkChoice
    tracker: TrackerChoice


@dataclass(frozen=True, slots=True)
class Job:
    """One sequence to be tracked.

    Attributes:
        folder: of the run.
        sequence: name.
        corruption: what is done to the frames first.
    """

    folder: Path
    sequence: str
    corruption: CorruptionChoice | None = None

    @property
    def result(self) -> Path:
        return self.folder / "results" / f"{self.sequence}.txt"

    @property
    def frames(self) -> Path:
        return self.folder / "frames" / f"{self.sequence}.csv"


@dataclass(slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        done: sequences tracked now.
        kept: sequences that were done before.
        failed: names of sequences that could not be tracked, and why.
    """

    done: int = 0
    kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)


class Follower:
    """A benchmark and a tracker, opened once in a process, for any number of jobs.

    Raises:
        EvaluationError, SourceError, ModelError: as ``open_benchmark`` and ``TrackerChoice.open``.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.opened: OpenedTracker = setup.tracker.open()
        self.benchmark: Benchmark = open_benchmark(setup.benchmark)

    def __call__(self, job: Job, report: Report | None = None) -> int:
        """Track a sequence and write its files; the number of its frames.

        Raises:
            DuoTrackError: a frame cannot be read, the tracker cannot track this, or a file cannot be written.
        """
        sequence = prepared(self.benchmark.sequences[job.sequence], job.corruption)
        track = follow(self.opened.tracker, sequence, None if report is None else partial(report, job.sequence, 1))
        write_track(job.frames, track)
        with whole_file(job.result) as file:
            file.write(format_rows(track.boxes, self.benchmark.rules.form).encode())
        return len(track)


def prepared(sequence: BenchmarkPairs, corruption: CorruptionChoice | None) -> BenchmarkPairs:
    """The sequence that a job tracks."""
    return sequence if corruption is None else corrupted(sequence, corruption)


def run(follower: Follower, jobs: Iterable[Job], *, processes: int = 1, report: Report | None = None) -> Outcome:
    """Do the jobs that are not done.

    Args:
        follower: does them itself with one process; with more, each opens its own from the same setup.
        processes: trackers side by side. They share the machine's threads unless the tracker's choice says how many
            each has; with more than one, measured times are those of a busy machine.
        report: told of every frame with one process, of every finished sequence with more.

    Raises:
        EvaluationError: a worker process died.
    """
    outcome, waiting = Outcome(), []
    for job in jobs:
        if job.result.is_file():
            outcome.kept += 1
        else:
            waiting.append(job)
    ended = (
        _one_by_one(follower, waiting, report)
        if processes == 1
        else _side_by_side(follower.setup, waiting, processes, report)
    )
    for job, error in ended:
        if error is not None:
            outcome.failed[job.sequence] = str(error)
        else:
            outcome.done += 1
    return outcome


def _one_by_one(
    follower: Follower, jobs: Sequence[Job], report: Report | None
) -> Iterator[tuple[Job, DuoTrackError | None]]:
    """Each job, with what went wrong."""
    for job in jobs:
        try:
            follower(job, report)
        except DuoTrackError as error:
            yield job, error
        else:
            yield job, None


def _side_by_side(
    setup: Setup, jobs: Sequence[Job], processes: int, report: Report | None
) -> Iterator[tuple[Job, DuoTrackError | None]]:
    """Each job as it ends, with what went wrong."""
    if not jobs:
        return
    with _workers(setup, min(processes, len(jobs))) as pool:
        running = {pool.submit(_follow, job): job for job in jobs}
        for future in as_completed(running):
            job = running[future]
            try:
                frames = future.result()
            except DuoTrackError as error:
                yield job, error
            else:
                if report is not None:
                    report(job.sequence, frames)
                yield job, None


@contextmanager
def _workers(setup: Setup, count: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that end with this one, however it ends.

    Raises:
        EvaluationError: one of them died, with a job or before it had one.
    """
    threads = setup.tracker.threads or max(1, default_threads() // count)
    setup = replace(setup, tracker=replace(setup.tracker, threads=threads))
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start_worker, (setup,))
    try:
        yield pool
    except BaseException as error:
        for process in multiprocessing.active_children():
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise EvaluationError(
                "a worker process died (out of memory?); what was done so far is kept, and the same command goes on"
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_follower: Follower | None = None


def _start_worker(setup: Setup) -> None:
    global _follower
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told as well, and ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _follower = Follower(setup)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _follow(job: Job) -> int:
    assert _follower is not None
    return _follower(job)


def claim(folder: Path, follower: Follower, processes: int) -> dict[str, Any]:
    """Make ``folder`` the folder of this run, or find that it is already; the content of its ``run.json``.

    Raises:
        EvaluationError: the folder holds another run, or other files.
    """
    path = folder / "run.json"
    setup, opened = follower.setup, follower.opened
    benchmark = setup.benchmark
    wanted = {
        "benchmark": follower.benchmark.label,
        "root": None if benchmark.root is None else str(benchmark.root.resolve()),
        "limit": benchmark.limit,
        "tracker": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(setup.tracker).items()
            if name != "threads"
        },
        "model": opened.about.get("weights", opened.about["model"]),
    }
    if path.is_file():
        found = read_json(path)
        before = found.get("setup") if isinstance(found, dict) else None
        if before != wanted:
            differing = [name for name in wanted if not isinstance(before, dict) or before.get(name) != wanted[name]]
            raise EvaluationError(
                f"{folder} holds another run ({', '.join(differing)} differ): choose another --output, or remove it"
            )
        record: dict[str, Any] = found
    elif folder.is_dir() and any(folder.iterdir()):
        raise EvaluationError(f"{folder} has files, but no run.json: choose a new folder for --output")
    else:
        record = {"setup": wanted, "choice": _choices(setup), "processes": 0}
    about = {**opened.about, **describe_machine()}
    record["machines"] = [*(entry for entry in record.get("machines", ()) if entry != about), about]
    record["processes"] = max(record["processes"], processes)
    write_json(path, record)
    return record


def _choices(setup: Setup) -> dict[str, Any]:
    """Enough to open the benchmark again, for a report."""
    benchmark = asdict(setup.benchmark)
    benchmark["root"] = None if setup.benchmark.root is None else str(setup.benchmark.root.resolve())
    return {"benchmark": benchmark, "tracker": asdict(setup.tracker)}
