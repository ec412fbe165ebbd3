"""Aligned stills turned into sequences: a camera moves over the still, and pasted objects move before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast, overload

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.boxes import Box, mask_box
from duotrack.data import pasting
from duotrack.data.figures import Figures
from duotrack.data.homography import Homographies, Motion, between_pixel_centres, camera_path, transform
from duotrack.data.images import Pixels, View
from duotrack.data.movers import Mover, Surroundings, draw_mover
from duotrack.data.regions import contrast, ellipse, random_box
from duotrack.errors import SourceError
from duotrack.frames import FramePair

SEEN = 0.2
"""Share of the target that must be in the frame and uncovered for the frame to have a box."""
ATTEMPTS = 24
"""How many sequences are drawn before giving up on one whose first frame shows the target whole."""
UNMOVED = np.zeros(2)


@dataclass(frozen=True, slots=True, eq=False)
class MovingFrame:
    """One frame of a moving still, and the truth about it.

    Attributes:
        pair: colour and thermal, one of which the still may lack.
        box: around the part of the target inside the colour frame, covered parts included; None where less than
            ``SEEN`` of the target is visible.
        mask: (H, W) alpha of a pasted target, 0 to 255, less what covers it; None for a region of the still.
        visibility: the share of the target that is inside the frame and not covered, 0 to 1.
    """

    pair: FramePair
    box: Box | None
    mask: Pixels | None
    visibility: float


@dataclass(frozen=True, eq=False)
class MovingStill(Sequence[MovingFrame]):
    """A sequence whose frames are drawn on demand: ``sequence[i]`` is the same whatever was drawn before.

    ``move_still`` draws one from a seed.

    Attributes:
        name: of the sequence, in reports.
        rgb, thermal: the still, (H, W, 3) and (H, W), registered; one may be None.
        size: width and height of the frames.
        homographies: (frames, 3, 3), from coordinates of a frame to those of the still.
        offset: (2,) pixels between the cameras: the thermal frame shows at p what the colour frame shows at p + offset.
        target: a pasted object, or the (N, 2) outline of a region of the still.
        behind, before: other pasted objects, those that the target covers and those that cover it.
        scene: of the views made from it (``View.scene``).
    """

    name: str
    rgb: Pixels | None
    thermal: Pixels | None
    size: tuple[int, int]
    homographies: Homographies
    offset: NDArray[np.float64]
    target: Mover | NDArray[np.float64]
    behind: tuple[Mover, ...]
    before: tuple[Mover, ...]
    scene: str | int

    def __len__(self) -> int:
        return len(self.homographies)

    @overload
    def __getitem__(self, index: int) -> MovingFrame: ...
    @overload
    def __getitem__(self, index: slice) -> list[MovingFrame]: ...
    def __getitem__(self, index: int | slice) -> MovingFrame | list[MovingFrame]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        frame = self._index(index)
        box, visibility, mask = self._sight(frame)
        return MovingFrame(self._render(frame, self._movers), box if visibility >= SEEN else None, mask, visibility)

    def __iter__(self) -> Iterator[MovingFrame]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        target = "a pasted object" if isinstance(self.target, Mover) else "a region"
        return f"MovingStill({self.name!r}, {len(self)} frames {self.size[0]}x{self.size[1]}, target {target})"

    def visibility(self, index: int) -> float:
        """The share of the target that is in the frame and not covered, without drawing the frame."""
        return self._sight(self._index(index))[1]

    def view(self, index: int) -> View | None:
        """A frame as a training view; None where it has no box."""
        frame = self[index]
        return None if frame.box is None else self._view(frame.pair, frame.box, frame.mask)

    def plate(self, index: int) -> View | None:
        """The frame without its pasted target, and the box where it would be; None where there is no such box."""
        frame = self._index(index)
        box, visibility, _ = self._sight(frame)
        if box is None or visibility < SEEN or not isinstance(self.target, Mover):
            return None
        return self._view(self._render(frame, (*self.behind, *self.before)), box, None)

    @property
    def _movers(self) -> tuple[Mover, ...]:
        target = (self.target,) if isinstance(self.target, Mover) else ()
        return (*self.behind, *target, *self.before)

    def _index(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {self.name}, which has {len(self)} frames")
        return index % len(self)

    def _view(self, pair: FramePair, box: Box, mask: Pixels | None) -> View:
        return View(pair.rgb, cast("Pixels | None", pair.thermal), box, mask, self.scene)

    def _sight(self, frame: int) -> tuple[Box | None, float, Pixels | None]:
        """The box of the target's part inside the frame, the share of the target that is visible, and its mask."""
        width, height = self.size
        if isinstance(self.target, Mover):
            patch = self.target.patch(frame, UNMOVED, width, height)
            silhouette = np.zeros((height, width), np.uint8) if patch is None else patch.mask(width, height)
            whole, covering = self.target.area(frame), self.before
            box = mask_box(silhouette > 127)
        else:
            outline = transform(np.linalg.inv(self.homographies[frame]), self.target).astype(np.float32)
            silhouette = np.zeros((height, width), np.uint8)
            # fillPoly takes pixel centres, here in sixteenths.
            cv2.fillPoly(silhouette, [np.rint((outline - 0.5) * 16).astype(np.int32)], 255, shift=4)
            whole, covering = float(cv2.contourArea(outline)), self._movers
            box = _bounds(outline, width, height)
        visible = silhouette.astype(np.float32) / np.float32(255)
        for mover in covering:
            patch = mover.patch(frame, UNMOVED, width, height)
            if patch is not None:
                visible[patch.region] *= np.float32(1) - patch.alpha.astype(np.float32) / np.float32(255)
        share = min(float(visible.sum(dtype=np.float64)) / max(whole, 1.0), 1.0)
        mask = np.rint(visible * 255).astype(np.uint8) if isinstance(self.target, Mover) else None
        return box, share, mask

    def _render(self, frame: int, movers: tuple[Mover, ...]) -> FramePair:
        homography, rgb, thermal = self.homographies[frame], None, None
        if self.rgb is not None:
            rgb = self._warp(self.rgb, homography)
        if self.thermal is not None:
            thermal = self._warp(self.thermal, homography @ _move(self.offset))
        for mover in movers:
            if rgb is not None and (patch := mover.patch(frame, UNMOVED, *self.size)) is not None:
                pasting.lay(rgb, patch)
            if thermal is not None and (patch := mover.patch(frame, -self.offset, *self.size)) is not None:
                pasting.lay_heat(thermal, patch, mover.heat)
        return FramePair(rgb, thermal)

    def _warp(self, still: Pixels, homography: Homographies) -> Pixels:
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        matrix = between_pixel_centres(homography)
        # Only misalignment can look over the still's edge, by a pixel or so.
        return cast("Pixels", cv2.warpPerspective(still, matrix, self.size, flags=flags, borderMode=cv2.BORDER_REFLECT))


