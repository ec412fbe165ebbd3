"""The frame cache: exact pixels without copies, and nothing half-done that is taken for whole."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from duotrack.boxes import Box
from duotrack.data import frame_cache
from duotrack.data.frame_cache import CachedRecording, FrameCache, build_frame_cache
from duotrack.data.recordings import Recording, RecordingPairs
from duotrack.data.whole_file import whole_file
from duotrack.errors import SourceError

FRAMES = 7


def write_recording(
    folder: Path, name: str, *, seed: int, thermal: bool = True, size: tuple[int, int] = (32, 24)
) -> Recording:
    """Frames of noise as lossless images; frame 2 is absent, frame 5 not annotated."""
    rng = np.random.default_rng(seed)
    paths: dict[str, list[Path]] = {"rgb": [], "thermal": []}
    for kind, channels in (("rgb", (3,)), ("thermal", ())):
        (folder / name / kind).mkdir(parents=True)
        for number in range(FRAMES):
            paths[kind].append(folder / name / kind / f"{number}.png")
            image = rng.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
            assert cv2.imwrite(str(paths[kind][-1]), image)
    boxes = tuple(None if number in (2, 5) else Box(number + 0.25, 4, 10, 8) for number in range(FRAMES))
    return Recording(
        name=name,
        boxes=boxes,
        annotated=tuple(number != 5 for number in range(FRAMES)),
        absent=tuple(number == 2 for number in range(FRAMES)),
        rgb=tuple(paths["rgb"]),
        thermal=tuple(paths["thermal"]) if thermal else None,
    )


@pytest.fixture
def recordings(tmp_path: Path) -> list[Recording]:
    return [
        write_recording(tmp_path / "set", "walk", seed=1),
        write_recording(tmp_path / "set", "run", seed=2, thermal=False, size=(20, 30)),
        replace(write_recording(tmp_path / "set", "a b%/ü"[:3], seed=3), rgb=None, name="sub/a b%ü"),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_cached_frames_are_the_decoded_ones(recordings: list[Recording], folder: Path) -> None:
    cache = build_frame_cache(recordings, folder)
    assert [cached.name for cached in cache.sequences] == ["walk", "run", "sub/a b%ü"]
    for cached, recording in zip(cache.sequences, recordings, strict=True):
        assert len(cached) == FRAMES
        assert cached.boxes == recording.boxes
        assert cached.usable_frames().tolist() == recording.usable_frames().tolist() == [0, 1, 3, 4, 6]
        for number in recording.usable_frames().tolist():
            ours, theirs = cached.view(number), recording.view(number)
            assert (ours.box, ours.scene, ours.size) == (theirs.box, theirs.scene, theirs.size)
            for image, expected in ((ours.rgb, theirs.rgb), (ours.thermal, theirs.thermal)):
                assert (image is None) == (expected is None)
                if image is not None and expected is not None:
                    np.testing.assert_array_equal(image, expected)


def test_views_are_windows_of_the_file_and_cannot_be_written(recordings: list[Recording], folder: Path) -> None:
    cached = build_frame_cache(recordings, folder).sequences[0]
    first, second = cached.view(3), cached.view(3)
    assert first.rgb is not None
    assert second.rgb is not None
    assert first.thermal is not None
    assert np.shares_memory(first.rgb, second.rgb)
    assert not first.rgb.flags.owndata
    assert not first.rgb.flags.writeable
    assert type(first.rgb) is np.ndarray
    with pytest.raises(ValueError, match="read-only"):
        first.thermal[0, 0] = 1


@pytest.mark.parametrize("number", [2, 5, 7, -1])
def test_frames_without_a_target_are_not_kept(recordings: list[Recording], folder: Path, number: int) -> None:
    cached = build_frame_cache(recordings, folder).sequences[0]
    with pytest.raises(SourceError, match=f"frame {number} of recording walk is not in the cache"):
        cached.view(number)


def test_frames_are_shrunk_with_their_boxes(recordings: list[Recording], folder: Path) -> None:
    """32 × 24 to 16 × 12 with area interpolation: the mean of each 2 × 2 block, to a rounding."""
    cached = build_frame_cache(recordings, folder, max_side=16).sequences[0]
    ours, theirs = cached.view(3), recordings[0].view(3)
    assert ours.size == (16, 12)
    assert ours.box == Box(3.25 / 2, 2, 5, 4)
    assert ours.rgb is not None
    assert theirs.rgb is not None
    blocks = theirs.rgb.reshape(12, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(ours.rgb - blocks).max() <= 0.5
    assert cached.path.stat().st_size == 5 * 16 * 12 * 4


def test_frames_can_be_thinned(recordings: list[Recording], folder: Path) -> None:
    cached = build_frame_cache(recordings, folder, every=2).sequences[0]
    assert cached.usable_frames().tolist() == [0, 3, 6]
    np.testing.assert_array_equal(np.asarray(cached.view(6).rgb), np.asarray(recordings[0].view(6).rgb))


def test_pairs_are_drawn_from_a_cache(recordings: list[Recording], folder: Path) -> None:
    source = RecordingPairs(build_frame_cache(recordings, folder).sequences)
    rng = np.random.default_rng(0)
    boxes = {view.box.x for _ in range(200) for view in source.draw(rng)}
    assert boxes == {0.25, 1.25, 3.25, 4.25, 6.25}


def test_a_recording_without_a_target_is_an_empty_entry(recordings: list[Recording], folder: Path) -> None:
    nothing = replace(recordings[0], absent=(True,) * FRAMES)
    cache = build_frame_cache([nothing, recordings[1]], folder)
    cache.verify()
    assert [len(cached.usable_frames()) for cached in cache.sequences] == [0, 5]


def test_progress_is_reported(recordings: list[Recording], folder: Path) -> None:
    reports: list[tuple[int, int, str]] = []
    build_frame_cache(recordings, folder, report=lambda *report: reports.append(report))
    assert reports == [(1, 3, "walk"), (2, 3, "run"), (3, 3, "sub/a b%ü")]


# Interruption.


def die_in_the_middle(recordings: list[Recording], folder: Path) -> None:
    """Killed without a chance to tidy up, with one recording done and half of the next one written."""
    seen = 0

    def view(recording: Recording, number: int) -> object:
        nonlocal seen
        seen += 1
        if seen == 8:
            os._exit(9)
        return original(recording, number)

    original = Recording.view
    Recording.view = view  # type: ignore[method-assign, assignment]
    build_frame_cache(recordings, folder)


def test_a_killed_preparation_goes_on(recordings: list[Recording], folder: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=die_in_the_middle, args=(recordings, folder))
    process.start()
    process.join()
    assert process.exitcode == 9
    left = {path.name: path.stat().st_mtime_ns for path in (folder / "recordings").iterdir()}
    assert set(left) == {"walk.bin", "walk.json", "run.bin.part"}
    with pytest.raises(SourceError, match=r"cache is not complete; run the command that prepares it again"):
        FrameCache.open(folder)
    cache = build_frame_cache(recordings, folder)
    cache.verify()
    assert cache.sequences[0].path.stat().st_mtime_ns == left["walk.bin"]  # not decoded again
    assert len(cache.sequences) == 3
    assert not list(folder.rglob("*.part"))
    np.testing.assert_array_equal(np.asarray(cache.sequences[1].view(6).rgb), np.asarray(recordings[1].view(6).rgb))


def test_an_image_that_cannot_be_read_stops_the_preparation(
    recordings: list[Recording], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert recordings[1].rgb is not None
    recordings[1].rgb[3].write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"cannot read image .*run/rgb/3\.png"):
        build_frame_cache(recordings, folder)
    assert {path.name for path in (folder / "recordings").iterdir()} == {"walk.bin", "walk.json"}
    capfd.readouterr()


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    """Who has the previous file open goes on reading that one; a failure leaves it in place."""
    path = tmp_path / "file"
    path.write_bytes(b"previous")
    with path.open("rb") as previous:
        with whole_file(path) as file:
            file.write(b"next")
        assert previous.read() == b"previous"
    with pytest.raises(TypeError), whole_file(path) as file:
        file.write("text")  # type: ignore[arg-type]
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [("file", b"next")]


def test_sets_can_be_added_to_a_cache(recordings: list[Recording], folder: Path) -> None:
    build_frame_cache(recordings[:2], folder)
    cache = build_frame_cache(recordings[1:], folder)
    assert [cached.name for cached in cache.sequences] == ["walk", "run", "sub/a b%ü"]


# Damage, and what does not belong together.


def test_other_options_need_another_folder(recordings: list[Recording], folder: Path) -> None:
    build_frame_cache(recordings[:1], folder, max_side=16)
    with pytest.raises(SourceError, match=r"was made with \{'max_side': 16, 'every': 1\}, not with \{'max_side': 20"):
        build_frame_cache(recordings, folder, max_side=20)
    assert len(FrameCache.open(folder).sequences) == 1  # as it was


def test_two_recordings_of_one_name_are_refused(recordings: list[Recording], folder: Path) -> None:
    with pytest.raises(SourceError, match="two recordings are called walk"):
        build_frame_cache([recordings[0], replace(recordings[1], name="walk")], folder)
    build_frame_cache(recordings[:1], folder)
    moved = replace(recordings[0], boxes=(Box(9, 9, 9, 9), *recordings[0].boxes[1:]))
    with pytest.raises(SourceError, match=r"walk\.json was made from other frames or boxes"):
        build_frame_cache([moved], folder)
    assert len(FrameCache.open(folder).sequences) == 1  # as it was


def test_corrected_images_are_noticed(recordings: list[Recording], folder: Path) -> None:
    """Those that would be in the cache; the others do not matter."""
    build_frame_cache(recordings[:1], folder)
    assert recordings[0].rgb is not None
    for number, fits in ((2, True), (3, False)):
        assert cv2.imwrite(str(recordings[0].rgb[number]), np.zeros((24, 32, 3), np.uint8))
        if fits:
            assert build_frame_cache(recordings, folder).kept == 1
        else:
            with pytest.raises(SourceError, match=r"walk\.json was made from other frames or boxes"):
                build_frame_cache(recordings, folder)
    assert len(FrameCache.open(folder).sequences) == 3


def test_a_folder_that_is_no_cache_is_named(folder: Path) -> None:
    folder.mkdir()
    with pytest.raises(SourceError, match=r"cache is not a frame cache: cache\.json is missing"):
        FrameCache.open(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "frame cache v0"}, r"is of form 'frame cache v0', expected 'frame cache v1'"),
        ({"form": None}, r"is of form None"),
    ],
)
def test_a_cache_of_another_version_is_refused(
    recordings: list[Recording], folder: Path, change: dict[str, object], message: str
) -> None:
    build_frame_cache(recordings[:1], folder)
    manifest = folder / "cache.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises(SourceError, match=message):
        FrameCache.open(folder)
    with pytest.raises(SourceError, match=message):
        build_frame_cache(recordings, folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_manifest_or_index_is_named(recordings: list[Recording], folder: Path, text: str) -> None:
    build_frame_cache(recordings[:1], folder)
    index = folder / "recordings" / "walk.json"
    whole = index.read_text()
    index.write_text(text)
    with pytest.raises(SourceError, match=r"cannot read the index .*walk\.json"):
        FrameCache.open(folder)
    index.write_text(whole)
    (folder / "cache.json").write_text(text)
    with pytest.raises(SourceError, match=r"cannot read .*cache\.json"):
        FrameCache.open(folder)


def test_a_frame_file_of_another_size_is_found_when_opened(recordings: list[Recording], folder: Path) -> None:
    (cached,) = build_frame_cache(recordings[:1], folder).sequences
    expected = 5 * 32 * 24 * 4
    with cached.path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(SourceError, match=rf"walk\.bin has 1000 bytes, expected {expected}; delete walk\.json"):
        FrameCache.open(folder)
    cached.path.unlink()
    with pytest.raises(SourceError, match=r"walk\.bin has 0 bytes"):
        FrameCache.open(folder)
    (folder / "recordings" / "walk.json").unlink()  # as the message says
    build_frame_cache(recordings[:1], folder).verify()


def test_one_flipped_bit_is_found_by_verify(recordings: list[Recording], folder: Path) -> None:
    (cached,) = build_frame_cache(recordings[:1], folder).sequences
    cached.verify()
    data = bytearray(cached.path.read_bytes())
    data[4321] ^= 1
    cached.path.write_bytes(data)
    with pytest.raises(SourceError, match=r"walk\.bin is damaged: checksum .* delete walk\.json"):
        FrameCache.open(folder).verify()


def test_a_cache_that_cannot_be_written_is_named(recordings: list[Recording], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SourceError, match=r"cannot write .*file/cache/cache\.json"):
        build_frame_cache(recordings, tmp_path / "file" / "cache")


# Several processes.


class Sums(Dataset[int]):
    """The sum of each kept frame's pixels."""

    def __init__(self, cached: CachedRecording) -> None:
        self._cached = cached

    def __len__(self) -> int:
        return len(self._cached.usable_frames())

    def __getitem__(self, index: int) -> int:
        rgb = self._cached.view(int(self._cached.usable_frames()[index])).rgb
        assert rgb is not None
        return int(rgb.sum())


def test_forked_workers_read_what_the_process_reads(recordings: list[Recording], folder: Path) -> None:
    cached = build_frame_cache(recordings[:1], folder).sequences[0]
    sums = Sums(cached)
    here = [sums[index] for index in range(len(sums))]  # mapped before the fork
    assert list(DataLoader(sums, batch_size=None, num_workers=2)) == here
    frame_cache._mapped.cache_clear()  # and after it
    assert list(DataLoader(sums, batch_size=None, num_workers=2)) == here


def test_what_is_sent_to_a_spawned_worker_has_no_pixels(recordings: list[Recording], folder: Path) -> None:
    cached = build_frame_cache(recordings[:1], folder).sequences[0]
    before = cached.view(3)
    sent = pickle.dumps(cached)
    assert len(sent) < 3000 < cached.path.stat().st_size
    np.testing.assert_array_equal(np.asarray(pickle.loads(sent).view(3).rgb), np.asarray(before.rgb))
