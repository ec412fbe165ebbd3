"""Pairs from generated scenes, rendered before the training or while it runs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.random import Generator

from duotrack.boxes import Box
from duotrack.data.images import Pixels, View
from duotrack.data.recordings import gap_at
from duotrack.data.synthetic import Scene, SceneConfig, SceneFrame
from duotrack.errors import SourceError

FRAMES = 120
WIDTH, HEIGHT = 320, 240
VISIBLE = 0.5
"""Share of the target that a view must show."""
IMPOSTORS = 0.75
"""Share of the views without the target that are of a distractor, where there is one."""


@dataclass(frozen=True, slots=True, eq=False)
class ScenePairs:
    """Two frames of a scene in memory, with the generator's own colour and thermal.

    Raises:
        SourceError: there is no scene, or one without a view.
    """

    scenes: list[list[View]]

    def __post_init__(self) -> None:
        if not self.scenes or not all(self.scenes):
            raise SourceError(f"expected scenes of at least one view each, got {[len(views) for views in self.scenes]}")

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:  # noqa: ARG002
        views = self.scenes[rng.integers(len(self.scenes))]
        return views[rng.integers(len(views))], views[rng.integers(len(views))]


def render_scenes(count: int, *, seed: int, backgrounds: list[Pixels]) -> Iterator[list[View]]:
    """Every sixth frame of ``count`` small scenes, where the target is at least half visible."""
    for number in range(count):
        scene = _stage(seed, number, backgrounds)
        frames = (scene[frame] for frame in range(0, FRAMES, 6))
        yield [_view(frame, scene.config.seed) for frame in frames if _shows(frame)]


class EndlessScenes:
    """Two frames of one of very many scenes, rendered when drawn.

    Scene ``n`` depends on ``(seed, n)`` alone. At any time of a training the draws come from ``live`` scenes in a row,
    and the row moves on from the first scene to the last as the training goes; so that scenes are kept in memory
    (about 2 MB each, ``live`` of them, in every process that draws) without a draw depending on the draws before it.
    Which scenes are live follows from ``progress``: without it, they are always the last ones.

    Args:
        seed: seeds of scenes are ``seed`` and the ``count`` − 1 numbers after it.
        count: how many different scenes a whole training draws from.
        live: how many of them it draws from at one time.
        backgrounds: stills that every second scene is textured with.

    Raises:
        SourceError: ``count`` or ``live`` is less than 1.
    """

    def __init__(
        self,
        *,
        seed: int,
        count: int = 4000,
        live: int = 48,
        backgrounds: Sequence[Pixels] = (),
        largest_gap: int = 60,
    ) -> None:
        if min(count, live) < 1:
            raise SourceError(f"expected at least one scene, and one that is live, got count={count}, live={live}")
        self._seed = seed
        self._count = count
        self._live = min(live, count)
        self._backgrounds = backgrounds
        self._largest_gap = largest_gap
        self._scenes: OrderedDict[int, Scene] = OrderedDict()

    @property
    def cached(self) -> list[int]:
        """Numbers of the scenes in memory, the one used last at the end."""
        return list(self._scenes)

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:
        scene, (_, template), (_, search) = self._frames(rng, progress)
        return _view(template, scene.config.seed), _view(search, scene.config.seed)

    def draw_absent(self, rng: Generator, progress: float = 1.0) -> tuple[View, View] | None:
        """The search view is the generator's frame without the target; most often it is of a distractor."""
        scene, (_, template), (number, search) = self._frames(rng, progress)
        absent = replace(search, pair=scene.plate(number))
        others = [box for box in scene.distractor_boxes(number) if _is_inside(box)]
        if others and rng.random() < IMPOSTORS:
            absent = replace(absent, box=others[rng.integers(len(others))])
        return _view(template, scene.config.seed), replace(_view(absent, scene.config.seed), mask=None)

    def __getstate__(self) -> dict[str, Any]:
        """Without the scenes in memory: a worker process makes its own."""
        return self.__dict__ | {"_scenes": OrderedDict()}

    def _frames(self, rng: Generator, progress: float) -> tuple[Scene, tuple[int, SceneFrame], tuple[int, SceneFrame]]:
        """A scene and two of its frames that show the target, with their numbers."""
        scene = self._scene(rng, progress)
        template = _draw_frame(scene, range(FRAMES), rng) or (0, scene[0])  # frame 0 shows it by construction
        gap = gap_at(progress, self._largest_gap)
        near = range(max(template[0] - gap, 0), min(template[0] + gap, FRAMES - 1) + 1)
        return scene, template, _draw_frame(scene, near, rng) or template

    def _scene(self, rng: Generator, progress: float) -> Scene:
        first = int(min(max(progress, 0.0), 1.0) * (self._count - self._live))
        number = first + int(rng.integers(self._live))
        scene = self._scenes.pop(number, None)
        if scene is None:
            scene = _stage(self._seed, number, self._backgrounds)
        self._scenes[number] = scene
        if len(self._scenes) > self._live:
            self._scenes.popitem(last=False)
        return scene


def _stage(seed: int, number: int, backgrounds: Sequence[Pixels]) -> Scene:
    # A pair of frames does not tell a target from its twin: both answers would be taught. In half of the scenes the
    # target goes out of the frame, so that it is seen at the edge, with a part of it beyond.
    config = SceneConfig(
        width=WIDTH,
        height=HEIGHT,
        frames=FRAMES,
        seed=seed + number,
        exits=number % 4 >= 2,
        distractors=1 + number % 5,
        twins=False,
    )
    return Scene(config, backgrounds=backgrounds if number % 2 else None)


def _draw_frame(scene: Scene, numbers: range, rng: Generator) -> tuple[int, SceneFrame] | None:
    """One of the frames ``numbers`` that shows the target, and its number; None where four draws find none."""
    for _ in range(4):
        number = numbers[rng.integers(len(numbers))]
        frame = scene[number]
        if _shows(frame):
            return number, frame
    return None


def _shows(frame: SceneFrame) -> bool:
    return frame.box is not None and frame.visibility > VISIBLE


def _is_inside(box: Box) -> bool:
    return 0 <= box.center[0] < WIDTH and 0 <= box.center[1] < HEIGHT


def _view(frame: SceneFrame, scene: int) -> View:
    assert frame.box is not None
    mask = frame.mask.astype(np.uint8) * 255
    return View(frame.pair.rgb, cast("Pixels", frame.pair.thermal), frame.box, mask, scene)
