"""Failure pictures on the page: frames as embedded images, boxes drawn over them as vectors."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence

from duotrack.evaluation.report.failures import FailurePicture, Rectangle, Shot
from duotrack.evaluation.report.figures import NONE, known
from duotrack.evaluation.report.markup import Markup, element, number
from duotrack.evaluation.report.series import Series


def failure_article(picture: FailurePicture, looks: Mapping[str, Series], identity: str) -> Markup:
    """One failure: its moments in order, colour above thermal."""
    shots = [_shot(shot, picture.window, looks, f"{identity}-{shot.frame}") for shot in picture.shots]
    return element(
        "article",
        element("h4", picture.sequence),
        element("p", picture.caption),
        element("div", *shots, class_="shots"),
        class_="failure",
        id=identity,
    )


def boxes_legend(trackers: Sequence[str], looks: Mapping[str, Series]) -> Markup:
    """What the outlines are."""
    truth = element(
        "svg",
        element("rect", class_="truth", x=3, y=2, width=28, height=10),
        class_="swatch",
        viewBox="0 0 34 14",
        aria_hidden="true",
    )
    items = [element("li", element("span", truth, element("span", "truth"), class_="series"))]
    for name in trackers:
        outline = element(
            "svg",
            element("rect", class_=f"outline {looks[name].look}", x=3, y=2, width=28, height=10),
            class_="swatch",
            viewBox="0 0 34 14",
            aria_hidden="true",
        )
        items.append(element("li", element("span", outline, element("span", name), class_="series")))
    return element("ul", *items, class_="legend boxes")


def _shot(shot: Shot, window: Rectangle, looks: Mapping[str, Series], identity: str) -> Markup:
    overlaps = [
        element("li", looks[name].name(), element("span", _overlap(shot.overlaps.get(name)), class_="figure"))
        for name in shot.overlaps
    ]
    caption = element(
        "figcaption",
        element("strong", f"frame {shot.frame}"),
        f" · {shot.moment}",
        "" if shot.truth is not None else " · target absent",
        element("ul", *overlaps, class_="legend overlaps", aria_label="IoU"),
    )
    panels = [
        _panel(name, image, shot, window, looks, f"{identity}-{name}")
        for name, image in (("colour", shot.colour), ("thermal", shot.thermal))
    ]
    return element("figure", *panels, caption, class_="shot")


def _panel(
    name: str, image: bytes | None, shot: Shot, window: Rectangle, looks: Mapping[str, Series], identity: str
) -> Markup:
    x, y, width, height = window
    view = " ".join(number(value) for value in window)
    if image is None:
        ground = element("rect", class_="missing", x=x, y=y, width=width, height=height)
        words: tuple[Markup, ...] = (
            element(
                "text",
                f"no {name} frame",
                class_="missing",
                x=x + width / 2,
                y=y + height / 2,
                text_anchor="middle",
                font_size=width / 16,
            ),
        )
    else:
        data = f"data:image/jpeg;base64,{b64encode(image).decode()}"
        ground = element("image", href=data, x=x, y=y, width=width, height=height, preserveAspectRatio="none")
        words = ()
    outlines: list[Markup] = []
    if image is not None:
        # the tracker under test comes last, on top
        for label, box in reversed([*shot.boxes.items()]):
            said = f"{label}: IoU {_overlap(shot.overlaps.get(label))}"
            outlines += _outline(box, f"outline {looks[label].look}", said)
        if shot.truth is not None:
            outlines += _outline(shot.truth, "truth", "truth")
    title = element("title", f"{name}, frame {shot.frame}, {shot.moment}", id=f"{identity}-title")
    drawing = element(
        "svg", title, ground, *words, *outlines, viewBox=view, role="img", aria_labelledby=f"{identity}-title"
    )
    return element("div", drawing, element("span", name, class_="modality", aria_hidden="true"), class_="panel")


def _outline(box: Rectangle, look: str, said: str) -> list[Markup]:
    """A box with a dark casing, to be seen on any ground."""
    x, y, width, height = (float(value) for value in box)
    place = {"x": x, "y": y, "width": max(width, 0.0), "height": max(height, 0.0)}
    return [element("rect", class_="casing", **place), element("rect", element("title", said), class_=look, **place)]


def _overlap(value: float | None) -> str:
    return NONE if known(value) is None else f"{value:.2f}"
