"""The part ``rendered``: colour video with thermal made up from it. No camera saw this thermal.

What a thermal camera shows of a scene follows from materials and heat, of which a colour image says little. This
rendering keeps what a tracker meets in real thermal: broad areas of even temperature, faint detail, a target whose
contrast is its own and drifts, noise and stripes of the sensor, and a frame that does not quite fit the colour one.
It is another one than training's (``data.augment.render_thermal``), and one for a whole sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.images import Pixels, read_grey
from duotrack.data.recordings import Recording
from duotrack.data.synthetic.noise import Field, stream, wander
from duotrack.errors import SourceError
from duotrack.evaluation.attributes import box_attributes
from duotrack.evaluation.local.colour import colour_recordings
from duotrack.evaluation.sequences import BenchmarkPairs
from duotrack.frames import FramePair

PART = "rendered"
SYNTHETIC = "synthetic-thermal"
"""The attribute of sequences whose thermal no camera saw."""
NOTE = "the thermal of the rendered sequences is synthetic: figures on them say nothing about a real thermal camera"

BROAD = 9.0
"""Deviation in pixels of the blur that leaves areas and takes away detail."""
DARKEST, LIGHTEST, LARGEST_GAIN = 20.0, 235.0, 2.5
"""What the gain spreads the first frame's heat over (1st to 99th percentile), and the most that it multiplies by."""
SURROUNDINGS = 15
"""Side in pixels of the ring around the target that its contrast is set against."""


