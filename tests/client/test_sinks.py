from pathlib import Path

import cv2
import numpy as np
import pytest

from duotrack_client import Box, Pair, Result, SinkError, TargetState
from duotrack_client.protocol import Modalities, ModalityHealth, Timings
from duotrack_client.sinks import BoxFile, CsvFile, VideoFile, draw_pair, open_sinks

BLACK = Pair(np.zeros((49, 65, 3), np.uint8), np.zeros((49, 65), np.uint16))


BOX = Box(10, 20, 30.5, 15)


def result(seq: int, box: Box = BOX) -> Result:
    modalities = Modalities(ModalityHealth.OK, ModalityHealth.OK)
    return Result(seq, box, 0.875, TargetState.TRACKING, modalities, 0, 1, Timings(0.1, 1.5, 7, 8.6))


def test_boxes_are_on_disk_as_soon_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "boxes.txt"
    sink = BoxFile(path)
    sink.write(BLACK, result(0))
    sink.write(BLACK, result(1, Box(1, 2, 3, 4)))
    assert path.read_text() == "10,20,30.5,15\n1,2,3,4\n"
    sink.close()


def test_rows_hold_score_state_and_timings(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    sink = CsvFile(path)
    sink.write(BLACK, result(0))
    assert path.read_text() == (
        "frame,x,y,w,h,score,state,queue_ms,decode_ms,infer_ms,total_ms\n"
        "0,10.00,20.00,30.50,15.00,0.8750,tracking,0.1,1.5,7,8.6\n"
    )
    sink.close()


def test_a_video_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = VideoFile(path, fps=10)
    for seq in range(4):
        sink.write(BLACK, result(seq))
    sink.close()
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    assert capture.get(cv2.CAP_PROP_FPS) == 10
    read, image = capture.read()
    capture.release()
    assert read
    assert image.shape == (48, 130, 3)  # two of 65 side by side, cut to even sides
    assert image[20:22, 12:38, 1].mean() > 120  # the upper edge of the green box


def test_a_video_without_frames_leaves_no_file(tmp_path: Path) -> None:
    VideoFile(tmp_path / "out.mp4", fps=10).close()
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_is_too_wide_says_how_wide_it_may_be_and_leaves_no_file(tmp_path: Path, capfd) -> None:
    sink = VideoFile(tmp_path / "out.mp4", fps=10)
    with pytest.raises(SinkError, match=r"8192x16 video to .*out\.mp4: its sides may have 8190 pixels"):
        sink.write(Pair(np.zeros((16, 4096, 3), np.uint8), np.zeros((16, 4096), np.uint8)), result(0))
    sink.close()
    assert list(tmp_path.iterdir()) == []
    capfd.readouterr()  # OpenCV's own warnings
    widest = VideoFile(tmp_path / "out.mp4", fps=10)
    widest.write(Pair(np.zeros((16, 4095, 3), np.uint8), np.zeros((16, 4095), np.uint8)), result(0))
    widest.close()


def test_the_box_is_drawn_on_both_images() -> None:
    image = draw_pair(BLACK, Box(10, 20, 30, 15), TargetState.LOST, 0.1)
    for left in (0, 65):
        assert image[20, left + 25].tolist() == [60, 60, 255]


def test_a_16_bit_image_is_stretched_to_be_seen() -> None:
    thermal = (np.arange(65 * 48, dtype=np.uint16).reshape(48, 65) + 30_000).copy()
    image = draw_pair(Pair(None, thermal), Box(60, 40, 1, 1), TargetState.TRACKING, 1)
    assert image[30:38].mean() - image[20:24].mean() > 40
    assert image[47, 60].max() > 240


def test_a_box_far_outside_does_not_stop_the_drawing() -> None:
    draw_pair(BLACK, Box(-1e18, 5, 1e300, 1e300), TargetState.LOST, 0)


@pytest.mark.parametrize("sink", [BoxFile, CsvFile, lambda path: VideoFile(path.with_suffix(".mp4"), 25)])
def test_a_path_that_cannot_be_written_is_named(tmp_path: Path, sink) -> None:
    with pytest.raises(SinkError, match=r"cannot write .*nowhere.*No such file or directory"):
        sink(tmp_path / "nowhere" / "out.txt")


def test_a_video_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"ends in \.mp4"):
        VideoFile(tmp_path / "out.gif", 25)


