"""The report in a real browser: Debian's chromium, driven by playwright. Skipped where either is not installed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duotrack.evaluation.report import FailurePicture, ReportInputs, Shot, write_report
from duotrack.evaluation.scores import Axes, BenchmarkScore, Curves, LossReports, RobustnessCurve, SequenceScore, Speed

CHROMIUM = shutil.which("chromium")
NAMES = (
    "a-short-one",
    "<script>alert('x')</script>",
    "a_sequence_with_a_name_that_goes_on_and_on_without_a_break",
    "b",
)
TRACKERS = ("student-s", "a tracker whose label somebody made rather long", "KCF")
REPORTS = LossReports(4, 0.75, 3.0, 0.5, 0.015, 0.1, 2, None)


def inputs() -> ReportInputs:
    axes = Axes(np.linspace(0, 50, 51), np.linspace(0, 1, 21))
    scores, robustness = [], []
    for place, tracker in enumerate(TRACKERS):
        curves = Curves(np.linspace(0, 1, 51), np.linspace(1 - 0.2 * place, 0, 21))
        sequences = tuple(
            SequenceScore(
                f"{name}{number}",
                100 + (number * 37) % 50,
                {"PR": ((number * 11 + place) % 23) / 23, "SR": ((number * 5 + place) % 19) / 19},
                curves,
                0.5,
                ("fast motion", "OV") if number % 2 else ("TC",),
            )
            for number in range(6)
            for name in NAMES
            if (place, number, name) != (2, 3, "b")  # which the third tracker lacks
        )
        attributes = {name: {"PR": 0.5, "SR": 0.4, "count": 3} for name in ("fast motion", "OV", "TC")}
        speed = Speed(20.0, 31.5, 4.0, 15.5, 22.0, 98, drawn=False, processes=1)
        scores.append(
            BenchmarkScore("lasher test", tracker, {"PR": 0.5, "SR": 0.4}, axes, curves, sequences, attributes, speed)
        )
        robustness.append(
            RobustnessCurve("lasher test", tracker, "low light", "share", (0.1, 0.5), (0.4, 0.2), 0.5, (REPORTS,) * 2)
        )
    box = (10.0, 10.0, 30.0, 30.0)
    shot = Shot(0, "first frame", None, None, box, dict.fromkeys(TRACKERS, box), dict.fromkeys(TRACKERS, 1.0))
    failure = FailurePicture("lasher test", f"{NAMES[2]}0", (0.0, 0.0, 320.0, 240.0), (shot,) * 3, "lost")
    return ReportInputs(tuple(scores), tuple(robustness), (failure,), "A title", "made today")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    path, *_ = write_report(tmp_path_factory.mktemp("report") / "report.html", inputs())
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on the path")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield started
        started.close()


Opened = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, report: str) -> Iterator[Opened]:
    """``opened(width=…, color_scheme=…)``: the report in a context of its own, which must stay silent and alone."""
    contexts, said, asked = [], [], []

    def open_report(width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, offline=True, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(report)
        return tab

    yield open_report
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if url != report and not url.startswith("data:")] == []


def column(tab: Any, number: int) -> list[str]:
    """Texts of a column of the sequences' table, shown rows only."""
    script = """(number) => [...document.querySelectorAll('#b0-sequences tbody tr')]
        .filter((row) => !row.hidden).map((row) => row.cells[number].textContent)"""
    texts: list[str] = tab.evaluate(script, number)
    return texts


def numbers(tab: Any, number: int) -> list[float]:
    return [float(text) for text in column(tab, number)]


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_the_page_is_never_wider_than_the_window(opened: Opened, width: int) -> None:
    tab = opened(width)
    tab.locator("details > summary").click()
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    # the tables scroll by themselves
    assert tab.evaluate("[...document.querySelectorAll('.scroll')].every((box) => box.clientWidth <= innerWidth)")


def test_a_click_sorts_and_another_turns_round(opened: Opened) -> None:
    tab = opened()
    assert numbers(tab, 2) == sorted(numbers(tab, 2))  # worst first
    headers = tab.locator("#b0-sequences thead tr:last-child th")
    for number in (1, 3):
        headers.nth(number).locator("button").click()
        assert headers.nth(number).get_attribute("aria-sort") == "ascending"
        assert numbers(tab, number) == sorted(numbers(tab, number))
    headers.nth(3).locator("button").click()
    assert headers.nth(3).get_attribute("aria-sort") == "descending"
    assert numbers(tab, 3) == sorted(numbers(tab, 3), reverse=True)
    assert tab.locator("#b0-sequences th[aria-sort]").count() == 1


def test_what_is_missing_comes_last_either_way(opened: Opened) -> None:
    tab = opened()
    button = tab.locator("#b0-sequences thead tr:last-child th").nth(4).locator("button")
    for descending in (False, True):
        button.click()
        *texts, last = column(tab, 4)
        assert last == "–"
        values = [float(text) for text in texts]
        assert values == sorted(values, reverse=descending)


