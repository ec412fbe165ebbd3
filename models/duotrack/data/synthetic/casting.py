"""Who can play: one actor of any kind, from a generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from duotrack.data.synthetic.actor import Actor
from duotrack.data.synthetic.config import Kind
from duotrack.data.synthetic.craft import boat, drone
from duotrack.data.synthetic.creatures import animal, blob
from duotrack.data.synthetic.noise import Pixels
from duotrack.data.synthetic.people import cyclist, person
from duotrack.data.synthetic.vehicles import vehicle

_MAKERS: dict[Kind, Callable[[np.random.Generator, float, Pixels | None], Actor]] = {
    "person": person,
    "cyclist": cyclist,
    "vehicle": vehicle,
    "animal": animal,
    "boat": boat,
    "drone": drone,
    "blob": blob,
}


def cast(kind: Kind, rng: np.random.Generator, air: float, still: Pixels | None = None) -> Actor:
    """Draw one actor of a kind, at an air temperature in °C; ``still`` is a colour image to texture it with."""
    return _MAKERS[kind](rng, air, still)
