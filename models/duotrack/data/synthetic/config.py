"""What a synthetic scene is asked to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

View: TypeAlias = Literal["street", "park", "plaza", "water", "aerial"]
Kind: TypeAlias = Literal["person", "cyclist", "vehicle", "animal", "boat", "drone", "blob"]
Light: TypeAlias = Literal["day", "dusk", "night"]

VIEWS: tuple[View, ...] = get_args(View)
KINDS: tuple[Kind, ...] = get_args(Kind)
LIGHTS: tuple[Light, ...] = get_args(Light)

CAST: dict[View, tuple[Kind, ...]] = {
    "street": ("person", "vehicle", "cyclist", "animal", "drone"),
    "park": ("person", "animal", "cyclist", "drone", "blob"),
    "plaza": ("person", "cyclist", "vehicle", "blob", "drone"),
    "water": ("boat", "drone"),
    "aerial": ("vehicle", "person", "animal", "blob", "cyclist"),
}
"""The targets that each view can have, the commonest first."""


@dataclass(frozen=True, slots=True)
class SceneConfig:
    """A synthetic scene. The same config gives bitwise the same frames.

    Attributes:
        width, height: frame size in pixels, at least 64 each.
        frames: length of the sequence. An exit needs 60 frames, an occlusion 24 and a crossover 48; they are left
            out of sequences too short for them.
        seed: what everything that is not set here is drawn from.
        thermal_bits: 8 for a thermal image after automatic gain control, 16 for raw counts of 0.01 K.
        view: the kind of place; None draws it from the seed.
        target: what is tracked, one of ``CAST[view]``; None draws it from the seed.
        light: the light of the colour image, which also drifts within the sequence; None draws it from the seed.
        occlusion: whether things pass in front of the target.
        exits: whether the target leaves the frame and returns.
        crossover: whether the surroundings reach the target's temperature and pass it for a while.
        distractors: how many others of the target's kind move near it, 0 to 8.
        twins: whether one in three of these is the target's double, which nothing but its path tells apart.
        misalignment: how far apart the two modalities may be at the frame's edge, in pixels of a
            640-pixel-wide frame; 0 registers them exactly.

    Raises:
        ValueError: a value is out of range, or the view cannot have the target.
    """

    width: int = 640
    height: int = 480
    frames: int = 300
    seed: int = 0
    thermal_bits: Literal[8, 16] = 8
    view: View | None = None
    target: Kind | None = None
    light: Light | None = None
    occlusion: bool = True
    exits: bool = True
    crossover: bool = True
    distractors: int = 2
    twins: bool = True
    misalignment: float = 3.0

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("width", self.width, 64, 4096),
            ("height", self.height, 64, 4096),
            ("frames", self.frames, 1, 100_000),
            ("seed", self.seed, 0, 2**63 - 1),
            ("distractors", self.distractors, 0, 8),
            ("misalignment", self.misalignment, 0, 8),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {value}")
        if not 0.4 <= self.width / self.height <= 3:
            raise ValueError(f"width / height must be from 0.4 to 3, got {self.width}x{self.height}")
        if self.thermal_bits not in (8, 16):
            raise ValueError(f"thermal_bits must be 8 or 16, got {self.thermal_bits}")
        for field, choice, allowed in (
            ("view", self.view, VIEWS),
            ("target", self.target, KINDS),
            ("light", self.light, LIGHTS),
        ):
            if choice is not None and choice not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)} or None, got {choice!r}")
        if self.view and self.target and self.target not in CAST[self.view]:
            raise ValueError(
                f"a {self.view} scene can have {', '.join(CAST[self.view])} as target, got {self.target!r}"
            )
