"""Scores of a tracker on one sequence in memory, as training's validation wants them."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import Box, CropWindow
from duotrack.crops import crop_pair
from duotrack.errors import SourceError
from duotrack.evaluation.metrics import Scores, score
from duotrack.evaluation.sequences import AnnotatedPairs, to_array
from duotrack.evaluation.trackers import SequenceTracker
from duotrack.frames import FramePair, ThermalWindow
from duotrack.network import Network, Template


def evaluate(tracker: SequenceTracker, sequence: AnnotatedPairs, frames: int = 0) -> Scores:
    """Scores over all frames but the first, whose box the tracker is given.

    Args:
        frames: look at so many frames at most; 0 is all.

    Raises:
        SourceError: the sequence starts without its target.
    """
    boxes = list(sequence.boxes)[: frames or None]
    tracker.init(sequence.pair(0), first_box(sequence))
    predicted = [tracker.update(sequence.pair(index)).box for index in range(1, len(boxes))]
    return score(to_array(predicted), to_array(boxes[1:]))


def first_box(sequence: AnnotatedPairs) -> Box:
    """The box that a tracker is given.

    Raises:
        SourceError: the sequence starts without its target.
    """
    box = sequence.boxes[0] if len(sequence.boxes) else None
    if box is None:
        raise SourceError(f"sequence {sequence.name} starts without its target")
    return box


def overlap_in_one_step(network: Network, sequence: AnnotatedPairs, frames: int = 0) -> float:
    """Mean IoU where every frame is searched around the true box of the frame before: no error builds up.

    A track that is lost once is lost for good, so that the AUC of a few sequences jumps with chance. This does not: it
    says how good a network is, not how good a tracker.

    Args:
        frames: look at so many frames at most; 0 is all.

    Raises:
        SourceError: the sequence starts without its target.
    """
    spec, boxes, first = network.spec, list(sequence.boxes)[: frames or None], first_box(sequence)
    window = CropWindow.around(first, spec.template_factor, spec.template_size)
    crop, present = _crop(sequence.pair(0), window)
    features = network.encode(Template(crop, present, np.array([window.to_crop(first)], np.float32)))
    overlaps = []
    for index, (before, truth) in enumerate(pairwise(boxes), 1):
        if before is None or truth is None:
            continue
        window = spec.search_window(before)
        found = network.search(*_crop(sequence.pair(index), window), features)
        row, column = divmod(int(found.score_map[0].argmax()), spec.grid)
        overlaps.append(window.to_frame(*found.box_map[0, :, row, column].tolist()).iou(truth))
    return float(np.mean(overlaps)) if overlaps else 0.0


def _crop(pair: FramePair, window: CropWindow) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """One crop (1, S, S, 4), and what is present in it (1, 2)."""
    there = [float(pair.rgb is not None), float(pair.thermal is not None)]
    raw = pair.thermal is not None and pair.thermal.dtype == np.uint16
    thermal_window = ThermalWindow.of(cast("NDArray[np.uint16]", pair.thermal)) if raw else None
    return crop_pair(pair, window, thermal_window)[None], np.array([there], np.float32)
