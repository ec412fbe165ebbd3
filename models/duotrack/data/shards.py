"""Training clips in tar files for clusters: few large files instead of millions of small ones, split over many readers.

A sample is a clip: a few frames of one recording, ``KEY.00.rgb.jpg``, ``KEY.00.thermal.jpg``, …, and ``KEY.json`` with
the recording's name and the frames' numbers and boxes. That is WebDataset's layout, whose tools can read these files.
Its reader is not used here: it leaves every tar file open (a ResourceWarning each), and cannot go on in the middle of
an epoch. ``shards.json`` has each clip's place, so that sample n of a run is a function of the seed and n alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import simplejpeg
from numpy.random import Generator
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from duotrack.boxes import Box
from duotrack.data.images import Pixels, View
from duotrack.data.manifest import Manifest, require_complete, start_manifest
from duotrack.data.recordings import Footage, Recording, draw_frames, fingerprint, gap_at, shrink
from duotrack.data.whole_file import whole_file
from duotrack.errors import BoxError, ConfigError, SourceError

FORM = "shard folder v1"
MANIFEST = "shards.json"
MODALITIES = {"rgb": "RGB", "thermal": "GRAY"}  # and what simplejpeg calls their colour spaces

Report = Callable[[int, int, str], None]
"""Called with how many shards are done, of how many, and the name of the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """How recordings are cut into clips.

    Every frame is in one clip. A clip of ``frames`` frames spans about ``frames`` · ``spacing`` usable frames, and the
    clips between lie interleaved with it, so that each holds near and far pairs.

    Attributes:
        frames: of a clip.
        spacing: usable frames from one frame of a clip to its next.
        clips: of a shard. The default makes shards of some 300 MB at ``max_side`` 480.
        every: take each n-th usable frame only.
        max_side: larger frames are shrunk to this, in pixels; None keeps them.
        quality: of the JPEG files, 1 to 100.
        seed: of the order of the clips, in which all recordings are mixed.

    Raises:
        ConfigError: a count is below one.
    """

    frames: int = 8
    spacing: int = 8
    clips: int = 512
    every: int = 1
    max_side: int | None = 480
    quality: int = 92
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("frames", "spacing", "clips", "every", "quality"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field} of a shard plan must be at least 1, got {getattr(self, field)}")


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Frames of one recording that make a sample; ``frames`` are their numbers in it, ascending."""

    footage: Footage
    frames: NDArray[np.int64]


def write_shards(
    recordings: Sequence[Footage], folder: Path, plan: ShardPlan | None = None, report: Report | None = None
) -> tuple[int, int]:
    """Write the usable frames of ``recordings`` to ``folder/clips-NNNNN.tar`` and their places to ``shards.json``.

    A shard appears when it is whole; the same call after an interruption goes on with the next. The same recordings
    and plan give the same bytes.

    Returns:
        How many shards were written, and how many were there.

    Raises:
        SourceError: there is nothing to write, an image cannot be read, a file cannot be written, or the folder has
            shards of other recordings, boxes or image files, or of another plan.
    """
    plan = plan or ShardPlan()
    clips = mixed_clips(recordings, plan)
    if not clips:
        raise SourceError(f"none of {len(recordings)} recordings has a frame with a visible, annotated target")
    places = [[clip.footage.name, clip.frames.tolist()] for clip in clips]
    read = [recording for recording in recordings if isinstance(recording, Recording)]
    sources = [fingerprint(recording, recording.usable_frames()[:: plan.every]) for recording in read]
    digest = hashlib.sha256(json.dumps([places, sources]).encode()).hexdigest()[:16]
    options = {field: getattr(plan, field) for field in ShardPlan.__slots__} | {"clips of": digest}
    start_manifest(folder / MANIFEST, FORM, options)
    starts = range(0, len(clips), plan.clips)
    written = 0
    for number, start in enumerate(starts):
        path = folder / f"clips-{number:05d}.tar"
        if not path.is_file():
            _write_shard(path, clips[start : start + plan.clips], start, plan)
            written += 1
        if report is not None:
            report(number + 1, len(starts), path.name)
    shards = [_index(folder / f"clips-{number:05d}.tar") for number in range(len(starts))]
    for shard, start in zip(shards, starts, strict=True):
        shard["recordings"] = sorted({clip.footage.name for clip in clips[start : start + plan.clips]})
    Manifest(FORM, options, shards, complete=True).write(folder / MANIFEST)
    return written, len(starts) - written


def mixed_clips(recordings: Sequence[Footage], plan: ShardPlan) -> list[Clip]:
    """The clips of all recordings in the order in which they are written: each usable frame is in exactly one."""
    clips: list[Clip] = []
    for footage in recordings:
        frames = footage.usable_frames()[:: plan.every]
        for start in range(0, len(frames), plan.frames * plan.spacing):
            window = frames[start : start + plan.frames * plan.spacing]
            interleaved = -(-len(window) // plan.frames)
            clips += [Clip(footage, window[first::interleaved]) for first in range(interleaved)]
    order = np.random.default_rng(plan.seed).permutation(len(clips))
    return [clips[place] for place in order]


def _write_shard(path: Path, clips: Sequence[Clip], start: int, plan: ShardPlan) -> None:
    with whole_file(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, clip in enumerate(clips, start):
            for name, data in _clip_files(clip, plan).items():
                member = tarfile.TarInfo(f"{number:08d}.{name}")
                member.size, member.mode = len(data), 0o444
                tar.addfile(member, io.BytesIO(data))


def _clip_files(clip: Clip, plan: ShardPlan) -> dict[str, bytes]:
    views = [shrink(clip.footage.view(number), plan.max_side) for number in clip.frames.tolist()]
    record = {
        "name": clip.footage.name,
        "frames": clip.frames.tolist(),
        "boxes": [view.box.xywh for view in views],
        "modalities": [name for name in MODALITIES if getattr(views[0], name) is not None],
    }
    files = {"json": json.dumps(record).encode()}
    for place, view in enumerate(views):
        for name in record["modalities"]:
            files[f"{place:02d}.{name}.jpg"] = _encode(getattr(view, name), name, plan.quality)
    return files


def _encode(image: Pixels, modality: str, quality: int) -> bytes:
    pixels = np.ascontiguousarray(image.reshape(*image.shape[:2], -1))
    return cast("bytes", simplejpeg.encode_jpeg(pixels, quality, MODALITIES[modality], "420"))


def _decode(data: bytes, modality: str) -> Pixels:
    pixels = cast("Pixels", simplejpeg.decode_jpeg(data, MODALITIES[modality]))
    return pixels[..., 0] if modality == "thermal" else pixels


def _index(path: Path) -> dict[str, Any]:
    """A shard's entry in the manifest: its size, and where each clip begins and the last one ends, in bytes."""
    starts, key, end = [], None, 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.name.partition(".")[0] != key:
                    key = member.name.partition(".")[0]
                    starts.append(member.offset)
                end = tar.offset
        return {"file": path.name, "bytes": path.stat().st_size, "clips": [*starts, end]}
    except (OSError, tarfile.TarError) as error:
        raise SourceError(f"cannot read shard {path}: {error}; delete it and write the shards again") from error


