"""Where training pairs come from: each source draws two views of one target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import cv2
import numpy as np
from numpy.random import Generator

from duotrack.boxes import Box, mask_box
from duotrack.data import images
from duotrack.data.images import Pixels, Sequence, ThermalFrame, View
from duotrack.data.synthetic import Scene, SceneConfig
from duotrack.errors import SourceError


class PairSource(Protocol):
    """Draws two views of one target: how it looks in the template, and how it looks in the search frame."""

    def draw(self, rng: Generator) -> tuple[View, View]: ...


@dataclass(frozen=True, slots=True, eq=False)
class SequencePairs:
    """Two frames of one sequence, up to ``largest_gap`` apart, in either order."""

    sequences: list[Sequence]
    largest_gap: int = 60

    def draw(self, rng: Generator) -> tuple[View, View]:
        sequence = self.sequences[rng.integers(len(self.sequences))]
        visible = [index for index, box in enumerate(sequence.boxes) if box is not None]
        first = visible[rng.integers(len(visible))]
        near = [index for index in visible if abs(index - first) <= self.largest_gap]
        return sequence_view(sequence, first), sequence_view(sequence, near[rng.integers(len(near))])


def sequence_view(sequence: Sequence, index: int) -> View:
    box = sequence.boxes[index]
    assert box is not None
    mask = sequence.masks[index] if sequence.masks is not None else None
    return View(sequence.frames[index], None, box, mask, sequence.name)


@dataclass(frozen=True, slots=True, eq=False)
class StillPairs:
    """A random box of a still, in colour or in aligned colour and thermal; motion comes from the crops' jitter."""

    stills: list[tuple[Pixels, Pixels | None]]

    def draw(self, rng: Generator) -> tuple[View, View]:
        rgb, thermal = self.stills[rng.integers(len(self.stills))]
        view = View(rgb, thermal, random_box(rgb.shape[1], rgb.shape[0], rng), scene=id(rgb))
        return view, view


def random_box(width: int, height: int, rng: Generator) -> Box:
    side = min(width, height) * np.exp(rng.uniform(np.log(0.12), np.log(0.6)))
    stretch = np.exp(0.35 * rng.normal())
    w, h = min(side * stretch, 0.9 * width), min(side / stretch, 0.9 * height)
    return Box(rng.uniform(0, width - w), rng.uniform(0, height - h), w, h)


@dataclass(frozen=True, slots=True, eq=False)
class ThermalPairs:
    """A labelled object of a thermal frame; what stands around it are distractors of its kind."""

    frames: list[ThermalFrame]

    def draw(self, rng: Generator) -> tuple[View, View]:
        frame = self.frames[rng.integers(len(self.frames))]
        view = View(None, frame.image, frame.boxes[rng.integers(len(frame.boxes))], scene=id(frame.image))
        return view, view


@dataclass(frozen=True, slots=True, eq=False)
class Cutout:
    """An object cut from its background, in one or two poses: each colour (H, W, 3) with an alpha mask (H, W)."""

    poses: tuple[tuple[Pixels, Pixels], ...]
    scene: str | int


