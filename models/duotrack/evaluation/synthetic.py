"""The synthetic benchmark: generated scenes of every view, target and light, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np

from duotrack.boxes import Box
from duotrack.data.synthetic import Scene, SceneConfig, Sight
from duotrack.data.synthetic.config import Kind, Light, View
from duotrack.data.synthetic.tracks import Track
from duotrack.evaluation.attributes import box_attributes
from duotrack.evaluation.sequences import BenchmarkPairs, LateBoxes
from duotrack.frames import FramePair

SYNTHETIC_VERSION = 1
"""Raised whenever a frame or a box of the benchmark changes; figures of two versions cannot be compared."""

FIRST_SEED = 2**40
"""Training draws scenes from a million on, and validation from five hundred (``training.samples``, ``.validation``)."""
SEEN = 0.1
"""Share of the target that must be visible for the frame to have a box."""
PARTLY_HIDDEN, HIDDEN = 0.25, 0.9
"""Shares of the target's part inside the frame that something covers: from here an occlusion, and a full one."""
WHOLE = 0.95
"""Share of the target inside the frame from which its box tells its size and place."""
NEAR, OFTEN = 2.0, 0.1
"""Another of its kind is near the target within so many of its sizes, and counts if it is in such a share of frames."""
DARK = 0.2
"""Daylight under which the colour image shows little but what lamps light."""
PANNED = 0.1
"""Of the frame's width: how far the camera moves in a sequence that counts as filmed by a moving one."""

Size = Literal["small", "large"]
Events = Literal["", "E", "O", "C", "EO", "EC", "OC", "EOC"]
"""The target leaves the frame and returns (E), is occluded (O), and has its surroundings' temperature (C)."""

_SIZES = {"small": (320, 240), "large": (640, 480)}
_SCENES: tuple[tuple[View, Kind, Light, Size, int, Events, int], ...] = (
    ("street", "person", "day", "small", 300, "EOC", 2),
    ("street", "person", "night", "small", 240, "EO", 4),
    ("street", "vehicle", "day", "large", 180, "EO", 2),
    ("street", "vehicle", "night", "small", 240, "OC", 1),
    ("street", "cyclist", "dusk", "small", 200, "EO", 0),
    ("street", "animal", "night", "small", 180, "C", 2),
    ("street", "drone", "day", "small", 200, "E", 0),
    ("park", "person", "day", "small", 240, "O", 6),
    ("park", "person", "dusk", "large", 150, "OC", 2),
    ("park", "animal", "day", "small", 240, "EO", 3),
    ("park", "cyclist", "night", "small", 200, "EOC", 1),
    ("park", "drone", "dusk", "large", 120, "EC", 1),
    ("park", "blob", "day", "small", 150, "C", 2),
    ("plaza", "person", "night", "small", 300, "EOC", 4),
    ("plaza", "person", "day", "small", 120, "", 0),
    ("plaza", "cyclist", "day", "large", 150, "EO", 2),
    ("plaza", "vehicle", "dusk", "small", 200, "OC", 3),
    ("plaza", "blob", "night", "small", 180, "EO", 3),
    ("plaza", "drone", "night", "small", 150, "O", 0),
    ("water", "boat", "day", "small", 240, "EO", 2),
    ("water", "boat", "night", "large", 150, "OC", 1),
    ("water", "drone", "dusk", "small", 150, "EC", 2),
    ("aerial", "vehicle", "day", "large", 180, "EOC", 4),
    ("aerial", "vehicle", "night", "small", 200, "O", 2),
    ("aerial", "person", "dusk", "small", 240, "EO", 4),
    ("aerial", "animal", "day", "small", 180, "OC", 2),
    ("aerial", "blob", "night", "small", 120, "E", 1),
    ("aerial", "cyclist", "day", "large", 150, "O", 0),
)


@dataclass(frozen=True)
class SyntheticSequence:
    """A generated scene whose frames are drawn, and whose truth is worked out, when they are asked for."""

    name: str
    config: SceneConfig

    @cached_property
    def boxes(self) -> Sequence[Box | None]:
        """None where less than a tenth of the target is visible."""
        return LateBoxes(self.config.frames, self._seen_boxes)

    @cached_property
    def attributes(self) -> Sequence[str]:
        """The kind of place, and what is hard about the scene (docs/benchmarks.md), from its plan and its truth."""
        return _attributes(_scene(self.config), _sights(self.config))

    def pair(self, index: int) -> FramePair:
        return _scene(self.config)[index].pair

    def _seen_boxes(self) -> list[Box | None]:
        return [sight.box if sight.visibility >= SEEN else None for sight in _sights(self.config)]


def synthetic_sequences() -> list[BenchmarkPairs]:
    """The benchmark's sequences, in its order; nothing is drawn or worked out yet."""
    return [_sequence(number) for number in range(len(_SCENES))]


def _sequence(number: int) -> SyntheticSequence:
    view, target, light, size, frames, events, distractors = _SCENES[number]
    width, height = _SIZES[size]
    config = SceneConfig(
        width=width,
        height=height,
        frames=frames,
        seed=FIRST_SEED + number,
        view=view,
        target=target,
        light=light,
        exits="E" in events,
        occlusion="O" in events,
        crossover="C" in events,
        distractors=distractors,
    )
    return SyntheticSequence(f"{view}-{target}-{light}", config)


@lru_cache(maxsize=2)
def _scene(config: SceneConfig) -> Scene:
    """Kept while its frames are asked for, one after the other; it takes some ten megabytes."""
    return Scene(config)


@lru_cache(maxsize=len(_SCENES))
def _sights(config: SceneConfig) -> tuple[Sight, ...]:
    scene = _scene(config)
    return tuple(scene.sight(frame) for frame in range(len(scene)))


def _attributes(scene: Scene, sights: Sequence[Sight]) -> tuple[str, ...]:
    plan, camera = scene.plan, scene.plan.camera
    # A box cut by the frame's edge would look like one that shrinks.
    found = box_attributes([sight.box if sight.inside >= WHOLE else None for sight in sights])
    hidden = max(1 - sight.visibility / sight.inside for sight in sights if sight.inside)
    conditions = {
        "CM": max(np.ptp(camera.x), np.ptp(camera.row)) > PANNED * camera.width,
        "LI": np.median(plan.daylight) < DARK,
        "OV": any(sight.box is None for sight in sights),
        "PO": PARTLY_HIDDEN <= hidden < HIDDEN,
        "SA": any(_accompanies(track, plan.target) for track in plan.distractors),
        "TC": plan.crossover is not None,
        "TO": hidden >= HIDDEN,
    }
    return plan.view, *sorted(found - {"OV"} | {name for name, holds in conditions.items() if holds})


def _accompanies(other: Track, target: Track) -> bool:
    """Whether another of the target's kind is often where a tracker looks for the target."""
    apart = np.hypot(other.x - target.x, other.row - target.row)
    return bool((apart < NEAR * target.actor.size * target.scale).mean() > OFTEN)
