"""Result files: folders and archives, prefixes, forms, and what is refused."""

from __future__ import annotations

import re
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duotrack.errors import SourceError
from duotrack.evaluation import results
from duotrack.evaluation.box_formats import BoxFormat, format_rows, read_numbers, to_xywh
from duotrack.evaluation.ground_truth import Truth
from duotrack.evaluation.results import read_results
from duotrack.evaluation.rules import RULES, VISIBLE

LASHER = RULES["lasher"]
BOX = [10.0, 20.0, 30.0, 40.0]


def truth(frames: int, step: int = 1) -> Truth:
    return Truth((np.tile(np.array(BOX), (frames, 1)),), step=step)


def lines(frames: int, line: str = "10,20,30,40") -> str:
    return f"{line}\n" * frames


def write(folder: Path, *names: str, text: str | None = None) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(lines(3) if text is None else text)
    return folder


def archive(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in members.items():
            file.writestr(name, text)
    return path


WALK_AND_RUN = {"walk": truth(3), "run": truth(3)}


def test_files_are_found_in_a_folder_and_in_an_archive_at_any_depth(tmp_path: Path) -> None:
    folder = write(tmp_path / "folder", "walk.txt", "run.txt")
    deep = write(tmp_path / "deep", "a/b/walk.txt", "a/run.txt", "a/._run.txt")
    packed = archive(
        tmp_path / "packed.zip",
        {
            "./a/b/walk.txt": lines(3),
            "a/run.txt": lines(3),
            "a/._run.txt": "x",
            "__MACOSX/a/run.txt": "x",
            "a/x.png": "",
        },
    )
    for path in (folder, deep, packed):
        found = read_results(path, WALK_AND_RUN, LASHER)
        assert list(found.boxes) == ["walk", "run"]
        assert found.boxes["run"].tolist() == [BOX] * 3
        assert found.notes == ()
        assert found.sequence_notes == {}


def test_a_prefix_is_given_or_found(tmp_path: Path) -> None:
    write(tmp_path, "Mine_walk.txt", "Mine_run.txt", "Mine_run_time.txt")
    assert read_results(tmp_path, WALK_AND_RUN, LASHER, "Mine_").notes == (
        "1 more files belong to no sequence: Mine_run_time.txt",
    )
    notes = read_results(tmp_path, WALK_AND_RUN, LASHER).notes
    assert notes[0] == "file names were found to begin with 'Mine_'"


def test_names_that_end_in_other_names_do_not_confuse_the_prefix(tmp_path: Path) -> None:
    truths = {"man": truth(3), "woman": truth(3), "greenman": truth(3)}
    write(tmp_path, "T_man.txt", "T_woman.txt", "T_greenman.txt")
    assert set(read_results(tmp_path, truths, LASHER).boxes) == set(truths)
    assert read_results(tmp_path, truths, LASHER).notes == ("file names were found to begin with 'T_'",)


@pytest.mark.parametrize(
    ("form", "given"),
    [
        ("10,20,30,40", None),
        ("10\t20\t30\t40", "xywh"),
        ("10 20, 40\t60", "xyxy"),
        ("10 20 40 20 40 60 10 60", None),
        ("40 60 10 60 10 20 40 20", "corners8"),
        ("10.4,19.6,30.5,40.4", None),
        ("+1e1 20. 30 40", None),
    ],
)
def test_forms_and_separators(tmp_path: Path, form: str, given: BoxFormat | None) -> None:
    write(tmp_path, "walk.txt", text=lines(3, form))
    assert read_results(tmp_path, {"walk": truth(3)}, LASHER, form=given).boxes["walk"].tolist() == [BOX] * 3


def test_boxes_are_rounded_as_the_toolkits_do_and_only_for_their_sets(tmp_path: Path) -> None:
    write(tmp_path, "walk.txt", text=lines(1, "0.5,1.5,2.5,3.49"))
    truths = {"walk": truth(1)}
    assert read_results(tmp_path, truths, LASHER).boxes["walk"].tolist() == [[0, 2, 2, 3]]
    assert read_results(tmp_path, truths, VISIBLE).boxes["walk"].tolist() == [[0.5, 1.5, 2.5, 3.49]]


@pytest.mark.parametrize(
    ("frames", "notes"),
    [
        (100, ()),
        (98, ("98 lines, expected 100: the last 2 frames were left out",)),
        (130, ("130 lines, expected 100: the rest was cut off",)),
    ],
)
def test_lengths_that_differ_are_noted(tmp_path: Path, frames: int, notes: tuple[str, ...]) -> None:
    write(tmp_path, "walk.txt", text=lines(frames))
    found = read_results(tmp_path, {"walk": truth(100)}, LASHER)
    assert len(found.boxes["walk"]) == min(frames, 100)
    assert found.sequence_notes.get("walk", ()) == notes


def test_a_result_with_too_few_lines_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "walk.txt", text=lines(97))
    with pytest.raises(SourceError, match=r"walk\.txt has 97 lines, expected 100, one for each frame with a true box"):
        read_results(tmp_path, {"walk": truth(100)}, LASHER)


