"""Which camera of a pair still delivers: a frame that is frozen, blank, saturated, drowned in noise or missing.

A frame is *blank* where all of it has the same value, but for ``FLAT`` levels: black, or any other. It is *saturated*
where nearly all of it has the largest value that its type, or its camera, can have. Colour is *noise* where it is dark
and a pixel says nothing about its neighbour. A night frame of which the eye can make out something is none of these.

A frame that equals the last one of its camera is a repeat. A camera with noise never repeats itself, but a drawn scene
may, and a paused video does. So a repeat alone says nothing. The camera is *frozen* where time goes on without it: from
the first repeat on where the other camera's frame is new; else, where the other repeats itself as well or is missing,
from repeat number ``STALE`` on. It stays frozen until its frame changes, also across pairs in which it is missing.

Frozen is reported at once, and ignored from repeat ``STALE`` on: until then it still shows more of the target than
nothing does, and a thermal camera of nine frames a second beside colour of thirty stands still for two of three.

Only a faulty frame beside a sound one is left out: where both have faults, or the other is missing, the tracker works
with what there is.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.frames import FramePair

Modality = Literal["rgb", "thermal"]

ROWS = 48
"""Of a frame that are looked at, at least: all pixels of evenly spaced rows, for noise is in every one. A repeat is one
of the whole frame."""
FLAT = 2
"""Levels that a blank frame's values may lie apart."""
SATURATED = 0.998
"""Share of values at the top from which on a frame shows nothing; a small dark thing in a white sky is a target."""
TOP = 250
"""Of 8-bit values, from here on; those of 16 bits are at the top where they equal the frame's largest."""
DIM = 64
"""Mean of a colour frame beneath which it may be but noise; in more light, a plain sky with a far drone looks alike."""
NOISE = 0.05
"""Correlation of neighbouring pixels in the rows of a frame under which it is noise; of real frames' it is over 0.9."""
STALE = 5
"""Repeats in a row from which on a frame misleads more than it helps (docs/tracker.md): a sixth of a second."""


class FaultKind(StrEnum):
    """What is wrong with a frame."""

    MISSING = "missing"
    BLANK = "blank"
    SATURATED = "saturated"
    NOISE = "noise"
    FROZEN = "frozen"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with one modality of a pair.

    Attributes:
        modality: which. One that the track has never had is not missing.
        ignored: whether the frame had no part in the answer; it has one where the other modality is no better.
    """

    modality: Modality
    kind: FaultKind
    ignored: bool


@dataclass(frozen=True, slots=True)
class LastFrame:
    """What is remembered of a camera's last frame.

    Attributes:
        fingerprint: CRC-32 of the sums of all rows and columns: a small target may be all that moves.
        repeats: of this very frame so far.
        frozen: whether it counted as frozen.
    """

    fingerprint: int
    repeats: int = 0
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """What a track remembers of its cameras; None for one that it has not had a frame of."""

    rgb: LastFrame | None = None
    thermal: LastFrame | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """A pair after it was looked at.

    Attributes:
        pair: without the frames that are ignored.
        health: to be given with the next pair.
        faults: what is wrong with it, colour's first.
    """

    pair: FramePair
    health: Health
    faults: tuple[Fault, ...] = ()


def examine(health: Health, pair: FramePair) -> Examined:
    """Look at the next pair of a track whose cameras were as ``health`` says."""
    rgb, rgb_is_new = _remember(health.rgb, pair.rgb)
    thermal, thermal_is_new = _remember(health.thermal, pair.thermal)
    after = Health(_freeze(rgb, thermal_is_new), _freeze(thermal, rgb_is_new))
    kinds = _fault(pair.rgb, after.rgb), _fault(pair.thermal, after.thermal)
    useless = (
        pair.rgb is None or _is_useless(kinds[0], after.rgb),
        pair.thermal is None or _is_useless(kinds[1], after.thermal),
    )
    alone = useless[0] != useless[1]
    names: tuple[Modality, Modality] = ("rgb", "thermal")
    faults = tuple(
        Fault(name, kind, ignored=kind is FaultKind.MISSING or (alone and bad))
        for name, kind, bad in zip(names, kinds, useless, strict=True)
        if kind is not None
    )
    if alone and pair.rgb is not None and pair.thermal is not None:
        pair = FramePair(None, pair.thermal) if useless[0] else FramePair(pair.rgb, None)
    return Examined(pair, after, faults)


def _remember(last: LastFrame | None, image: NDArray[Any] | None) -> tuple[LastFrame | None, bool]:
    """What is known of a camera after ``image``, and whether that is one that it has not just shown."""
    if image is None:
        return last, False
    fingerprint = _fingerprint(image)
    if last is None or fingerprint != last.fingerprint:
        return LastFrame(fingerprint), True
    return replace(last, repeats=last.repeats + 1), False


def _fingerprint(image: NDArray[Any]) -> int:
    # A mirrored view, such as colour turned from B, G, R, is read as it lies in memory: a copy takes ten times as long.
    forward = image[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in image.strides)]
    lines = np.ascontiguousarray(forward).reshape(len(image), -1)
    # Sums of all rows and of all columns: a sixth of the time that a checksum of all pixels takes.
    depth = cv2.CV_32S if lines.dtype == np.uint8 else cv2.CV_64F
    sums = (np.asarray(cv2.reduce(lines, axis, cv2.REDUCE_SUM, dtype=depth)) for axis in (0, 1))
    return zlib.crc32(b"".join(each.tobytes() for each in sums))


def _freeze(last: LastFrame | None, other_is_new: bool) -> LastFrame | None:
    """``last`` with the verdict on it; a camera that is missing has no more repeats than before, and stays frozen."""
    if last is None or not last.repeats:
        return last
    return replace(last, frozen=last.frozen or other_is_new or last.repeats >= STALE)


def _fault(image: NDArray[Any] | None, last: LastFrame | None) -> FaultKind | None:
    if image is None:
        return None if last is None else FaultKind.MISSING
    rows = _rows(image)
    # The rows may miss a small thing that shows; the whole frame is looked at only where they show nothing.
    if _is_blank(rows) and _is_blank(image):
        return FaultKind.BLANK
    if _is_saturated(rows) and _is_saturated(image):
        return FaultKind.SATURATED
    if image.ndim == 3 and _is_dark_noise(rows):
        return FaultKind.NOISE
    return FaultKind.FROZEN if last is not None and last.frozen else None


def _is_useless(kind: FaultKind | None, last: LastFrame | None) -> bool:
    """Whether a frame with this fault is better left out, if another is there."""
    return kind is not None and (kind is not FaultKind.FROZEN or last is None or last.repeats >= STALE)


def _rows(image: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(image[:: max(1, image.shape[0] // ROWS)])


def _is_blank(values: NDArray[Any]) -> bool:
    return int(values.max()) - int(values.min()) <= FLAT


def _is_saturated(values: NDArray[Any]) -> bool:
    top = values >= TOP if values.dtype == np.uint8 else values == values.max()
    return bool(np.count_nonzero(top) >= SATURATED * values.size)


def _is_dark_noise(rows: NDArray[Any]) -> bool:
    """Whether colour (h, w, 3) is dark, and its green pixels are not like their neighbours to the right."""
    if cv2.mean(rows)[1] >= DIM:
        return False
    green = rows[::2, :, 1].astype(np.float32)
    green -= green.mean()
    return float(np.vdot(green[:, 1:], green[:, :-1])) < NOISE * float(np.vdot(green, green))
