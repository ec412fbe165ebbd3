"""A synthetic scene: any frame of it, drawn on demand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import Box, mask_box
from duotrack.data.synthetic.config import SceneConfig
from duotrack.data.synthetic.figure import CELSIUS_PER_CODE, COLDEST, shadow
from duotrack.data.synthetic.lighting import headlights, ripples
from duotrack.data.synthetic.noise import COARSE, Field, Pixels, stream, wander
from duotrack.data.synthetic.occluders import place_occluders
from duotrack.data.synthetic.plan import make_plan
from duotrack.data.synthetic.props import paste
from duotrack.data.synthetic.radiometry import ColourCamera, ThermalCamera
from duotrack.data.synthetic.stage import Layer, Sight, Stage
from duotrack.data.synthetic.tracks import Track
from duotrack.data.synthetic.world import World, build_world
from duotrack.frames import FramePair

ATTEMPTS = 40
"""How many plans are drawn before giving up on one whose first frame shows the target."""


@dataclass(frozen=True, slots=True, eq=False)
class SceneFrame:
    """One frame of a scene and the truth about it.

    Attributes:
        pair: the colour and the thermal frame.
        box: around the target's silhouette inside the colour frame, hidden parts included, to the pixel; None
            where no part of it is inside.
        thermal_box: the same in the thermal frame, which the cameras' misalignment moves by a pixel or so.
        visibility: the share of the silhouette that is inside the frame and not hidden, 0 to 1.
        mask: (H, W), the pixels of the colour frame that the target fills at least half, hidden or not.
    """

    pair: FramePair
    box: Box | None
    thermal_box: Box | None
    visibility: float
    mask: NDArray[np.bool_]


class Scene(Sequence[SceneFrame]):
    """A sequence of frame pairs with one target; ``scene[i]`` is the same whatever was drawn before.

    The target is visible and entirely in the frame in frame 0. ``backgrounds``, colour stills of shape
    (h, w, 3) uint8 in R, G, B order, replace the painted world and texture the target and its distractors; which
    of them is drawn from the seed.

    Raises:
        ValueError: a background is not a colour image, or no plan for the config shows the target in frame 0.
    """

    def __init__(self, config: SceneConfig, backgrounds: Sequence[Pixels] | None = None) -> None:
        backgrounds = backgrounds or ()
        for still in backgrounds:
            if still.ndim != 3 or still.shape[2] != 3 or still.dtype != np.uint8 or min(still.shape[:2]) < 16:
                raise ValueError(
                    f"backgrounds must be (height, width, 3) uint8 of at least 16x16, got {still.shape} {still.dtype}"
                )
        self.config = config
        self._backgrounds = backgrounds
        self._stage = _set_stage(config, backgrounds)
        self.plan = self._stage.plan

    @cached_property
    def _world(self) -> World:
        """Painted for the first frame that is drawn: the truth alone does without it."""
        return build_world(self.plan, stream(self.config.seed, "world"), self._backgrounds)

    @cached_property
    def _colour_camera(self) -> ColourCamera:
        return ColourCamera.draw(stream(self.config.seed, "colour camera"), self.config.width, self.config.height)

    @cached_property
    def _thermal_camera(self) -> ThermalCamera:
        config = self.config
        return ThermalCamera.draw(
            stream(config.seed, "thermal camera"), config.misalignment, config.width, config.height
        )

    @cached_property
    def _warming(self) -> Field:
        """(frames,) by how many °C the surroundings are warmer than the world is painted."""
        drift = wander(stream(self.config.seed, "drift"), self.config.frames, 250)
        return drift + np.float32(self._swing()) * self.plan.crossing

    def __len__(self) -> int:
        return self.config.frames

    @overload
    def __getitem__(self, index: int) -> SceneFrame: ...
    @overload
    def __getitem__(self, index: slice) -> list[SceneFrame]: ...
    def __getitem__(self, index: int | slice) -> SceneFrame | list[SceneFrame]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        frame = self._index(index)
        layers = self._stage.layers(frame)
        mask = self._stage.target_mask(layers)
        box = mask_box(mask)
        return SceneFrame(
            pair=self._render(frame, layers),
            box=box,
            thermal_box=box
            and self._thermal_camera.registration.to_thermal(box, self.config.width, self.config.height),
            visibility=self._stage.visibility(layers),
            mask=mask,
        )

    def __iter__(self) -> Iterator[SceneFrame]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        c, plan = self.config, self.plan
        return (
            f"Scene({plan.kind} in {plan.view} by {plan.light}, {c.frames} frames {c.width}x{c.height}, seed={c.seed})"
        )

    def sight(self, index: int) -> Sight:
        """The target's box and visibility in a frame, without drawing it: several times as fast as ``scene[index]``."""
        return self._stage.sight(self._index(index))

    def silhouette(self, index: int) -> NDArray[np.bool_]:
        """(H, W): the pixels of the colour frame that the target fills at least half, hidden or not."""
        return self._stage.target_mask(self._stage.layers(self._index(index)))

    def plate(self, index: int) -> FramePair:
        """The frame without the target and its shadow, with the same noise: what film makers call a clean plate."""
        frame = self._index(index)
        return self._render(frame, [each for each in self._stage.layers(frame) if each.track is not self.plan.target])

    def distractor_boxes(self, index: int) -> list[Box]:
        """Boxes of those distractors that have a part inside the frame, hidden or not."""
        frame = self._index(index)
        tracks = self.plan.distractors
        patches = [layer.patch for layer in self._stage.layers(frame) if layer.track in tracks]
        return [box for patch in patches if (box := mask_box(self._stage.mask(patch))) is not None]

    def _index(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of a scene of {len(self)} frames")
        return index % len(self)

    def _swing(self) -> float:
        """By how many °C the surroundings warm (or cool) so that at the crossover the target's contrast is inverted."""
        span, target = self.plan.crossover, self.plan.target
        if span is None:
            return 0.0
        contrasts = []
        for frame in np.linspace(span.start, span.stop - 1, 5).astype(int).tolist():
            patch = self._stage.actor(target, frame)
            if patch is None:
                continue
            solid = patch.alpha == 255
            kelvin = self._behind(target, frame)
            if solid.any() and kelvin.size:
                body = float(patch.surface[..., 3][solid].mean()) * CELSIUS_PER_CODE + COLDEST
                contrasts.append(body - (float(kelvin.mean()) / 100 - 273.15))
        contrast = float(np.mean(contrasts)) if contrasts else 10.0
        return 2.0 * math.copysign(max(abs(contrast), 3.0), contrast)

    def _behind(self, track: Track, frame: int) -> NDArray[np.uint16]:
        """The world's temperatures around an actor, in 0.01 K."""
        world, scale = self._world, float(track.scale[frame])
        reach = 0.9 * track.actor.size * scale
        x = float(track.x[frame]) - world.left
        lifted = track.actor.height / 2 + float(track.lift[frame])
        row = float(track.row[frame]) - world.top - lifted * scale * math.cos(float(track.pitch[frame]))
        rows, columns = (slice(max(int(v - reach), 0), max(int(v + reach), 0)) for v in (row, x))
        return world.thermal[rows, columns]

    def _render(self, frame: int, layers: list[Layer]) -> FramePair:
        plan, config, world = self.plan, self.config, self._world
        size = (config.width, config.height)
        matrix = plan.camera.matrix(frame)
        matrix[:, 2] += matrix[:, :2] @ (world.left, world.top)
        colour: Pixels = np.asarray(
            cv2.warpAffine(world.colour, matrix, size, borderMode=cv2.BORDER_REFLECT_101), np.uint8
        )
        kelvin = cv2.warpAffine(world.thermal, matrix, size, borderMode=cv2.BORDER_REFLECT_101)
        warming = float(self._warming[frame])
        celsius: Field = kelvin.astype(np.float32)
        celsius *= np.float32(0.01)
        celsius += np.float32(warming - 273.15)

        self._cast_shadows(colour, frame, layers)
        for layer in layers:
            paste(colour, celsius, layer.patch, heat=warming if layer.track is None else 0.0)
        rng = stream(config.seed, "frame", frame)
        daylight = float(plan.daylight[frame])
        rgb = self._colour_camera.expose(colour, self._light(frame, matrix, layers), daylight, rng)
        counts = self._thermal_camera.read(celsius, rng)
        return FramePair(rgb=rgb, thermal=self._thermal_camera.deliver(counts, config.thermal_bits))

    def _cast_shadows(self, colour: Pixels, frame: int, layers: list[Layer]) -> None:
        plan = self.plan
        daylight = float(plan.daylight[frame])
        sunny = daylight > 0.3
        depth = 0.55 * float(plan.shade[frame]) * min(daylight / 0.7, 1) if sunny else 0.3
        sun = plan.sun if sunny else (0.1, 0.06)
        for layer in layers:
            if layer.track is None or (layer.track.actor.altitude and not sunny):
                continue
            figure = layer.track.actor.body.figure(layer.track.pose(frame))
            cast = shadow(figure, layer.track.placement(frame, plan.camera), sun)
            if cast is not None:
                _darken(colour, *cast, depth)

    def _light(self, frame: int, matrix: NDArray[np.float64], layers: list[Layer]) -> Field:
        """The light on everything, (H / 4, W / 4, 3)."""
        plan, camera = self.plan, self._colour_camera
        daylight = float(plan.daylight[frame])
        ambient = camera.ambient(daylight, float(plan.shade[frame]))
        light = np.ones((*camera.vignette.shape[:2], 1), np.float32) * ambient
        lamp = camera.lamp_level(daylight)
        size = (light.shape[1], light.shape[0])
        coarse = matrix.copy()
        coarse[:, 2] /= COARSE
        if lamp > 0:
            lamps: Field = np.asarray(cv2.warpAffine(self._world.lamps, coarse, size), np.float32)
            for layer in layers:
                if layer.track is not None and layer.track.actor.headlights:
                    lamps += headlights(plan, layer.track, frame, size)
            light += lamps[..., None] * (lamp * camera.lamp_tint)
        if self._world.water is not None:
            glint = cv2.warpAffine(self._world.water, coarse, size)
            light *= (1 + 0.22 * glint * ripples(frame, coarse, size))[..., None]
        return light


def _set_stage(config: SceneConfig, backgrounds: Sequence[Pixels]) -> Stage:
    """The first plan in which the target starts in full view, with what stands in the foreground."""
    for attempt in range(ATTEMPTS):
        plan = make_plan(config, attempt, backgrounds)
        occluders = place_occluders(plan, stream(config.seed, "occluders", attempt))
        stage = Stage(plan, occluders, hides=config.occlusion)
        if stage.starts_well():
            return stage
    raise ValueError(f"found no plan in which the target starts in full view, for {config}")


def _darken(colour: Pixels, left: int, top: int, mask: Pixels, depth: float) -> None:
    rows = slice(max(top, 0), min(top + mask.shape[0], colour.shape[0]))
    columns = slice(max(left, 0), min(left + mask.shape[1], colour.shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    part = mask[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    light = cv2.convertScaleAbs(part, alpha=-depth, beta=255)
    under = np.ascontiguousarray(colour[rows, columns])
    colour[rows, columns] = cv2.multiply(under, cv2.merge((light, light, light)), scale=1 / 255)