@dataclass(frozen=True, slots=True, eq=False)
class Sensor:
    """How one sequence's thermal looks.

    Attributes:
        inverted: whether what is light in colour is cold.
        gamma: of the curve from luminance to heat.
        detail: the share of fine detail that thermal keeps.
        contrast: by how much the target is warmer than its surroundings, in the first frame.
        own_detail: the share of the target's own light and dark parts that remain.
        drift: (frames,) by how much the target warms.
        level: (frames,) grey levels that the camera's offset moves everything by.
        stripes: (W,) grey levels, the same in every frame.
        noise: deviation in grey levels.
        place: (2, 3) between pixel centres: where a point of the colour frame lies in the thermal one.
    """

    inverted: bool
    gamma: float
    detail: float
    contrast: float
    own_detail: float
    drift: Field
    level: Field
    stripes: Field
    noise: float
    place: NDArray[np.float64]

    @classmethod
    def draw(cls, name: str, frames: int, width: int, height: int) -> Self:
        """The one that belongs to the sequence of this name."""
        rng = stream(0, "rendered thermal", name)
        shift, scale = rng.uniform(-2.0, 2.0, 2), 1 + rng.uniform(-0.01, 0.01)
        centre = np.array([width - 1, height - 1]) / 2
        return cls(
            inverted=bool(rng.random() < 0.5),
            gamma=float(np.exp(rng.uniform(-0.5, 0.5))),
            detail=rng.uniform(0.25, 0.55),
            contrast=rng.uniform(25, 70) * (1 if rng.random() < 0.7 else -1),
            own_detail=rng.uniform(0.2, 0.5),
            drift=np.float32(12) * wander(rng, frames, 80),
            level=np.float32(8) * wander(rng, frames, 50),
            stripes=rng.normal(0, 1.2, width).astype(np.float32),
            noise=rng.uniform(1.5, 4.0),
            place=np.column_stack((scale * np.eye(2), shift + (1 - scale) * centre)),
        )

    def background(self, rgb: Pixels) -> Field:
        """(H, W) heat of everything but the target, 0 to 255."""
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        # Half the resolution: thermal sensors have fewer pixels.
        half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        coarse = cv2.resize(half, (grey.shape[1], grey.shape[0]), interpolation=cv2.INTER_LINEAR)
        levels = coarse.astype(np.float32) / 255
        heat = 255 * (1 - levels if self.inverted else levels) ** np.float32(self.gamma)
        broad = cv2.GaussianBlur(heat, (0, 0), BROAD)
        return np.asarray(broad + np.float32(self.detail) * (heat - broad), np.float32)

    def deliver(self, levels: Field, frame: int, name: str) -> Pixels:
        """The image that the camera makes of grey levels (H, W)."""
        rng = stream(0, "rendered thermal", name, frame)
        noise = rng.standard_normal(levels.shape, np.float32) * np.float32(self.noise)
        height, width = levels.shape
        seen = cv2.warpAffine(levels, self.place, (width, height), borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(np.clip(np.rint(seen + self.level[frame] + self.stripes + noise), 0, 255), np.uint8)


@dataclass(frozen=True)
class RenderedThermal:
    """A colour recording with thermal rendered for it; ``pair(i)`` is the same whatever was drawn before.

    Attributes:
        masks: image files of the target's silhouette, one a frame; without them the target has no heat of its own.
    """

    name: str
    recording: Recording
    masks: tuple[Path, ...] | None
    attributes: tuple[str, ...]

    @property
    def boxes(self) -> Sequence[Box | None]:
        return self.recording.boxes

    def pair(self, index: int) -> FramePair:
        """
        Raises:
            SourceError: an image cannot be read.
        """
        rgb = self._rgb(index)
        gain, offset = self._gain
        levels = gain * self._heat(rgb, index) + offset
        return FramePair(rgb, self._sensor.deliver(levels, index, self.name))

    @cached_property
    def _sensor(self) -> Sensor:
        height, width = self._rgb(0).shape[:2]
        return Sensor.draw(self.name, len(self.boxes), width, height)

    @cached_property
    def _gain(self) -> tuple[np.float32, np.float32]:
        """Grey levels per heat, and the level of none: one for the sequence, so that nothing flickers."""
        low, high = np.percentile(self._heat(self._rgb(0), 0), (1, 99))
        gain = min((LIGHTEST - DARKEST) / max(float(high - low), 1.0), LARGEST_GAIN)
        return np.float32(gain), np.float32((LIGHTEST + DARKEST) / 2 - gain * (low + high) / 2)

    @cached_property
    def _target_heat(self) -> np.float32:
        """The target's mean in the first frame: that of its surroundings, and its contrast."""
        heat, inside = self._sensor.background(self._rgb(0)), (self._share(0) > 0.5).astype(np.uint8)
        ring = cv2.dilate(inside, np.ones((SURROUNDINGS, SURROUNDINGS), np.uint8)) - inside
        return np.float32(cv2.mean(heat, ring)[0] + self._sensor.contrast)

    def _heat(self, rgb: Pixels, index: int) -> Field:
        """(H, W) of the whole scene."""
        heat = self._sensor.background(rgb)
        if self.masks is None:
            return heat
        share = self._share(index)
        grey = cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (0, 0), 1.2).astype(np.float32)
        mean = cv2.mean(grey, (share > 0.5).astype(np.uint8))[0]
        own = np.float32(self._sensor.own_detail) * (grey - np.float32(mean))
        return np.asarray(heat + share * (self._target_heat + self._sensor.drift[index] + own - heat), np.float32)

    def _share(self, index: int) -> Field:
        """(H, W) how much of each pixel the target fills, through soft optics."""
        assert self.masks is not None
        soft = cv2.GaussianBlur(read_grey(self.masks[index]), (0, 0), 1.5)
        return np.asarray(soft / np.float32(255), np.float32)

    def _rgb(self, index: int) -> Pixels:
        rgb = self.recording.pair(index).rgb
        assert rgb is not None
        return rgb


def rendered_sequences(root: Path, split: str) -> tuple[list[BenchmarkPairs], list[str]]:
    """The colour sequences of a split with rendered thermal, and notes.

    Raises:
        SourceError: a sequence is not as the folder's convention says.
    """
    sequences: list[BenchmarkPairs] = []
    for recording in colour_recordings(root, split):
        attributes = (PART, SYNTHETIC, *sorted(box_attributes(recording.boxes)))
        sequences.append(RenderedThermal(f"{PART}-{recording.name}", recording, masks_of(recording), attributes))
    return sequences, [NOTE]


def masks_of(recording: Recording) -> tuple[Path, ...] | None:
    """The silhouettes that belong to a recording's frames; None where the sequence has none.

    Raises:
        SourceError: some frames have one, and some lack it.
    """
    assert recording.rgb is not None
    folder = recording.rgb[0].parent.parent / "mask"
    if not folder.is_dir():
        return None
    masks = tuple(folder / f"{path.stem}.png" for path in recording.rgb)
    for mask in masks:
        if not mask.is_file():
            raise SourceError(f"expected a mask for every frame, but {mask} does not exist")
    return masks
