"""The commands of the evaluation: eval, robustness, report; ``metrics`` is beside them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

from duotrack.errors import DuoTrackError, EvaluationError
from duotrack.evaluation.benchmark import BENCHMARKS, Benchmark, BenchmarkChoice, open_benchmark
from duotrack.evaluation.corruptions import CORRUPTIONS
from duotrack.evaluation.machine import describe_machine
from duotrack.evaluation.metrics_command import app as metrics
from duotrack.evaluation.report import (
    FailurePicture,
    ReportInputs,
    failure_pictures,
    markdown_table,
    require_page,
    write_report,
)
from duotrack.evaluation.robustness import plan_suite, robustness_curves
from duotrack.evaluation.runner import Follower, Job, Outcome, Report, Setup, claim, run
from duotrack.evaluation.scores import BenchmarkScore, LossReports, RobustnessCurve, read_json, write_json
from duotrack.evaluation.scoring import score_run
from duotrack.evaluation.sequences import Boxes
from duotrack.evaluation.track import read_track
from duotrack.evaluation.trackers import SWITCHES, TRACKERS, Modality, TrackerChoice
from duotrack.terminal import failure, progress_bar, reported_errors

app = typer.Typer()
app.add_typer(metrics)

BenchmarkOption = Annotated[str, typer.Option(help=f"One of {', '.join(BENCHMARKS)} (docs/benchmarks.md).")]
RootOption = Annotated[Path | None, typer.Option(help="The folder that the set was unpacked to.")]
SplitOption = Annotated[str | None, typer.Option(help="One of the set's splits; by default that which papers report.")]
LimitOption = Annotated[int, typer.Option(min=0, help="Take so many sequences, evenly spread; 0 is all.")]
TrackerOption = Annotated[str, typer.Option(help=f"One of {', '.join(TRACKERS)}.")]
ModelOption = Annotated[str | None, typer.Option(help="For duotrack: a shipped model's name, or an exported folder.")]
ModalityOption = Annotated[str, typer.Option(help="both, rgb or thermal: what the tracker is shown.")]
ProviderOption = Annotated[str | None, typer.Option(help="Execution provider; by default the fastest there is.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Threads of each tracker; by default all cores, shared.")
]
ProcessesOption = Annotated[
    int, typer.Option(min=1, help="Trackers side by side; times are only worth quoting with 1.")
]
WithoutOption = Annotated[
    list[str] | None, typer.Option(help=f"Switch off a part of duotrack: {', '.join(SWITCHES)}. May be repeated.")
]
WithOption = Annotated[list[str] | None, typer.Option("--with", help="Switch on what is off by default, likewise.")]
LabelOption = Annotated[str | None, typer.Option(help="The tracker's name in tables; by default its model's.")]
OutputOption = Annotated[Path, typer.Option(help="Folder of the run; an unfinished run in it goes on.")]


@app.command("eval")
def evaluate(
    benchmark: BenchmarkOption,
    output: OutputOption,
    root: RootOption = None,
    split: SplitOption = None,
    limit: LimitOption = 0,
    tracker: TrackerOption = "duotrack",
    model: ModelOption = None,
    modality: ModalityOption = "both",
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
    processes: ProcessesOption = 1,
    without: WithoutOption = None,
    with_: WithOption = None,
    label: LabelOption = None,
) -> None:
    """Run a tracker over a benchmark, and score it: OUTPUT/results/, OUTPUT/scores.json."""
    console = Console(stderr=True)
    with reported_errors():
        follower = _open(benchmark, root, split, limit, tracker, model, modality, provider, threads, without, with_)
        record = claim(output, follower, processes)
        jobs = [Job(output, name) for name in follower.benchmark.sequences]
        outcome = _run(follower, jobs, processes, console)
        _report_failures(outcome)
        score = score_run(output, follower.benchmark, label or _label(follower), record)
        if score is None:
            console.print(_nothing_to_score(output, follower.benchmark), markup=False, highlight=False, soft_wrap=True)
        else:
            write_json(output / "scores.json", score.to_record())
            _show(score, console)
    if outcome.failed or (score is not None and len(score.sequences) < len(jobs)):
        raise typer.Exit(1)


@app.command()
def robustness(
    benchmark: BenchmarkOption,
    output: OutputOption,
    root: RootOption = None,
    split: SplitOption = None,
    limit: LimitOption = 0,
    corruption: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(CORRUPTIONS)}. May be repeated; by default all.")
    ] = None,
    severities: Annotated[str | None, typer.Option(help="Comma-separated; by default each corruption's own.")] = None,
    tracker: TrackerOption = "duotrack",
    model: ModelOption = None,
    modality: ModalityOption = "both",
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
    processes: ProcessesOption = 1,
    without: WithoutOption = None,
    with_: WithOption = None,
    label: LabelOption = None,
) -> None:
    """Run a tracker over a benchmark whose frames are made worse, step by step: OUTPUT/robustness.json."""
    console = Console(stderr=True)
    steps = _numbers(severities)
    with reported_errors():
        follower = _open(benchmark, root, split, limit, tracker, model, modality, provider, threads, without, with_)
        suite = plan_suite(follower.benchmark, corruption or (), steps)
        claim(output, follower, processes)
        outcome = _run(follower, list(suite.jobs(output)), processes, console)
        _report_failures(outcome)
        if outcome.failed:
            raise EvaluationError("no curves, because sequences failed; the same command tries them again")
        curves = robustness_curves(suite, output, follower.benchmark, label or _label(follower))
        path = output / "robustness.json"
        drawn = {curve.corruption for curve in curves}
        kept = [curve for curve in _read_curves(path) if curve.corruption not in drawn]
        write_json(path, [curve.to_record() for curve in (*kept, *curves)])
        for curve in curves:
            typer.echo(_curve_line(curve))


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of eval and robustness runs; the first is looked at most.")
    ],
    output: Annotated[Path, typer.Option(help="The HTML file to write; tables go beside it as .json and .md.")],
    failures: Annotated[int, typer.Option(min=0, help="Sequences to show frames of.")] = 6,
    title: Annotated[str | None, typer.Option(help="By default the benchmarks' names.")] = None,
) -> None:
    """Write one HTML page that compares runs, readable without a network."""
    console = Console(stderr=True)
    with reported_errors():
        require_page(output)
        scores, curves = _read_runs(runs)
        pictures: tuple[FailurePicture, ...] = ()
        if failures and scores:
            pictures = _pictures(scores, failures, console)
        everything = dict.fromkeys((*(score.benchmark for score, _ in scores), *(curve.benchmark for curve in curves)))
        made = "; ".join((time.strftime("%Y-%m-%d"), *describe_machine().values()))
        inputs = ReportInputs(
            scores=tuple(score for score, _ in scores),
            robustness=curves,
            failures=pictures,
            title=title or f"Tracking on {' and '.join(everything)}",
            made=made,
        )
        for path in write_report(output, inputs):
            console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)


def _open(
    benchmark: str,
    root: Path | None,
    split: str | None,
    limit: int,
    tracker: str,
    model: str | None,
    modality: str,
    provider: str | None,
    threads: int | None,
    without: list[str] | None,
    with_: list[str] | None,
) -> Follower:
    switches = tuple(without or ()), tuple(with_ or ())
    choice = TrackerChoice(tracker, cast("Modality", modality), model, provider, threads, *switches)
    return Follower(Setup(BenchmarkChoice(benchmark, root, split, limit), choice))


def _label(follower: Follower) -> str:
    choice = follower.setup.tracker
    name = follower.opened.about["model"] if choice.name == "duotrack" else choice.name.upper()
    limits = (
        [choice.modality] * (choice.modality != "both") + [f"no {part}" for part in choice.without] + [*choice.with_]
    )
    return f"{name} ({', '.join(limits)})" if limits else name


def _run(follower: Follower, jobs: Sequence[Job], processes: int, console: Console) -> Outcome:
    frames = sum(len(follower.benchmark.sequences[job.sequence].boxes) for job in jobs if not job.result.is_file())
    with _progress(console, frames) as told:
        outcome = run(follower, jobs, processes=processes, report=told)
    if outcome.kept:
        console.print(f"{outcome.kept} of {len(jobs)} sequences were done before", highlight=False)
    return outcome


@contextmanager
def _progress(console: Console, frames: int) -> Iterator[Report]:
    with progress_bar(console) as progress:
        task = progress.add_task("frames", total=frames, state="")
        yield lambda name, more: progress.update(task, advance=more, state=name)


def _report_failures(outcome: Outcome) -> None:
    for name, reason in outcome.failed.items():
        failure(f"sequence {name}: {reason}")


def _show(score: BenchmarkScore, console: Console) -> None:
    typer.echo(markdown_table((score,)))
    if score.loss_reports is not None and score.loss_reports.losses:
        typer.echo(_loss_line(score.loss_reports))
    for note in score.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _nothing_to_score(output: Path, benchmark: Benchmark) -> str:
    return (
        f"note: {benchmark.label} has nothing to score: no sequence has a true box after its first frame; "
        f"the results are in {output / 'results'}"
    )


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise typer.BadParameter(f"expected numbers with commas, got {text!r}", param_hint="--severities") from error


def _loss_line(reports: LossReports) -> str:
    def share(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.1f} %"

    return (
        f"{reports.losses} losses: {share(reports.within_10)} reported within 10 frames, false alarms in "
        f"{share(reports.false_alarms)} of visible frames ({share(reports.unfounded)} with the box on the target); "
        f"{reports.returns} returns: {share(reports.found_within_30)} "
        "found within 30 frames\n"
    )


def _curve_line(curve: RobustnessCurve) -> str:
    points = "  ".join(f"{step:g}: {100 * auc:.1f}" for step, auc in zip(curve.severities, curve.success, strict=True))
    return f"{curve.corruption} ({curve.unit}): clean {100 * curve.clean:.1f}  {points}"


def _read_curves(path: Path) -> list[RobustnessCurve]:
    """None where there is no such file."""
    if not path.is_file():
        return []
    with _named(path):
        return [RobustnessCurve.from_record(entry) for entry in read_json(path)]


def _read_runs(runs: Sequence[Path]) -> tuple[list[tuple[BenchmarkScore, Path]], tuple[RobustnessCurve, ...]]:
    scores, curves = [], []
    for folder in runs:
        path = folder / "scores.json"
        found = _read_curves(folder / "robustness.json")
        if path.is_file():
            with _named(path):
                scores.append((BenchmarkScore.from_record(read_json(path)), folder))
        elif not found:
            raise EvaluationError(f"{folder} has neither scores.json nor robustness.json: has the run finished?")
        curves += found
    return scores, tuple(curves)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors about a record's content, with the file's name."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise EvaluationError(f"{path}: {error}") from error


def _pictures(
    scores: Sequence[tuple[BenchmarkScore, Path]], count: int, console: Console
) -> tuple[FailurePicture, ...]:
    """Frames of the failures on the first run's benchmark; none, with a word on why, where its frames are gone."""
    first, folder = scores[0]
    try:
        benchmark = _benchmark_of(folder)
    except (DuoTrackError, KeyError, TypeError) as error:
        console.print(f"no frames of failures: {error}", markup=False, highlight=False, soft_wrap=True)
        return ()
    boxes: dict[str, dict[str, Boxes]] = {}
    for score, place in scores:
        tracks = {entry.name: Job(place, entry.name).frames for entry in score.sequences}
        # Scores of result files from elsewhere come without tracks.
        if score.benchmark == first.benchmark and all(path.is_file() for path in tracks.values()):
            boxes[score.tracker] = {name: read_track(path).boxes for name, path in tracks.items()}
    return failure_pictures(list(benchmark.sequences.values()), boxes, benchmark=first.benchmark, count=count)


def _benchmark_of(folder: Path) -> Benchmark:
    choice = read_json(folder / "run.json")["choice"]["benchmark"]
    root = None if choice["root"] is None else Path(choice["root"])
    return open_benchmark(BenchmarkChoice(choice["name"], root, choice["split"], choice["limit"]))
