"""What an actor is: a body that takes poses, and how it moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from duotrack.data.synthetic.config import Kind
from duotrack.data.synthetic.figure import Figure
from duotrack.data.synthetic.noise import Pixels


@dataclass(frozen=True, slots=True)
class Pose:
    """The moving joints of an actor.

    Attributes:
        travelled: metres since the first frame; the gait and the wheels follow it, so that feet do not slide.
        pace: speed over the kind's usual speed; 0 stands still.
        time: seconds since the first frame.
    """

    travelled: float
    pace: float
    time: float


class Body(Protocol):
    """What an actor looks like in a pose."""

    def figure(self, pose: Pose) -> Figure: ...


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """One thing that moves, and how it moves.

    Attributes:
        height, length: rough size in metres, in a side view.
        speed: usual speed in metres per second.
        agility: how fast it can turn, in radians per second.
        detail: (h, w, 3) uint8 texture over its colours, 128 for no change.
        altitude: height over the ground, in metres.
        headlights: whether it lights the road at night.
        reverses: whether it drives back along its lane instead of turning round.
    """

    kind: Kind
    body: Body
    height: float
    length: float
    speed: float
    agility: float
    detail: Pixels
    altitude: float = 0.0
    headlights: bool = False
    reverses: bool = False

    @property
    def size(self) -> float:
        """The larger side, in metres."""
        return max(self.height, self.length)