def move_still(
    rgb: Pixels | None,
    thermal: Pixels | None,
    *,
    seed: int,
    name: str,
    frames: int = 120,
    size: tuple[int, int] | None = None,
    motion: Motion | None = None,
    figures: Figures | None = None,
    paste_target: bool = False,
    distractors: int = 0,
    scene: str | int | None = None,
) -> MovingStill:
    """A sequence from a still, drawn from ``seed``; at least nine tenths of the target are visible in frame 0.

    Args:
        rgb: (H, W, 3) uint8, or None.
        thermal: (H, W) uint8, registered to ``rgb``, or None.
        frames: length of the sequence.
        size: width and height of the frames; by default the size of the part of the still that they show.
        motion: of the camera.
        figures: objects to paste; half of the distractors are recognisably near a pasted target.
        paste_target: whether the target is a pasted object, else it is a region of the still.
        distractors: how many other objects are pasted.
        scene: what ``View.scene`` of its views says; by default the name.

    Raises:
        SourceError: neither image is given, their sizes differ, there is nothing to paste that should be, or no
            sequence is found whose first frame shows the target.
    """
    given = [image for image in (rgb, thermal) if image is not None]
    if not given or given[0].shape[:2] != given[-1].shape[:2]:
        shapes = " and ".join(str(image.shape) for image in given) or "neither"
        raise SourceError(f"still {name}: expected colour, thermal, or both of one height and width, got {shapes}")
    if figures is None and (paste_target or distractors):
        raise SourceError(f"still {name}: there is nothing to paste: expected figures")
    motion = motion or Motion()
    height, width = given[0].shape[:2]
    size = size or (round(motion.share * width), round(motion.share * height))
    surroundings = Surroundings(*(128.0 if image is None else float(image.mean()) for image in (rgb, thermal)))
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng((seed, attempt))
        path = camera_path(motion, frames, (width, height), size, rng)
        offset = motion.misalignment * rng.uniform(-1, 1, 2)
        target: Mover | NDArray[np.float64]
        if figures is not None and paste_target:
            target = draw_mover(figures.draw(rng), surroundings, frames, size, rng)
        else:
            target = _draw_region(given, path[0], size, rng)
        behind: list[Mover] = []
        before: list[Mover] = []
        for _ in range(distractors if figures is not None else 0):
            assert figures is not None
            near = target if isinstance(target, Mover) and rng.random() < 0.5 else None
            figure = near.figure if near is not None and rng.random() < 0.3 else figures.draw(rng)
            other = draw_mover(figure, surroundings, frames, size, rng, near=near)
            (before if rng.random() < 0.3 else behind).append(other)
        still = MovingStill(
            name,
            rgb,
            thermal,
            size,
            path,
            offset,
            target,
            tuple(behind),
            tuple(before),
            name if scene is None else scene,
        )
        if still.visibility(0) > 0.9:
            return still
    raise SourceError(f"still {name}: found no sequence of {size[0]}x{size[1]} that starts with its target in view")


def _draw_region(
    stills: list[Pixels], homography: Homographies, size: tuple[int, int], rng: Generator
) -> NDArray[np.float64]:
    """(N, 2): the outline of a region of the still, that of several drawn in which there is most to see."""
    outlines = [transform(homography, ellipse(random_box(*size, rng))) for _ in range(6)]
    width, height = stills[0].shape[1], stills[0].shape[0]
    bounds = [_bounds(outline, width, height) for outline in outlines]
    seen = [0.0 if box is None else sum(contrast(still, box) for still in stills) for box in bounds]
    return outlines[int(np.argmax(seen))]


def _bounds(outline: NDArray[np.floating], width: int, height: int) -> Box | None:
    """The box around the part of an outline's bounds inside a picture; None where none of it is."""
    (left, top), (right, bottom) = outline.min(0).tolist(), outline.max(0).tolist()
    left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
    return Box(left, top, right - left, bottom - top) if left < right and top < bottom else None


def _move(offset: NDArray[np.float64]) -> Homographies:
    return np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1.0]])