class ShardPairs:
    """Pairs from a folder of shards, by number: pair n is the same on any machine, and in any split over readers.

    Numbers have no end; each ``len(self)`` of them in a row use every clip once. Clips come shuffled among ``mix``
    shards, taken in random order, so that a reader has few files open and finds them in the page cache. Going on after
    an interruption is exact: start at the number that comes next.

    Args:
        samples: how many pairs training takes, over the first half of which gaps grow; None: gaps are not limited.
        largest_gap: in frames of the recording.
        mix: shards to shuffle clips among. More mix better, and read more randomly.

    Attributes:
        recordings: names of those that the clips are of; none where the shards were written before names were kept.

    Raises:
        SourceError: the folder has no shards, is not complete, or a shard has another size than the index says.
    """

    def __init__(
        self, folder: Path, *, seed: int, samples: int | None = None, largest_gap: int = 60, mix: int = 16
    ) -> None:
        manifest = require_complete(folder / MANIFEST, FORM)
        self._clips: list[tuple[Path, int, int]] = []
        self._shards: list[NDArray[np.int64]] = []
        for shard in manifest.content:
            path, places = folder / shard["file"], shard["clips"]
            _require_size(path, shard["bytes"])
            self._shards.append(len(self._clips) + np.arange(len(places) - 1))
            self._clips += [(path, begin, end) for begin, end in pairwise(places)]
        self.recordings = sorted({name for shard in manifest.content for name in shard.get("recordings", ())})
        self._seed = seed
        self._samples = samples
        self._largest_gap = largest_gap
        self._mix = mix
        self._epoch: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Clips in the folder."""
        return len(self._clips)

    def pair(self, number: int) -> tuple[View, View]:
        """Pair ``number`` (from 0 on) of the endless row.

        Raises:
            SourceError: the shard cannot be read, or the clip is damaged.
        """
        epoch, place = divmod(number, len(self._clips))
        progress = number / self._samples if self._samples is not None else 1.0
        rng = np.random.default_rng((self._seed, 1, number))
        return self._draw(int(self._order(epoch)[place]), rng, progress)

    def draw(self, rng: Generator, progress: float = 1.0) -> tuple[View, View]:
        """A pair of any clip, so that shards are a pair source among others; reads shards in no order.

        Raises:
            SourceError: the shard cannot be read, or the clip is damaged.
        """
        return self._draw(int(rng.integers(len(self._clips))), rng, progress)

    def _draw(self, clip: int, rng: Generator, progress: float) -> tuple[View, View]:
        path, begin, end = self._clips[clip]
        first, second = read_clip(path, begin, end).draw(rng, gap_at(progress, self._largest_gap))
        return first, second

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """The order of the clips in one epoch; the last one asked for is kept."""
        if self._epoch is None or self._epoch[0] != epoch:
            rng = np.random.default_rng((self._seed, 0, epoch))
            shards = [self._shards[place] for place in rng.permutation(len(self._shards))]
            groups = [np.concatenate(shards[at : at + self._mix]) for at in range(0, len(shards), self._mix)]
            self._epoch = epoch, np.concatenate([rng.permutation(group) for group in groups])
        return self._epoch[1]


class ShardStream(IterableDataset[tuple[View, View]]):
    """The pairs of ``ShardPairs`` without end, dealt out to ranks and to the workers of a ``DataLoader``.

    Each number from ``start`` on goes to one worker of one rank. With batches of one pair (``batch_size=None``), a
    rank sees its numbers in order, and having taken t of them goes on exactly with ``start + ranks · t``. A loader
    that makes batches of B in W workers has taken a row without holes only after each W batches; going on between
    these repeats or leaves out up to (W − 1) · B pairs a rank. Where that matters, give ``ShardPairs.pair`` the numbers
    of a sampler.
    """

    def __init__(self, pairs: ShardPairs, *, start: int = 0, rank: int = 0, ranks: int = 1) -> None:
        if not 0 <= rank < ranks:
            raise SourceError(f"rank must be from 0 to {ranks - 1}, got {rank}")
        self._pairs = pairs
        self._start = start
        self._rank = rank
        self._ranks = ranks

    def __iter__(self) -> Iterator[tuple[View, View]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        for number in count(self._start + self._rank + self._ranks * worker, self._ranks * workers):
            yield self._pairs.pair(number)


@dataclass(frozen=True, slots=True, eq=False)
class StoredClip:
    """A clip as it lies in a shard: its record, and its files by name; images are decoded when drawn."""

    origin: str
    name: str
    frames: NDArray[np.int64]
    boxes: tuple[Box, ...]
    files: dict[str, bytes]

    def draw(self, rng: Generator, gap: int) -> tuple[View, View]:
        """Two of the frames, at most ``gap`` apart where there are such."""
        first, second = draw_frames(self.frames, gap, rng)
        return self.view(first), self.view(second)

    def view(self, number: int) -> View:
        """Frame ``number`` of the recording.

        Raises:
            SourceError: an image is damaged.
        """
        place = int(np.searchsorted(self.frames, number))
        try:
            rgb, thermal = (
                _decode(self.files[f"{place:02d}.{name}.jpg"], name)
                if f"{place:02d}.{name}.jpg" in self.files
                else None
                for name in MODALITIES
            )
        except ValueError as error:
            raise SourceError(f"{self.origin}: frame {number} is damaged: {error}") from error
        return View(rgb, thermal, self.boxes[place], scene=self.name)


def read_clip(path: Path, begin: int, end: int) -> StoredClip:
    """The clip in bytes ``begin`` to ``end`` of a shard, read at once.

    Raises:
        SourceError: the file cannot be read, or there is no clip at that place.
    """
    origin = f"{path} at {begin}"
    try:
        with path.open("rb") as file:
            file.seek(begin)
            block = file.read(end - begin)
        with tarfile.open(fileobj=io.BytesIO(block), mode="r:") as tar:
            spans = {member.name.partition(".")[2]: (member.offset_data, member.size) for member in tar}
        files = {name: block[offset : offset + size] for name, (offset, size) in spans.items()}
        record = json.loads(files.pop("json"))
        boxes = tuple(Box(*values) for values in record["boxes"])
        return StoredClip(origin, record["name"], np.array(record["frames"], np.int64), boxes, files)
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError, BoxError) as error:
        raise SourceError(f"cannot read a clip from {origin}: {error}") from error


def _require_size(path: Path, expected: int) -> None:
    found = path.stat().st_size if path.is_file() else 0
    if found != expected:
        raise SourceError(f"{path} has {found} bytes, expected {expected}; delete it and write the shards again")
