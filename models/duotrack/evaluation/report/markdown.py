"""The headline figures as Markdown, and what they must be read with."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape

from duotrack.evaluation.report.figures import NONE, best, decimal, percent
from duotrack.evaluation.scores import BenchmarkScore, Speed


def markdown_table(scores: Sequence[BenchmarkScore]) -> str:
    """Headline figures in per cent and speed as Markdown; a table for each benchmark, the best in bold."""
    return "\n".join(_markdown(name, group) for name, group in _by_benchmark(scores).items())


def markdown_report(scores: Sequence[BenchmarkScore]) -> str:
    """The tables of ``markdown_table``, each with a list of its scores' notes."""
    groups = _by_benchmark(scores).items()
    return "\n".join("\n".join(filter(None, (_markdown(name, group), _notes(group)))) for name, group in groups)


def _by_benchmark(scores: Sequence[BenchmarkScore]) -> dict[str, list[BenchmarkScore]]:
    groups: dict[str, list[BenchmarkScore]] = {}
    for score in scores:
        groups.setdefault(score.benchmark, []).append(score)
    return groups


def _notes(scores: Sequence[BenchmarkScore]) -> str:
    notes = dict.fromkeys(note for score in scores for note in score.notes)
    return "".join(f"- {_cell(note)}\n" for note in notes)


def _markdown(benchmark: str, scores: Sequence[BenchmarkScore]) -> str:
    figures = list(dict.fromkeys(name for score in scores for name in score.headline))
    columns = [[score.headline.get(name) for score in scores] for name in figures]
    written = [_bold_best(column, percent) for column in columns]
    names = list(figures)
    if any(score.speed for score in scores):
        names.append("ms/pair (p50 / p99)")
        written.append([_times(score.speed) for score in scores])
    header = [_cell(benchmark), *map(_cell, names)]
    rows = [[_cell(score.tracker), *(column[row] for column in written)] for row, score in enumerate(scores)]
    rule = ["---", *("---:" for _ in names)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *rows))


def _times(speed: Speed | None) -> str:
    return NONE if speed is None else f"{decimal(speed.p50)} / {decimal(speed.p99)}"


def _bold_best(values: Sequence[float | None], text: Callable[[float | None], str]) -> list[str]:
    winner = best(values)
    texts = [text(value) for value in values]
    return texts if winner is None else [f"**{shown}**" if shown == text(winner) else shown for shown in texts]


def _cell(text: str) -> str:
    """Text that Markdown shows as it is: no tags, no ends of cells or lines."""
    one_line = escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\|`*_\[\]])", r"\\\1", one_line)
