"""Shards: every frame once, the same bytes each time, and readers that share them without holes or repetitions."""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from duotrack.boxes import Box
from duotrack.data.images import View
from duotrack.data.pairs import PairDataset
from duotrack.data.recordings import Recording
from duotrack.data.shards import ShardPairs, ShardPlan, ShardStream, mixed_clips, write_shards
from duotrack.errors import ConfigError, SourceError
from duotrack.network import CropShapes

SMALL = ShardPlan(frames=3, spacing=2, clips=4)


@dataclass(frozen=True)
class Ramp:
    """Footage of smooth ramps (JPEG keeps them), each frame brighter than the last; the box says which frame it is."""

    name: str
    count: int
    rgb: bool = True
    thermal: bool = True
    size: tuple[int, int] = (32, 24)

    def usable_frames(self) -> NDArray[np.int64]:
        return np.arange(self.count)

    def view(self, number: int) -> View:
        width, height = self.size
        ramp = (np.add.outer(np.arange(height), np.arange(width)) + 4 * number).astype(np.uint8)
        colour = np.stack([ramp, 255 - ramp, np.full_like(ramp, 100)], 2)
        thermal = ramp + np.uint8(40) if self.thermal else None
        return View(colour if self.rgb else None, thermal, Box(number, 2.5, 10, 8), scene=self.name)


def of(view: View) -> tuple[object, int]:
    """The recording and the frame that a view was written as."""
    return view.scene, int(view.box.x)


RAMPS = [Ramp("walk", 17), Ramp("run", 9, thermal=False), Ramp("fly", 11, rgb=False), Ramp("one", 1)]
CLIPS = 14  # of RAMPS by SMALL: windows of six frames give two clips, of three to one frames one: 6 + 3 + 4 + 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shards(RAMPS, tmp_path / "shards", SMALL)
    return tmp_path / "shards"


@given(
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    frames=st.integers(1, 6),
    spacing=st.integers(1, 5),
    every=st.integers(1, 3),
)
def test_every_frame_is_in_exactly_one_clip(counts: list[int], frames: int, spacing: int, every: int) -> None:
    ramps = [Ramp(str(place), count) for place, count in enumerate(counts)]
    clips = mixed_clips(ramps, ShardPlan(frames=frames, spacing=spacing, every=every))
    held = Counter((clip.footage.name, number) for clip in clips for number in clip.frames.tolist())
    assert held == Counter((ramp.name, number) for ramp in ramps for number in range(0, ramp.count, every))
    for clip in clips:
        assert 1 <= len(clip.frames) <= frames
        assert (np.diff(clip.frames) > 0).all()


def test_a_clip_spans_its_frames_times_the_spacing() -> None:
    clips = mixed_clips([Ramp("walk", 64)], ShardPlan(frames=8, spacing=8))
    assert sorted(clip.frames.tolist() for clip in clips) == [list(range(first, 64, 8)) for first in range(8)]


