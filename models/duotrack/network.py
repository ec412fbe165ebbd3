"""What the tracker needs of a network, whoever runs it: ONNX Runtime in service, torch in training and tests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import Box, CropWindow
from duotrack.errors import ModelError

DEFAULT_MODEL = "student-t"
"""Of the models that ship, the one for who does not choose."""
TEMPLATE_FACTOR = 2.0
"""Side of the template crop that networks are trained with, in units of sqrt(w·h) of the target's box."""
MAGNIFICATION = 2.5
"""Crop pixels per frame pixel beyond which a search crop has no more detail: it may better show more of the frame."""


def widened(factor: float, widening: float, search_size: int, box: Box) -> float:
    """``factor`` of a search crop around ``box``: up to ``widening`` times as large where the crop would be magnified
    more than ``MAGNIFICATION`` times. A small target moves by more of its own sizes, and loses nothing by it.
    """
    return factor * max(min(search_size / (MAGNIFICATION * factor * math.sqrt(box.area)), widening), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CropShapes:
    """The crops that a network is made for, and trained with.

    Attributes:
        template_size, search_size: side in pixels.
        template_factor: side of the template crop in units of sqrt(w·h) of the target's box; the search crop has the
            same scale.
        widening: how many times as large the search crop of a small target may be (``widened``).
    """

    template_size: int = 128
    search_size: int = 256
    template_factor: float = TEMPLATE_FACTOR
    widening: float = 1.0

    @property
    def search_factor(self) -> float:
        """Side of the search crop in units of sqrt(w·h) of the target's box, small targets aside."""
        return self.template_factor * self.search_size / self.template_size

    def search_factor_around(self, box: Box) -> float:
        """Side of the search crop around ``box`` in units of its sqrt(w·h)."""
        return widened(self.search_factor, self.widening, self.search_size, box)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How a model wants its crops and how its outputs are to be read.

    Attributes:
        name: the model's name, as in ``student-s``.
        template_size, search_size: side of the crops in pixels.
        template_factor, search_factor: side of the crops in units of sqrt(w·h) of the target's box.
        widening: how many times as large the search crop of a small target may be (``widened``); 1 is OSTrack's rule.
        grid: cells of the score map along one side.
        uncertain_below, lost_below: probability of presence under which a result is called uncertain, and lost.
        hold_below: presence, as the network gives it, under which the box does not follow the network any more.
        size_rate: share of a predicted change of size that is taken over in one frame, in (0, 1]; 1 is OSTrack's rule.
        found_above: presence from which on a lost target is found again far from where it is expected.
        patience: frames in a row under ``lost_below`` before the target is called lost; until then the track coasts.
        presence_scale, presence_bias: what the logit of the network's presence is multiplied with, and then increased
            by, for the presence to be a probability (Platt 1999); measured for each model (docs/tracker.md).
    """

    name: str
    template_size: int = 128
    search_size: int = 256
    template_factor: float = TEMPLATE_FACTOR
    search_factor: float = 4.0
    widening: float = 1.0
    grid: int = 16
    uncertain_below: float = 0.5
    lost_below: float = 0.2
    size_rate: float = 0.6
    hold_below: float = 0.2
    found_above: float = 0.8
    patience: int = 3
    presence_scale: float = 1.0
    presence_bias: float = 0.0

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """Read the ``spec`` of a model's ``model.json``.

        Raises:
            ModelError: a field is missing, unknown or of the wrong type.
        """
        try:
            spec = cls(**record)
        except TypeError as error:
            raise ModelError(f"model.json does not fit this version of DuoTrack: {error}") from error
        for name in ("template_size", "search_size", "grid", "patience"):
            if not isinstance(getattr(spec, name), int):
                raise ModelError(f"model.json: {name} must be a whole number, got {getattr(spec, name)!r}")
        return spec

    def search_factor_around(self, box: Box) -> float:
        """Side of the search crop around ``box`` in units of its sqrt(w·h)."""
        return widened(self.search_factor, self.widening, self.search_size, box)

    def search_window(self, box: Box) -> CropWindow:
        """Where the search crop around ``box`` lies in the frame."""
        return CropWindow.around(box, self.search_factor_around(box), self.search_size)


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """Template crops of B sessions.

    Attributes:
        crop: (B, S, S, 4) uint8, R, G, B and thermal.
        present: (B, 2) float32, 1 where colour (thermal) is there.
        box: (B, 4) float32, the target's centre and size in units of the crop's side.
    """

    crop: NDArray[np.uint8]
    present: NDArray[np.float32]
    box: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What the network says about B search crops.

    Attributes:
        score_map: (B, G, G) float32 in (0, 1), how likely each cell holds the target's centre.
        box_map: (B, 4, G, G) float32, each cell's box as centre and size in units of the crop's side. Boxes come for
            every cell, and not only for the peak, because the tracker weighs the score map with a window first.
        presence: (B,) float32 in (0, 1), whether the target is in the crop at all.
    """

    score_map: NDArray[np.float32]
    box_map: NDArray[np.float32]
    presence: NDArray[np.float32]


class Network(Protocol):
    """A one-stream student, loaded and ready. Methods may be called from several threads."""

    @property
    def spec(self) -> ModelSpec: ...

    def encode(self, template: Template) -> NDArray[np.float32]:
        """Features of the templates, first axis B; computed once per session."""
        ...

    def search(
        self, crop: NDArray[np.uint8], present: NDArray[np.float32], features: NDArray[np.float32]
    ) -> Prediction:
        """Find the templates in search crops (B, S, S, 4) uint8 with ``present`` (B, 2)."""
        ...
