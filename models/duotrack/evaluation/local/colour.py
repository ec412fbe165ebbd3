"""The part ``rgb``: colour video without thermal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from duotrack.data.readers import open_recordings
from duotrack.data.recordings import Recording
from duotrack.evaluation.attributes import box_attributes
from duotrack.evaluation.sequences import BenchmarkPairs

PART = "rgb"


def colour_sequences(root: Path, split: str) -> tuple[list[BenchmarkPairs], list[str]]:
    """The colour sequences of a split, and notes.

    Raises:
        SourceError: a sequence is not as the folder's convention says.
    """
    recordings = colour_recordings(root, split)
    named: list[BenchmarkPairs] = [
        replace(
            recording,
            name=f"{PART}-{recording.name}",
            attributes=(PART, *sorted(box_attributes(recording.boxes))),
        )
        for recording in recordings
    ]
    return named, [f"{recording.name}: {note}" for recording in recordings for note in recording.notes]


def colour_recordings(root: Path, split: str) -> list[Recording]:
    """The folder's sequences, each from the first frame that shows its target; those that never do are left out.

    Raises:
        SourceError: a sequence is not as the folder's convention says.
    """
    recordings = open_recordings("local", root, split)
    return [_from_first_sight(recording) for recording in recordings if any(recording.boxes)]


def _from_first_sight(recording: Recording) -> Recording:
    first = next(number for number, box in enumerate(recording.boxes) if box is not None)
    if not first:
        return recording
    assert recording.rgb is not None
    return replace(
        recording,
        boxes=recording.boxes[first:],
        annotated=recording.annotated[first:],
        absent=recording.absent[first:],
        rgb=recording.rgb[first:],
        notes=(*recording.notes, f"starts {first} frames later, where its target is first seen"),
    )
