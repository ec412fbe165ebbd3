"""Frames of a synthetic scene with the truth and a model's boxes, colour above thermal: the pictures in model cards.

    python benchmarks/failure_strip.py street-person-day 10 45 90 250 --model student-t --output failure.jpg

White is the truth; green, yellow and red is the tracker's box while it says tracking, uncertain, and lost or coasting.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from duotrack.boxes import Box
from duotrack.data.images import Pixels
from duotrack.evaluation.in_memory import first_box
from duotrack.evaluation.synthetic import synthetic_sequences
from duotrack.tracker import TargetState, Tracker, TrackResult

WIDTH = 420
"""Of a frame in the strip, in pixels."""
TRUTH = (255, 255, 255)
COLOURS = {TargetState.TRACKING: (60, 220, 60), TargetState.UNCERTAIN: (255, 220, 0)}
LOST = (255, 60, 60)


def tile(image: Pixels, number: int, truth: Box | None, result: TrackResult) -> Pixels:
    """A frame at the strip's size with its number and boxes; ``image`` is (H, W) or (H, W, 3)."""
    scale = WIDTH / image.shape[1]
    size = WIDTH, round(image.shape[0] * scale)
    drawn = cv2.resize(image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), size)
    for box, colour in ((truth, TRUTH), (result.box, COLOURS.get(result.state, LOST))):
        if box is not None:
            x, y, w, h = (round(value * scale) for value in box.xywh)
            cv2.rectangle(drawn, (x, y), (x + w, y + h), colour, 2)
    cv2.putText(drawn, str(number), (10, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.9, TRUTH, 2)
    return np.asarray(drawn, np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    scenes = {sequence.name: sequence for sequence in synthetic_sequences()}
    parser.add_argument("scene", choices=scenes)
    parser.add_argument("frames", nargs="+", type=int)
    parser.add_argument("--model")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    sequence, tracker = scenes[arguments.scene], Tracker.open(arguments.model)
    if not 0 <= min(arguments.frames) <= max(arguments.frames) < len(sequence.boxes):
        parser.error(f"{arguments.scene} has frames 0 to {len(sequence.boxes) - 1}, got {arguments.frames}")
    columns = []
    for number in range(max(arguments.frames) + 1):
        pair = sequence.pair(number)
        result = tracker.update(pair) if number else tracker.init(pair, first_box(sequence))
        if number in arguments.frames:
            both = (pair.rgb, pair.thermal)
            shown = [tile(image, number, sequence.boxes[number], result) for image in both if image is not None]
            columns.append(np.concatenate(shown))
    strip = cv2.cvtColor(np.concatenate(columns, axis=1), cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(arguments.output), strip, [cv2.IMWRITE_JPEG_QUALITY, 88]):
        parser.error(f"cannot write {arguments.output}")


if __name__ == "__main__":
    main()
