"""The report: the page shows the numbers it was given, charts have them in place, and nothing leaves the page."""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from dataclasses import dataclass, field, replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from duotrack.errors import EvaluationError, SourceError
from duotrack.evaluation.report import ReportInputs, markdown_report, markdown_table, page, report_record, write_report
from duotrack.evaluation.report.axes import Axis, Heading, Scale, logarithmic_ticks, ticks
from duotrack.evaluation.report.figures import best, difference, percent, ranked, signed_percent, success_figure
from duotrack.evaluation.report.line_chart import Line, line_chart
from duotrack.evaluation.report.markup import Markup, element, number
from duotrack.evaluation.report.radar import radar_chart, rings
from duotrack.evaluation.report.series import Series
from duotrack.evaluation.report.speed_chart import speed_chart
from duotrack.evaluation.scores import (
    Axes,
    BenchmarkScore,
    Curves,
    LossReports,
    RobustnessCurve,
    SequenceScore,
    Speed,
)

AXES = Axes(np.array([0.0, 20, 50]), np.array([0.0, 0.5, 1]), np.array([0.0, 0.2, 0.5]))
CURVES = Curves(np.array([0.0, 0.5, 1]), np.array([1.0, 0.5, 0]), np.array([0.0, 0.4, 1]))
SPEED = Speed(20.0, 31.5, 4.0, 15.5, 22.0, 98, drawn=False, processes=1)
REPORTS = LossReports(4, 0.75, 3.0, 0.5, 0.015, 0.1, 2, None, 0.006)
VOID = {"meta", "input"}


@dataclass
class Node:
    """An element of the page as a browser would have it."""

    name: str
    attributes: dict[str, str | None]
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, name: str, **wanted: str) -> list[Node]:
        """Elements below this one; ``class_`` must be among the classes."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                classes = (child.attributes.get("class") or "").split()
                if child.name == name and all(
                    value in classes if key == "class_" else child.attributes.get(key) == value
                    for key, value in wanted.items()
                ):
                    found.append(child)
                found += child.all(name, **wanted)
        return found

    def one(self, name: str, **wanted: str) -> Node:
        (found,) = self.all(name, **wanted)
        return found


class Tree(HTMLParser):
    """Parses, and refuses elements that are closed in another order than opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Node("", {})
        self._open = [self.root]
        self.feed(text)
        self.close()
        assert self._open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs))
        self._open[-1].children.append(node)
        if tag not in VOID:
            self._open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().name == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def parsed(text: str) -> Node:
    return Tree(text).root


def sequence(name: str, pr: float, sr: float, attributes: tuple[str, ...] = ("FM",)) -> SequenceScore:
    return SequenceScore(name, 99, {"PR": pr, "SR": sr}, CURVES, sr - 0.01, attributes)


def score(tracker: str, pr: float, sr: float, *, benchmark: str = "lasher test", **changes: object) -> BenchmarkScore:
    """A tracker's score on two sequences and three attributes."""
    return replace(
        BenchmarkScore(
            benchmark,
            tracker,
            {"PR": pr, "SR": sr},
            AXES,
            CURVES,
            (sequence("walker", pr + 0.1, sr + 0.1), sequence("crossing", pr - 0.1, sr - 0.1, ("FM", "OV"))),
            {
                name: {"PR": pr - step, "SR": sr - step, "count": count}
                for name, step, count in (("FM", 0.0, 2), ("OV", 0.1, 1), ("TC", 0.2, 7))
            },
        ),
        **changes,
    )


def curve(tracker: str, success: tuple[float, ...] = (0.5, 0.25), **changes: object) -> RobustnessCurve:
    blank = RobustnessCurve("lasher test", tracker, "low light", "share", (0.5, 1.0), success, 0.6, (None, REPORTS))
    return replace(blank, **changes)


def rows(table: Node) -> list[list[str]]:
    return [[cell.text for cell in row.children if isinstance(cell, Node)] for row in table.one("tbody").all("tr")]


def full() -> ReportInputs:
    return ReportInputs(
        (
            score("student", 0.714, 0.567, speed=SPEED, loss_reports=REPORTS, about={"provider": "openvino"}),
            score("CSRT", 0.5, 0.4, notes=("thermal is synthetic",)),
            score("student", 0.8, 0.6, benchmark="synthetic 1"),
        ),
        (curve("student"), curve("CSRT", (0.3, 0.2))),
        title="Two trackers",
        made="2026-11-23; duotrack 0.0",
    )


