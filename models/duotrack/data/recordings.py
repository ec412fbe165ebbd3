"""Annotated recordings of one object in colour, thermal, or both: frames decoded when asked for, and training pairs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.images import Pixels, View, read_rgb, read_thermal
from duotrack.errors import SourceError
from duotrack.frames import FramePair, Image, thermal_to_uint8

FIRST_GAP = 5  # frames between the views of a pair when training starts


class Footage(Protocol):
    """What training needs of a sequence, whether its frames lie in image files or in a cache."""

    @property
    def name(self) -> str: ...

    def usable_frames(self) -> NDArray[np.int64]:
        """Numbers of the frames with a known, visible target, ascending."""

    def view(self, number: int) -> View:
        """Frame ``number`` with its box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A sequence of a public set: where its frames are, and where the target is in each.

    Attributes:
        name: as the set calls it; result files are named after it.
        rgb, thermal: image files in order, or None where the set lacks the modality.
        boxes: the set's main annotation as its file has it; None where it has no box or a box without area.
        annotated: whether somebody looked at the frame at all (VTUAV: every tenth one).
        absent: frames that were annotated as showing no target.
        rgb_boxes, thermal_boxes: each modality's own annotation, where a set has both (RGBT234's metrics need them).
        attributes: the set's challenge attributes.
        notes: what the reader had to mend, a sentence each.

    Raises:
        SourceError: no modality, no frames, or fields of unequal lengths.
    """

    name: str
    boxes: tuple[Box | None, ...]
    annotated: tuple[bool, ...]
    absent: tuple[bool, ...]
    rgb: tuple[Path, ...] | None = None
    thermal: tuple[Path, ...] | None = None
    rgb_boxes: tuple[Box | None, ...] | None = None
    thermal_boxes: tuple[Box | None, ...] | None = None
    attributes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rgb is None and self.thermal is None:
            raise SourceError(f"recording {self.name} needs colour frames, thermal frames, or both; got neither")
        if not self.boxes:
            raise SourceError(f"recording {self.name} has no frames")
        for field in ("rgb", "thermal", "annotated", "absent", "rgb_boxes", "thermal_boxes"):
            values = getattr(self, field)
            if values is not None and len(values) != len(self.boxes):
                raise SourceError(f"recording {self.name} has {len(self.boxes)} boxes, but {len(values)} {field}")

    def __len__(self) -> int:
        return len(self.boxes)

    def pair(self, number: int) -> FramePair:
        """Frame ``number``, decoded. Thermal of another size than colour is stretched to it: boxes are in colour's.

        Raises:
            SourceError: an image cannot be read.
        """
        rgb = read_rgb(self.rgb[number]) if self.rgb is not None else None
        thermal = read_thermal(self.thermal[number]) if self.thermal is not None else None
        if rgb is not None and thermal is not None and thermal.shape != rgb.shape[:2]:
            size = rgb.shape[1], rgb.shape[0]
            thermal = cast("Image", cv2.resize(thermal, size, interpolation=cv2.INTER_LINEAR))
        return FramePair(rgb, thermal)

    def usable_frames(self) -> NDArray[np.int64]:
        """Numbers of the frames with a known, visible target, ascending."""
        known = [box is not None and seen for box, seen in zip(self.boxes, self.annotated, strict=True)]
        return np.flatnonzero(np.array(known) & ~np.array(self.absent))

    def view(self, number: int) -> View:
        """Frame ``number`` with its box, for training. Thermal of 16 bits has 8, in the frame's own window.

        Raises:
            SourceError: the frame has no box, the box lies outside the picture, or an image cannot be read.
        """
        box = self.boxes[number]
        if box is None:
            raise SourceError(f"frame {number} of recording {self.name} has no box to train with")
        pair = self.pair(number)
        thermal = None if pair.thermal is None else thermal_to_uint8(pair.thermal)
        view = View(pair.rgb, thermal, box, scene=self.name)
        width, height = view.size
        if not box.iou(Box(0, 0, width, height)):
            raise SourceError(
                f"frame {number} of recording {self.name} is {width}x{height}; its box "
                f"{','.join(f'{value:g}' for value in box.xywh)} (x,y,w,h) lies outside"
            )
        return view


def fingerprint(recording: Recording, numbers: NDArray[np.int64]) -> str:
    """Of what is made of these frames: numbers, all boxes, the files' names, sizes and times. Folders may move.

    Raises:
        SourceError: a file is missing.
    """
    marks = [
        [_mark(paths[number]) for number in numbers.tolist()]
        for paths in (recording.rgb, recording.thermal)
        if paths is not None
    ]
    boxes = [box and box.xywh for box in recording.boxes]
    return hashlib.sha256(json.dumps([numbers.tolist(), marks, boxes]).encode()).hexdigest()[:16]


def _mark(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise SourceError(f"cannot read image {path}: {error.strerror}") from error
    return path.name, found.st_size, found.st_mtime_ns


def notes_of(recordings: Iterable[object]) -> list[str]:
    """What readers had to mend in ``recordings``, a line each, with the name; caches and shards have no notes."""
    read = [recording for recording in recordings if isinstance(recording, Recording)]
    return [f"{recording.name}: {note}" for recording in read for note in recording.notes]


class RecordingPairs:
    """A pair source over recordings: two frames of one recording, further apart as training goes on.

    The gap grows linearly from 5 frames to ``largest_gap`` over the first half of training: a crop from the next frame
    is an easy match, one from two seconds later a hard one. Where fewer frames than that are annotated, the nearest
    annotated ones are taken.

    Args:
        recordings: those without a single usable frame are left out.
        largest_gap: in frames of the recording, from the middle of training on.

    Raises:
        SourceError: no recording has a usable frame.
    """

    def __init__(self, recordings: Iterable[Footage], largest_gap: int = 60) -> None:
        usable = [(footage, footage.usable_frames()) for footage in recordings]
        self._usable = [(footage, frames) for footage, frames in usable if frames.size]
        self._largest_gap = largest_gap
        if not self._usable:
            raise SourceError(f"none of {len(usable)} recordings has a frame with a visible, annotated target")

    @property
    def recordings(self) -> list[Footage]:
        """Those that are drawn from."""
        return [footage for footage, _ in self._usable]

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:
        """A template view and a search view; each recording is as likely as any other.

        Args:
            progress: the share of training that is done, from 0 to 1.

        Raises:
            SourceError: an image cannot be read.
        """
        footage, frames = self._usable[rng.integers(len(self._usable))]
        first, second = draw_frames(frames, gap_at(progress, self._largest_gap), rng)
        return footage.view(first), footage.view(second)


def gap_at(progress: float, largest: int) -> int:
    """Frames between the views of a pair at most, when ``progress`` (0 to 1) of training is done."""
    first = min(FIRST_GAP, largest)
    return round(first + (largest - first) * min(1.0, 2 * progress))


def draw_frames(frames: NDArray[np.int64], gap: int, rng: Generator) -> tuple[int, int]:
    """Two of the ascending ``frames``, at most ``gap`` apart, in either order; neighbours where none is that near."""
    place = int(rng.integers(len(frames)))
    low, high = np.searchsorted(frames, (frames[place] - gap, frames[place] + gap + 1))
    if high - low == 1:
        low, high = max(place - 1, 0), min(place + 2, len(frames))
    return int(frames[place]), int(frames[rng.integers(low, high)])


def shrink(view: View, max_side: int | None) -> View:
    """The view with its larger side at most ``max_side`` pixels, box included; itself where it is that small."""
    width, height = view.size
    if max_side is None or max(width, height) <= max_side:
        return view
    scale = max_side / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    rgb, thermal = (
        None if image is None else cast("Pixels", cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        for image in (view.rgb, view.thermal)
    )
    across, down = size[0] / width, size[1] / height
    box = Box(view.box.x * across, view.box.y * down, view.box.w * across, view.box.h * down)
    return View(rgb, thermal, box, scene=view.scene)
