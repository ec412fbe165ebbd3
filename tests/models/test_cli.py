"""The command ``duotrack``, run as a user runs it: in a process of its own, on files."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from duotrack import Box
from duotrack.data.synthetic import Scene, SceneConfig, write_scene
from duotrack.evaluation.sequences import to_array

CONFIG = SceneConfig(width=320, height=240, frames=16, seed=7, exits=False, occlusion=False, crossover=False)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "duotrack", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "scene"
    write_scene(Scene(CONFIG), folder)
    return folder


@pytest.fixture(scope="module")
def first_box(scene: Path) -> str:
    return (scene / "init.txt").read_text().splitlines()[0]


def boxes(path: Path) -> list[Box]:
    return [Box.parse(line) for line in path.read_text().splitlines()]


def test_track_follows_the_target_of_a_scene(scene: Path, first_box: str, tmp_path: Path) -> None:
    outputs = {"--output": tmp_path / "boxes.txt", "--csv": tmp_path / "rows.csv", "--video": tmp_path / "out.mp4"}
    inputs = ("--rgb", scene / "visible", "--thermal", scene / "infrared", "--init-box", first_box)
    done = run("track", *inputs, *(part for pair in outputs.items() for part in pair))
    assert done.returncode == 0, done.stderr
    predicted = boxes(outputs["--output"])
    truth = boxes(scene / "visible.txt")
    assert predicted[0] == truth[0]
    assert np.mean([one.iou(other) for one, other in zip(predicted, truth, strict=True)]) > 0.5
    with outputs["--csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == list(range(CONFIG.frames))
    assert to_array(predicted)[:, 0] == pytest.approx([float(row["x"]) for row in rows], abs=0.006)
    video = cv2.VideoCapture(str(outputs["--video"]))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == CONFIG.frames
    assert int(video.get(cv2.CAP_PROP_FRAME_WIDTH)) == 2 * CONFIG.width
    video.release()


@pytest.mark.parametrize(("option", "folder"), [("--rgb", "visible"), ("--thermal", "infrared")])
def test_track_works_with_one_modality(option: str, folder: str, scene: Path, first_box: str, tmp_path: Path) -> None:
    done = run("track", option, scene / folder, "--init-box", first_box, "--output", tmp_path / "boxes.txt")
    assert done.returncode == 0, done.stderr
    assert len(boxes(tmp_path / "boxes.txt")) == CONFIG.frames


def test_track_reads_videos(tmp_path: Path) -> None:
    scene = Scene(CONFIG)
    write_scene(scene, tmp_path / "scene", "video")
    first = scene[0].box
    assert first is not None
    inputs = ("--rgb", tmp_path / "scene/visible.mp4", "--thermal", tmp_path / "scene/infrared.mp4")
    done = run("track", *inputs, "--init-box", first.text(), "--output", tmp_path / "boxes.txt")
    assert done.returncode == 0, done.stderr
    assert len(boxes(tmp_path / "boxes.txt")) == CONFIG.frames


def test_the_input_and_earlier_results_outlive_a_users_mistake(tmp_path: Path) -> None:
    write_scene(Scene(CONFIG), tmp_path / "scene", "video")
    video, earlier = tmp_path / "scene" / "visible.mp4", tmp_path / "boxes.txt"
    stored = video.read_bytes()
    earlier.write_text("1,2,3,4\n")
    for option in ("--output", "--csv", "--video"):
        done = run("track", "--rgb", video, "--init-box", "9,9,30,40", "--output", earlier, option, video)
        assert done.returncode == 1
        assert f"expected {video} to be written elsewhere than to the input {video}" in done.stderr
        assert video.read_bytes() == stored
    done = run("track", "--rgb", video, "--init-box", "9000,9,30,40", "--output", earlier)
    assert done.returncode == 1
    assert earlier.read_text() == "1,2,3,4\n"


def test_what_was_written_before_a_damaged_frame_stays(scene: Path, first_box: str, tmp_path: Path) -> None:
    folder = tmp_path / "visible"
    folder.mkdir()
    for path in sorted((scene / "visible").iterdir()):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "000006.jpg").write_bytes(b"not an image")
    done = run("track", "--rgb", folder, "--init-box", first_box, "--output", tmp_path / "boxes.txt")
    assert done.returncode == 1
    assert "000006.jpg" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(boxes(tmp_path / "boxes.txt")) == 5


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--rgb", "nowhere", "--init-box", "1,2,3,4"), 1, "nowhere"),
        (("--rgb", "SCENE", "--init-box", "1,2,3"), 2, "four numbers"),
        (("--rgb", "SCENE", "--init-box", "1,2,0,4"), 2, "positive"),
        (("--rgb", "SCENE", "--init-box", "9000,2,5,4"), 1, "outside the 320x240 image"),
        (("--init-box", "1,2,3,4"), 2, "--thermal"),
        (("--rgb", "SCENE", "--init-box", "9,9,30,40", "--model", "student-z"), 1, "student-z"),
        (("--rgb", "SCENE", "--init-box", "9,9,30,40", "--provider", "abacus"), 1, "abacus"),
        (("--rgb", "SCENE", "--init-box", "9,9,30,40", "--csv", "no/such/folder.csv"), 1, "no/such/folder.csv"),
    ],
)
def test_a_users_mistake_ends_in_one_clear_message(
    arguments: tuple[str, ...], code: int, message: str, scene: Path, tmp_path: Path
) -> None:
    given = [str(scene / "visible") if argument == "SCENE" else argument for argument in arguments]
    done = run("track", *given, "--output", tmp_path / "boxes.txt")
    assert done.returncode == code, done.stderr
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_synth_writes_a_scene_that_the_seed_repeats(tmp_path: Path) -> None:
    for name in ("first", "second"):
        done = run("synth", "--frames", "3", "--seed", "5", "--size", "160x120", "--output", tmp_path / name)
        assert done.returncode == 0, done.stderr
    for path in sorted((tmp_path / "first").rglob("*.*g")):
        assert path.read_bytes() == (tmp_path / "second" / path.relative_to(tmp_path / "first")).read_bytes()
    refused = run("synth", "--output", tmp_path / "first")
    assert refused.returncode == 1
    assert "first" in refused.stderr


def test_doctor_names_what_runs() -> None:
    done = run("doctor", "--provider", "cpu", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert "CPUExecutionProvider, fp32, 1 threads" in done.stdout
    assert "model        student-t" in done.stdout
