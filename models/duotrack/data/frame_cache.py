"""Decoded frames on disk, mapped into memory: training reads them without decoding and without copying.

``recordings/`` holds, for each recording, ``NAME.bin`` (for each kept frame its colour (H, W, 3), then its thermal
(H, W), uint8) and ``NAME.json`` (which frames, their sizes and boxes, a checksum). ``NAME.json`` appears when its
frames are all there, so that a killed preparation goes on with the next recording. ``cache.json`` says how the cache
was made, and what it holds.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Self
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.images import Pixels, View
from duotrack.data.manifest import Manifest, matching_manifest, require_complete, start_manifest
from duotrack.data.recordings import Recording, fingerprint, shrink
from duotrack.data.whole_file import whole_file
from duotrack.errors import SourceError

FORM = "frame cache v1"
MANIFEST = "cache.json"
OPEN_FILES = (
    256  # maps that a process keeps; views of others stay valid, they are only mapped again when next asked for
)

Report = Callable[[int, int, str], None]
"""Called with how many recordings are done, of how many, and the name of the last one."""


@dataclass(frozen=True, slots=True, eq=False)
class CachedRecording:
    """A recording whose usable frames are decoded in a file. Frame numbers are those of the original recording.

    Attributes:
        length: frames of the original recording.
        numbers: (K,) of the kept frames, ascending.
        values: (K, 4) their boxes, x y w h in pixels of the kept size.
        sizes: (K, 2) their width and height.
        offsets: (K + 1,) where each begins in the file, and the file's size.
    """

    name: str
    path: Path
    length: int
    numbers: NDArray[np.int64]
    values: NDArray[np.float64]
    sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    has_rgb: bool
    has_thermal: bool
    checksum: int
    source: str

    def __len__(self) -> int:
        return self.length

    @property
    def boxes(self) -> tuple[Box | None, ...]:
        """For each original frame its box, None where the frame was not kept."""
        boxes: list[Box | None] = [None] * self.length
        for number, values in zip(self.numbers, self.values, strict=True):
            boxes[number] = Box(*values.tolist())
        return tuple(boxes)

    def usable_frames(self) -> NDArray[np.int64]:
        return self.numbers

    def view(self, number: int) -> View:
        """Frame ``number``; its pixels are read-only arrays over the mapped file.

        Raises:
            SourceError: the frame was not kept, or the file is gone.
        """
        place = int(np.searchsorted(self.numbers, number))
        if place == len(self.numbers) or self.numbers[place] != number:
            raise SourceError(f"frame {number} of recording {self.name} is not in the cache: it has no visible target")
        width, height = self.sizes[place]
        pixels = _mapped(self.path, self.checksum)[self.offsets[place] : self.offsets[place + 1]]
        split = 3 * width * height if self.has_rgb else 0
        rgb = pixels[:split].reshape(height, width, 3) if self.has_rgb else None
        thermal = pixels[split:].reshape(height, width) if self.has_thermal else None
        return View(rgb, thermal, Box(*self.values[place].tolist()), scene=self.name)

    def verify(self) -> None:
        """Read every byte and compare its checksum.

        Raises:
            SourceError: the file is damaged.
        """
        found = zlib.crc32(_mapped(self.path, self.checksum).data) if self.numbers.size else self.checksum
        if found != self.checksum:
            index = self.path.with_suffix(".json").name
            raise SourceError(
                f"{self.path} is damaged: checksum {found:08x}, expected {self.checksum:08x}; "
                f"delete {index} and prepare the folder again"
            )


@lru_cache(maxsize=OPEN_FILES)
def _mapped(path: Path, checksum: int) -> Pixels:  # noqa: ARG001 - a rewritten file is another one
    """Mapped once in each process: maps are inherited by forked workers, and never pickled to spawned ones."""
    try:
        return np.asarray(np.memmap(path, np.uint8, "r"))
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot map {path}: {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class FrameCache:
    """The recordings of a cache folder, in the order in which they were prepared.

    Attributes:
        kept: how many of those that ``build_frame_cache`` was asked for were there before.
    """

    folder: Path
    sequences: tuple[CachedRecording, ...]
    kept: int = 0

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the index of a cache; frames are mapped when first asked for.

        Raises:
            SourceError: the folder is no cache, of another version, not complete, or a file has another size than
                its index says.
        """
        manifest = require_complete(folder / MANIFEST, FORM)
        return cls(folder, tuple(_read_entry(folder, name) for name in manifest.content))

    def verify(self) -> None:
        """Check every frame file against its checksum, which reads all of them.

        Raises:
            SourceError: a file is damaged.
        """
        for recording in self.sequences:
            recording.verify()


