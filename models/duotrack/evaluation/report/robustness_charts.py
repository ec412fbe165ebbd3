"""Small multiples: what each corruption does to the success AUC, and to the reports of losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from duotrack.evaluation.report.axes import BOTTOM, HEIGHT, TOP, Axis, Heading, Scale, percent_axis
from duotrack.evaluation.report.figures import known, percent, ranked
from duotrack.evaluation.report.line_chart import Line, line_chart
from duotrack.evaluation.report.markup import Markup, element, number
from duotrack.evaluation.report.series import Series
from duotrack.evaluation.report.speed_chart import upper_limit
from duotrack.evaluation.scores import LossReports, RobustnessCurve

CLEAN = "clean"
MEASURES: Mapping[str, Callable[[LossReports], float | None]] = {
    "Reported within 10 frames": lambda reports: reports.within_10,
    "False alarms": lambda reports: reports.false_alarms,
}


def success_multiples(curves: Sequence[RobustnessCurve], looks: Mapping[str, Series], prefix: str) -> list[Markup]:
    """A chart for each corruption, all with the same axis upwards; severities are steps of one width."""
    values = [value for curve in curves for value in (curve.clean, *curve.success) if known(value) is not None]
    y = percent_axis(Scale.upwards(0, upper_limit(values)), "success AUC (%)")
    charts = []
    for place, (corruption, group) in enumerate(_by_corruption(curves).items()):
        steps = _steps(group)
        by_name = {curve.tracker: curve for curve in group}
        order = ranked({name: _mean(curve.success) for name, curve in by_name.items()})
        lines = []
        for name in order:
            curve = by_name[name]
            reached = dict(zip(curve.severities, curve.success, strict=True))
            points = [
                (0.0, known(curve.clean)),
                *((at + 1.0, known(reached.get(step))) for at, step in enumerate(steps)),
            ]
            lines.append(Line(looks[name], f"{percent(curve.clean)} → {percent(curve.success[-1])}", points))
        said = f"Success AUC in %, clean to most severe: {_said(lines)}."
        heading = Heading(f"{prefix}-robust-{place}", corruption, said)
        charts.append(line_chart(heading, _severity_axis(steps, group[0].unit, clean=True), y, lines, _divider(steps)))
    return charts


def loss_multiples(curves: Sequence[RobustnessCurve], looks: Mapping[str, Series], prefix: str) -> list[Markup]:
    """``MEASURES`` over severity, a chart for each measure and corruption; none without loss reports."""
    charts: list[Markup] = []
    for title, measure in MEASURES.items():
        values = [known(measure(reports)) for curve in curves for reports in curve.loss_reports if reports is not None]
        y = percent_axis(Scale.upwards(0, upper_limit([value for value in values if value is not None])), "share (%)")
        for corruption, group in _by_corruption(curves).items():
            steps = _steps(group)
            lines = [line for curve in group if (line := _loss_line(curve, measure, steps, looks)) is not None]
            if lines:
                said = f"Share in %, least to most severe: {_said(lines)}."
                heading = Heading(f"{prefix}-loss-{len(charts)}", f"{title}: {corruption}", said)
                charts.append(line_chart(heading, _severity_axis(steps, group[0].unit, clean=False), y, lines))
    return charts


def _loss_line(
    curve: RobustnessCurve,
    measure: Callable[[LossReports], float | None],
    steps: Sequence[float],
    looks: Mapping[str, Series],
) -> Line | None:
    shares = {
        severity: known(measure(reports))
        for severity, reports in zip(curve.severities, curve.loss_reports, strict=True)
        if reports is not None
    }
    if all(share is None for share in shares.values()):
        return None
    points = [(at + 1.0, shares.get(step)) for at, step in enumerate(steps)]
    there = [share for _, share in points if share is not None]
    return Line(looks[curve.tracker], f"{percent(there[0])} → {percent(there[-1])}", points)


def _by_corruption(curves: Sequence[RobustnessCurve]) -> dict[str, list[RobustnessCurve]]:
    groups: dict[str, list[RobustnessCurve]] = {}
    for curve in curves:
        if curve.severities:
            groups.setdefault(curve.corruption, []).append(curve)
    return groups


def _steps(curves: Sequence[RobustnessCurve]) -> list[float]:
    return sorted({severity for curve in curves for severity in curve.severities})


def _severity_axis(steps: Sequence[float], unit: str, *, clean: bool) -> Axis:
    """Step i at i + 1; the clean value at 0."""
    texts = {0: CLEAN} | {at + 1: f"{step:g}" for at, step in enumerate(steps)}
    low = -0.3 if clean else 0.5
    scale = Scale.across(low, len(steps) + 0.3 if clean else len(steps) + 0.5)
    places = [float(at) for at in texts if clean or at > 0]
    return Axis(
        scale, places, f"severity ({unit})" if unit else "severity", lambda at: texts.get(round(at), number(at))
    )


def _divider(steps: Sequence[float]) -> Markup:
    x = _severity_axis(steps, "", clean=True).scale(0.5)
    return element("line", class_="divider", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _said(lines: Sequence[Line]) -> str:
    return "; ".join(f"{line.series.label} {line.figure}" for line in lines)