# the page


def test_the_headline_table_has_the_figures_and_marks_the_best() -> None:
    section = parsed(page(full())).one("section", id="b0")
    table, losses = section.all("table")[:2]
    assert [cell.text for cell in table.one("thead").all("th")] == ["tracker", "PR", "SR", "ms/pair", "p99", "pairs/s"]
    assert rows(table) == [["student", "71.4", "56.7", "20.0", "31.5", "50.0"], ["CSRT", "50.0", "40.0", "–", "–", "–"]]
    assert [cell.text for cell in table.all("td", class_="best")] == ["71.4", "56.7"]
    assert rows(losses) == [["student", "4", "75.0", "50.0", "3.0", "1.5", "0.6", "10.0", "2", "–"]]
    assert [bar.attributes["width"] for bar in table.all("rect", class_="bar")] == ["71.4%", "56.7%", "50.0%", "40.0%"]


def test_the_fastest_and_the_fewest_false_alarms_are_best() -> None:
    slow = score("slow", 0.5, 0.4, speed=SPEED, loss_reports=REPORTS)
    quick = score("quick", 0.5, 0.3, speed=replace(SPEED, p50=10.0), loss_reports=replace(REPORTS, false_alarms=0.0))
    headline, losses = parsed(page(ReportInputs((slow, quick)))).all("table")[:2]
    # equal as written is equally good
    assert [cell.text for cell in headline.all("td", class_="best")] == [
        "50.0",
        "40.0",
        "31.5",
        "50.0",
        "10.0",
        "31.5",
        "100.0",
    ]
    assert [cell.text for cell in losses.all("td", class_="best")].count("1.5") == 0
    assert "0.0" in [cell.text for cell in losses.all("td", class_="best")]


def test_sequences_are_compared_worst_first() -> None:
    table = parsed(page(full())).one("table", id="b0-sequences")
    groups, columns = table.one("thead").all("tr")
    assert [cell.text for cell in groups.all("th")] == ["SR (%)", "PR (%)", "mean IoU (%)"]
    per_figure = ["student", "CSRT", "Δ"]
    assert [cell.text for cell in columns.all("th")] == ["sequence", "frames", *3 * per_figure, "attributes"]
    assert rows(table) == [
        ["crossing", "99", "46.7", "30.0", "+16.7", "61.4", "40.0", "+21.4", "45.7", "29.0", "+16.7", "FM OV"],
        ["walker", "99", "66.7", "50.0", "+16.7", "81.4", "60.0", "+21.4", "65.7", "49.0", "+16.7", "FM"],
    ]
    (sorted_by,) = [cell for cell in columns.all("th") if cell.attributes.get("aria-sort")]
    assert (sorted_by.text, sorted_by.attributes["aria-sort"]) == ("student", "ascending")
    assert all(len(cell.all("button")) == 1 for cell in columns.all("th"))
    assert [row.all("td")[1].attributes["data-value"] for row in table.one("tbody").all("tr")] == [
        "0.467000",
        "0.667000",
    ]


def test_a_sequence_that_a_tracker_lacks_is_a_dash_and_has_no_difference() -> None:
    other = score("CSRT", 0.5, 0.4, sequences=(sequence("walker", 0.5, 0.4),))
    table = parsed(page(ReportInputs((score("student", 0.7, 0.5), other)))).one("table", id="b0-sequences")
    crossing = rows(table)[0]
    assert crossing[:5] == ["crossing", "99", "40.0", "–", "–"]
    assert table.one("tbody").all("tr")[0].all("td")[2].attributes.get("data-value") is None


def test_the_attribute_table_counts_sequences() -> None:
    table = parsed(page(full())).one("table", id="b0-attributes")
    assert [row[:5] for row in rows(table)] == [
        ["TC", "7", "36.7", "20.0", "+16.7"],
        ["OV", "1", "46.7", "30.0", "+16.7"],
        ["FM", "2", "56.7", "40.0", "+16.7"],
    ]


