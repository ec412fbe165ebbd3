"""Readers of the public sets, on miniature folders in each set's own convention."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.folders import natural_key
from duotrack.data.images import View
from duotrack.data.readers import READERS, open_recordings
from duotrack.data.recordings import Recording, RecordingPairs, gap_at, shrink
from duotrack.errors import SourceError

LOCAL = Path(__file__).resolve().parents[3].parent / "shared" / "data"
Row = tuple[float, float, float, float]
ABSENT: Row = (0, 0, 0, 0)


def write_frames(folder: Path, names: Sequence[str], *, channels: int = 3, size: tuple[int, int] = (32, 24)) -> None:
    """Flat frames whose level says their place in ``names``: 8, 16, 24, …"""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names, 1):
        shape = (size[1], size[0], channels)[: 3 if channels == 3 else 2]
        assert cv2.imwrite(str(folder / name), np.full(shape, 8 * place % 256, np.uint8))


def write_rows(path: Path, rows: Sequence[Sequence[float]], separator: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(f"{value:g}" for value in row) + "\n" for row in rows), encoding="utf-8")


def level(recording: Recording, number: int) -> tuple[int | None, int | None]:
    """The place that the colour and the thermal frame were written at."""
    pair = recording.pair(number)
    rgb, thermal = (None if image is None else round(float(image.mean()) / 8) for image in (pair.rgb, pair.thermal))
    return rgb, thermal


def numbered(count: int, form: str = "{:06d}.jpg", first: int = 1) -> list[str]:
    return [form.format(first + index) for index in range(count)]


def write_lasher(folder: Path, rows: Sequence[Row], frames: int) -> None:
    write_frames(folder / "visible", numbered(frames, "v{:03d}.jpg", 0))
    write_frames(folder / "infrared", numbered(frames))
    for name in ("init.txt", "visible.txt", "infrared.txt"):
        write_rows(folder / name, rows)


def write_gtot(folder: Path, rows: Sequence[Row], frames: int) -> None:
    write_frames(folder / "v", numbered(frames, "{:05d}v.png"))
    write_frames(folder / "i", numbered(frames, "{:05d}i.png"), channels=1)
    corners = [(x, y, x + w, y + h) for x, y, w, h in rows]
    write_rows(folder / "groundTruth_v.txt", corners, " ")
    write_rows(folder / "groundTruth_i.txt", [(x2, y2, x1, y1) for x1, y1, x2, y2 in corners], " ")


def write_vtuav(folder: Path, rows: Sequence[Row], frames: int) -> None:
    write_frames(folder / "rgb", numbered(frames, "{:06d}.jpg", 0))
    write_frames(folder / "ir", numbered(frames, "{:06d}.jpg", 0))
    for name in ("rgb.txt", "ir.txt"):
        write_rows(folder / name, rows, " ")


def write_got10k(folder: Path, rows: Sequence[Row], frames: int) -> None:
    write_frames(folder, numbered(frames, "{:08d}.jpg"))
    write_rows(folder / "groundtruth.txt", rows)


def write_lasot(folder: Path, rows: Sequence[Row], frames: int) -> None:
    write_frames(folder / "img", numbered(frames, "{:08d}.jpg"))
    write_rows(folder / "groundtruth.txt", rows)


def write_otb(folder: Path, rows: Sequence[Row], frames: int) -> None:
    write_frames(folder / "img", numbered(frames, "{:04d}.jpg"))
    write_rows(folder / "groundtruth_rect.txt", rows, "\t")


def write_local(folder: Path, rows: Sequence[Row], frames: int) -> None:
    write_frames(folder / "visible", numbered(frames, "{:04d}.jpg"))
    write_rows(folder / "groundtruth.txt", rows)


@dataclass(frozen=True)
class Convention:
    """How a set lays out one sequence: where below the root, how it is written, and its main annotation."""

    kind: str
    place: str
    write: Callable[[Path, Sequence[Row], int], None]
    frames: tuple[str, ...]
    boxes: str
    step: int = 1


CONVENTIONS = {
    convention.kind: convention
    for convention in (
        Convention("lasher", "walk", write_lasher, ("visible", "infrared"), "init.txt"),
        Convention("rgbt234", "walk", write_lasher, ("visible", "infrared"), "visible.txt"),
        Convention("rgbt210", "walk", write_lasher, ("visible", "infrared"), "visible.txt"),
        Convention("gtot", "walk", write_gtot, ("v", "i"), "groundTruth_v.txt"),
        Convention("vtuav", "walk", write_vtuav, ("rgb", "ir"), "rgb.txt", step=10),
        Convention("got10k", "walk", write_got10k, (".",), "groundtruth.txt"),
        Convention("lasot", "cat/walk", write_lasot, ("img",), "groundtruth.txt"),
        Convention("otb", "walk", write_otb, ("img",), "groundtruth_rect.txt"),
        Convention("local", "rgb-sequences/walk", write_local, ("visible",), "groundtruth.txt"),
    )
}
every_convention = pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=CONVENTIONS)


def only(kind: str, root: Path, split: str | None = None) -> Recording:
    recordings = open_recordings(kind, root, split)
    assert len(recordings) == 1
    return recordings[0]


def test_every_reader_has_a_convention_here() -> None:
    assert set(CONVENTIONS) == set(READERS)


number = st.integers(-20, 400).map(lambda value: value / 4)
side = st.integers(1, 400).map(lambda value: value / 4)
rows = st.lists(st.just(ABSENT) | st.tuples(number, number, side, side), min_size=2, max_size=4)


@every_convention
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(rows=rows)
def test_boxes_read_back_are_those_that_were_written(
    convention: Convention, tmp_path_factory: pytest.TempPathFactory, rows: list[Row]
) -> None:
    root = tmp_path_factory.mktemp(convention.kind)
    frames = convention.step * (len(rows) - 1) + 1
    convention.write(root / convention.place, rows, frames)
    recording = only(convention.kind, root)
    expected = [None if row == ABSENT else Box(*row) for row in rows]
    assert recording.name == "walk"
    assert len(recording) == frames
    assert list(recording.boxes[:: convention.step]) == expected
    assert [number for number, seen in enumerate(recording.annotated) if seen] == list(
        range(0, frames, convention.step)
    )
    assert [number for number, gone in enumerate(recording.absent) if gone] == [
        convention.step * place for place, box in enumerate(expected) if box is None
    ]
    assert recording.usable_frames().tolist() == [
        convention.step * place for place, box in enumerate(expected) if box is not None
    ]
    assert recording.notes == ()
    if convention.kind in ("lasher", "rgbt234", "rgbt210", "gtot", "vtuav"):
        assert recording.rgb_boxes == recording.thermal_boxes == recording.boxes
    else:
        assert recording.thermal is None
        assert recording.rgb_boxes is None


@every_convention
def test_frames_come_in_order_with_their_box(convention: Convention, tmp_path: Path) -> None:
    rows = [(2, 3, 10 + index, 8) for index in range(3)]
    convention.write(tmp_path / convention.place, rows, 2 * convention.step + 1)
    recording = only(convention.kind, tmp_path)
    paired = len(convention.frames) == 2
    for place, row in enumerate(rows):
        place_of_frame = convention.step * place
        written = place_of_frame + 1
        assert level(recording, place_of_frame) == (written, written if paired else None)
        view = recording.view(place_of_frame)
        assert view.box == Box(*row)
        assert view.scene == "walk"
        assert view.size == (32, 24)
        assert (view.thermal is not None) == paired


# Broken folders: what is broken, and what the message must say.


@every_convention
def test_a_missing_annotation_is_named(convention: Convention, tmp_path: Path) -> None:
    folder = tmp_path / convention.place
    convention.write(folder, [(1, 2, 3, 4)] * 3, 2 * convention.step + 1)
    for path in folder.glob("*.txt"):
        path.unlink()
    if convention.kind == "got10k":  # nothing is left to know the sequence by but the set's list
        (tmp_path / "list.txt").write_text("walk\n", encoding="utf-8")
    with pytest.raises(SourceError, match=rf"cannot (read|find) .*walk/{re.escape(convention.boxes)}"):
        open_recordings(convention.kind, tmp_path)


@every_convention
@pytest.mark.parametrize("lines", [1, 7])
def test_too_few_or_too_many_boxes_are_counted(convention: Convention, tmp_path: Path, lines: int) -> None:
    folder = tmp_path / convention.place
    convention.write(folder, [(1, 2, 3, 4)] * 4, 3 * convention.step + 1)
    separator = " " if convention.kind in ("gtot", "vtuav") else ","
    write_rows(folder / convention.boxes, [(1, 2, 3, 4)] * lines, separator)
    with pytest.raises(SourceError, match=rf"{lines} (lines|line|in) .*{re.escape(convention.boxes)}|has {lines} line"):
        open_recordings(convention.kind, tmp_path)


@every_convention
@pytest.mark.parametrize("line", ["1,2,3", "1,2,3,4,5", "one,2,3,4", "nan,2,3,4", "1,inf,3,4", ""])
def test_a_line_that_is_no_box_is_named_by_number(convention: Convention, tmp_path: Path, line: str) -> None:
    folder = tmp_path / convention.place
    convention.write(folder, [(1, 2, 3, 4)] * 3, 2 * convention.step + 1)
    path = folder / convention.boxes
    path.write_text(f"1,2,3,4\n{line}\n1,2,3,4\n", encoding="utf-8")
    with pytest.raises(SourceError, match=re.escape(f"{path}:2: expected four numbers, got {line!r}")):
        open_recordings(convention.kind, tmp_path)


@every_convention
@pytest.mark.parametrize(
    ("content", "what"), [(b"", "is empty: expected a line"), (b"\xff\xfe\x00", "not a text file")]
)
def test_an_annotation_without_text_is_named(convention: Convention, tmp_path: Path, content: bytes, what: str) -> None:
    folder = tmp_path / convention.place
    convention.write(folder, [(1, 2, 3, 4)] * 3, 2 * convention.step + 1)
    (folder / convention.boxes).write_bytes(content)
    with pytest.raises(SourceError, match=rf"{re.escape(convention.boxes)}.*{what}"):
        open_recordings(convention.kind, tmp_path)


@every_convention
def test_folders_without_frames_are_named(convention: Convention, tmp_path: Path) -> None:
    for name in convention.frames:
        folder = tmp_path / name.replace(".", "frames") / convention.place
        convention.write(folder, [(1, 2, 3, 4)] * 3, 2 * convention.step + 1)
        for path in (folder / name).iterdir():
            if path.suffix in (".jpg", ".png"):
                path.unlink()
        with pytest.raises(SourceError, match=r"walk.* has no frames: expected \.bmp, \.jpeg, \.jpg, \.png files"):
            open_recordings(convention.kind, tmp_path / name.replace(".", "frames"))
        if name != ".":
            (folder / name).rmdir()
            with pytest.raises(SourceError, match=rf"expected a folder at .*walk/{name}: No such file"):
                open_recordings(convention.kind, tmp_path / name)


@every_convention
def test_a_damaged_image_is_found_when_it_is_asked_for(
    convention: Convention, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / convention.place
    convention.write(folder, [(1, 2, 3, 4)] * 3, 2 * convention.step + 1)
    damaged = sorted(path for path in (folder / convention.frames[-1]).iterdir() if path.suffix in (".jpg", ".png"))[0]
    damaged.write_bytes(b"no image")
    recording = only(convention.kind, tmp_path)
    assert level(recording, 1) is not None
    for read in (recording.pair, recording.view):
        with pytest.raises(SourceError, match=rf"cannot read image .*{damaged.name}"):
            read(0)
    capfd.readouterr()  # OpenCV's own warnings


@every_convention
def test_an_empty_sequence_is_not_passed_over(convention: Convention, tmp_path: Path) -> None:
    convention.write(tmp_path / convention.place, [(1, 2, 3, 4)] * 3, 2 * convention.step + 1)
    (tmp_path / convention.place).with_name("zoo").mkdir()
    with pytest.raises(SourceError, match="zoo"):
        open_recordings(convention.kind, tmp_path)


@every_convention
def test_a_folder_without_sequences_says_what_was_expected(convention: Convention, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here", encoding="utf-8")
    with pytest.raises(SourceError, match=r"has no sequences: expected "):
        open_recordings(convention.kind, tmp_path)
    with pytest.raises(SourceError, match=r"data folder .*elsewhere does not exist"):
        open_recordings(convention.kind, tmp_path / "elsewhere")


@every_convention
def test_an_unknown_split_is_refused(convention: Convention, tmp_path: Path) -> None:
    convention.write(tmp_path / convention.place, [(1, 2, 3, 4)] * 3, 2 * convention.step + 1)
    with pytest.raises(SourceError, match=r"(has (no|the) splits|begins with).*'sideways'"):
        open_recordings(convention.kind, tmp_path, "sideways")


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"unknown kind of data 'got11k'; known are lasher, rgbt234"):
        open_recordings("got11k", tmp_path)


# Traps that are common to sets.


def test_names_sort_as_a_person_would() -> None:
    names = ["v10.jpg", "v9.jpg", "v009b.jpg", "000100.jpg", "99.jpg", "a2_10.jpg", "a2_9.jpg"]
    expected = ["99.jpg", "000100.jpg", "a2_9.jpg", "a2_10.jpg", "v9.jpg", "v009b.jpg", "v10.jpg"]
    assert [path.name for path in sorted(map(Path, names), key=natural_key)] == expected


def test_unpadded_frame_numbers_and_other_files_do_not_shift_frames(tmp_path: Path) -> None:
    write_frames(tmp_path / "walk" / "visible", numbered(12, "{}.jpg"))
    write_frames(tmp_path / "walk" / "infrared", numbered(12, "i{:03d}.JPG"))
    write_rows(tmp_path / "walk" / "init.txt", [(1, 2, 3, 4)] * 12)
    for name in ("Thumbs.db", "._1.jpg", ".DS_Store"):
        (tmp_path / "walk" / "infrared" / name).write_bytes(b"?")
        (tmp_path / "walk" / "visible" / name).write_bytes(b"?")
    recording = only("lasher", tmp_path)
    assert recording.notes == ()
    assert [level(recording, number) for number in range(12)] == [(place, place) for place in range(1, 13)]
    assert recording.rgb_boxes is None


def test_one_frame_more_is_cut_and_noted(tmp_path: Path) -> None:
    write_lasher(tmp_path / "walk", [(1, 2, 3, 4)] * 5, 5)
    write_frames(tmp_path / "walk" / "infrared", numbered(6))
    recording = only("lasher", tmp_path)
    assert len(recording) == 5
    assert recording.rgb is not None
    assert recording.thermal is not None
    assert len(recording.rgb) == len(recording.thermal) == len(recording.annotated) == 5
    assert recording.rgb_boxes is not None
    assert len(recording.rgb_boxes) == 5
    (note,) = recording.notes
    assert re.search(r"cut to 5 frames: 5 in .*visible, 6 in .*infrared", note)


@pytest.mark.parametrize("kind", ["lasher", "gtot", "vtuav"])
def test_a_frame_that_is_missing_in_the_middle_is_named(tmp_path: Path, kind: str) -> None:
    """Whatever the sides call their frames, and from which number on; the last one may be missing."""
    convention = CONVENTIONS[kind]
    folder, count = tmp_path / convention.place, 3 * convention.step + 3
    convention.write(folder, [(1, 2, 3, 4)] * (count if convention.step == 1 else 4), count)
    colour, thermal = (sorted((folder / side).iterdir()) for side in convention.frames)
    thermal[-1].rename(tmp_path / "last")
    assert len(only(kind, tmp_path)) == count - 1
    (tmp_path / "last").rename(thermal[-1])
    thermal[2].unlink()
    with pytest.raises(SourceError, match=rf"walk: .*{colour[2].name} has no partner in .*{convention.frames[1]}, and"):
        open_recordings(kind, tmp_path)


@pytest.mark.parametrize(("frames", "extra", "fits"), [(200, 4, True), (200, 5, False), (5, 1, True), (5, 2, False)])
def test_a_large_difference_is_not_cut(tmp_path: Path, frames: int, extra: int, fits: bool) -> None:
    for name, count in (("visible", frames + extra), ("infrared", frames)):
        (tmp_path / "walk" / name).mkdir(parents=True)
        for index in range(count):
            (tmp_path / "walk" / name / f"{index}.jpg").touch()
    write_rows(tmp_path / "walk" / "init.txt", [(1, 2, 3, 4)] * frames)
    if fits:
        assert len(only("lasher", tmp_path)) == frames
    else:
        with pytest.raises(
            SourceError, match=rf"as many boxes as frames, got {frames + extra} in .*visible, {frames} in"
        ):
            open_recordings("lasher", tmp_path)


def test_thermal_of_another_size_is_stretched_to_colour(tmp_path: Path) -> None:
    write_lasher(tmp_path / "walk", [(1, 2, 3, 4)] * 2, 2)
    write_frames(tmp_path / "walk" / "infrared", numbered(2), size=(16, 12))
    recording = only("lasher", tmp_path)
    assert recording.pair(1).thermal is not None
    assert (recording.pair(1).width, recording.pair(1).height) == (32, 24)
    assert level(recording, 1) == (2, 2)


@pytest.mark.parametrize("size", [(32, 24), (64, 48)])
def test_thermal_of_16_bits_keeps_them_and_trains_with_eight(tmp_path: Path, size: tuple[int, int]) -> None:
    """A warm square 200 counts over its ground: in the high byte alone, nothing of it is left."""
    write_frames(tmp_path / "one" / "visible", ["1.png"], size=size)
    (tmp_path / "one" / "infrared").mkdir()
    counts = np.full((24, 32), 7200, np.uint16)
    counts[4:12, 8:20] = 7400
    assert cv2.imwrite(str(tmp_path / "one" / "infrared" / "1.png"), counts)
    write_rows(tmp_path / "one" / "visible.txt", [(8, 4, 12, 8)])
    write_rows(tmp_path / "one" / "infrared.txt", [(8, 4, 12, 8)])
    (recording,) = open_recordings("rgbt234", tmp_path)
    thermal = recording.pair(0).thermal
    assert thermal is not None
    assert (thermal.dtype, thermal.shape, thermal.min(), thermal.max()) == (np.uint16, size[::-1], 7200, 7400)
    trained = recording.view(0).thermal
    assert trained is not None
    assert (trained.dtype, trained.shape) == (np.uint8, size[::-1])
    assert (trained.min(), trained.max()) == (21, 234)  # the window is a tenth wider on either side


def test_lines_may_end_in_any_way_and_be_separated_by_anything(tmp_path: Path) -> None:
    write_otb(tmp_path / "walk", [(1, 2, 3, 4)] * 3, 3)
    (tmp_path / "walk" / "groundtruth_rect.txt").write_bytes(
        b"\xef\xbb\xbf1,2,3,4\r\n5\t6 7,8 \r\n9, 10, 11, 12\r\n\r\n"
    )
    assert only("otb", tmp_path).boxes == (Box(1, 2, 3, 4), Box(5, 6, 7, 8), Box(9, 10, 11, 12))


def test_a_box_without_area_is_absent_even_where_it_has_a_place(tmp_path: Path) -> None:
    write_lasher(tmp_path / "walk", [(1, 2, 3, 4), (5, 6, 0, 7), (5, 6, 7, -1)], 3)
    recording = only("lasher", tmp_path)
    assert recording.boxes == (Box(1, 2, 3, 4), None, None)
    assert recording.absent == (False, True, True)
    with pytest.raises(SourceError, match="frame 1 of recording walk has no box"):
        recording.view(1)


# Each set's own traps.


def test_lasher_takes_its_main_annotation_from_init(tmp_path: Path) -> None:
    write_lasher(tmp_path / "walk", [(1, 2, 3, 4)] * 2, 2)
    write_rows(tmp_path / "walk" / "visible.txt", [(2, 2, 3, 4)] * 2)
    write_rows(tmp_path / "walk" / "infrared.txt", [(3, 2, 3, 4)] * 2)
    lasher, rgbt234 = only("lasher", tmp_path), only("rgbt234", tmp_path)
    assert (lasher.boxes[0], rgbt234.boxes[0]) == (Box(1, 2, 3, 4), Box(2, 2, 3, 4))
    for recording in (lasher, rgbt234):
        assert recording.rgb_boxes == (Box(2, 2, 3, 4),) * 2
        assert recording.thermal_boxes == (Box(3, 2, 3, 4),) * 2
    for name in ("visible.txt", "infrared.txt"):
        (tmp_path / "walk" / name).unlink()
    assert only("rgbt210", tmp_path).boxes[0] == Box(1, 2, 3, 4)


def names(recordings: list[Recording]) -> list[str]:
    return [recording.name for recording in recordings]


def test_lasher_splits_are_folders(tmp_path: Path) -> None:
    for name in ("trainingset/b", "trainingset/a", "testingset/c"):
        write_lasher(tmp_path / name, [(1, 2, 3, 4)] * 2, 2)
    assert names(open_recordings("lasher", tmp_path, "train")) == ["a", "b"]
    assert names(open_recordings("lasher", tmp_path, "test")) == ["c"]
    assert names(open_recordings("lasher", tmp_path)) == ["a", "b", "c"]


@pytest.mark.parametrize("folder", ["trainingset", "."])
def test_lasher_splits_are_lists(tmp_path: Path, folder: str) -> None:
    for name in "abc":
        write_lasher(tmp_path / folder / name, [(1, 2, 3, 4)] * 2, 2)
    (tmp_path / "trainingsetList.txt").write_text("c\na\n", encoding="utf-8")
    assert names(open_recordings("lasher", tmp_path, "train")) == ["c", "a"]
    (tmp_path / "trainingsetList.txt").write_text("c\nmissing\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"expected a folder at .*missing/visible"):
        open_recordings("lasher", tmp_path, "train")
    (tmp_path / "trainingsetList.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"trainingsetList\.txt is empty"):
        open_recordings("lasher", tmp_path, "train")
    with pytest.raises(SourceError, match=r"neither the folder testingset nor the list testingsetList\.txt"):
        open_recordings("lasher", tmp_path, "test")


def test_lasher_attributes_are_those_with_a_flag(tmp_path: Path) -> None:
    write_lasher(tmp_path / "walk", [(1, 2, 3, 4)] * 2, 2)
    (tmp_path / "Attributes_order.txt").write_text("NO, PO,TO", encoding="utf-8")
    assert only("lasher", tmp_path).attributes == ()
    write_rows(tmp_path / "AttriSeqsTxt" / "walk.txt", [(1, 0, 1)])
    assert only("lasher", tmp_path).attributes == ("NO", "TO")
    write_rows(tmp_path / "AttriSeqsTxt" / "walk.txt", [(1, 0)])
    with pytest.raises(SourceError, match=r"walk\.txt has 2 flags, expected one for each of 3"):
        open_recordings("lasher", tmp_path)


@pytest.mark.parametrize(("frames", "lines"), [(21, 3), (20, 2), (29, 3), (25, 2)])
def test_vtuav_boxes_belong_to_every_tenth_frame(tmp_path: Path, frames: int, lines: int) -> None:
    boxes = [(1, 2, 3, 4 + line) for line in range(lines)]
    write_vtuav(tmp_path / "walk", boxes, frames)
    recording = only("vtuav", tmp_path)
    known = {number: box for number, box in enumerate(recording.boxes) if box is not None}
    assert known == {10 * line: Box(*box) for line, box in enumerate(boxes)}
    assert sum(recording.annotated) == lines
    assert not any(recording.absent)


def test_vtuav_folders_are_found_at_any_depth_and_counted_once(tmp_path: Path) -> None:
    for place in ("train_ST_004/car_1", "train_ST_006/car_1", "train/LT/bus_2", "test_ST/dog_3"):
        write_vtuav(tmp_path / place, [(1, 2, 3, 4)], 3)
    train = open_recordings("vtuav", tmp_path, "train")
    assert names(train) == ["bus_2", "car_1"]
    assert re.search("the same name again in .*train_ST_006", train[1].notes[0])
    assert names(open_recordings("vtuav", tmp_path, "test_ST")) == ["dog_3"]
    assert len(open_recordings("vtuav", tmp_path)) == 3


def test_vtuav_modalities_of_other_lengths_are_cut_or_refused(tmp_path: Path) -> None:
    write_vtuav(tmp_path / "walk", [(1, 2, 3, 4)] * 2, 20)
    (tmp_path / "walk" / "ir" / "000019.jpg").unlink()
    recording = only("vtuav", tmp_path)
    assert len(recording) == 19
    assert re.search("cut to 19 frames: 20 frames in .*rgb, 19 in .*ir", recording.notes[0])
    for index in range(8, 19):
        (tmp_path / "walk" / "ir" / f"{index:06d}.jpg").unlink()
    with pytest.raises(SourceError, match=r"as many colour as thermal frames, got 20 frames in .*, 8 in"):
        open_recordings("vtuav", tmp_path)


def test_got10k_labels_hide_frames(tmp_path: Path) -> None:
    write_got10k(tmp_path / "walk", [(1, 2, 3, 4)] * 4, 4)
    (tmp_path / "walk" / "absence.label").write_text("0\n1\n0\n0\n", encoding="utf-8")
    (tmp_path / "walk" / "cover.label").write_text("8\n8\n0\n1\n", encoding="utf-8")
    recording = only("got10k", tmp_path)
    assert recording.absent == (False, True, True, False)
    assert recording.boxes == (Box(1, 2, 3, 4),) * 4  # as annotated, for metrics
    assert recording.usable_frames().tolist() == [0, 3]
    (tmp_path / "walk" / "cover.label").write_text("8\n8\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"cover\.label has 2 values, expected one for each of 4 frames"):
        open_recordings("got10k", tmp_path)
    (tmp_path / "walk" / "cover.label").write_text("8\nhalf\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"cover\.label:2: expected whole numbers, got 'half'"):
        open_recordings("got10k", tmp_path)


def test_got10k_splits_are_folders_with_a_list(tmp_path: Path) -> None:
    for place in ("train/GOT-10k_Train_000002", "train/GOT-10k_Train_000001", "val/GOT-10k_Val_000001"):
        write_got10k(tmp_path / place, [(1, 2, 3, 4)] * 2, 2)
    assert names(open_recordings("got10k", tmp_path, "train")) == ["GOT-10k_Train_000001", "GOT-10k_Train_000002"]
    (tmp_path / "train" / "list.txt").write_text("GOT-10k_Train_000002\n", encoding="utf-8")
    assert names(open_recordings("got10k", tmp_path, "train")) == ["GOT-10k_Train_000002"]
    assert names(open_recordings("got10k", tmp_path)) == ["GOT-10k_Train_000002", "GOT-10k_Val_000001"]
    assert names(open_recordings("got10k", tmp_path / "val")) == ["GOT-10k_Val_000001"]
    with pytest.raises(SourceError, match=r"expected a folder at .*test"):
        open_recordings("got10k", tmp_path, "test")


def test_got10k_tests_have_one_box(tmp_path: Path) -> None:
    write_got10k(tmp_path / "test" / "GOT-10k_Test_000001", [(1, 2, 3, 4)], 3)
    recording = only("got10k", tmp_path, "test")
    assert recording.boxes == (Box(1, 2, 3, 4), None, None)
    assert recording.annotated == (True, False, False)
    assert recording.absent == (False, False, False)


def test_lasot_flags_hide_frames(tmp_path: Path) -> None:
    write_lasot(tmp_path / "cat" / "cat-1", [(1, 2, 3, 4)] * 4, 4)
    (tmp_path / "cat" / "cat-1" / "full_occlusion.txt").write_text("0,1,0,0", encoding="utf-8")
    (tmp_path / "cat" / "cat-1" / "out_of_view.txt").write_text("0,0,0,1\n", encoding="utf-8")
    assert only("lasot", tmp_path).usable_frames().tolist() == [0, 2]
    (tmp_path / "cat" / "cat-1" / "out_of_view.txt").write_text("0,0,0,1,1\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"out_of_view\.txt has 5 values, expected one for each of 4 frames"):
        open_recordings("lasot", tmp_path)


def test_lasot_splits_are_lists(tmp_path: Path) -> None:
    for place in ("cat/cat-10", "cat/cat-2", "electric-fan/electric-fan-1", "flat-3"):
        write_lasot(tmp_path / place, [(1, 2, 3, 4)] * 2, 2)
    assert names(open_recordings("lasot", tmp_path)) == ["cat-2", "cat-10", "electric-fan-1", "flat-3"]
    (tmp_path / "testing_set.txt").write_text("electric-fan-1\ncat-10\nflat-3\n", encoding="utf-8")
    assert names(open_recordings("lasot", tmp_path, "test")) == ["electric-fan-1", "cat-10", "flat-3"]
    with pytest.raises(SourceError, match=r"cannot read the list of sequences .*training_set\.txt"):
        open_recordings("lasot", tmp_path, "train")


def test_otb_sequences_that_start_late_use_the_annotated_frames(tmp_path: Path) -> None:
    """David's boxes begin at its frame 300; Freeman4 has frames after its last box."""
    write_frames(tmp_path / "David" / "img", numbered(14, "{:04d}.jpg", first=290))
    write_rows(tmp_path / "David" / "groundtruth_rect.txt", [(1, 2, 3, 4)] * 4)
    write_frames(tmp_path / "Freeman4" / "img", numbered(4, "{:04d}.jpg", first=281))
    write_rows(tmp_path / "Freeman4" / "groundtruth_rect.txt", [(1, 2, 3, 4)] * 3)
    david, freeman = open_recordings("otb", tmp_path)
    assert david.rgb is not None
    assert freeman.rgb is not None
    assert [path.stem for path in david.rgb] == ["0300", "0301", "0302", "0303"]
    assert [path.stem for path in freeman.rgb] == ["0281", "0282", "0283"]
    assert level(david, 0) == (11, None)


