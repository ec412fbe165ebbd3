"""Where to look for a lost target: where the best guess is, where it was seen last, and in turn everywhere else.

A lost track has one search a frame, as any other, so that it costs no more. Of three, one follows the network's best
guess, which wanders; one goes to the place where the target vanished, moved along with the camera, in a region that
grows; one belongs to a sweep of the frame, the parts near that place first.
"""

from __future__ import annotations

import math

from duotrack.boxes import Box

GROWTH = 1.03
"""Of the region around the place where the target vanished, a frame."""
LARGEST = 2.0
"""Times the usual region; beyond, the target would be smaller in the crop than the network has seen in training."""
_GROWN = math.ceil(math.log(LARGEST, GROWTH))  # frames after which it grows no more, however long the loss lasts
OVERLAP = 0.5
"""Of neighbouring places of the sweep, as a share of a region's side: a target at an edge of one is inside the next."""
MOST_PLACES = 15
"""In a sweep, which so takes 45 frames; with a small target in a large frame regions grow instead."""


def next_place(guess: Box, vanished: Box, width: int, height: int, factor: float, frame: int) -> tuple[Box, bool]:
    """The box to search around in frame number ``frame`` (from 0) of a loss, and whether it is another than ``guess``.

    Args:
        guess: where the network's last best guess is expected now.
        vanished: where the target was seen last, with its size.
        width, height: of the frame in pixels.
        factor: side of the usual search region in units of sqrt(w·h).
    """
    round_, turn = divmod(frame, 3)
    if turn == 0:
        return guess, False
    if turn == 1:
        growth = min(LARGEST, GROWTH ** min(frame, _GROWN))
        return Box.from_center(*vanished.center, vanished.w * growth, vanished.h * growth), True
    places, zoom = sweep(vanished, width, height, factor)
    cx, cy = places[round_ % len(places)]
    return Box.from_center(cx, cy, vanished.w * zoom, vanished.h * zoom), True


def sweep(box: Box, width: int, height: int, factor: float) -> tuple[list[tuple[float, float]], float]:
    """Centres of regions that together cover the frame, near ones first, and how much larger than usual they are.

    The growth is ``LARGEST`` at most; then some of the frame may stay out of sight.
    """
    side, zoom = factor * math.sqrt(box.area), 1.0
    while zoom < LARGEST and _count(width, side * zoom) * _count(height, side * zoom) > MOST_PLACES:
        zoom = min(LARGEST, zoom * 1.2)
    cx, cy = box.center
    columns, rows = _along(width, side * zoom, cx), _along(height, side * zoom, cy)
    places = [(x, y) for y in rows for x in columns]
    places.sort(key=lambda place: math.dist(place, box.center))
    return places[:MOST_PLACES], zoom


def _count(length: float, side: float) -> int:
    """How many regions lie along one axis."""
    return 1 if side >= length else 1 + math.ceil((length - side) / (side * (1 - OVERLAP)))


def _along(length: float, side: float, near: float) -> list[float]:
    """Centres along one axis, the first and last of which reach the frame's edges; of many, those close to ``near``.

    A place beyond the ``MOST_PLACES`` nearest of its axis has as many nearer ones in its own row or column.
    """
    count = _count(length, side)
    if count == 1:
        return [length / 2]
    step = (length - side) / (count - 1)
    first = min(max(round((near - side / 2) / step) - MOST_PLACES, 0), count - 1)
    last = min(max(round((near - side / 2) / step) + MOST_PLACES, 0), count - 1)
    return [side / 2 + (length - side) * index / (count - 1) for index in range(first, last + 1)]
