"""Tables that are looked at as they are: headline figures, speed, and loss reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from duotrack.evaluation.report.figures import MEANINGS, NONE, best, decimal, known, percent
from duotrack.evaluation.report.markup import Markup, element, join
from duotrack.evaluation.report.series import Series
from duotrack.evaluation.scores import BenchmarkScore, LossReports, Speed


@dataclass(frozen=True, slots=True)
class Column:
    """Numbers below each other, of which the best is marked.

    Attributes:
        meaning: what the name stands for, as a tooltip.
        bar: drawn beneath a share.
    """

    name: str
    values: Sequence[float | None]
    text: Callable[[float | None], str]
    lowest: bool = False
    meaning: str = ""
    marked: bool = True
    bar: bool = False


def headline_table(scores: Sequence[BenchmarkScore], figures: Sequence[str], series: Sequence[Series]) -> Markup:
    """Trackers by the set's figures in per cent, and speed where it was measured."""
    columns = [
        Column(name, [score.headline.get(name) for score in scores], percent, meaning=MEANINGS.get(name, ""), bar=True)
        for name in figures
    ]
    if any(score.speed for score in scores):
        p50 = [None if score.speed is None else score.speed.p50 for score in scores]
        p99 = [None if score.speed is None else score.speed.p99 for score in scores]
        rate = [None if median is None else 1000 / median for median in p50]
        columns += [
            Column("ms/pair", p50, decimal, True, "median milliseconds a pair"),
            Column("p99", p99, decimal, True, "milliseconds a pair, 99th percentile"),
            Column("pairs/s", rate, decimal, meaning="1000 / median"),
        ]
    return _table(columns, series)


def speed_notes(scores: Sequence[BenchmarkScore]) -> list[str]:
    """What the measured times are of."""
    notes = []
    for score in scores:
        speed = score.speed
        if speed is None:
            continue
        parts = "frames were generated: tracking alone" if speed.drawn else _parts(speed)
        alone = "" if speed.processes == 1 else f"; {speed.processes} processes side by side slowed each other"
        notes.append(f"{score.tracker}: {speed.pairs} pairs; {parts}{alone}")
    return notes


def _parts(speed: Speed) -> str:
    tracking = f"tracking {decimal(speed.track_p50)} ms (p99 {decimal(speed.track_p99)})"
    return f"reading and decoding {decimal(speed.read_p50)} ms, {tracking}"


def loss_table(reports: Sequence[LossReports], series: Sequence[Series]) -> Markup:
    """How each tracker says that it has lost the target."""
    found_again = "share of the returns after which the box was on the target again within 30 frames"
    return _table(
        [
            Column(
                "losses", [r.losses for r in reports], _count, meaning="times that the target vanished", marked=False
            ),
            Column("reported %", [r.reported for r in reports], percent, meaning="before the target came back"),
            Column("within 10 %", [r.within_10 for r in reports], percent, meaning="reported within 10 frames"),
            Column("delay", [r.delay for r in reports], decimal, True, "median frames from vanishing to the report"),
            Column(
                "false alarms %", [r.false_alarms for r in reports], percent, True, "of frames with a visible target"
            ),
            Column(
                "on target %",
                [r.unfounded for r in reports],
                percent,
                True,
                "of frames with a visible target: false alarms although the box was on it (IoU ≥ 0.5)",
            ),
            Column(
                "missed %", [r.missed for r in reports], percent, True, "frames off a visible target without a report"
            ),
            Column("returns", [r.returns for r in reports], _count, meaning="times that it came back", marked=False),
            Column("found again %", [r.found_within_30 for r in reports], percent, meaning=found_again),
        ],
        series,
    )


def _table(columns: Sequence[Column], series: Sequence[Series]) -> Markup:
    header = element(
        "tr",
        element("th", "tracker", scope="col"),
        *(element("th", column.name, scope="col", title=column.meaning or None) for column in columns),
    )
    rows = [
        element("tr", element("th", entry.name(), scope="row"), *(_value(column, row, entry) for column in columns))
        for row, entry in enumerate(series)
    ]
    return scrolling(element("table", element("thead", header), element("tbody", *rows)), "Figures of the trackers")


def _value(column: Column, row: int, series: Series) -> Markup:
    value, winner = column.values[row], best(column.values, lowest=column.lowest) if column.marked else None
    text = column.text(value)
    won = winner is not None and text == column.text(winner)
    shown = element("strong", text, title="best") if won else text
    return element("td", shown, bar(value, series) if column.bar else "", class_="best" if won else None)


def bar(share: float | None, series: Series) -> Markup:
    """A share as the length of a bar."""
    if known(share) is None:
        return Markup()
    width = 100 * min(max(float(share or 0), 0), 1)
    return element(
        "svg",
        element("rect", class_="track", width="100%", height="100%"),
        element("rect", class_=f"bar {series.look}", width=f"{width:.1f}%", height="100%"),
        class_="share",
        aria_hidden="true",
    )


def scrolling(table: Markup, label: str, kind: str = "") -> Markup:
    """A table in a container of its own, which scrolls where the page is narrower; by keyboard too."""
    return element("div", table, class_=f"scroll {kind}".strip(), tabindex=0, role="region", aria_label=label)


def lines(items: Sequence[str], class_: str) -> Markup:
    """Text lines as a list; nothing where there are none."""
    return element("ul", *(element("li", item) for item in items), class_=class_) if items else join(())


def _count(value: float | None) -> str:
    return NONE if value is None else str(int(value))
