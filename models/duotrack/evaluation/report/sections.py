"""A benchmark's section of the page, part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from duotrack.evaluation.report.comparison import Comparison, Row
from duotrack.evaluation.report.figures import success_figure
from duotrack.evaluation.report.gallery import boxes_legend, failure_article
from duotrack.evaluation.report.inputs import Section
from duotrack.evaluation.report.markup import Markup, element, join
from duotrack.evaluation.report.plots import attribute_radars, speed_plot, threshold_plots
from duotrack.evaluation.report.robustness_charts import loss_multiples, success_multiples
from duotrack.evaluation.report.series import Series
from duotrack.evaluation.report.tables import headline_table, lines, loss_table, speed_notes
from duotrack.evaluation.scores import BenchmarkScore


def benchmark_section(section: Section, looks: Mapping[str, Series], prefix: str) -> Markup:
    """The section; parts without data are left out.

    Args:
        prefix: of every id in it.
    """
    parts = [
        _results(section, looks, prefix),
        _attributes(section, looks, prefix),
        _sequences(section, looks, prefix),
        _failures(section, looks, prefix),
        _robustness(section, looks, prefix),
        _about(section.scores, looks),
    ]
    trackers = len({*(s.tracker for s in section.scores), *(c.tracker for c in section.robustness)})
    extent = [f"{trackers} tracker{'s' if trackers != 1 else ''}"]
    if section.scores:
        extent.append(f"{max(len(score.sequences) for score in section.scores)} sequences")
        extent.append(f"{max(sum(entry.frames for entry in score.sequences) for score in section.scores)} frames")
    notes = dict.fromkeys(note for score in section.scores for note in score.notes)
    return element(
        "section",
        element("h2", section.benchmark),
        element("p", " · ".join(extent), class_="extent"),
        lines([*notes], "notes"),
        *filter(None, parts),
        id=prefix,
        class_="benchmark",
    )


def _results(section: Section, looks: Mapping[str, Series], prefix: str) -> Markup | None:
    scores = section.scores
    if not scores:
        return None
    series = [looks[score.tracker] for score in scores]
    parts = [
        element("h3", "Results"),
        element("p", "Figures in %; the best of each is marked.", class_="hint"),
        headline_table(scores, section.figures, series),
        lines(speed_notes(scores), "footnotes"),
    ]
    reporting = [(looks[score.tracker], score.loss_reports) for score in scores if score.loss_reports is not None]
    if reporting:
        parts += [
            element("h4", "When the target is lost"),
            loss_table([reports for _, reports in reporting], [entry for entry, _ in reporting]),
        ]
    charts = [*threshold_plots(scores, looks, prefix), speed_plot(scores, looks, prefix)]
    parts.append(_grid([chart for chart in charts if chart is not None]))
    return join(parts)


def _attributes(section: Section, looks: Mapping[str, Series], prefix: str) -> Markup | None:
    scores = section.scores
    names = tuple(dict.fromkeys(name for score in scores for name in score.attributes))
    if not names:
        return None
    rows = [
        Row(
            name,
            _attribute_count(scores, name),
            {figure: [score.attributes.get(name, {}).get(figure) for score in scores] for figure in section.figures},
        )
        for name in names
    ]
    table = Comparison(
        f"{prefix}-attributes",
        "Figures by attribute",
        "attribute",
        "sequences",
        _success_first(section.figures),
        [looks[score.tracker] for score in scores],
        rows,
    )
    radars = attribute_radars(scores, names, looks, prefix)
    return join((element("h3", "Attributes"), _grid(radars) if radars else "", table.markup))


def _attribute_count(scores: Sequence[BenchmarkScore], name: str) -> int | None:
    counts = [int(score.attributes[name]["count"]) for score in scores if "count" in score.attributes.get(name, {})]
    return max(counts) if counts else None


def _sequences(section: Section, looks: Mapping[str, Series], prefix: str) -> Markup | None:
    scores = section.scores
    by_tracker = [{entry.name: entry for entry in score.sequences} for score in scores]
    pictured = {picture.sequence: _failure_id(prefix, place) for place, picture in enumerate(section.failures)}
    rows = []
    for name in dict.fromkeys(name for entries in by_tracker for name in entries):
        found = [entries.get(name) for entries in by_tracker]
        there = [entry for entry in found if entry is not None]
        shares: dict[str, list[float | None]] = {
            figure: [None if entry is None else entry.headline.get(figure) for entry in found]
            for figure in section.figures
        }
        shares["mean IoU"] = [None if entry is None else entry.overlap for entry in found]
        notes = [*dict.fromkeys(note for entry in there for note in entry.notes)]
        rows.append(Row(name, there[0].frames, shares, there[0].attributes, notes, pictured.get(name)))
    if not rows:
        return None
    table = Comparison(
        f"{prefix}-sequences",
        "Figures by sequence",
        "sequence",
        "frames",
        (*_success_first(section.figures), "mean IoU"),
        [looks[score.tracker] for score in scores],
        rows,
        filters=True,
    )
    said = "Worst first."
    if len(scores) > 1:
        first = scores[0].tracker
        said = f"Worst of {first} first. Δ is {first} less the best of the others, in percentage points."
    return join((element("h3", "Sequences"), element("p", said, class_="hint"), table.markup))


def _failures(section: Section, looks: Mapping[str, Series], prefix: str) -> Markup | None:
    if not section.failures:
        return None
    trackers = dict.fromkeys(name for picture in section.failures for shot in picture.shots for name in shot.boxes)
    articles = [
        failure_article(picture, looks, _failure_id(prefix, place)) for place, picture in enumerate(section.failures)
    ]
    return join((element("h3", "Worst failures"), boxes_legend([*trackers], looks), *articles))


def _failure_id(prefix: str, place: int) -> str:
    return f"{prefix}-failure-{place}"


def _robustness(section: Section, looks: Mapping[str, Series], prefix: str) -> Markup | None:
    curves = section.robustness
    charts = success_multiples(curves, looks, prefix)
    if not charts:
        return None
    said = "Success AUC as frames get worse; the unchanged benchmark is at the left, severities are evenly spaced."
    parts = [element("h3", "Robustness"), element("p", said, class_="hint"), _grid(charts, "small")]
    losses = loss_multiples(curves, looks, prefix)
    if losses:
        parts.append(element("details", element("summary", "Loss reports over severity"), _grid(losses, "small")))
    return join(parts)


def _about(scores: Sequence[BenchmarkScore], looks: Mapping[str, Series]) -> Markup | None:
    told = [score for score in scores if score.about]
    if not told:
        return None
    names = list(dict.fromkeys(name for score in told for name in score.about))
    cards = []
    for score in told:
        told_lines = [
            join((element("dt", name), element("dd", score.about[name]))) for name in names if name in score.about
        ]
        cards.append(
            element("div", element("h4", looks[score.tracker].name()), element("dl", *told_lines), class_="about")
        )
    return join((element("h3", "What ran, and where"), element("div", *cards, class_="cards")))


def _success_first(figures: Sequence[str]) -> tuple[str, ...]:
    first = success_figure(figures)
    return tuple(sorted(figures, key=lambda name: name != first))


def _grid(charts: Sequence[Markup], kind: str = "") -> Markup:
    return element("div", *charts, class_=f"charts {kind}".strip())
