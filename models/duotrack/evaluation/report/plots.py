"""The charts of a section, made from its scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from duotrack.evaluation.report.axes import Axis, Heading, Scale, percent_axis, ticks
from duotrack.evaluation.report.figures import (
    known,
    normalised_figure,
    percent,
    precision_figure,
    ranked,
    success_figure,
)
from duotrack.evaluation.report.line_chart import Line, line_chart
from duotrack.evaluation.report.markup import Markup, number
from duotrack.evaluation.report.radar import radar_chart
from duotrack.evaluation.report.series import Series
from duotrack.evaluation.report.speed_chart import speed_chart
from duotrack.evaluation.scores import BenchmarkScore, Curve

Pick = Callable[[BenchmarkScore], tuple[Curve | None, Curve | None]]
"""Thresholds and shares of a score."""


def threshold_plots(scores: Sequence[BenchmarkScore], looks: Mapping[str, Series], prefix: str) -> list[Markup]:
    """Precision, normalised precision where any score has it, and success."""
    figures = tuple(dict.fromkeys(name for score in scores for name in score.headline))
    plots = [
        ("Precision", "centre error in pixels", precision_figure(figures), _precision),
        ("Normalised precision", "centre error in sizes of the true box", normalised_figure(figures), _normalised),
        ("Success", "overlap threshold (IoU)", success_figure(figures), _success),
    ]
    drawn = []
    for title, label, figure, pick in plots:
        heading = Heading(f"{prefix}-{title.lower().replace(' ', '-')}", title, f"{title} of frames over the {label}.")
        chart = _threshold_plot(heading, label, figure, pick, scores, looks)
        if chart is not None:
            drawn.append(chart)
    return drawn


def attribute_radars(
    scores: Sequence[BenchmarkScore], attributes: Sequence[str], looks: Mapping[str, Series], prefix: str
) -> list[Markup]:
    """Success and precision over the attributes; none with fewer than three, which make no polygon."""
    figures = tuple(dict.fromkeys(name for score in scores for name in score.headline))
    if len(attributes) < 3:
        return []
    charts: list[Markup] = []
    for figure in dict.fromkeys(filter(None, (success_figure(figures), precision_figure(figures)))):
        polygons = []
        for score in _by_figure(scores, figure):
            shares = {
                name: value
                for name in attributes
                if (value := known(score.attributes.get(name, {}).get(figure))) is not None
            }
            if shares:
                polygons.append((looks[score.tracker], percent(score.headline.get(figure)), shares))
        if polygons:
            said = "; ".join(f"{series.label}: {_listed(shares)}" for series, _, shares in polygons)
            heading = Heading(f"{prefix}-radar-{len(charts)}", f"{figure} by attribute (%)", f"{figure} in %. {said}")
            charts.append(radar_chart(heading, attributes, polygons))
    return charts


def speed_plot(scores: Sequence[BenchmarkScore], looks: Mapping[str, Series], prefix: str) -> Markup | None:
    """Speed against the success figure; None where no speed was measured."""
    figure = success_figure(tuple(dict.fromkeys(name for score in scores for name in score.headline)))
    points = [
        (looks[score.tracker], score.speed, value)
        for score in scores
        if score.speed is not None and figure and (value := known(score.headline.get(figure))) is not None
    ]
    if not points or figure is None:
        return None
    said = "; ".join(
        f"{series.label}: {speed.p50:.1f} ms, p99 {speed.p99:.1f} ms, {percent(value)} %"
        for series, speed, value in points
    )
    return speed_chart(Heading(f"{prefix}-speed", "Speed against accuracy", said), figure, points)


def _threshold_plot(
    heading: Heading,
    label: str,
    figure: str | None,
    pick: Pick,
    scores: Sequence[BenchmarkScore],
    looks: Mapping[str, Series],
) -> Markup | None:
    lines, limits = [], [0.0]
    for score in _by_figure(scores, figure):
        thresholds, shares = pick(score)
        if thresholds is None or shares is None or not len(thresholds):
            continue
        shown = percent(score.headline.get(figure)) if figure else ""
        lines.append(Line(looks[score.tracker], shown, _points(thresholds, shares)))
        limits.append(float(thresholds.max()))
    if len(limits) == 1:
        return None
    said = "; ".join(f"{line.series.label} {line.figure}" for line in lines)
    named = Heading(
        heading.identity,
        heading.title,
        f"{heading.description} {figure} in %: {said}." if figure else heading.description,
    )
    x = Axis(Scale.across(0, max(limits)), ticks(0, max(limits)), label, number)
    return line_chart(named, x, percent_axis(Scale.upwards(0, 1), "frames (%)"), lines)


def _points(thresholds: Curve, shares: Curve) -> list[tuple[float, float | None]]:
    return [
        (at, share if np.isfinite(share) else None)
        for at, share in zip(thresholds.tolist(), shares.tolist(), strict=True)
    ]


def _by_figure(scores: Sequence[BenchmarkScore], figure: str | None) -> list[BenchmarkScore]:
    """Best first, as legends list them."""
    by_name = {score.tracker: score for score in scores}
    return [by_name[name] for name in ranked({s.tracker: s.headline.get(figure) if figure else None for s in scores})]


def _listed(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {percent(share)}" for name, share in shares.items())


def _precision(score: BenchmarkScore) -> tuple[Curve | None, Curve | None]:
    return score.axes.precision, score.curves.precision


def _normalised(score: BenchmarkScore) -> tuple[Curve | None, Curve | None]:
    return score.axes.normalised, score.curves.normalised


def _success(score: BenchmarkScore) -> tuple[Curve | None, Curve | None]:
    return score.axes.success, score.curves.success
