"""The headline figures: which is which, how they are written, and which is best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

MEANINGS = {
    "PR": "precision rate: frames whose centre is close enough",
    "NPR": "normalised precision rate: the same in units of the true box",
    "SR": "success rate: area under the success plot",
    "MPR": "maximum precision rate: the better of both modalities' truths, frame by frame",
    "MSR": "maximum success rate: the better of both modalities' truths, frame by frame",
}
NONE = "–"


def success_figure(figures: Sequence[str]) -> str | None:
    """The area under the success plot among headline figures: SR or MSR, else the last one."""
    return next((name for name in figures if name.endswith("SR")), figures[-1] if figures else None)


def precision_figure(figures: Sequence[str]) -> str | None:
    """PR or MPR."""
    return next((name for name in figures if name.endswith("PR") and not name.endswith("NPR")), None)


def normalised_figure(figures: Sequence[str]) -> str | None:
    """NPR."""
    return next((name for name in figures if name.endswith("NPR")), None)


def known(value: float | None) -> float | None:
    """The value, or None where there is none or it is not finite."""
    return value if value is not None and math.isfinite(value) else None


def percent(share: float | None) -> str:
    """A share as per cent with one decimal, a dash for None."""
    share = known(share)
    return NONE if share is None else f"{100 * share:.1f}"


def decimal(value: float | None) -> str:
    """A number with one decimal, a dash for None."""
    value = known(value)
    return NONE if value is None else f"{value:.1f}"


def difference(values: Sequence[float | None]) -> float | None:
    """The first value less the best of the others; None where one is missing."""
    first, *others = (known(value) for value in values)
    there = [value for value in others if value is not None]
    return None if first is None or not there else first - max(there)


def signed_percent(share: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    share = known(share)
    if share is None:
        return NONE
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def best(values: Iterable[float | None], *, lowest: bool = False) -> float | None:
    """The best of two or more values, None where there are fewer."""
    there = [value for value in map(known, values) if value is not None]
    if len(there) < 2:
        return None
    return min(there) if lowest else max(there)


def ranked(values: Mapping[str, float | None]) -> list[str]:
    """Names with the highest value first, those without a value last."""

    def order(name: str) -> float:
        value = known(values[name])
        return math.inf if value is None else -value

    return sorted(values, key=order)
