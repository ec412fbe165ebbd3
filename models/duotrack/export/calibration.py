"""What int8 ranges are measured on: crops of annotated training images, cut as the tracker cuts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.boxes import Box, CropWindow
from duotrack.crops import crop_pair
from duotrack.data import images
from duotrack.data.images import View
from duotrack.data.sources import PairSource, SequencePairs, StillPairs, ThermalPairs
from duotrack.errors import SourceError
from duotrack.frames import FramePair
from duotrack.network import ModelSpec, Template

# How far a target moves between two frames, in units of its size; the tracker looks where it was before.
LARGEST_STEP = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Network inputs of one session: its template, a search crop (1, S, S, 4), what is present in that (1, 2)."""

    template: Template
    search: NDArray[np.uint8]
    present: NDArray[np.float32]


def calibration_sources(root: Path) -> list[tuple[PairSource, float]]:
    """Sources with their shares, from those of ``rgb-sequences``, ``rgbt-pairs`` and ``thermal-frames`` that are there.

    What is held out of training is left out (``images.validation_split``).

    Raises:
        SourceError: none of the folders is there, or a file cannot be read.
    """
    sources: list[tuple[PairSource, float]] = []
    if (root / "rgb-sequences").is_dir():
        sources.append((SequencePairs(images.read_sequences(root / "rgb-sequences", held_out=False)), 0.5))
    if (root / "rgbt-pairs").is_dir():
        sources.append((StillPairs(list(images.read_aligned_pairs(root / "rgbt-pairs"))), 0.3))
    if (root / "thermal-frames").is_dir():
        sources.append((ThermalPairs(list(images.read_thermal_frames(root / "thermal-frames"))), 0.2))
    if not sources:
        raise SourceError(f"{root} has nothing to calibrate on: expected rgb-sequences, rgbt-pairs or thermal-frames")
    return sources


def draw_samples(
    sources: Sequence[tuple[PairSource, float]], spec: ModelSpec, count: int, seed: int = 0
) -> list[Sample]:
    """``count`` samples from weighted sources; the same seed gives the same."""
    rng = np.random.default_rng(seed)
    shares = np.array([share for _, share in sources])
    chosen = rng.choice(len(sources), count, p=shares / shares.sum())
    return [_sample(*sources[int(index)][0].draw(rng), spec, rng) for index in chosen]


def _sample(first: View, second: View, spec: ModelSpec, rng: Generator) -> Sample:
    window = CropWindow.around(first.box, spec.template_factor, spec.template_size)
    crop, present = _cut(first, window)
    template = Template(crop, present, np.array([window.to_crop(first.box)], np.float32))
    size = second.box.area**0.5
    dx, dy = rng.uniform(-LARGEST_STEP, LARGEST_STEP, 2) * size
    before = Box(second.box.x + dx, second.box.y + dy, second.box.w, second.box.h)
    return Sample(template, *_cut(second, spec.search_window(before)))


def _cut(view: View, window: CropWindow) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    crop = crop_pair(FramePair(view.rgb, view.thermal), window, None)
    return crop[None], np.array([[view.rgb is not None, view.thermal is not None]], np.float32)