def test_each_benchmark_has_a_section_and_what_is_said_of_it_is_shown() -> None:
    root = parsed(page(full()))
    assert [node.text for node in root.all("h2")] == ["lasher test", "synthetic 1"]
    assert [node.attributes["href"] for node in root.one("nav").all("a")] == ["#b0", "#b1"]
    assert root.one("ul", class_="notes").text == "thermal is synthetic"
    assert root.one("dl").text == "provideropenvino"
    assert root.one("p", class_="made").text == "2026-11-23; duotrack 0.0"
    assert root.one("h1").text == root.one("head").one("title").text == "Two trackers"


def test_a_tracker_looks_the_same_in_every_section() -> None:
    inputs = ReportInputs(
        (score("CSRT", 0.5, 0.4), score("student", 0.7, 0.6), score("student", 0.8, 0.6, benchmark="b"))
    )
    root = parsed(page(inputs))
    for chart in ("b0-success", "b1-success"):
        named = {
            item.one("span", class_="series").text: item.attributes["class"]
            for item in root.one("figure", id=chart).all("li")
        }
        assert named["student"] == "c2 d2"


def test_legends_are_ranked_and_give_the_figure() -> None:
    inputs = ReportInputs((score("low", 0.3, 0.2), score("high", 0.7, 0.6)))
    items = parsed(page(inputs)).one("figure", id="b0-success").all("li")
    assert [item.text for item in items] == ["high60.0", "low20.0"]


def test_references_within_the_page_have_a_target() -> None:
    root = parsed(page(full()))
    identities = [node.attributes["id"] for node in every(root) if "id" in node.attributes]
    assert len(identities) == len(set(identities))
    for node in every(root):
        for name in (node.attributes.get("aria-labelledby") or "").split():
            assert name in identities
        if (node.attributes.get("href") or "").startswith("#"):
            assert node.attributes["href"][1:] in identities
        if "data-table" in node.attributes:
            assert node.attributes["data-table"] in identities


# safety


def every(node: Node) -> list[Node]:
    below = [child for child in node.children if isinstance(child, Node)]
    return [*below, *(deeper for child in below for deeper in every(child))]


EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>$title&amp;"


def test_names_from_outside_are_text() -> None:
    evil = score(
        EVIL,
        0.5,
        0.4,
        benchmark=f"bench {EVIL}",
        sequences=(replace(sequence(EVIL, 0.5, 0.4, (EVIL,)), notes=(EVIL,)),),
        attributes={f"{EVIL}{number}": {"PR": 0.5, "SR": 0.4, "count": 1} for number in range(3)},
        about={EVIL: EVIL},
        notes=(EVIL,),
    )
    wicked = replace(curve(EVIL), benchmark=evil.benchmark, corruption=EVIL, unit=EVIL)
    root = parsed(
        page(ReportInputs((evil, score("other", 0.3, 0.2, benchmark=evil.benchmark)), (wicked,), (), EVIL, EVIL))
    )
    assert len(root.all("script")) == 1
    assert not root.all("img")
    assert not [node for node in every(root) if any(name.startswith("on") for name in node.attributes)]
    assert root.one("h1").text == EVIL
    assert rows(root.one("table", id="b0-sequences"))[0][0] == EVIL + EVIL  # the name and the note
    assert root.one("table", id="b0-sequences").one("tbody").all("th")[0].attributes["data-value"] == EVIL


def test_nothing_is_fetched() -> None:
    text = page(full())
    root = parsed(text)
    for node in every(root):
        assert node.name not in {"link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "srcset", "action", "poster", "data", "style"):
            value = node.attributes.get(name) or ""
            assert value == "" or value.startswith(("#", "data:image/")), (node.name, name, value)
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"^\s*//.*$", "", root.one("script").text, flags=re.M))
    assert "url(" not in root.one("style").text
    assert "@import" not in root.one("style").text
    assert "http" not in text.replace("http-equiv", "")


