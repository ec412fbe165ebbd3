"""Reading training images from miniature folders, and what is held out of training."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from duotrack.boxes import Box, mask_box
from duotrack.data import images
from duotrack.errors import SourceError

LOCAL = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def write(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def write_sequence(folder: Path, boxes: str, *, frames: int, masks: int = 0) -> None:
    for index in range(frames):
        write(folder / "visible" / f"{index:04d}.jpg", np.full((24, 32, 3), 40 * index, np.uint8))
    for index in range(masks):
        write(folder / "mask" / f"{index:04d}.png", np.full((24, 32), index, np.uint8))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "groundtruth.txt").write_text(boxes, encoding="utf-8")


def test_colour_is_read_as_red_green_blue(tmp_path: Path) -> None:
    write(tmp_path / "red.png", np.full((4, 5, 3), (10, 20, 200), np.uint8))  # OpenCV writes blue, green, red
    assert images.read_rgb(tmp_path / "red.png").tolist() == [[[200, 20, 10]] * 5] * 4


def test_grey_is_one_channel(tmp_path: Path) -> None:
    write(tmp_path / "grey.png", np.arange(20, dtype=np.uint8).reshape(4, 5))
    assert images.read_grey(tmp_path / "grey.png").tolist() == np.arange(20).reshape(4, 5).tolist()


def test_thermal_keeps_its_bits_and_grey_has_eight(tmp_path: Path) -> None:
    counts = np.arange(7000, 7020, dtype=np.uint16).reshape(4, 5)
    assert cv2.imwrite(str(tmp_path / "counts.png"), counts)
    write(tmp_path / "grey.png", counts.astype(np.uint8))
    assert images.read_thermal(tmp_path / "counts.png").tolist() == counts.tolist()
    assert images.read_thermal(tmp_path / "grey.png").dtype == np.uint8
    with pytest.raises(SourceError, match=r"expected 8-bit samples in .*counts\.png, got uint16"):
        images.read_grey(tmp_path / "counts.png")
    assert cv2.imwrite(str(tmp_path / "kelvin.tiff"), np.zeros((4, 4), np.float32))
    with pytest.raises(SourceError, match=r"8-bit or 16-bit samples in .*kelvin\.tiff, got float32"):
        images.read_thermal(tmp_path / "kelvin.tiff")


def test_an_orientation_in_the_metadata_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    write(path, np.zeros((16, 32, 3), np.uint8))
    turned = b"Exif\0\0MM\0\x2a\0\0\0\x08" + b"\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + bytes(4)  # by a quarter
    stored = path.read_bytes()
    path.write_bytes(stored[:2] + b"\xff\xe1" + (2 + len(turned)).to_bytes(2, "big") + turned + stored[2:])
    assert cv2.imread(str(path)).shape == (32, 16, 3)  # as OpenCV turns it
    assert images.read_rgb(path).shape == (16, 32, 3)
    assert images.read_grey(path).shape == images.read_thermal(path).shape == (16, 32)


def test_a_missing_or_broken_image_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    for read in (images.read_rgb, images.read_grey, images.read_thermal):
        for name in ("absent.jpg", "broken.jpg"):
            with pytest.raises(SourceError, match=rf"cannot read image .*{name}"):
                read(tmp_path / name)
    capfd.readouterr()  # OpenCV's own warnings


def test_an_image_of_more_pixels_than_can_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "huge.pgm"
    path.write_bytes(b"P5 40000 40000 255\n")
    for read in (images.read_rgb, images.read_grey, images.read_thermal):
        with pytest.raises(SourceError, match=r"cannot read image .*huge\.pgm: .*PIXELS"):
            read(path)


@pytest.mark.parametrize("read", [images.read_rgb, images.read_grey])
def test_a_jpeg_that_is_cut_short_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], read: Callable[[Path], object]
) -> None:
    """OpenCV would fill it up with grey. Bytes behind its end are no fault."""
    path = tmp_path / "frame.jpg"
    write(path, np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:size])
        with pytest.raises(SourceError, match=r"image .*frame\.jpg is cut short: its last 4096 bytes"):
            read(path)
    path.write_bytes(whole + bytes(2000))
    read(path)
    capfd.readouterr()  # libjpeg's own warnings


def test_boxes_are_read_with_absent_ones(tmp_path: Path) -> None:
    path = tmp_path / "groundtruth.txt"
    path.write_text("1,2,3,4.5\n0,0,0,0\n5 6\t7 8\n", encoding="utf-8")
    assert images.read_boxes(path) == [Box(1, 2, 3, 4.5), None, Box(5, 6, 7, 8)]


@pytest.mark.parametrize("line", ["1,2,3", "1,2,3,4,5", "a,b,c,d", "", "nan,2,3,4", "1,inf,3,4"])
def test_a_line_that_is_no_box_is_named_by_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "groundtruth.txt"
    path.write_text(f"1,2,3,4\n{line}\n1,2,3,4\n", encoding="utf-8")
    with pytest.raises(SourceError, match=re.escape(f"{path}:2: ")):
        images.read_boxes(path)


def test_a_missing_box_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read boxes .*absent\.txt: No such file"):
        images.read_boxes(tmp_path / "absent.txt")


def test_a_sequence_is_frames_boxes_and_masks_in_order(tmp_path: Path) -> None:
    write_sequence(tmp_path / "walk", "1,2,3,4\n0,0,0,0\n5,6,7,8\n", frames=3, masks=3)
    sequence = images.read_sequence(tmp_path / "walk", masks=True)
    assert sequence.name == "walk"
    assert [round(float(frame.mean()) / 40) for frame in sequence.frames] == [0, 1, 2]
    assert sequence.boxes == [Box(1, 2, 3, 4), None, Box(5, 6, 7, 8)]
    assert sequence.masks is not None
    assert [int(mask[0, 0]) for mask in sequence.masks] == [0, 1, 2]
    assert images.read_sequence(tmp_path / "walk").masks is None


def test_unpadded_numbers_do_not_shift_frames_and_masks(tmp_path: Path) -> None:
    for number in range(1, 13):
        write(tmp_path / "walk" / "visible" / f"{number}.jpg", np.full((24, 32, 3), 20 * number, np.uint8))
        write(tmp_path / "walk" / "mask" / f"{number}.png", np.full((24, 32), number, np.uint8))
    (tmp_path / "walk" / "groundtruth.txt").write_text("1,2,3,4\n" * 12, encoding="utf-8")
    sequence = images.read_sequence(tmp_path / "walk", masks=True)
    assert [round(float(frame.mean()) / 20) for frame in sequence.frames] == list(range(1, 13))
    assert sequence.masks is not None
    assert [int(mask[0, 0]) for mask in sequence.masks] == list(range(1, 13))


def test_masks_that_are_not_for_every_frame_are_left_out(tmp_path: Path) -> None:
    write_sequence(tmp_path / "walk", "1,2,3,4\n" * 3, frames=3, masks=2)
    assert images.read_sequence(tmp_path / "walk", masks=True).masks is None


@pytest.mark.parametrize("frames", [0, 2])
def test_a_sequence_needs_a_box_for_each_frame(tmp_path: Path, frames: int) -> None:
    write_sequence(tmp_path / "walk", "1,2,3,4\n" * 3, frames=frames)
    with pytest.raises(SourceError, match=rf"walk has {frames} frames in visible/ and 3 boxes"):
        images.read_sequence(tmp_path / "walk")


def test_held_out_sequences_are_never_trained_on(tmp_path: Path) -> None:
    held_out = images.validation_split()["rgb-sequences"]
    assert len(held_out) == 7
    for name in (*held_out[:2], "anything", "Human33"):
        write_sequence(tmp_path / name, "1,2,3,4\n", frames=1)
    assert [sequence.name for sequence in images.read_sequences(tmp_path, held_out=False)] == ["Human33", "anything"]
    found = [sequence.name for sequence in images.read_sequences(tmp_path, held_out=True)]
    assert found == sorted(held_out[:2])


def test_a_fold_is_held_out_in_place_of_the_split(tmp_path: Path) -> None:
    held_out = images.validation_split()["rgb-sequences"][0]
    for name in (held_out, "one", "two"):
        write_sequence(tmp_path / name, "1,2,3,4\n", frames=1)
    read = {kept: images.read_sequences(tmp_path, held_out=kept, fold=("two",)) for kept in (True, False)}
    assert [sequence.name for sequence in read[True]] == ["two"]
    assert [sequence.name for sequence in read[False]] == sorted(["one", held_out])
    with pytest.raises(SourceError, match="three is to be held out and does not exist"):
        images.read_sequences(tmp_path, held_out=True, fold=("two", "three"))


def test_held_out_pairs_are_never_trained_on(tmp_path: Path) -> None:
    held_out = images.validation_split()["rgbt-pairs"]
    folder, _, stem = held_out[0].partition("/")
    for index, name in enumerate((held_out[0], f"{folder}/other", f"unheard-of/{stem}")):
        write(
            tmp_path / name.replace("/", "/visible/") / ".." / f"{Path(name).name}.jpg", np.zeros((8, 8, 3), np.uint8)
        )
        place = Path(name)
        write(tmp_path / place.parent / "visible" / f"{place.name}.jpg", np.full((8, 8, 3), 80 * index, np.uint8))
        write(tmp_path / place.parent / "infrared" / f"{place.name}.jpg", np.full((8, 8), 80 * index + 20, np.uint8))
    levels = [(int(rgb.mean()), int(thermal.mean())) for rgb, thermal in images.read_aligned_pairs(tmp_path)]
    assert levels == [(80, 100), (160, 180)]


def write_run(folder: Path, rows: list[tuple[str, float, float, float, float]]) -> None:
    folder.mkdir(parents=True)
    for name in {row[0] for row in rows}:
        write(folder / "infrared" / f"{name}.jpg", np.full((24, 32), 90, np.uint8))
    with (folder / "boxes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("frame", "class", "x", "y", "w", "h"))
        writer.writerows((name, "person", *box) for name, *box in rows)


def test_held_out_thermal_runs_are_never_trained_on(tmp_path: Path) -> None:
    held_out = images.validation_split()["thermal-frames"]
    write_run(tmp_path / held_out[0], [("0001", 1, 2, 3, 4)])
    write_run(tmp_path / "run001", [("0001", 1, 2, 3, 4), ("0001", 5, 6, 7, 8), ("0002", 2, 2, 2, 2)])
    frames = list(images.read_thermal_frames(tmp_path))
    assert [frame.boxes for frame in frames] == [[Box(1, 2, 3, 4), Box(5, 6, 7, 8)], [Box(2, 2, 2, 2)]]
    assert frames[0].image.shape == (24, 32)


@pytest.mark.parametrize("boxes", [None, "frame,class,x,y,w,h\n0001,person,1,2,0,4\n", "frame,x\n0001,3\n"])
def test_what_is_wrong_with_a_thermal_run_is_a_source_error(tmp_path: Path, boxes: str | None) -> None:
    write_run(tmp_path / "run001", [("0001", 1, 2, 3, 4)])
    path = tmp_path / "run001" / "boxes.csv"
    path.unlink() if boxes is None else path.write_text(boxes, encoding="utf-8")
    with pytest.raises(SourceError, match=r"run001"):
        list(images.read_thermal_frames(tmp_path))


@pytest.mark.parametrize(("kind", "every"), [("rgb-sequences", 3), ("thermal-frames", 5)])
def test_the_split_is_by_position(kind: str, every: int) -> None:
    """Each third sequence and each fifth run, names sorted as bytes and counted from one."""
    if not (LOCAL / kind).is_dir():
        pytest.skip(f"no local data: {LOCAL / kind} does not exist")
    names = sorted((path.name for path in (LOCAL / kind).iterdir() if path.is_dir()), key=str.encode)
    assert images.validation_split()[kind] == names[every - 1 :: every]


def test_the_split_of_pairs_is_every_tenth_over_all_sets() -> None:
    root = LOCAL / "rgbt-pairs"
    if not root.is_dir():
        pytest.skip(f"no local data: {root} does not exist")
    names = sorted((f"{path.parts[-3]}/{path.stem}" for path in root.glob("*/visible/*.jpg")), key=str.encode)
    assert images.validation_split()["rgbt-pairs"] == names[9::10]


@given(st.integers(0, 2**20 - 1))
def test_segments_are_connected_and_of_the_wanted_size(seed: int) -> None:
    """Against a flood fill written out."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (6, 8)).repeat(3, 0).repeat(3, 1).astype(np.uint8)
    masks = images.largest_segments(labels, 0.05, 0.4)
    remaining, expected = np.ones(labels.shape, bool), []
    for start in np.ndindex(labels.shape):
        if not remaining[start]:
            continue
        region, stack = np.zeros(labels.shape, bool), [start]
        while stack:
            y, x = stack.pop()
            inside = 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]
            if inside and not region[y, x] and labels[y, x] == labels[start]:
                region[y, x] = True
                stack += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        remaining &= ~region
        if 0.05 <= region.mean() <= 0.4:
            expected.append(region)
    assert {mask.tobytes() for mask in masks} == {(region * np.uint8(255)).tobytes() for region in expected}


def test_a_masks_box_is_tight() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[4:9, 7:19] = 255
    assert mask_box(mask) == Box(7, 4, 12, 5)
    assert mask_box(np.zeros((5, 5), np.uint8)) is None