def test_the_keyboard_sorts(opened: Opened) -> None:
    tab = opened()
    tab.locator("#b0-sequences thead tr:last-child button").nth(0).focus()
    tab.keyboard.press("Enter")
    names = column(tab, 0)
    assert names[0] == "<script>alert('x')</script>0"
    tab.keyboard.press("Space")
    assert column(tab, 0) == names[::-1]


def test_filters_leave_the_rows_that_match(opened: Opened) -> None:
    tab = opened()
    form = tab.locator("form[data-table=b0-sequences]")
    form.locator("input").fill("SHORT")
    assert {name[:-1] for name in column(tab, 0)} == {"a-short-one"}
    assert form.locator("output").text_content() == "6 of 24 sequences"
    form.locator("select[name=tag]").select_option("OV")
    assert sorted(column(tab, 0)) == ["a-short-one1", "a-short-one3", "a-short-one5"]
    form.locator("input").fill("")
    form.locator("select[name=tag]").select_option("")
    assert form.locator("output").text_content() == "24 sequences"


def test_one_figure_is_shown_at_a_time(opened: Opened) -> None:
    tab = opened()
    shown = """() => [...document.querySelectorAll('#b0-sequences tbody tr:first-child td')]
        .filter((cell) => cell.offsetWidth).length"""
    assert tab.evaluate(shown) == 6  # frames, three trackers, the difference, attributes
    tab.locator("form[data-table=b0-sequences] select[name=figure]").select_option("1")
    assert tab.evaluate(shown) == 6
    assert tab.locator("#b0-sequences thead th.f1").first.is_visible()
    assert not tab.locator("#b0-sequences thead th.f0").first.is_visible()
    assert numbers(tab, 6) == sorted(numbers(tab, 6))  # and the rows go by it


def test_the_theme_follows_the_system_until_it_is_chosen(opened: Opened) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = opened(color_scheme="light"), opened(color_scheme="dark")
    colours = light.evaluate(ground), dark.evaluate(ground)
    assert colours[0] != colours[1]
    light.locator("button.theme").click()
    assert light.evaluate(ground) == colours[1]
    light.reload()
    assert light.evaluate(ground) == colours[1]  # remembered
    light.locator("button.theme").click()
    assert light.evaluate(ground) == colours[0]


def test_everything_is_there_without_the_script(opened: Opened) -> None:
    tab = opened(java_script_enabled=False)
    assert not tab.locator("button.theme").is_visible()
    assert not tab.locator("form.controls").first.is_visible()
    assert tab.locator("#b0-sequences tbody tr").count() == 24
    for figure in ("f0", "f1", "f2"):
        assert tab.locator(f"#b0-sequences thead th.{figure}").first.is_visible()


def test_text_stands_out_from_its_ground(opened: Opened) -> None:
    # WCAG 2.2: 4.5 for text, 3 for what is drawn; colours resolved by painting them
    script = """(names) => {
      const pen = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d');
      const probe = document.body.appendChild(document.createElement('i'));
      return names.map((name) => {
        probe.style.color = `var(--${name})`;
        pen.fillStyle = getComputedStyle(probe).color;
        pen.fillRect(0, 0, 1, 1);
        return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
      });
    }"""
    series = [f"series-{number}" for number in range(1, 9)]
    for scheme in ("light", "dark"):
        tab = opened(color_scheme=scheme)

        def luminance(name: str, tab: Any = tab) -> float:
            rgb = np.array(tab.evaluate(script, [name])[0]) / 255
            linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
            return float(linear @ (0.2126, 0.7152, 0.0722))

        def contrast(first: str, second: str) -> float:
            low, high = sorted((luminance(first), luminance(second)))
            return (high + 0.05) / (low + 0.05)

        for name, grounds, least in (
            ("ink", ("ground", "card", "best", "soft"), 4.5),
            ("muted", ("ground", "card", "soft"), 4.5),
            ("accent", ("card",), 4.5),
            ("ahead", ("card", "soft"), 4.5),
            ("behind", ("card", "soft"), 4.5),
            *((name, ("card",), 3.0) for name in series),
        ):
            for ground in grounds:
                assert contrast(name, ground) >= least, (scheme, name, ground)


def test_it_can_be_printed(opened: Opened, tmp_path: Path) -> None:
    tab = opened(color_scheme="dark")
    assert len(tab.pdf(path=tmp_path / "report.pdf")) > 10_000
    tab.emulate_media(media="print")
    assert not tab.locator("button.theme").is_visible()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate(
        "document.querySelector('.scroll.tall').scrollHeight <= document.querySelector('.scroll.tall').clientHeight"
    )
