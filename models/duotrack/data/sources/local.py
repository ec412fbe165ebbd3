"""The mix of sources made from the local data folders."""

from __future__ import annotations

from pathlib import Path

from duotrack.data import images
from duotrack.data.figures import gather_figures
from duotrack.data.images import Pixels
from duotrack.data.sources.moving import MovingStills
from duotrack.data.sources.pasted import PastedPairs
from duotrack.data.sources.scenes import EndlessScenes
from duotrack.data.sources.sequences import SequencePairs
from duotrack.data.sources.source import PairSource
from duotrack.data.sources.stills import StillPairs, ThermalPairs
from duotrack.errors import SourceError

FOLDERS = ("rgb-sequences", "rgb-stills", "rgbt-pairs", "thermal-frames")
SEGMENTS = (0.01, 0.25)
"""Shares of a still that a segment covers which is pasted as an object."""


def local_sources(root: Path, *, scenes: int, seed: int) -> tuple[dict[str, tuple[PairSource, float]], list[Pixels]]:
    """The sources made from the local data folders and generated scenes, with their shares, and images to occlude with.

    What the validation split names is left out of all of them.

    Args:
        root: folder with ``rgb-sequences``, ``rgb-stills``, ``rgbt-pairs`` and ``thermal-frames`` (docs/training.md).
        scenes: how many synthetic scenes a training draws from; 0 leaves the source out.
        seed: of the first scene.

    Raises:
        SourceError: a folder is missing or empty, or a file in it cannot be read.
    """
    for name in FOLDERS:
        if not (root / name).is_dir():
            raise SourceError(f"training data folder {root / name} does not exist")
    sequences = images.read_sequences(root / "rgb-sequences", held_out=False, masks=True)
    stills, segments = _read_stills(root / "rgb-stills")
    pairs = list(images.read_aligned_pairs(root / "rgbt-pairs"))
    figures = gather_figures(sequences, segments)
    sources: dict[str, tuple[PairSource, float]] = {
        "sequences": (SequencePairs(sequences), 0.36),
        "stills": (StillPairs([(still, None) for still in stills]), 0.08),
        "pasted": (PastedPairs(figures, stills), 0.18),
        "rgbt": (StillPairs([(rgb, thermal) for rgb, thermal in pairs]), 0.06),
        "moving": (MovingStills([(rgb, thermal) for rgb, thermal in pairs], figures), 0.16),
        "thermal": (ThermalPairs(list(images.read_thermal_frames(root / "thermal-frames"))), 0.06),
    }
    if scenes:
        sources["scenes"] = (EndlessScenes(seed=seed, count=scenes, backgrounds=stills), 0.10)
    return sources, stills


def _read_stills(root: Path) -> tuple[list[Pixels], list[tuple[Pixels, Pixels]]]:
    """Colour stills, and the segments of those that have a label map beside them: each an image and its mask."""
    stills = [images.read_rgb(path) for path in sorted((root / "imagenet").glob("*.jpg"))]
    segments: list[tuple[Pixels, Pixels]] = []
    for path in sorted((root / "bsds").glob("*.jpg")):
        image = images.read_rgb(path)
        stills.append(image)
        masks = images.largest_segments(images.read_grey(path.with_suffix(".png")), *SEGMENTS)
        segments += [(image, mask) for mask in masks[:6]]
    return stills, segments
