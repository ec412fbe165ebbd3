"""LasHeR, RGBT234 and RGBT210: ``visible/`` and ``infrared/`` frames, a box file for each modality."""

from __future__ import annotations

from pathlib import Path

from duotrack.data.folders import frame_files, read_names, require_split, sequence_folders
from duotrack.data.readers.annotations import assemble, read_box_file, read_flags
from duotrack.data.recordings import Recording
from duotrack.errors import SourceError

MARKS = ("visible", "infrared", "init.txt", "visible.txt")
LASHER_SPLITS = {"train": "trainingset", "test": "testingset"}


def read_lasher(root: Path, split: str | None) -> list[Recording]:
    """LasHeR [Li et al., TIP 2021]: ``split`` is ``train``, ``test``, or None for both.

    A split is the file ``trainingsetList.txt`` (a name a line), else the folder ``trainingset/``. Sequences lie in
    that folder or in ``root``. Attributes come from ``AttriSeqsTxt/NAME.txt``, flags in the order of
    ``Attributes_order.txt``, where both are there.

    Raises:
        SourceError: see ``open_recordings``.
    """
    require_split("lasher", split, tuple(LASHER_SPLITS))
    if split is not None:
        folders = lasher_folders(root, split)
    else:
        present = [name for name in LASHER_SPLITS.values() if (root / name).is_dir()]
        folders = [folder for name in present or ["."] for folder in sequence_folders(root / name, MARKS)]
    return [_read(folder, ("init.txt", "visible.txt"), _lasher_attributes(root, folder.name)) for folder in folders]


def lasher_folders(root: Path, split: str) -> list[Path]:
    """The folders of LasHeR's split ``train`` or ``test``.

    Raises:
        SourceError: there is neither a list nor a folder that says what the split is.
    """
    name = LASHER_SPLITS[split]
    names, folder = root / f"{name}List.txt", root / name
    if not names.is_file() and not folder.is_dir():
        raise SourceError(
            f"{root} has neither the folder {name} nor the list {names.name}, which say what the split is"
        )
    if not names.is_file():
        return sequence_folders(folder, MARKS)
    parent = folder if folder.is_dir() else root
    return [parent / sequence for sequence in read_names(names)]


def _lasher_attributes(root: Path, name: str) -> tuple[str, ...]:
    order, flags = root / "Attributes_order.txt", root / "AttriSeqsTxt" / f"{name}.txt"
    if not order.is_file() or not flags.is_file():
        return ()
    attributes = " ".join(read_names(order)).replace(",", " ").split()
    values = read_flags(flags)
    if len(values) != len(attributes):
        raise SourceError(f"{flags} has {len(values)} flags, expected one for each of {len(attributes)} in {order}")
    return tuple(attribute for attribute, value in zip(attributes, values, strict=True) if value)


def read_rgbt234(root: Path, split: str | None) -> list[Recording]:
    """RGBT234 [Li et al., PR 2019] and RGBT210 [Li et al., ACM MM 2017]: no splits; RGBT210 may have ``init.txt`` only.

    Raises:
        SourceError: see ``open_recordings``.
    """
    require_split("rgbt234", split, ())
    return [_read(folder, ("visible.txt", "init.txt"), ()) for folder in sequence_folders(root, MARKS)]


def _read(folder: Path, main: tuple[str, ...], attributes: tuple[str, ...]) -> Recording:
    """``main``: names of the main annotation; the first that exists is taken."""
    existing = [name for name in main if (folder / name).is_file()]
    rgb, thermal = folder / "visible.txt", folder / "infrared.txt"
    return assemble(
        folder.name,
        rgb=frame_files(folder / "visible"),
        thermal=frame_files(folder / "infrared"),
        main=read_box_file(folder / (existing or main)[0]),
        rgb_boxes=read_box_file(rgb) if rgb.is_file() else None,
        thermal_boxes=read_box_file(thermal) if thermal.is_file() else None,
        attributes=attributes,
    )
