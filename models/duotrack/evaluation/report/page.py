"""The whole page: one HTML file with its styles, script and images inside."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from string import Template

from duotrack.data.whole_file import whole_file
from duotrack.errors import EvaluationError
from duotrack.evaluation.report.inputs import ReportInputs, report_record
from duotrack.evaluation.report.markdown import markdown_report
from duotrack.evaluation.report.markup import Markup, element, join
from duotrack.evaluation.report.sections import benchmark_section
from duotrack.evaluation.report.series import Series


def write_report(path: Path, inputs: ReportInputs) -> tuple[Path, ...]:
    """Write the page, and beside it the record as JSON and the headline tables as Markdown; the paths written.

    Raises:
        EvaluationError: see ``require_page``.
        SourceError: a file cannot be written.
    """
    require_page(path)
    contents = {
        path: page(inputs),
        path.with_suffix(".json"): json.dumps(report_record(inputs), indent=1, allow_nan=False) + "\n",
        path.with_suffix(".md"): markdown_report(inputs.scores),
    }
    for place, text in contents.items():
        with whole_file(place) as file:
            # names of files may hold bytes that are no text
            file.write(text.encode(errors="replace"))
    return tuple(contents)


def require_page(path: Path) -> None:
    """Check that ``path`` is for a page: one of the files beside it would take the place of another.

    Raises:
        EvaluationError: it does not end as an HTML file does.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise EvaluationError(f"expected a file that ends in .html for the page, got {path}")


def page(inputs: ReportInputs) -> str:
    """The report as HTML that needs nothing from elsewhere and forbids itself to fetch anything."""
    looks = {name: Series(name, place) for place, name in enumerate(inputs.trackers)}
    sections = inputs.sections
    style, script = _resource("style.css"), _resource("page.js")
    content = [benchmark_section(section, looks, f"b{place}") for place, section in enumerate(sections)]
    names = [
        element("a", section.benchmark, href=f"#b{place}")
        for place, section in enumerate(sections)
        if len(sections) > 1
    ]
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return Template(_resource("page.html")).substitute(
        title=join((inputs.title,)),
        made=join((inputs.made,)),
        policy=policy,
        style=style,
        script=script,
        navigation=element("nav", *names, aria_label="Benchmarks") if names else "",
        content=join(content, Markup("\n")),
    )


def _resource(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
