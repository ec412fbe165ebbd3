"""HTML and SVG elements as text that is escaped once, where it enters an element."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

VOID = frozenset({"input", "meta"})
Attribute = str | int | float | bool | None


class Markup(str):
    """Text that is HTML already. Any other text is escaped on its way into an element."""

    __slots__ = ()


def element(name: str, /, *content: str, **attributes: Attribute) -> Markup:
    """An element of HTML or SVG.

    Args:
        content: text, which is escaped, and ``Markup``, which is not.
        attributes: in Python's spelling: ``class_`` is class, ``aria_sort`` is aria-sort. None and False leave an
            attribute out, True gives one without a value.
    """
    opening = "".join([name, *(_attribute(key, value) for key, value in attributes.items())])
    return Markup(f"<{opening}>" if name in VOID else f"<{opening}>{join(content)}</{name}>")


def join(content: Iterable[str], between: str = "") -> Markup:
    """Pieces one after the other, plain text escaped."""
    return Markup(escaped(between).join(escaped(piece) for piece in content))


def escaped(text: str) -> str:
    """Text as it stands in HTML, between tags or within quotes."""
    return text if isinstance(text, Markup) else escape(text)


def number(value: float) -> str:
    """A coordinate to a hundredth, without zeros at the end."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{escape(number(value) if isinstance(value, float) else str(value))}"'