@pytest.mark.parametrize("frames", [12, 111, 115, 120])
def test_sparse_truth_takes_a_line_for_each_frame_or_for_those_with_a_box(tmp_path: Path, frames: int) -> None:
    rows = [f"{number},20,30,40" for number in range(frames)]
    write(tmp_path, "walk.txt", text="\n".join(rows))
    found = read_results(tmp_path, {"walk": truth(12, step=10)}, RULES["vtuav"])
    assert found.boxes["walk"][:, 0].tolist() == [number * (1 if frames == 12 else 10) for number in range(12)]
    assert found.sequence_notes == {}


def test_lines_that_are_no_numbers_of_a_box_are_noted(tmp_path: Path) -> None:
    write(tmp_path, "walk.txt", text="1,2,3,4\nnan,nan,nan,nan\n1,2,inf,4\n")
    found = read_results(tmp_path, {"walk": truth(3)}, LASHER)
    assert found.sequence_notes["walk"] == ("2 lines are not finite numbers: these frames are misses",)


@pytest.mark.parametrize(
    ("text", "form", "message"),
    [
        ("", None, "walk.txt is empty: expected a box a line"),
        ("1,2,3,4\n1,2,3\n", None, "walk.txt:2: expected 4 numbers as in the first line, got 3"),
        ("1,2,3,4\nlost\n", None, "walk.txt:2: expected 4 numbers as in the first line, got 1"),
        ("1,2,3,4\n1,2,3,-\n", None, "walk.txt:2: expected 4 numbers, got '1 2 3 -'"),
        ("1,2,3,4\n1,2,3,4_0\n", None, "walk.txt:2: expected 4 numbers, got '1 2 3 4_0'"),
        ("1,2,3,4\n\n1,2,3,4\n", None, "walk.txt:2: expected a box, got a blank line"),
        ("1,2,3,4,5\n", None, "walk.txt has 5 columns, expected 4 (xywh, or xyxy with --box-format) or 8 (corners8)"),
        (lines(3, "1 2 3 4 5 6 7 8"), "xywh", "has 8 columns, expected 4 (xywh): try --box-format corners8"),
        (lines(3), "corners8", "has 4 columns, expected 8 (corners8): try --box-format xywh or xyxy"),
        (lines(3, "1 2 3 4 5"), "xywh", "has 5 columns, expected 4 (xywh)"),
    ],
)
def test_a_file_that_is_no_result_is_named(tmp_path: Path, text: str, form: BoxFormat | None, message: str) -> None:
    write(tmp_path, "walk.txt", text=text)
    packed = archive(tmp_path / "packed.zip", {"inner/walk.txt": text})
    with pytest.raises(SourceError, match=re.escape(message)):
        read_results(tmp_path, {"walk": truth(3)}, LASHER, form=form)
    with pytest.raises(SourceError, match=re.escape("packed.zip/inner/")):
        read_results(packed, {"walk": truth(3)}, LASHER, form=form)


def test_missing_sequences_are_named(tmp_path: Path) -> None:
    truths = {name: truth(3) for name in ("a1", "b2", "c3", "d4", "e5")}
    write(tmp_path, "T_a1.txt")
    with pytest.raises(
        SourceError, match=re.escape("no file for 4 of 5 sequences: T_b2.txt, T_c3.txt, T_d4.txt, …; it")
    ):
        read_results(tmp_path, truths, LASHER)
    with pytest.raises(
        SourceError, match=re.escape("no file for 5 of 5 sequences: U_a1.txt, U_b2.txt, U_c3.txt, …; it")
    ):
        read_results(tmp_path, truths, LASHER, "U_")