@dataclass(frozen=True, slots=True, eq=False)
class PastedPairs:
    """A cut-out pasted into two places of a background (or of two), beside other cut-outs as distractors.

    Sequences with masks give cut-outs that really deform between the two views; segments of stills give variety.
    """

    sequences: list[Sequence]
    segments: list[tuple[Pixels, Pixels]]
    backgrounds: list[Pixels]

    def draw(self, rng: Generator) -> tuple[View, View]:
        target = self._cutout(rng)
        others = [self._cutout(rng) for _ in range(rng.integers(0, 4))]
        if others and rng.random() < 0.3:
            others[0] = target  # a twin: only its place tells them apart, and its small differences
        background = self._background(rng)
        second = background if rng.random() < 0.7 else self._background(rng)
        first = self._compose(background, target, 0, others[: len(others) // 2], rng)
        return first, self._compose(second, target, -1, others, rng)

    def _background(self, rng: Generator) -> Pixels:
        image = self.backgrounds[rng.integers(len(self.backgrounds))]
        return cast("Pixels", cv2.resize(image, (320, 320), interpolation=cv2.INTER_LINEAR))

    def _cutout(self, rng: Generator) -> Cutout:
        if self.sequences and rng.random() < 0.5:
            sequence = self.sequences[rng.integers(len(self.sequences))]
            assert sequence.masks is not None
            indices = [index for index, box in enumerate(sequence.boxes) if box is not None]
            first = int(rng.integers(len(indices)))
            second = int(np.clip(first + rng.integers(-40, 41), 0, len(indices) - 1))
            poses = [_cut(sequence.frames[indices[i]], sequence.masks[indices[i]]) for i in (first, second)]
            if all(poses):
                return Cutout(tuple(pose for pose in poses if pose), sequence.name)
        image, mask = self.segments[rng.integers(len(self.segments))]
        return Cutout(((image, mask),), id(image))

    @staticmethod
    def _compose(background: Pixels, target: Cutout, pose: int, others: list[Cutout], rng: Generator) -> View:
        canvas = background.copy()
        for other in others:
            _paste(canvas, *other.poses[0], rng)
        mask = _paste(canvas, *target.poses[pose], rng)
        box = mask_box((mask > 127).astype(np.uint8))
        if box is None:  # thinner than a pixel at this scale
            return View(background, None, random_box(320, 320, rng))
        return View(canvas, None, box, mask, target.scene)


def _cut(image: Pixels, mask: Pixels) -> tuple[Pixels, Pixels] | None:
    box = mask_box(mask)
    if box is None or box.area < 64:
        return None
    left, top, width, height = (int(value) for value in box.xywh)
    region = np.s_[top : top + height, left : left + width]
    return image[region], mask[region]


def _paste(canvas: Pixels, image: Pixels, mask: Pixels, rng: Generator) -> Pixels:
    """Paste a cut-out at a random place, turned and scaled, in place; returns its alpha mask on the canvas."""
    height, width = canvas.shape[:2]
    side = np.exp(rng.uniform(np.log(36), np.log(130)))
    scale = side / np.sqrt(image.shape[0] * image.shape[1])
    turn = cv2.getRotationMatrix2D((image.shape[1] / 2, image.shape[0] / 2), 8 * rng.normal(), scale)
    if rng.random() < 0.1:
        turn = turn @ np.array([[-1, 0, image.shape[1]], [0, 1, 0], [0, 0, 1.0]])
    center = turn @ np.array([image.shape[1] / 2, image.shape[0] / 2, 1])
    margin = 0.35 * side
    turn[:, 2] += np.array([rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)]) - center
    half = int(side * max(image.shape[:2]) / np.sqrt(image.shape[0] * image.shape[1])) + 4
    placed = (turn @ np.array([image.shape[1] / 2, image.shape[0] / 2, 1])).astype(int)
    left, top = np.clip(placed - half, 0, (width - 1, height - 1))
    right, bottom = np.clip(placed + half, 1, (width, height))
    turn[:, 2] -= (left, top)
    size, region = (int(right - left), int(bottom - top)), np.s_[top:bottom, left:right]
    warped = cv2.warpAffine(image, turn, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = np.zeros((height, width), np.uint8)
    alpha[region] = cv2.warpAffine(mask, turn, size, flags=cv2.INTER_LINEAR)
    softened = (alpha[region].astype(np.float32) / 255)[..., None]
    canvas[region] = (canvas[region] * (1 - softened) + warped * softened).astype(np.uint8)
    return alpha


@dataclass(frozen=True, slots=True, eq=False)
class ScenePairs:
    """Two frames of a generated scene, with the generator's own colour and thermal."""

    scenes: list[list[View]]

    def draw(self, rng: Generator) -> tuple[View, View]:
        views = self.scenes[rng.integers(len(self.scenes))]
        return views[rng.integers(len(views))], views[rng.integers(len(views))]


def render_scenes(count: int, *, seed: int, backgrounds: list[Pixels]) -> Iterator[list[View]]:
    """Frames of ``count`` small scenes in which the target is at least half visible."""
    for index in range(count):
        config = SceneConfig(width=320, height=240, frames=120, seed=seed + index, exits=False)
        scene = Scene(config, backgrounds=backgrounds if index % 2 else None)
        frames = (scene[frame] for frame in range(0, config.frames, 6))
        yield [
            View(frame.pair.rgb, cast("Pixels", frame.pair.thermal), frame.box, scene=config.seed)
            for frame in frames
            if frame.box is not None and frame.visibility > 0.5
        ]


def local_sources(root: Path, *, scenes: int, seed: int) -> tuple[dict[str, tuple[PairSource, float]], list[Pixels]]:
    """The sources made from the local data folders and generated scenes, with their shares, and images to occlude with.

    Args:
        root: folder with ``rgb-sequences``, ``rgb-stills``, ``rgbt-pairs`` and ``thermal-frames`` (docs/training.md).
        scenes: how many synthetic scenes to render into memory; 0 leaves the source out.

    Raises:
        SourceError: a folder is missing or a file in it cannot be read.
    """
    for name in ("rgb-sequences", "rgb-stills", "rgbt-pairs", "thermal-frames"):
        if not (root / name).is_dir():
            raise SourceError(f"training data folder {root / name} does not exist")
    sequences = images.read_sequences(root / "rgb-sequences", held_out=False, masks=True)
    stills = [images.read_rgb(path) for path in sorted((root / "rgb-stills" / "imagenet").glob("*.jpg"))]
    segments: list[tuple[Pixels, Pixels]] = []
    for path in sorted((root / "rgb-stills" / "bsds").glob("*.jpg")):
        image = images.read_rgb(path)
        stills.append(image)
        for mask in images.largest_segments(images.read_grey(path.with_suffix(".png")), 0.01, 0.25)[:6]:
            segment = _cut(image, mask)
            if segment is not None:
                segments.append(segment)
    pairs = list(images.read_aligned_pairs(root / "rgbt-pairs"))
    masked = [sequence for sequence in sequences if sequence.masks is not None]
    sources: dict[str, tuple[PairSource, float]] = {
        "sequences": (SequencePairs(sequences), 0.42),
        "stills": (StillPairs([(still, None) for still in stills]), 0.13),
        "pasted": (PastedPairs(masked, segments, stills), 0.20),
        "rgbt": (StillPairs([(rgb, thermal) for rgb, thermal in pairs]), 0.10),
        "thermal": (ThermalPairs(list(images.read_thermal_frames(root / "thermal-frames"))), 0.05),
    }
    if scenes:
        sources["scenes"] = (ScenePairs(list(render_scenes(scenes, seed=seed, backgrounds=stills))), 0.10)
    return sources, stills