def test_otb_folders_cut_to_the_annotated_frames_are_read_as_they_are(tmp_path: Path) -> None:
    write_frames(tmp_path / "David" / "img", numbered(4))
    write_rows(tmp_path / "David" / "groundtruth_rect.txt", [(1, 2, 3, 4)] * 4)
    assert len(only("otb", tmp_path)) == 4
    write_rows(tmp_path / "David" / "groundtruth_rect.txt", [(1, 2, 3, 4)] * 9)
    with pytest.raises(SourceError, match=r"none of the annotated frames 0300 to 0770"):
        open_recordings("otb", tmp_path)


def test_otb_folders_with_two_targets_are_two_recordings(tmp_path: Path) -> None:
    write_frames(tmp_path / "Jogging" / "img", numbered(2, "{:04d}.jpg"))
    write_rows(tmp_path / "Jogging" / "groundtruth_rect.1.txt", [(1, 2, 3, 4)] * 2)
    write_rows(tmp_path / "Jogging" / "groundtruth_rect.2.txt", [(5, 2, 3, 4)] * 2)
    write_frames(tmp_path / "Human4" / "img", numbered(2, "{:04d}.jpg"))
    write_rows(tmp_path / "Human4" / "groundtruth_rect.2.txt", [(9, 2, 3, 4)] * 2)
    recordings = {recording.name: recording.boxes[0] for recording in open_recordings("otb", tmp_path)}
    assert recordings == {"Human4": Box(9, 2, 3, 4), "Jogging-1": Box(1, 2, 3, 4), "Jogging-2": Box(5, 2, 3, 4)}


