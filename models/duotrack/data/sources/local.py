"""The mix of sources made from the local data folders."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from duotrack.data import images
from duotrack.data.augment_plan import LEAPING_JITTER
from duotrack.data.figures import gather_figures
from duotrack.data.images import Pixels, Sequence
from duotrack.data.sources.moving import MovingStills
from duotrack.data.sources.objects import ObjectPairs, OutlinedStill
from duotrack.data.sources.pasted import PastedPairs
from duotrack.data.sources.scenes import EndlessScenes
from duotrack.data.sources.sequences import SequencePairs
from duotrack.data.sources.source import PairSource
from duotrack.data.sources.stills import StillPairs, ThermalPairs
from duotrack.errors import SourceError

FOLDERS = {
    "sequences": "rgb-sequences",
    "pasted": "rgb-stills",
    "moving": "rgbt-pairs",
    "thermal": "thermal-frames",
    "rgbt": "rgbt-pairs",
    "stills": "rgb-stills",
}
"""Where each source has its pictures; without that folder, or with an empty one, it is not there."""
SEGMENTS = (0.01, 0.25)
"""Shares of a still that a segment covers which is pasted as an object."""
SHARES = {
    "scenes": 0.26,
    "objects": 0.22,
    "moving": 0.17,
    "sequences": 0.13,
    "pasted": 0.10,
    "thermal": 0.08,
    "rgbt": 0.03,
    "stills": 0.01,
}
"""Of the samples, by source; those of sources that are not there go to the others."""
JITTERS = {"thermal": LEAPING_JITTER}
"""Of the search crops, by source, where it is not the run's: aerial frames are far apart."""


def local_sources(
    root: Path,
    *,
    scenes: int,
    seed: int,
    objects: Path | None = None,
    shares: Mapping[str, float] | None = None,
    without: Iterable[str] = (),
    fold: tuple[str, ...] = (),
) -> tuple[dict[str, tuple[PairSource, float]], list[Pixels]]:
    """The sources made from the local data folders and generated scenes, with their shares, and images to occlude with.

    What the validation split names is left out of all of them.

    Args:
        root: folder with some of ``rgb-sequences``, ``rgb-stills``, ``rgbt-pairs`` and ``thermal-frames``
            (docs/training.md).
        scenes: how many synthetic scenes a training draws from; 0 leaves the source out.
        seed: of the first scene.
        objects: the objects of the stills and pairs, as ``duotrack discover`` outlines them; with None, what can be
            pasted is cut out along the segments of stills, and there is no source ``objects``.
        shares: in place of those in ``SHARES``, by name.
        without: names in ``SHARES`` that are left out.
        fold: names of sequences that are held out in place of the split's, for cross-validation.

    Raises:
        SourceError: none of the folders has anything, one has other things than it should, a file cannot be read, a
            name in ``shares`` or ``without`` is not known, or nothing is left.
    """
    dropped, weights = set(without), SHARES | dict(shares or {})
    if unknown := (dropped | weights.keys()) - SHARES.keys():
        raise SourceError(f"unknown source {min(unknown)!r}: expected some of {', '.join(SHARES)}")
    filled = {folder for folder in FOLDERS.values() if (root / folder).is_dir() and any((root / folder).iterdir())}
    if not filled:
        raise SourceError(f"{root} has no training data: expected some of {', '.join(dict.fromkeys(FOLDERS.values()))}")
    wanted = {name for name, folder in FOLDERS.items() if folder in filled} - dropped
    # Without the sequences nothing of them is seen, not even their targets on other backgrounds.
    held_in = "sequences" in wanted
    sequences = images.read_sequences(root / "rgb-sequences", held_out=False, masks=True, fold=fold) if held_in else []
    stills, segments = _read_stills(root / "rgb-stills")
    outlined = [] if objects is None else _read_objects(root, objects)
    if outlined:
        segments = [cutout for still in outlined for cutout in still.cutouts()]
    made = _from_pictures(root, wanted, sequences, stills, segments)
    if outlined and "objects" not in dropped:
        made["objects"] = ObjectPairs(outlined)
    if scenes and "scenes" not in dropped:
        made["scenes"] = EndlessScenes(seed=seed, count=scenes, backgrounds=stills)
    if not made:
        raise SourceError(f"no source is left without {', '.join(sorted(dropped))}")
    return {name: (source, weights[name]) for name, source in made.items()}, stills


def _from_pictures(
    root: Path,
    wanted: Container[str],
    sequences: list[Sequence],
    stills: list[Pixels],
    segments: list[tuple[Pixels, Pixels]],
) -> dict[str, PairSource]:
    """The ``wanted`` ones of ``FOLDERS``, in their order; what they need no more is not read."""
    made: dict[str, PairSource] = {}
    pairs = list(images.read_aligned_pairs(root / "rgbt-pairs")) if "moving" in wanted or "rgbt" in wanted else []
    if "sequences" in wanted:
        made["sequences"] = SequencePairs(sequences)
    if "pasted" in wanted or "moving" in wanted:
        figures = gather_figures(sequences, segments)
        if "pasted" in wanted:
            made["pasted"] = PastedPairs(figures, stills)
        if "moving" in wanted:
            made["moving"] = MovingStills([(rgb, thermal) for rgb, thermal in pairs], figures)
    if "thermal" in wanted:
        made["thermal"] = ThermalPairs(list(images.read_thermal_frames(root / "thermal-frames")))
    if "rgbt" in wanted:
        made["rgbt"] = StillPairs([(rgb, thermal) for rgb, thermal in pairs])
    if "stills" in wanted:
        made["stills"] = StillPairs([(still, None) for still in stills])
    return made


def outlined_pictures(root: Path) -> list[Path]:
    """The pictures under ``root`` whose objects ``local_sources`` asks for, relative to it: what is held out is not.

    Raises:
        SourceError: there is none.
    """
    held_out = {Path("rgbt-pairs") / name for name in images.validation_split()["rgbt-pairs"]}
    pictures = sorted((root / "rgb-stills").glob("*/*.jpg"))
    pictures += [
        path
        for path in sorted((root / "rgbt-pairs").glob("*/visible/*.jpg"))
        if path.relative_to(root).parent.parent / path.stem not in held_out
    ]
    if not pictures:
        raise SourceError(f"{root} has no stills: expected rgb-stills/*/*.jpg or rgbt-pairs/*/visible/*.jpg")
    return [path.relative_to(root) for path in pictures]


def _read_objects(root: Path, objects: Path) -> list[OutlinedStill]:
    """Raises SourceError where a picture's objects are missing or of another size."""
    found = []
    for name in outlined_pictures(root):
        path = objects / name.with_suffix(".png")
        if not path.is_file():
            raise SourceError(f"{path} is missing: run `duotrack discover {root} --output {objects}` to the end")
        rgb, labels = images.read_rgb(root / name), images.read_grey(path)
        if labels.shape != rgb.shape[:2]:
            raise SourceError(
                f"{path} is {labels.shape[1]}x{labels.shape[0]}, its picture {rgb.shape[1]}x{rgb.shape[0]}"
            )
        infrared = root / name.parent.parent / "infrared" / name.name
        thermal = images.read_grey(infrared) if infrared.is_file() else None
        if labels.any():
            found.append(OutlinedStill(rgb, thermal, labels))
    return found


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
