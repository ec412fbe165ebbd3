"""Who stands where in a frame, who hides whom, and the truth that follows: silhouette, box, visibility."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import Box, mask_box
from duotrack.data.synthetic.figure import Patch, draw
from duotrack.data.synthetic.occluders import Occluder
from duotrack.data.synthetic.plan import Plan
from duotrack.data.synthetic.tracks import Track

SMALLEST = 16.0
"""The least side of the square with the area of the first box, in pixels."""


class Layer(NamedTuple):
    """A drawn actor, or an occluder (``track`` is None), whose foot is on panorama row ``row``."""

    row: float
    patch: Patch
    track: Track | None


class Sight(NamedTuple):
    """Where the target is in a frame, and how much of it there is to see.

    Attributes:
        box: around its silhouette inside the frame, hidden parts included; None where no part is inside.
        inside: the share of the silhouette that is inside the frame, 0 to 1.
        visibility: the share that is inside and not hidden, 0 to 1.
    """

    box: Box | None
    inside: float
    visibility: float


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """The actors of a plan and what stands in the foreground.

    Attributes:
        hides: whether something may be drawn over the target.
    """

    plan: Plan
    occluders: tuple[Occluder, ...]
    hides: bool

    def layers(self, frame: int) -> list[Layer]:
        """All that moves or stands in front, the farthest first."""
        plan, layers = self.plan, []
        for track in (*plan.bystanders, *plan.distractors, plan.target):
            patch = self.actor(track, frame)
            if patch is not None:
                layers.append(Layer(float(track.row[frame]), patch, track))
        for occluder in self.occluders:
            patch = occluder.seen(plan.camera, frame)
            if patch is not None:
                layers.append(Layer(occluder.row, patch, None))
        if not self.hides:
            return sorted(layers, key=lambda layer: (layer.track is plan.target, layer.row))
        return sorted(layers, key=lambda layer: layer.row)

    def actor(self, track: Track, frame: int) -> Patch | None:
        """One actor as drawn; None where it is far outside the frame and not the target."""
        camera, actor = self.plan.camera, track.actor
        placement = track.placement(frame, camera)
        reach = 1.5 * (actor.size + actor.altitude) * placement.scale
        near = -reach < placement.x < camera.width + reach and -reach < placement.y < camera.height + reach
        if not near and track is not self.plan.target:
            return None
        return draw(actor.body.figure(track.pose(frame)), placement, actor.detail, actor.size / 2)

    def mask(self, patch: Patch) -> NDArray[np.bool_]:
        """(H, W): a patch's silhouette inside the frame."""
        camera = self.plan.camera
        mask = np.zeros((camera.height, camera.width), np.bool_)
        clipped = patch.clip(camera.width, camera.height)
        if clipped is not None:
            h, w = clipped.alpha.shape
            mask[clipped.y : clipped.y + h, clipped.x : clipped.x + w] = clipped.silhouette
        return mask

    def target_mask(self, layers: list[Layer]) -> NDArray[np.bool_]:
        """(H, W): the target's silhouette inside the frame, hidden or not."""
        for layer in layers:
            if layer.track is self.plan.target:
                return self.mask(layer.patch)
        return np.zeros((self.plan.camera.height, self.plan.camera.width), np.bool_)

    def visibility(self, layers: list[Layer]) -> float:
        """The share of the target's silhouette that is inside the frame and not hidden."""
        seen: NDArray[np.bool_] | None = None
        total = 1
        for layer in layers:
            if seen is not None:
                seen &= ~self.mask(layer.patch)
            elif layer.track is self.plan.target:
                seen = self.mask(layer.patch)
                total = max(int(layer.patch.silhouette.sum()), 1)
        return 0.0 if seen is None else int(seen.sum()) / total

    def sight(self, frame: int) -> Sight:
        """The truth about a frame; draws nothing but the target and what is in front of it."""
        target = self.actor(self.plan.target, frame)
        if target is None:
            return Sight(None, 0.0, 0.0)
        seen = self.mask(target)
        box, total = mask_box(seen), max(int(target.silhouette.sum()), 1)
        inside = int(seen.sum()) / total
        if box is not None:
            for patch in self._before_target(frame):
                seen &= ~self.mask(patch)
        return Sight(box, inside, int(seen.sum()) / total)

    def _before_target(self, frame: int) -> Iterator[Patch]:
        """What ``layers`` has after the target, in any order."""
        plan = self.plan
        if not self.hides:
            return
        row = plan.target.row[frame]
        for track in (*plan.bystanders, *plan.distractors):
            if track.row[frame] > row and (patch := self.actor(track, frame)) is not None:
                yield patch
        for occluder in self.occluders:
            # Of equal rows, an occluder's comes after the target's.
            if occluder.row >= row and (patch := occluder.seen(plan.camera, frame)) is not None:
                yield patch

    def starts_well(self) -> bool:
        """Whether frame 0 shows the target whole, not hidden, and neither tiny nor huge."""
        layers = self.layers(0)
        target = next((layer.patch for layer in layers if layer.track is self.plan.target), None)
        if target is None or self.visibility(layers) <= 0.95:
            return False
        mask = self.target_mask(layers)
        box = mask_box(mask)
        if box is None or mask.sum() < target.silhouette.sum():
            return False
        camera = self.plan.camera
        return box.area >= SMALLEST**2 and box.w <= camera.width / 2 and box.h <= camera.height / 2
