"""Readers of the public sets, by name. ``docs/datasets.md`` says what each expects to find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from duotrack.data.readers.got10k import read_got10k
from duotrack.data.readers.gtot import read_gtot
from duotrack.data.readers.lasot import read_lasot
from duotrack.data.readers.local import read_local
from duotrack.data.readers.otb import read_otb
from duotrack.data.readers.visible_infrared import read_lasher, read_rgbt234
from duotrack.data.readers.vtuav import read_vtuav
from duotrack.data.recordings import Recording
from duotrack.errors import SourceError

Reader = Callable[[Path, str | None], list[Recording]]

READERS: dict[str, Reader] = {
    "lasher": read_lasher,
    "rgbt234": read_rgbt234,
    "rgbt210": read_rgbt234,
    "gtot": read_gtot,
    "vtuav": read_vtuav,
    "got10k": read_got10k,
    "lasot": read_lasot,
    "otb": read_otb,
    "local": read_local,
}


def open_recordings(kind: str, root: Path, split: str | None = None) -> list[Recording]:
    """All recordings of a set, or of one of its splits. Reads the annotation; images are decoded when asked for.

    Args:
        kind: a name in ``READERS``.
        root: the folder that the set was unpacked to.

    Raises:
        SourceError: the kind or the split is unknown, a folder or file is missing, a folder has no frames, a line is
            not a box, or there are not as many boxes as frames; the message names the file.
    """
    reader = READERS.get(kind)
    if reader is None:
        raise SourceError(f"unknown kind of data {kind!r}; known are {', '.join(READERS)}")
    if not root.is_dir():
        raise SourceError(f"data folder {root} does not exist")
    return reader(root, split)