def test_the_local_sequences_keep_their_validation_split() -> None:
    if not (LOCAL / "rgb-sequences").is_dir():
        pytest.skip(f"no local data: {LOCAL / 'rgb-sequences'} does not exist")
    train, held_out = (open_recordings("local", LOCAL, split) for split in ("train", "val"))
    assert (len(train), len(held_out)) == (15, 7)
    assert not set(names(train)) & set(names(held_out))
    assert names(open_recordings("local", LOCAL / "rgb-sequences")) == sorted(
        names(train) + names(held_out), key=lambda name: natural_key(Path(name))
    )
    for recording in train + held_out:
        pair = recording.pair(len(recording) - 1)
        box = next(box for box in recording.boxes if box is not None)
        assert box.iou(Box(0, 0, pair.width, pair.height)) > 0


# Recordings and pairs.


def recording(count: int = 40, **changes: object) -> Recording:
    fields: dict[str, object] = {
        "name": "walk",
        "boxes": (Box(1, 2, 3, 4),) * count,
        "annotated": (True,) * count,
        "absent": (False,) * count,
        "rgb": tuple(Path(f"{number}.jpg") for number in range(count)),
    }
    return Recording(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rgb": None}, "needs colour frames, thermal frames, or both; got neither"),
        ({"count": 0}, "has no frames"),
        ({"annotated": (True,)}, "has 40 boxes, but 1 annotated"),
        ({"thermal": (Path("0.jpg"),)}, "has 40 boxes, but 1 thermal"),
        ({"thermal_boxes": (None,) * 41}, "has 40 boxes, but 41 thermal_boxes"),
    ],
)
def test_a_recording_is_whole(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SourceError, match=f"recording walk {message}"):
        recording(**changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Numbers:
    """Footage whose views only say which frame they are of: the box's left edge."""

    frames: tuple[int, ...]
    name: str = "numbers"

    def usable_frames(self) -> NDArray[np.int64]:
        return np.array(self.frames, np.int64)

    def view(self, number: int) -> View:
        return View(np.zeros((4, 4, 3), np.uint8), None, Box(number, 0, 1, 1), scene=self.name)


def drawn(source: RecordingPairs, progress: float, count: int = 400) -> list[tuple[int, int]]:
    rng = np.random.default_rng(0)
    pairs = (source.draw(rng, progress) for _ in range(count))
    return [(int(template.box.x), int(search.box.x)) for template, search in pairs]


@pytest.mark.parametrize(("progress", "gap"), [(0.0, 5), (0.1, 16), (0.25, 32), (0.5, 60), (0.9, 60), (1.0, 60)])
def test_the_gap_grows_over_the_first_half(progress: float, gap: int) -> None:
    """5 + 55 · 2 · progress, by hand: 0.1 gives 16; 0.25 gives 32.5, rounded to the even neighbour."""
    assert gap_at(progress, 60) == gap
    gaps = {second - first for first, second in drawn(RecordingPairs([Numbers(tuple(range(300)))]), progress, 4000)}
    assert gaps == set(range(-gap, gap + 1))


def test_a_gap_below_the_first_one_is_kept() -> None:
    assert [gap_at(progress, 3) for progress in (0.0, 0.3, 1.0)] == [3, 3, 3]


def test_only_usable_frames_are_drawn() -> None:
    frames = (3, 4, 9, 30, 31, 33)
    pairs = drawn(RecordingPairs([Numbers(frames)]), 0.0)
    assert {frame for pair in pairs for frame in pair} == set(frames)
    assert {abs(second - first) for first, second in pairs} == {0, 1, 2, 3, 5}  # gaps of 6 and more are too large


def test_sparse_annotation_is_paired_with_its_neighbours() -> None:
    """Every tenth frame and a gap of five: pairs of frames ten apart, rather than of a frame with itself only."""
    gaps = {second - first for first, second in drawn(RecordingPairs([Numbers(tuple(range(0, 200, 10)))]), 0.0)}
    assert gaps == {-10, 0, 10}
    assert set(drawn(RecordingPairs([Numbers((7,))]), 0.0, 5)) == {(7, 7)}


def test_pairs_are_of_one_recording_and_all_recordings_come() -> None:
    source = RecordingPairs([Numbers((1, 2), "a"), Numbers((), "empty"), Numbers(tuple(range(100)), "b")])
    rng = np.random.default_rng(0)
    scenes = [tuple(view.scene for view in source.draw(rng)) for _ in range(400)]
    assert set(scenes) == {("a", "a"), ("b", "b")}
    assert scenes.count(("a", "a")) == pytest.approx(200, abs=40)  # by recording, not by frame


def test_without_a_usable_frame_there_is_nothing_to_draw() -> None:
    with pytest.raises(SourceError, match="none of 2 recordings has a frame with a visible, annotated target"):
        RecordingPairs([Numbers(()), recording(absent=(True,) * 40)])


def test_real_recordings_are_drawn_with_their_pixels(tmp_path: Path) -> None:
    write_lasher(tmp_path / "walk", [(place, 2, 3, 4) for place in range(1, 7)], 6)
    rng = np.random.default_rng(0)
    source = RecordingPairs(open_recordings("lasher", tmp_path))
    for view in (view for _ in range(20) for view in source.draw(rng)):
        assert view.rgb is not None
        assert view.thermal is not None
        assert round(view.rgb.mean() / 8) == round(view.thermal.mean() / 8) == view.box.x


@pytest.mark.parametrize("box", [Box(32, 2, 3, 4), Box(1, 24.5, 3, 4), Box(-3, 2, 3, 4), Box(1, -9, 3, 4)])
def test_a_box_outside_its_picture_is_no_target(tmp_path: Path, box: Box) -> None:
    """One that the picture's edge cuts is one."""
    write_frames(tmp_path, ["0.png"])
    outside = recording(1, boxes=(box,), rgb=(tmp_path / "0.png",))
    values = ",".join(f"{value:g}" for value in box.xywh)
    with pytest.raises(SourceError, match=rf"^frame 0 of recording walk is 32x24; its box {values} \(x,y,w,h\) lies"):
        outside.view(0)
    assert replace(outside, boxes=(Box(31, 23, 9, 9),)).view(0).box == Box(31, 23, 9, 9)


def test_shrinking_keeps_the_box_on_its_target(tmp_path: Path) -> None:
    """A white box on black: where the pixels say it is after shrinking, and where the box says."""
    image = np.zeros((90, 160, 3), np.uint8)
    image[20:60, 40:120] = 255
    assert cv2.imwrite(str(tmp_path / "0.png"), image)
    view = recording(1, boxes=(Box(40, 20, 80, 40),), rgb=(tmp_path / "0.png",)).view(0)
    small = shrink(view, 80)
    assert small.size == (80, 45)
    assert small.rgb is not None
    assert Box(*cv2.boundingRect((small.rgb[..., 0] > 127).astype(np.uint8))) == small.box == Box(20, 10, 40, 20)
    odd = shrink(view, 71)
    assert odd.size == (71, 40)
    assert odd.box.xywh == pytest.approx((40 * 71 / 160, 20 * 40 / 90, 80 * 71 / 160, 40 * 40 / 90))
    assert shrink(view, 160) is view
    assert shrink(view, None) is view
