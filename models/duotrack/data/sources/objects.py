"""Pairs from stills whose objects are outlined: the object where it was photographed, in another shape."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from duotrack.boxes import Box, mask_box
from duotrack.data.bending import bent_view
from duotrack.data.figures import SMALLEST, Cutout, cut, recoloured, tinted
from duotrack.data.images import Pixels, View
from duotrack.data.pasting import crowd
from duotrack.data.surroundings import Surroundings
from duotrack.errors import SourceError

IMPOSTORS = 0.7
"""Share of the views without the target whose object is given the target's colours."""
SAME_PLACE = 0.7
"""Share of the pairs whose views have the same picture around them, though not the same part of it."""


@dataclass(frozen=True, slots=True, eq=False)
class OutlinedStill:
    """A still with its objects.

    Attributes:
        rgb: (H, W, 3) uint8.
        thermal: (H, W) uint8 registered to it, or None.
        labels: (H, W) uint8, 0 for background, the objects from 1.
    """

    rgb: Pixels
    thermal: Pixels | None
    labels: Pixels

    def view(self, label: int) -> View | None:
        """The object of that number as a target; None where it is too small for one."""
        mask = (self.labels == label).astype(np.uint8) * 255
        box = mask_box(mask)
        return None if box is None or box.area < SMALLEST else View(self.rgb, self.thermal, box, mask, id(self.rgb))

    def cutouts(self) -> list[tuple[Pixels, Pixels]]:
        """Colour and mask of each object that the picture's edges do not cut."""
        inner = np.zeros_like(self.labels)
        inner[1:-1, 1:-1] = self.labels[1:-1, 1:-1]
        silhouettes = [self.labels == label for label in _numbers(self.labels)]
        whole = [
            silhouette
            for silhouette in silhouettes
            if np.count_nonzero(silhouette) == np.count_nonzero(inner[silhouette])
        ]
        return [(self.rgb, silhouette.astype(np.uint8) * 255) for silhouette in whole]


@dataclass(frozen=True, slots=True, eq=False)
class ObjectPairs:
    """An outlined object of a still, and the same still bent out of shape.

    Args:
        bent: share of the search views that are bent; in the others motion comes from the crop alone.
        crowded: share of the search views that get a distractor beside the target: the target in another tint, or the
            object of another still, at times in the target's colours.
        surrounded: share of the pairs with another still around theirs (``duotrack.data.surroundings``).

    Raises:
        SourceError: no still has an object.
    """

    stills: list[OutlinedStill]
    bent: float = 0.85
    crowded: float = 0.35
    surrounded: float = 0.85
    _targets: list[tuple[OutlinedStill, int]] = field(init=False)
    _pairs: list[OutlinedStill] = field(init=False)

    def __post_init__(self) -> None:
        targets = [
            (still, label) for still in self.stills for label in _numbers(still.labels) if still.view(label) is not None
        ]
        if not targets:
            raise SourceError(f"no objects to draw pairs from: none of {len(self.stills)} stills has one outlined")
        object.__setattr__(self, "_targets", targets)
        object.__setattr__(self, "_pairs", [still for still in self.stills if still.thermal is not None])

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:  # noqa: ARG002
        template = self._template(rng)
        search = (bent_view(template, rng) if rng.random() < self.bent else None) or template
        if rng.random() < self.crowded:
            search = crowd(search, self._rival(search, rng), rng)
        return self._framed(template, search, rng)

    def draw_absent(self, rng: Generator, progress: float = 1.0) -> tuple[View, View] | None:  # noqa: ARG002
        """The search view is of another still's object, most often in the target's colours."""
        template = self._template(rng)
        other = self._template(rng)
        if other.scene == template.scene:
            return None
        if rng.random() < IMPOSTORS:
            other = _in_colours_of(other, template)
        return self._framed(template, other, rng)

    def _framed(self, template: View, search: View, rng: Generator) -> tuple[View, View]:
        """The views with less of their own picture around the target, and then, most often, another."""
        views = reframed(template, rng), reframed(search, rng)
        if len(self.stills) < 2 or rng.random() >= self.surrounded:
            return views
        place = self._place(views, rng)
        second = place if rng.random() < SAME_PLACE else self._place(views, rng)
        if place is None or second is None:
            return views
        first, last = (
            Surroundings.draw(view, rng).apply(view, at) for view, at in zip(views, (place, second), strict=True)
        )
        return first, last

    def _place(self, views: tuple[View, View], rng: Generator) -> OutlinedStill | None:
        """Another still to put around ``views``, with thermal where they have it; None where there is none."""
        stills = self._pairs if any(view.thermal is not None for view in views) else self.stills
        scenes = {view.scene for view in views}
        first = int(rng.integers(len(stills)))  # the next in line where that is the views' own
        others = (still for still in stills[first:] + stills[:first] if id(still.rgb) not in scenes)
        return next(others, None)

    def _template(self, rng: Generator) -> View:
        still, label = self._targets[rng.integers(len(self._targets))]
        view = still.view(label)
        assert view is not None
        return view

    def _rival(self, view: View, rng: Generator) -> Cutout:
        own, stranger = _cutout(view), _cutout(self._template(rng))
        kind = rng.random()
        if kind < 0.4:
            return tinted(own, rng)
        return recoloured(stranger, own) if kind < 0.7 else stranger


def _cutout(view: View) -> Cutout:
    assert view.rgb is not None
    assert view.mask is not None
    found = cut(view.rgb, view.mask)
    assert found is not None
    return found


def _in_colours_of(view: View, like: View) -> View:
    """``view`` with its object in the colours of that of ``like``."""
    assert view.rgb is not None
    assert view.mask is not None
    left, top, width, height = (int(value) for value in view.box.xywh)
    region = np.s_[top : top + height, left : left + width]
    rgb, inside = view.rgb.copy(), view.mask[region] > 127
    rgb[region][inside] = recoloured(_cutout(view), _cutout(like)).rgb[inside]
    return replace(view, rgb=rgb)


def reframed(view: View, rng: Generator) -> View:
    """``view``, which must have a mask, with less around the target.

    A photographer puts the object in the middle: without this, the picture's edges would tell where it is.
    """
    assert view.mask is not None
    width, height = view.size
    box = view.box
    # Each side loses up to all that is between it and the target, most often little.
    left, right = _cut(box.x, rng), width - _cut(width - box.x - box.w, rng)
    top, bottom = _cut(box.y, rng), height - _cut(height - box.y - box.h, rng)
    window = np.s_[top:bottom, left:right]
    rgb, thermal = (None if image is None else image[window] for image in (view.rgb, view.thermal))
    return View(rgb, thermal, Box(box.x - left, box.y - top, box.w, box.h), view.mask[window], view.scene)


def _cut(free: float, rng: Generator) -> int:
    return int(max(free, 0.0) * rng.random() ** 2)


def _numbers(labels: Pixels) -> list[int]:
    return list(range(1, int(labels.max()) + 1))
