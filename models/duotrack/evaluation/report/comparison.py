"""The table of many rows in which trackers are compared: sequences, or attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from duotrack.evaluation.report.figures import MEANINGS, best, difference, known, percent, signed_percent
from duotrack.evaluation.report.markup import Markup, element
from duotrack.evaluation.report.series import Series
from duotrack.evaluation.report.tables import bar, scrolling


@dataclass(frozen=True, slots=True)
class Row:
    """A sequence or an attribute.

    Attributes:
        count: frames, or sequences.
        shares: by figure, one for each tracker, None where it has none.
        tags: the challenge attributes of a sequence.
        notes: shown beneath the name.
        target: id of an element that the name links to.
    """

    name: str
    count: int | None
    shares: Mapping[str, Sequence[float | None]]
    tags: Sequence[str] = ()
    notes: Sequence[str] = ()
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A table that sorts and that can show one figure at a time.

    Attributes:
        identity: unique in the page.
        names, counts: what the first columns hold.
        figures: the first is shown first, and orders the rows.
        filters: with fields for a name and for a tag.
    """

    identity: str
    caption: str
    names: str
    counts: str
    figures: Sequence[str]
    series: Sequence[Series]
    rows: Sequence[Row]
    filters: bool = False

    @property
    def markup(self) -> Markup:
        """The table, worst row of the first tracker first, with its controls."""
        tagged = any(row.tags for row in self.rows)
        rows = sorted(self.rows, key=self._worst)
        table = element(
            "table",
            element("thead", *self._header(tagged)),
            element("tbody", *(self._row(row, tagged) for row in rows)),
            id=self.identity,
            class_="sortable",
            data_figure=0,
        )
        tall = "tall" if len(rows) > 16 else ""
        return element("div", self._controls(), scrolling(table, self.caption, tall), class_="comparison")

    def _worst(self, row: Row) -> float:
        value = known(row.shares[self.figures[0]][0])
        return 2.0 if value is None else value

    def _controls(self) -> Markup:
        fields = []
        if len(self.figures) > 1:
            options = [element("option", name, value=place) for place, name in enumerate(self.figures)]
            fields.append(_field("figure", element("select", *options, name="figure")))
        if self.filters:
            fields.append(
                _field(self.names, element("input", type="search", name="name", placeholder="part of a name"))
            )
            tags = list(dict.fromkeys(tag for row in self.rows for tag in row.tags))
            if tags:
                options = [element("option", tag, value=tag) for tag in sorted(tags)]
                everything = element("option", "all", value="")
                fields.append(_field("attribute", element("select", everything, *options, name="tag")))
            fields.append(element("output", f"{len(self.rows)} {self.names}s", class_="count", aria_live="polite"))
        # nothing works without the script, which shows the fields
        return element(
            "form", *fields, class_="controls", data_table=self.identity, data_rows=f"{self.names}s", hidden=True
        )

    def _header(self, tagged: bool) -> tuple[Markup, Markup]:
        width = len(self.series) + (len(self.series) > 1)
        groups = [
            element("th", f"{name} (%)", colspan=width, scope="colgroup", class_=f"f{place}", title=MEANINGS.get(name))
            for place, name in enumerate(self.figures)
        ]
        columns = [
            element("th", _sorter(self.names), scope="col", class_="text"),
            element("th", _sorter(self.counts), scope="col"),
        ]
        for place in range(len(self.figures)):
            sorted_by = "ascending" if place == 0 else None
            for index, series in enumerate(self.series):
                columns.append(
                    element(
                        "th",
                        _sorter(series.name()),
                        scope="col",
                        class_=f"f{place}",
                        aria_sort=sorted_by if index == 0 else None,
                    )
                )
            if len(self.series) > 1:
                title = f"{self.series[0].label} less the best of the others, in percentage points"
                columns.append(element("th", _sorter("Δ"), scope="col", class_=f"f{place}", title=title))
        after = []
        if tagged:
            columns.append(element("th", _sorter("attributes"), scope="col", class_="text"))
            after.append(element("td"))
        first = element("tr", element("td", colspan=2), *groups, *after, class_="groups")
        return first, element("tr", *columns)

    def _row(self, row: Row, tagged: bool) -> Markup:
        name: str = row.name if row.target is None else element("a", row.name, href=f"#{row.target}")
        notes = [element("small", note) for note in row.notes]
        cells = [element("th", element("span", name, class_="name"), *notes, scope="row", data_value=row.name)]
        count = "" if row.count is None else str(row.count)
        cells.append(element("td", count, data_value=row.count))
        for place, figure in enumerate(self.figures):
            cells += self._shares(row.shares[figure], f"f{place}")
        if tagged:
            chips = [element("span", tag, class_="tag") for tag in row.tags]
            cells.append(element("td", *_spaced(chips), class_="tags", data_value=" ".join(row.tags)))
        return element("tr", *cells)

    def _shares(self, shares: Sequence[float | None], figure: str) -> list[Markup]:
        winner = percent(best(shares)) if best(shares) is not None else None
        cells = []
        for share, series in zip(shares, self.series, strict=True):
            text = percent(share)
            shown = element("strong", text) if text == winner else text
            cells.append(element("td", shown, bar(share, series), class_=figure, data_value=_exact(share)))
        if len(self.series) > 1:
            gap = difference(shares)
            sign = "" if gap is None else "ahead" if gap > 0 else "behind" if gap < 0 else ""
            cells.append(
                element("td", signed_percent(gap), class_=f"{figure} delta {sign}".strip(), data_value=_exact(gap))
            )
        return cells


def _sorter(content: str) -> Markup:
    return element("button", content, type="button")


def _field(name: str, control: Markup) -> Markup:
    return element("label", f"{name} ", control)


def _spaced(pieces: Sequence[Markup]) -> list[str]:
    return [part for piece in pieces for part in (piece, " ")][:-1]


def _exact(value: float | None) -> str | None:
    return None if known(value) is None else f"{value:.6f}"