def build_frame_cache(
    recordings: Sequence[Recording],
    folder: Path,
    *,
    max_side: int | None = None,
    every: int = 1,
    report: Report | None = None,
) -> FrameCache:
    """Decode the usable frames of ``recordings`` into ``folder``, and open the result.

    Only frames with a visible, annotated target are kept. Recordings that are already in the folder stay; a second set
    may be added to it. A frame takes width · height · 4 bytes.

    Args:
        max_side: frames with a larger side than this are shrunk to it, in pixels; None keeps them.
        every: keep each n-th usable frame only.
        report: called after each recording.

    Raises:
        SourceError: an image cannot be read, the folder cannot be written, it was made with other options, or it has
            another recording of the same name, other boxes or other image files; a cache that was complete stays so
            where it is refused.
    """
    names = [recording.name for recording in recordings]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise SourceError(f"two recordings are called {', '.join(twice)}: prepare their sets into folders of their own")
    options = {"max_side": max_side, "every": every}
    matching_manifest(folder / MANIFEST, FORM, options)
    kept = {recording.name for recording in recordings if _is_prepared(recording, folder, every)}
    manifest = start_manifest(folder / MANIFEST, FORM, options)
    for done, recording in enumerate(recordings, 1):
        if recording.name not in kept:
            _prepare(recording, folder, max_side, every)
        if report is not None:
            report(done, len(recordings), recording.name)
    added = [name for name in names if name not in set(manifest.content)]
    Manifest(FORM, options, manifest.content + added, complete=True).write(folder / MANIFEST)
    return replace(FrameCache.open(folder), kept=len(kept))


def _is_prepared(recording: Recording, folder: Path, every: int) -> bool:
    index, _ = _entry_paths(folder, recording.name)
    if not index.is_file():
        return False
    if _read_entry(folder, recording.name).source != fingerprint(recording, recording.usable_frames()[::every]):
        raise SourceError(f"{index} was made from other frames or boxes; delete it, or choose another folder")
    return True


def _prepare(recording: Recording, folder: Path, max_side: int | None, every: int) -> None:
    numbers = recording.usable_frames()[::every]
    source = fingerprint(recording, numbers)
    index, frames = _entry_paths(folder, recording.name)
    with whole_file(frames) as file:
        entry = _write_frames(recording, numbers, max_side, file)
    with whole_file(index) as file:
        file.write(json.dumps({**entry, "source": source}).encode())


def _write_frames(
    recording: Recording, numbers: NDArray[np.int64], max_side: int | None, file: BinaryIO
) -> dict[str, object]:
    checksum, sizes, boxes = 0, [], []
    for number in numbers.tolist():
        view = shrink(recording.view(number), max_side)
        for image in (view.rgb, view.thermal):
            if image is not None:
                data = np.ascontiguousarray(image).data
                checksum = zlib.crc32(data, checksum)
                file.write(data)
        sizes.append(view.size)
        boxes.append(view.box.xywh)
    return {
        "name": recording.name,
        "length": len(recording),
        "frames": numbers.tolist(),
        "sizes": sizes,
        "boxes": boxes,
        "rgb": recording.rgb is not None,
        "thermal": recording.thermal is not None,
        "checksum": checksum,
    }


def _entry_paths(folder: Path, name: str) -> tuple[Path, Path]:
    stem = quote(name, safe=" ")
    return folder / "recordings" / f"{stem}.json", folder / "recordings" / f"{stem}.bin"


def _read_entry(folder: Path, name: str) -> CachedRecording:
    index, frames = _entry_paths(folder, name)
    try:
        entry = json.loads(index.read_bytes())
        sizes = np.array(entry["sizes"], np.int64).reshape(-1, 2)
        channels = 3 * entry["rgb"] + entry["thermal"]
        recording = CachedRecording(
            name=entry["name"],
            path=frames,
            length=entry["length"],
            numbers=np.array(entry["frames"], np.int64),
            values=np.array(entry["boxes"], np.float64).reshape(-1, 4),
            sizes=sizes,
            offsets=np.concatenate(([0], np.cumsum(sizes.prod(1) * channels))),
            has_rgb=entry["rgb"],
            has_thermal=entry["thermal"],
            checksum=entry["checksum"],
            source=entry["source"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"cannot read the index {index}: {error!r}; delete it and prepare the folder again"
        ) from error
    expected, found = int(recording.offsets[-1]), frames.stat().st_size if frames.is_file() else 0
    if found != expected:
        raise SourceError(
            f"{frames} has {found} bytes, expected {expected}; delete {index.name} and prepare the folder again"
        )
    return recording