def test_results_of_two_trackers_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "prefixes", "A_walk.txt", "A_run.txt", "B_walk.txt", "B_run.txt")
    with pytest.raises(SourceError, match="results of 2 trackers; choose one with --prefix: A_, B_"):
        read_results(tmp_path / "prefixes", WALK_AND_RUN, LASHER)
    assert len(read_results(tmp_path / "prefixes", WALK_AND_RUN, LASHER, "B_").boxes) == 2
    write(tmp_path / "folders", "A/walk.txt", "A/run.txt", "B/walk.txt", "B/run.txt")
    with pytest.raises(
        SourceError, match=r"several files for sequence walk: A/walk\.txt, B/walk\.txt; give the folder"
    ):
        read_results(tmp_path / "folders", WALK_AND_RUN, LASHER)


def test_a_place_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere do not exist: expected a folder or a ZIP"):
        read_results(tmp_path / "nowhere", WALK_AND_RUN, LASHER)
    with pytest.raises(SourceError, match=r"has no \.txt files: expected one for each of 2 sequences"):
        read_results(tmp_path, WALK_AND_RUN, LASHER)
    (tmp_path / "results.zip").write_text("not packed")
    with pytest.raises(
        SourceError, match=r"results\.zip is neither a folder nor a readable ZIP: File is not a zip file"
    ):
        read_results(tmp_path / "results.zip", WALK_AND_RUN, LASHER)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "walk.txt").write_bytes(b"\xff\xfe1,2,3,4")
    with pytest.raises(SourceError, match=r"walk\.txt is not a text file"):
        read_results(tmp_path, {"walk": truth(1)}, LASHER)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "LARGEST_FILE", 2**20)
    packed = archive(tmp_path / "bomb.zip", {"walk.txt": "1,2,3,4\n" * 2**18})
    assert packed.stat().st_size < 2**14
    with pytest.raises(SourceError, match=r"bomb\.zip/walk\.txt is larger than 1 MB: this is no result file"):
        read_results(packed, {"walk": truth(3)}, LASHER)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    packed = archive(tmp_path / "packed.zip", {"walk.txt": "".join(f"{number},2,3,4\n" for number in range(999))})
    content = bytearray(packed.read_bytes())
    content[200:260] = bytes(60)
    packed.write_bytes(content)
    with pytest.raises(SourceError, match=r"cannot read .*packed\.zip/walk\.txt"):
        read_results(packed, {"walk": truth(999)}, LASHER)


def test_an_archive_with_a_password_is_refused(tmp_path: Path) -> None:
    packed = archive(tmp_path / "packed.zip", {"walk.txt": lines(3)})
    content = bytearray(packed.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag in both of the entry's headers
        content[content.index(mark) + place] |= 1
    packed.write_bytes(content)
    with pytest.raises(SourceError, match=r"cannot read .*walk\.txt: .*password"):
        read_results(packed, {"walk": truth(3)}, LASHER)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "walk.txt")

    def refuse(*_: object) -> object:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "walk.txt").chmod(stat.S_IWUSR)
    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(SourceError, match=r"cannot read .*walk\.txt: Permission denied"):
        read_results(tmp_path, {"walk": truth(3)}, LASHER)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    boxes=st.lists(
        st.tuples(*[st.integers(-100000, 100000)] * 2, *[st.integers(0, 100000)] * 2), min_size=1, max_size=20
    ),
    form=st.sampled_from(["xywh", "corners8", "xyxy"]),
)
def test_rows_are_read_as_they_were_written(boxes: list[tuple[int, int, int, int]], form: BoxFormat) -> None:
    """Hundredths of pixels, in every form."""
    wanted = np.array(boxes) / 100
    text = format_rows(wanted, form)
    np.testing.assert_allclose(to_xywh(read_numbers(text, "rows"), form), wanted, atol=1e-9)


def test_rows_are_as_the_toolkits_write_them() -> None:
    boxes = np.array([[10, 20.5, 30, 40], [1, 2, 3, 4.126]])
    assert format_rows(boxes, "xywh") == "10.00,20.50,30.00,40.00\n1.00,2.00,3.00,4.13\n"
    assert format_rows(boxes[:1], "corners8") == "10.00 20.50 40.00 20.50 40.00 60.50 10.00 60.50\n"
    assert format_rows(boxes[:1], "xyxy") == "10.00,20.50,40.00,60.50\n"
    assert format_rows(np.empty((0, 4)), "xywh") == ""
