"""The part ``thermal``: aerial thermal video in which everything is boxed, its identities linked afterwards."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

from duotrack.boxes import Box
from duotrack.data.folders import entries, frame_files
from duotrack.data.homography import Homographies
from duotrack.data.images import read_grey, validation_split
from duotrack.data.recordings import Recording
from duotrack.errors import SourceError
from duotrack.evaluation.attributes import box_attributes
from duotrack.evaluation.local.camera_motion import Keypoints, camera_motion
from duotrack.evaluation.local.linking import Labelled, Tracklet, link
from duotrack.evaluation.sequences import BenchmarkPairs

PART = "thermal"
NOTE = "the identities of the thermal sequences are linked by position, not annotated (docs/benchmarks.md)"

FEWEST = 4
"""Frames of a tracklet that becomes a sequence."""
EDGE = 1.0
"""Pixels from the frame's edge within which a box may be of a target that is cut off; none starts a sequence."""
NOT_AN_OBJECT = "DontCare"


def thermal_sequences(root: Path, split: str) -> tuple[list[BenchmarkPairs], list[str]]:
    """The objects of a split's runs that could be followed without doubt, thermal only, and notes.

    A sequence has the frames in which its object was found: where that is not every frame, they are further apart.

    Raises:
        SourceError: a run is not as the folder's convention says.
    """
    held_out = set(validation_split()["thermal-frames"])
    sequences: list[BenchmarkPairs] = []
    for run in entries(root):
        if run.is_dir() and (run.name in held_out) == (split == "val"):
            sequences += run_sequences(run)
    return sequences, [NOTE]


@lru_cache(maxsize=256)
def run_sequences(run: Path) -> tuple[Recording, ...]:
    """The sequences of one run, ``infrared/*.jpg`` and ``boxes.csv``; linked once, which takes half a second.

    Raises:
        SourceError: a file is missing, or is not as its convention says.
    """
    paths = frame_files(run / "infrared")
    labels = read_labels(run / "boxes.csv")
    unknown = sorted(labels.keys() - {path.stem for path in paths})
    if unknown:
        raise SourceError(f"{run / 'boxes.csv'} has boxes for frame {unknown[0]}, which is not in {run / 'infrared'}")
    size = read_grey(paths[0]).shape[1::-1]
    tracklets = link([labels.get(path.stem, []) for path in paths], _Motions(paths))
    whole = [_from_whole_box(tracklet, size) for tracklet in tracklets if tracklet.kind != NOT_AN_OBJECT]
    followed = [tracklet for tracklet in whole if len(tracklet.frames) >= FEWEST]
    return tuple(
        Recording(
            name=f"{PART}-{run.name}-{number}",
            boxes=tuple(tracklet.boxes),
            annotated=(True,) * len(tracklet.boxes),
            absent=(False,) * len(tracklet.boxes),
            thermal=tuple(paths[frame] for frame in tracklet.frames),
            attributes=(PART, *sorted(box_attributes(tracklet.boxes))),
        )
        for number, tracklet in enumerate(followed, 1)
    )


def read_labels(path: Path) -> dict[str, list[Labelled]]:
    """What is boxed in each frame, from ``frame,class,x,y,w,h``.

    Raises:
        SourceError: the file is missing, or a line has no such values.
    """
    labels: dict[str, list[Labelled]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                box = Box(*(float(row[key]) for key in "xywh"))
                labels.setdefault(row["frame"], []).append(Labelled(row["class"], box))
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise SourceError(f"cannot read {path} (frame,class,x,y,w,h): {error!r}") from error
    return labels


class _Motions:
    """The camera's motion between any two frames of a run; keypoints are looked for when a frame is first needed."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._paths = paths
        self._found: dict[int, Keypoints] = {}

    def __call__(self, before: int, after: int) -> Homographies | None:
        return camera_motion(self._keypoints(before), self._keypoints(after))

    def _keypoints(self, frame: int) -> Keypoints:
        if frame not in self._found:
            self._found[frame] = Keypoints.of(read_grey(self._paths[frame]))
        return self._found[frame]


def _from_whole_box(tracklet: Tracklet, size: tuple[int, int]) -> Tracklet:
    """The tracklet from the first frame in which its object is not cut off by the frame's edge."""
    for place, box in enumerate(tracklet.boxes):
        if min(box.x, box.y, size[0] - box.x - box.w, size[1] - box.y - box.h) >= EDGE:
            return Tracklet(tracklet.kind, tracklet.frames[place:], tracklet.boxes[place:])
    return Tracklet(tracklet.kind, [], [])
