"""The headline figures as Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape

from duotrack.evaluation.report.figures import NONE, best, decimal, percent
from duotrack.evaluation.scores import BenchmarkScore, Speed


def markdown_table(scores: Sequence[BenchmarkScore]) -> str:
    """Headline figures in per cent and speed as Markdown; a table for each benchmark, the best in bold."""
    by_benchmark: dict[str, list[BenchmarkScore]] = {}
    for score in scores:
        by_benchmark.setdefault(score.benchmark, []).append(score)
    return "\n".join(_markdown(name, group) for name, group in by_benchmark.items())


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