def test_a_video_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    """As by a full disk, of which OpenCV's writer does not tell: here files may have 10 kB."""
    resource = pytest.importorskip("resource", reason="only Unix limits the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    sink = VideoFile(tmp_path / "out.mp4", 25)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        for seq in range(8):
            sink.write(Pair(noise, None), result(seq))
        with pytest.raises(SinkError, match=r"cannot write .*out\.mp4: it has 0 of 8 frames; is the disk full"):
            sink.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("kind", ["output", "csv"])
def test_a_disk_that_is_full_is_an_error_that_names_the_file(kind: str) -> None:
    paths = {"output": None, "csv": None, "video": None, kind: Path("/dev/full")}
    full = pytest.raises(SinkError, match="cannot write /dev/full: No space left on device")
    with full, open_sinks(**paths, fps=None) as sink:
        sink.write(BLACK, result(0))


def test_files_are_opened_with_the_first_result(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("boxes.txt", "rows.csv", "out.mp4")]
    for path in paths:
        path.write_text("earlier")
    with open_sinks(*paths, fps=None):
        pass
    lacking = pytest.raises(SinkError, match=r"cannot write .*rows\.csv: No such file or directory")
    with lacking, open_sinks(paths[0], tmp_path / "nowhere" / "rows.csv", None, None) as sink:
        sink.write(BLACK, result(0))
    assert [path.read_text() for path in paths] == ["earlier"] * 3
    with open_sinks(*paths, fps=None) as sink:
        sink.write(BLACK, result(0))
    assert paths[0].read_text() == "10,20,30.5,15\n"
    assert paths[1].read_text().count("\n") == 2
    assert paths[2].stat().st_size > 100


@pytest.mark.parametrize("output", ["in.mp4", "link.mp4", "twin.mp4", "frames", "frames/a.png", "a/../in.mp4"])
def test_an_output_in_the_place_of_an_input_is_refused(tmp_path: Path, output: str) -> None:
    (tmp_path / "in.mp4").write_text("video")
    (tmp_path / "link.mp4").symlink_to("in.mp4")
    (tmp_path / "twin.mp4").hardlink_to(tmp_path / "in.mp4")
    (tmp_path / "a").mkdir()
    (tmp_path / "frames").mkdir()
    inputs = (None, tmp_path / "in.mp4", tmp_path / "frames")
    refused = pytest.raises(SinkError, match=rf"expected .*{output} to be written elsewhere than to the input")
    with refused, open_sinks(None, tmp_path / output, None, None, inputs=inputs):
        pass
    assert (tmp_path / "in.mp4").read_text() == "video"


def test_results_may_lie_beside_the_images_that_they_are_of(tmp_path: Path) -> None:
    with open_sinks(tmp_path / "boxes.txt", None, None, None, inputs=(tmp_path,)) as sink:
        sink.write(BLACK, result(0))
    assert (tmp_path / "boxes.txt").exists()


def test_two_outputs_of_one_name_are_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "o.txt", tmp_path / "there" / ".." / "o.txt"
    (tmp_path / "there").mkdir()
    refused = pytest.raises(SinkError, match=r"a file of its own for each kind of results, got .*o\.txt twice")
    with refused, open_sinks(one, other, None, None):
        pass
    assert not one.exists()


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="this system has no /dev/null")
def test_results_that_nobody_wants_go_to_one_place() -> None:
    with open_sinks(Path("/dev/null"), Path("/dev/null"), None, None) as sink:
        sink.write(BLACK, result(0))