def test_the_page_forbids_itself_all_but_its_own_script_and_style() -> None:
    root = parsed(page(full()))
    policy = root.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    assert policy is not None
    assert "default-src 'none'" in policy
    for name in ("script", "style"):
        digest = b64encode(sha256(root.one(name).text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert not [node for node in every(root) if "style" in node.attributes]


def test_text_is_escaped_once() -> None:
    assert element("b", "a < b & 'c'", Markup("<i></i>"), title='"', data_value=0.5, hidden=True, id=None) == (
        '<b title="&quot;" data-value="0.5" hidden>a &lt; b &amp; &#x27;c&#x27;<i></i></b>'
    )


# what may be missing


def test_one_tracker_without_anything_else_makes_a_page() -> None:
    bare = score(
        "alone",
        0.5,
        0.4,
        attributes={},
        sequences=(),
        curves=Curves(np.array([]), np.array([])),
        axes=Axes(np.array([]), np.array([])),
    )
    root = parsed(page(ReportInputs((bare,))))
    assert rows(root.one("table")) == [["alone", "50.0", "40.0"]]
    assert not root.all("td", class_="best")
    assert not root.all("figure")
    assert not root.all("nav")


def test_two_attributes_make_no_radar() -> None:
    two = {name: {"PR": 0.5, "SR": 0.4, "count": 1} for name in ("FM", "OV")}
    root = parsed(page(ReportInputs((score("alone", 0.5, 0.4, attributes=two),))))
    assert not root.all("figure", class_="radar")
    assert root.one("table", id="b0-attributes")
    assert [cell.text for cell in root.one("table", id="b0-sequences").all("th") if cell.text == "Δ"] == []


def test_speed_is_drawn_for_those_that_have_it() -> None:
    root = parsed(page(full()))
    assert [item.text for item in root.one("figure", id="b0-speed").all("li")] == ["student20.0 ms, 56.7"]
    assert not root.all("figure", id="b1-speed")
    assert "reading and decoding 4.0 ms, tracking 15.5 ms (p99 22.0)" in root.one("ul", class_="footnotes").text


def test_a_report_of_robustness_alone() -> None:
    root = parsed(page(ReportInputs((), (curve("student"),))))
    assert root.one("h2").text == "lasher test"
    assert len(root.all("figure")) == 3  # success, reports, false alarms


def test_inputs_that_make_no_report_are_refused() -> None:
    with pytest.raises(EvaluationError, match="at least one tracker"):
        ReportInputs(())
    with pytest.raises(EvaluationError, match="two scores of tracker 'a' on 'lasher test'"):
        ReportInputs((score("a", 0.5, 0.4), score("a", 0.4, 0.3)))


def test_values_that_are_not_finite_are_dashes() -> None:
    odd = score("odd", float("nan"), 0.4, curves=replace(CURVES, success=np.array([1.0, np.nan, 0])))
    root = parsed(page(ReportInputs((odd, score("even", 0.5, 0.3)))))
    assert rows(root.all("table")[0])[0] == ["odd", "–", "40.0"]
    assert "nan" not in "".join(str(list(node.attributes.values())) for node in every(root)).lower()


# charts


def test_a_curve_runs_where_the_axes_say() -> None:
    # the plot is 374 wide from 52 and 258 high above 270
    x = Axis(Scale.across(0, 50), ticks(0, 50), "pixels")
    y = Axis(Scale.upwards(0, 1), [0, 1], "share")
    line = Line(Series("a", 0), "50.0", [(0, 0.0), (25, 0.5), (30, None), (40, 0.75), (50, 1.0)])
    figure = parsed(line_chart(Heading("chart", "Precision", "words"), x, y, [line])).one("figure", id="chart")
    assert figure.all("path")[0].attributes["d"] == "M52 270L239 141M351.2 76.5L426 12"
    assert [node.text for node in figure.one("svg", role="img").children if isinstance(node, Node)][:2] == [
        "Precision",
        "words",
    ]
    assert [node.text for node in figure.all("text", class_="tick")] == ["0", "1", "0", "10", "20", "30", "40", "50"]
    assert [node.one("title").text for node in figure.all("polygon") if node.all("title")] == [
        "a: 0 at 0",
        "a: 0.5 at 25",
        "a: 0.75 at 40",
        "a: 1 at 50",
    ]


def test_the_radar_starts_at_the_top_and_goes_clockwise() -> None:
    # four spokes of 112 around (230, 150), to 0.8: the lengths are 112, 56, 28 and 84
    shares = {"N": 0.8, "E": 0.4, "S": 0.2, "W": 0.6}
    figure = parsed(radar_chart(Heading("r", "Radar", ""), list(shares), [(Series("a", 0), "", shares)]))
    assert figure.one("path", class_="area").attributes["d"] == "M230 38L286 150L230 178L146 150Z"
    assert [node.text for node in figure.all("text", class_="spoke")] == ["NN", "EE", "SS", "WW"]  # tooltip and label
    assert [node.attributes["text-anchor"] for node in figure.all("text", class_="spoke")] == [
        "middle",
        "start",
        "middle",
        "end",
    ]


def test_a_radar_with_a_gap_is_no_area() -> None:
    gap = {"N": 0.8, "E": 0.4, "S": math.nan, "W": 0.6}
    known = {name: value for name, value in gap.items() if not math.isnan(value)}
    figure = parsed(radar_chart(Heading("r", "Radar", ""), list(gap), [(Series("a", 0), "", known)]))
    assert not figure.all("path", class_="area")
    assert figure.all("path")[0].attributes["d"] == "M230 38L286 150M146 150M146 150L230 38"


@pytest.mark.parametrize(
    ("highest", "expected"),
    [
        (0.8, [0.2, 0.4, 0.6, 0.8]),
        (0.81, [0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.31, [0.1, 0.2, 0.3, 0.4]),
        (0.0, [0.025, 0.05, 0.075, 0.1]),
    ],
)
def test_the_outermost_ring_encloses_all(highest: float, expected: list[float]) -> None:
    assert rings(highest) == pytest.approx(expected)


def test_speed_has_a_whisker_to_the_slowest_hundredth() -> None:
    # from 10 / 1.5 to 40 * 1.5 is a factor of 9 = 3², along 374 from 52; 10 is at ln 1.5 / ln 9 of it
    fast = replace(SPEED, p50=10.0, p99=40.0)
    figure = parsed(speed_chart(Heading("s", "Speed", ""), "SR", [(Series("a", 0), fast, 0.5)]))
    whisker = figure.all("line", class_="whisker")[0].attributes
    assert float(whisker["x1"] or 0) == pytest.approx(52 + 374 * math.log(1.5) / math.log(9), abs=0.01)
    assert float(whisker["x2"] or 0) == pytest.approx(426 - 374 * math.log(1.5) / math.log(9), abs=0.01)
    assert whisker["y1"] == "12"  # the axis ends at 50 %


def test_robustness_starts_with_the_clean_value() -> None:
    root = parsed(page(full()))
    figure = root.one("figure", id="b0-robust-0")
    # places 0 (clean), 1 and 2 on an axis from -0.3 to 2.3; upwards to 60 %
    d = figure.one("path", class_="c1").attributes["d"]
    x = [52 + 374 * (at + 0.3) / 2.6 for at in range(3)]
    y = [270 - 258 * value / 0.6 for value in (0.6, 0.5, 0.25)]
    points = [tuple(map(float, point.split())) for point in re.split("[ML]", d or "")[1:]]
    np.testing.assert_allclose(points, list(zip(x, y, strict=True)), atol=0.006)
    assert [node.text for node in figure.all("text", class_="tick")][-3:] == ["clean", "0.5", "1"]
    assert [item.text for item in figure.all("li")] == ["student60.0 → 25.0", "CSRT60.0 → 20.0"]


def test_loss_reports_are_drawn_where_there_are_any() -> None:
    charts = parsed(page(full())).one("details").all("figure")
    assert [chart.one("figcaption").text for chart in charts] == [
        "Reported within 10 frames: low light",
        "False alarms: low light",
    ]
    assert [item.text for item in charts[0].all("li")] == ["student50.0 → 50.0", "CSRT50.0 → 50.0"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 50, [0, 10, 20, 30, 40, 50]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.5, [0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_logarithmic_ticks_are_one_two_five() -> None:
    assert logarithmic_ticks(4, 130) == pytest.approx([5, 10, 20, 50, 100])


def test_sixty_four_trackers_look_different() -> None:
    looks = [Series(str(place), place).look for place in range(64)]
    assert len(set(looks)) == 64
    assert len({look.split()[1] for look in looks[:8]}) == 8


# figures


def test_figures_are_written_as_papers_do() -> None:
    assert [percent(value) for value in (0.5674, 1.0, None, math.nan)] == ["56.7", "100.0", "–", "–"]
    assert [signed_percent(value) for value in (0.012, -0.0004, -0.2, None)] == ["+1.2", "0.0", "−20.0", "–"]
    assert success_figure(("PR", "NPR", "SR")) == "SR"
    assert success_figure(("MPR", "MSR")) == "MSR"
    assert success_figure(("AO",)) == "AO"
    assert [number(value) for value in (1.0, 0.125, -0.001, 100.0)] == ["1", "0.12", "0", "100"]


def test_the_best_needs_a_rival() -> None:
    assert best([0.5]) is None
    assert best([0.5, None]) is None
    assert best([0.5, 0.7, math.nan]) == 0.7
    assert best([3.0, 2.0], lowest=True) == 2.0
    assert difference([0.5, 0.4, None, 0.45]) == pytest.approx(0.05)
    assert difference([None, 0.4]) is None
    assert ranked({"a": None, "b": 0.1, "c": 0.2}) == ["c", "b", "a"]


# the other forms


def test_the_markdown_table() -> None:
    scores = (
        score("student", 0.714, 0.567, speed=SPEED),
        score("CSRT | <b>", 0.5, 0.567),
        score("alone", 0.8, 0.6, benchmark="synthetic 1"),
    )
    assert markdown_table(scores) == (
        "| lasher test | PR | SR | ms/pair (p50 / p99) |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| student | **71.4** | **56.7** | 20.0 / 31.5 |\n"
        "| CSRT \\| &lt;b&gt; | 50.0 | **56.7** | – |\n"
        "\n"
        "| synthetic 1 | PR | SR |\n"
        "| --- | ---: | ---: |\n"
        "| alone | 80.0 | 60.0 |\n"
    )


def test_the_markdown_has_the_notes_of_each_table() -> None:
    scores = (
        score("student", 0.714, 0.567, notes=("thermal is *synthetic*", "2 of 8 sequences were chosen by --limit")),
        score("alone", 0.8, 0.6, benchmark="synthetic 1"),
        score("CSRT", 0.5, 0.4, notes=("thermal is *synthetic*", "4 of 8 sequences were chosen by --limit")),
    )
    lasher, synthetic = markdown_table(scores).split("\n\n")
    assert markdown_report(scores) == (
        f"{lasher}\n\n"
        "- thermal is \\*synthetic\\*\n"
        "- 2 of 8 sequences were chosen by --limit\n"
        "- 4 of 8 sequences were chosen by --limit\n"
        f"\n{synthetic}"
    )


def test_the_record_holds_what_was_given() -> None:
    inputs = full()
    record = json.loads(json.dumps(report_record(inputs), allow_nan=False))
    assert record["title"] == "Two trackers"
    again = [BenchmarkScore.from_record(entry) for entry in record["scores"]]
    assert [entry.to_record() for entry in again] == [entry.to_record() for entry in inputs.scores]
    curves = [RobustnessCurve.from_record(entry) for entry in record["robustness"]]
    assert [entry.to_record() for entry in curves] == [entry.to_record() for entry in inputs.robustness]


def test_three_files_are_written(tmp_path: Path) -> None:
    paths = write_report(tmp_path / "new" / "report.html", full())
    assert [path.name for path in paths] == ["report.html", "report.json", "report.md"]
    assert paths[0].read_text(encoding="utf-8") == page(full())
    assert json.loads(paths[1].read_text())["format"] == 1
    assert paths[2].read_text(encoding="utf-8") == markdown_report(full().scores)


@pytest.mark.parametrize("name", ["report.json", "report.md", "report", "html"])
def test_a_page_that_another_file_would_replace_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EvaluationError, match=rf"ends in \.html for the page, got .*{name}"):
        write_report(tmp_path / name, full())
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match=r"cannot write .*report\.html"):
        write_report(tmp_path / "file" / "report.html", full())


def test_a_name_that_is_no_text_can_be_written(tmp_path: Path) -> None:
    odd = score("caf\udce9", 0.5, 0.4)
    path, *_ = write_report(tmp_path / "report.html", ReportInputs((odd,)))
    assert "caf?" in path.read_text(encoding="utf-8")