def test_clips_of_all_recordings_are_mixed() -> None:
    names = [clip.footage.name for clip in mixed_clips([Ramp("a", 400), Ramp("b", 400)], ShardPlan())]
    assert 5 < sum(name == "a" for name in names[: len(names) // 2]) / len(names) * 40 < 15


def test_views_read_back_are_those_that_were_written(folder: Path) -> None:
    pairs = ShardPairs(folder, seed=0)
    ramps, seen = {ramp.name: ramp for ramp in RAMPS}, set()
    for number in range(6 * len(pairs)):
        for view in pairs.pair(number):
            name, frame = of(view)
            seen.add((name, frame))
            expected = ramps[str(name)].view(frame)
            assert view.box == expected.box
            for image, written in ((view.rgb, expected.rgb), (view.thermal, expected.thermal)):
                assert (image is None) == (written is None)
                if image is not None and written is not None:
                    assert image.shape == written.shape
                    assert np.abs(image.astype(int) - written).max() <= 8
    assert seen == {(ramp.name, number) for ramp in RAMPS for number in range(ramp.count)}


def test_frames_are_shrunk_with_their_boxes(tmp_path: Path) -> None:
    write_shards([Ramp("walk", 3)], tmp_path, replace(SMALL, max_side=16))
    view, _ = ShardPairs(tmp_path, seed=0).pair(0)
    assert view.size == (16, 12)
    assert view.box.xywh[1:] == (1.25, 5, 4)


def test_the_same_call_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_shards(RAMPS, tmp_path / "again", SMALL)
    assert len(list(folder.iterdir())) == 5  # four shards of up to four clips, and the index
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_the_layout_is_webdatasets(folder: Path) -> None:
    """A sample is a run of members that agree up to the first dot; the rest of the name says what each is."""
    samples: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, name = member.name.partition(".")
                assert key not in samples or key == list(samples)[-1]
                samples.setdefault(key, []).append(name)
                data = tar.extractfile(member)
                assert data is not None
                if name == "json":
                    record = json.load(data)
                    assert set(record) == {"name", "frames", "boxes", "modalities"}
                elif name.endswith(".rgb.jpg"):
                    assert cv2.imdecode(np.frombuffer(data.read(), np.uint8), cv2.IMREAD_UNCHANGED).shape == (24, 32, 3)
                else:
                    assert cv2.imdecode(np.frombuffer(data.read(), np.uint8), cv2.IMREAD_UNCHANGED).shape == (24, 32)
    assert list(samples) == [f"{number:08d}" for number in range(CLIPS)]
    three = ["json", *(f"{place:02d}.{kind}.jpg" for place in range(3) for kind in ("rgb", "thermal"))]
    assert three in samples.values()


# The order of pairs.


def clip_of(pair: tuple[View, View], plan: ShardPlan = SMALL) -> int:
    """Which clip a pair was drawn from."""
    for place, clip in enumerate(mixed_clips(RAMPS, plan)):
        if clip.footage.name == pair[0].scene and int(pair[0].box.x) in clip.frames:
            assert int(pair[1].box.x) in clip.frames
            return place
    raise AssertionError(of(pair[0]))


def test_an_epoch_has_every_clip_once_and_the_next_one_in_another_order(folder: Path) -> None:
    pairs = ShardPairs(folder, seed=0)
    assert len(pairs) == CLIPS
    epochs = [
        [clip_of(pairs.pair(number)) for number in range(CLIPS * epoch, CLIPS * epoch + CLIPS)] for epoch in range(3)
    ]
    assert all(sorted(epoch) == list(range(CLIPS)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(CLIPS))
    other = ShardPairs(folder, seed=1)
    assert [clip_of(other.pair(number)) for number in range(CLIPS)] != epochs[0]


def test_a_pair_is_a_function_of_seed_and_number(folder: Path) -> None:
    first, second = ShardPairs(folder, seed=4), ShardPairs(folder, seed=4)
    forwards = [tuple(map(of, first.pair(number))) for number in range(40)]
    backwards = [tuple(map(of, second.pair(number))) for number in reversed(range(40))]
    assert forwards == backwards[::-1]
    drawn = {forward for number, forward in enumerate(forwards) if clip_of(second.pair(number)) == 0}
    assert len(drawn) > 1  # the frames of a clip change with the number


def test_few_shards_are_open_at_a_time(folder: Path) -> None:
    """With two to mix: the clips of two shards first, in no order, then those of the others."""
    pairs = ShardPairs(folder, seed=0, mix=2)
    taken = [clip_of(pairs.pair(number)) // SMALL.clips for number in range(CLIPS)]
    first = set(list(dict.fromkeys(taken))[:2])
    change = sum(taken.count(shard) for shard in first)
    assert set(taken[:change]) == first
    assert not set(taken[change:]) & first


def test_shards_and_the_clips_within_them_are_both_shuffled(folder: Path) -> None:
    """One shard at a time: neither the shards nor the clips of one come as they were written, over three seeds."""
    orders = []
    for seed in range(3):
        pairs = ShardPairs(folder, seed=seed, mix=1)
        orders.append([clip_of(pairs.pair(number)) for number in range(CLIPS)])
    sequences = [list(dict.fromkeys(clip // SMALL.clips for clip in order)) for order in orders]
    assert all(sorted(sequence) == [0, 1, 2, 3] for sequence in sequences)
    assert any(sequence != [0, 1, 2, 3] for sequence in sequences)
    assert any([clip for clip in order if clip < SMALL.clips] != list(range(SMALL.clips)) for order in orders)


def test_gaps_grow_with_the_number(tmp_path: Path) -> None:
    write_shards([Ramp("walk", 60)], tmp_path, ShardPlan(frames=20, spacing=1))
    pairs = ShardPairs(tmp_path, seed=0, samples=400, largest_gap=15)

    def largest(numbers: range) -> int:
        drawn = (pairs.pair(number) for number in numbers)
        return max(abs(int(search.box.x) - int(template.box.x)) for template, search in drawn)

    assert largest(range(10)) <= 5
    assert largest(range(200, 400)) == 15
    assert largest(range(400, 500)) == 15


# Splitting over ranks and workers.


def loader(pairs: ShardPairs, *, rank: int, start: int = 0, batch: int | None = None) -> DataLoader[tuple[View, View]]:
    stream = ShardStream(pairs, start=start, rank=rank, ranks=2)
    return DataLoader(stream, batch_size=batch, num_workers=2, collate_fn=lambda samples: samples)


def test_two_ranks_of_two_workers_share_the_pairs_without_holes_or_repetitions(folder: Path) -> None:
    pairs = ShardPairs(folder, seed=0)
    alone = [tuple(map(of, pairs.pair(number))) for number in range(2 * CLIPS)]
    taken = [[tuple(map(of, pair)) for pair in islice(loader(pairs, rank=rank), CLIPS)] for rank in (0, 1)]
    assert taken[0] == alone[0::2]  # in order, though each worker reads every fourth
    assert taken[1] == alone[1::2]
    assert sorted(
        clip_of(pair) for rank in (0, 1) for pair in islice(ShardStream(pairs, rank=rank, ranks=2), CLIPS)
    ) == [clip for clip in range(CLIPS) for _ in range(2)]


def test_a_stream_goes_on_where_it_was(folder: Path) -> None:
    """After 5 pairs in each of two ranks, on two ranks again or on one."""
    pairs = ShardPairs(folder, seed=0)
    alone = [tuple(map(of, pairs.pair(number))) for number in range(20)]
    assert [tuple(map(of, pair)) for pair in islice(loader(pairs, rank=1, start=10), 5)] == alone[11:20:2]
    assert [tuple(map(of, pair)) for pair in islice(ShardStream(pairs, start=10), 10)] == alone[10:]


def test_batches_have_no_holes_after_one_from_each_worker(folder: Path) -> None:
    pairs = ShardPairs(folder, seed=0)
    alone = Counter(tuple(map(of, pairs.pair(number))) for number in range(24))
    batches = [batch for rank in (0, 1) for batch in islice(loader(pairs, rank=rank, batch=3), 4)]
    assert Counter(tuple(map(of, pair)) for batch in batches for pair in batch) == alone


def test_a_rank_that_there_is_not_is_refused(folder: Path) -> None:
    with pytest.raises(SourceError, match="rank must be from 0 to 1, got 2"):
        ShardStream(ShardPairs(folder, seed=0), rank=2, ranks=2)


def test_shards_are_a_source_of_training_samples(folder: Path) -> None:
    samples = PairDataset({"shards": (ShardPairs(folder, seed=0), 1.0)}, [], length=4, seed=0, crops=CropShapes())
    assert samples[0]["template"].shape == (128, 128, 4)
    rng = np.random.default_rng(0)
    assert {clip_of(ShardPairs(folder, seed=0).draw(rng)) for _ in range(200)} == set(range(CLIPS))


# Interruption and damage.


def test_writing_goes_on_after_an_interruption(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"

    def interrupt(done: int, total: int, name: str) -> None:
        assert (total, name) == (4, f"clips-{done - 1:05d}.tar")
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(RAMPS, other, SMALL, report=interrupt)
    with pytest.raises(SourceError, match="other is not complete"):
        ShardPairs(other, seed=0)
    (other / "clips-00002.tar.part").write_bytes(b"half a shard")
    written = (other / "clips-00001.tar").stat().st_mtime_ns
    write_shards(RAMPS, other, SMALL)
    assert (other / "clips-00001.tar").stat().st_mtime_ns == written
    assert {path.name: path.read_bytes() for path in other.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


@pytest.mark.parametrize(
    ("ramps", "plan"), [(RAMPS, replace(SMALL, quality=50)), ([Ramp("walk", 18), *RAMPS[1:]], SMALL)]
)
def test_another_plan_or_other_recordings_need_another_folder(folder: Path, ramps: list[Ramp], plan: ShardPlan) -> None:
    with pytest.raises(SourceError, match=r"shards was made with .*choose another folder"):
        write_shards(ramps, folder, plan)
    assert len(ShardPairs(folder, seed=0)) == CLIPS


def test_corrected_boxes_and_images_are_noticed(tmp_path: Path) -> None:
    image, shards = tmp_path / "0.png", tmp_path / "shards"
    assert cv2.imwrite(str(image), np.zeros((24, 32, 3), np.uint8))
    recording = Recording(name="walk", boxes=(Box(1, 2, 10, 8),), annotated=(True,), absent=(False,), rgb=(image,))
    assert write_shards([recording], shards) == (1, 0)
    assert write_shards([recording], shards) == (0, 1)
    with pytest.raises(SourceError, match="choose another folder"):
        write_shards([replace(recording, boxes=(Box(2, 2, 10, 8),))], shards)
    assert cv2.imwrite(str(image), np.full((24, 32, 3), 9, np.uint8))
    with pytest.raises(SourceError, match="choose another folder"):
        write_shards([recording], shards)
    assert ShardPairs(shards, seed=0).recordings == ["walk"]


def test_without_frames_there_is_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="none of 1 recordings has a frame"):
        write_shards([Ramp("none", 0)], tmp_path)


@pytest.mark.parametrize("field", ["frames", "spacing", "clips", "every", "quality"])
def test_a_plan_of_nothing_is_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} of a shard plan must be at least 1, got 0"):
        replace(SMALL, **{field: 0})


def test_a_folder_without_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"is not a shard folder: shards\.json is missing"):
        ShardPairs(tmp_path, seed=0)


def test_a_shard_of_another_size_is_found_when_opened(folder: Path) -> None:
    path = folder / "clips-00002.tar"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 512)
    with pytest.raises(SourceError, match=rf"clips-00002\.tar has {size - 512} bytes, expected {size}; delete it"):
        ShardPairs(folder, seed=0)
    path.unlink()
    write_shards(RAMPS, folder, SMALL)  # as the message says
    assert len(ShardPairs(folder, seed=0)) == CLIPS


@pytest.mark.parametrize("broken", ["header", "record", "image"])
def test_damage_within_a_shard_is_named_when_it_is_read(folder: Path, broken: str) -> None:
    path = folder / "clips-00000.tar"
    with tarfile.open(path) as tar:
        record, image, *_ = tar.getmembers()
        offset = {"header": record.offset, "record": record.offset_data, "image": image.offset_data}[broken]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 40)
    pairs = ShardPairs(folder, seed=0)
    damage = (
        re.escape(f"{path} at 0: frame ") if broken == "image" else re.escape(f"cannot read a clip from {path} at 0: ")
    )
    with pytest.raises(SourceError, match=damage):
        [pairs.pair(number) for number in range(4 * CLIPS)]


def test_a_shard_that_is_no_tar_file_is_named_when_indexed(folder: Path) -> None:
    (folder / "clips-00001.tar").write_bytes(b"no tar file" * 100)
    with pytest.raises(SourceError, match=r"cannot read shard .*clips-00001\.tar: .*; delete it"):
        write_shards(RAMPS, folder, SMALL)
