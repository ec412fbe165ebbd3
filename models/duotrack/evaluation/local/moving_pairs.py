"""The part ``pair``: aligned colour and thermal stills over which a camera moves.

Colour and thermal are real, motion is not. In every second sequence the target is an object cut out of a colour
sequence of the same split, whose heat is made up, and others move beside it; in the rest it is a region of the still.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from duotrack.boxes import Box
from duotrack.data.figures import Figure, Figures, sequence_figures
from duotrack.data.homography import Motion
from duotrack.data.images import read_grey, read_rgb, read_sequence, validation_split
from duotrack.data.moving_still import MovingStill, move_still
from duotrack.errors import SourceError
from duotrack.evaluation.attributes import box_attributes
from duotrack.evaluation.local.colour import colour_recordings
from duotrack.evaluation.local.rendered_thermal import masks_of
from duotrack.evaluation.sequences import BenchmarkPairs, LateBoxes
from duotrack.frames import FramePair

PART = "pair"
PASTED = "pasted"
"""The attribute of sequences whose target was cut out and pasted, with made-up heat."""
FRAMES = 100
DISTRACTORS = 2
PARTLY_SEEN = 0.75
"""Share of the target that is visible, below which it is occluded, or out of view where its box is at the edge."""
MOTION = Motion(zoom=0.3, turn=10.0, misalignment=1.5)


@dataclass(frozen=True)
class MovingPair:
    """One aligned pair in motion; images are read, and the truth is worked out, when they are asked for.

    Attributes:
        colour, thermal: image files.
        cast: folder of the sequences that objects are cut out of, and their split; None to paste nothing.
    """

    name: str
    colour: Path
    thermal: Path
    cast: tuple[Path, str] | None

    @cached_property
    def boxes(self) -> Sequence[Box | None]:
        """None where less than a fifth of the target is visible."""
        return LateBoxes(FRAMES, self._seen_boxes)

    @cached_property
    def attributes(self) -> Sequence[str]:
        """The part, whether the target was pasted, and what is hard (docs/benchmarks.md), from the truth."""
        return (PART, *((PASTED,) if self.cast else ()), *sorted(_challenges(self._truth, self._still.size)))

    def pair(self, index: int) -> FramePair:
        """
        Raises:
            SourceError: an image cannot be read.
        """
        return self._still[index].pair

    def _seen_boxes(self) -> list[Box | None]:
        return [box for box, _ in self._truth]

    @cached_property
    def _truth(self) -> list[tuple[Box | None, float]]:
        """Box and visibility in each frame."""
        # Without colour, the frames that come with the truth take a fraction of the time.
        return [(frame.box, frame.visibility) for frame in replace(self._still, rgb=None)]

    @property
    def _still(self) -> MovingStill:
        return _moved(self.name, self.colour, self.thermal, self.cast)


def moving_pairs(root: Path, split: str) -> tuple[list[BenchmarkPairs], list[str]]:
    """The aligned pairs of a split in motion, and notes.

    Raises:
        SourceError: a pair lacks its thermal image, or a colour sequence is not as its folder's convention says.
    """
    held_out = set(validation_split()["rgbt-pairs"])
    colour = [
        path
        for path in sorted(root.glob("*/visible/*.jpg"))
        if (f"{path.parts[-3]}/{path.stem}" in held_out) == (split == "val")
    ]
    sequences = root.parent / "rgb-sequences"
    cast = (sequences, split) if _has_masks(sequences, split) else None
    pairs: list[BenchmarkPairs] = []
    for number, path in enumerate(colour):
        thermal = path.parent.parent / "infrared" / path.name
        if not thermal.is_file():
            raise SourceError(f"expected the thermal image of {path} at {thermal}")
        pairs.append(MovingPair(f"{PART}-{path.parts[-3]}-{path.stem}", path, thermal, cast if number % 2 else None))
    notes = ["the targets of every second pair sequence are pasted, and their heat is made up"]
    if cast is None:
        notes = [f"nothing is pasted into the pair sequences: {sequences} has no sequence with masks in split {split}"]
    return pairs, notes


@lru_cache(maxsize=2)
def _moved(name: str, colour: Path, thermal: Path, cast: tuple[Path, str] | None) -> MovingStill:
    """Kept while its frames are asked for, one after the other."""
    return move_still(
        read_rgb(colour),
        read_grey(thermal),
        seed=zlib.crc32(name.encode()),
        name=name,
        frames=FRAMES,
        motion=MOTION,
        figures=_figures(*cast) if cast else None,
        paste_target=cast is not None,
        distractors=DISTRACTORS if cast else 0,
    )


@lru_cache(maxsize=1)
def _figures(root: Path, split: str) -> Figures:
    """The targets of a split's sequences, cut out: those of another split may have been trained on."""
    figures = [
        figure
        for recording in colour_recordings(root, split)
        if masks_of(recording) is not None
        for figure in sequence_figures(read_sequence(root / recording.name, masks=True))
    ]
    return Figures([_trimmed(figure) for figure in figures], [])


def _has_masks(root: Path, split: str) -> bool:
    return root.is_dir() and any(masks_of(recording) for recording in colour_recordings(root, split))


def _trimmed(figure: Figure) -> Figure:
    """The same figure without the pictures that it was cut from, which take ten times the memory."""
    poses = [figure.pose(index) for index in range(len(figure))]
    return Figure([pose.rgb.copy() for pose in poses], [pose.mask.copy() for pose in poses], figure.scene)


def _challenges(truth: Sequence[tuple[Box | None, float]], size: tuple[int, int]) -> set[str]:
    """FM, LR and SV from the boxes of frames that show most of the target; OV or PO where some do not."""
    found = box_attributes([box if share >= PARTLY_SEEN else None for box, share in truth]) - {"OV"}
    for box, share in truth:
        if share < PARTLY_SEEN:
            found.add("OV" if box is None or _at_edge(box, size) else "PO")
    return found


def _at_edge(box: Box, size: tuple[int, int]) -> bool:
    return min(box.x, box.y, size[0] - box.x - box.w, size[1] - box.y - box.h) < 1
