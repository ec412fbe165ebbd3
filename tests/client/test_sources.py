import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from duotrack_client.errors import SourceError
from duotrack_client.sources import PairSource, natural_key, open_rgb, open_thermal

RANDOM = np.random.default_rng(0)


def write_images(folder: Path, names: list[str], shape: tuple[int, ...] = (12, 16, 3)) -> list[np.ndarray]:
    folder.mkdir(exist_ok=True)
    images = [RANDOM.integers(0, 255, shape, dtype=np.uint8) for _ in names]
    for name, image in zip(names, images, strict=True):
        assert cv2.imwrite(str(folder / name), image)
    return images


def pairs(rgb: Path | None, thermal: Path | None) -> tuple[list, list[str]]:
    warnings: list[str] = []
    source = PairSource(
        None if rgb is None else open_rgb(rgb), None if thermal is None else open_thermal(thermal), warnings.append
    )
    return list(source), warnings


def test_files_are_sorted_by_their_numbers() -> None:
    names = ["10.png", "9.png", "²1.png", "frame2_b.png", "frame2_a.png", "frame10_a.png", "1.png"]
    assert [path.name for path in sorted(map(Path, names), key=natural_key)] == [
        "1.png",
        "9.png",
        "10.png",
        "frame2_a.png",
        "frame2_b.png",
        "frame10_a.png",
        "²1.png",
    ]


def test_a_folder_is_read_in_rgb_order_and_without_other_files(tmp_path: Path) -> None:
    written = write_images(tmp_path, ["2.png", "10.png"])
    (tmp_path / "groundtruth.txt").write_text("1,2,3,4")
    (tmp_path / ".hidden.png").write_bytes(b"")
    frames = open_rgb(tmp_path)
    assert frames.count == 2
    read = list(frames)
    assert np.array_equal(read[0], written[0][:, :, ::-1])
    assert np.array_equal(read[1], written[1][:, :, ::-1])


def test_thermal_images_keep_their_16_bits(tmp_path: Path) -> None:
    image = RANDOM.integers(0, 65535, (12, 16), dtype=np.uint16)
    for name in ("1.png", "2.tiff"):
        assert cv2.imwrite(str(tmp_path / name), image)
    for read in open_thermal(tmp_path):
        assert read.dtype == np.uint16
        assert np.array_equal(read, image)


def test_thermal_images_that_were_saved_in_colour_become_grey(tmp_path: Path) -> None:
    grey = RANDOM.integers(0, 255, (12, 16), dtype=np.uint8)
    assert cv2.imwrite(str(tmp_path / "1.png"), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    (read,) = open_thermal(tmp_path)
    assert np.array_equal(read, grey)


def test_the_shorter_modality_ends_the_pairs_and_the_user_is_told(tmp_path: Path) -> None:
    write_images(tmp_path / "rgb", ["1.png", "2.png", "3.png"])
    write_images(tmp_path / "thermal", ["1.png", "2.png"], (12, 16))
    read, warnings = pairs(tmp_path / "rgb", tmp_path / "thermal")
    assert len(read) == 2
    assert warnings == ["the thermal frames end after 2, the colour frames go on: stopped there"]


def test_equal_lengths_are_no_reason_to_warn(tmp_path: Path) -> None:
    write_images(tmp_path / "rgb", ["1.png", "2.png"])
    write_images(tmp_path / "thermal", ["7.png", "8.png"], (12, 16))
    read, warnings = pairs(tmp_path / "rgb", tmp_path / "thermal")
    assert (len(read), warnings) == (2, [])


def test_a_frame_that_is_missing_in_the_middle_is_told(tmp_path: Path) -> None:
    write_images(tmp_path / "rgb", [f"v{number:03}.png" for number in range(8)])
    write_images(tmp_path / "thermal", [f"i{number:03}.png" for number in range(8) if number != 5])
    read, warnings = pairs(tmp_path / "rgb", tmp_path / "thermal")
    assert len(read) == 7
    told, end = warnings
    assert "v005.png is paired with " in told
    assert told.endswith("i006.png, as the next in its folder: is a frame missing?")
    assert "end after 7" in end


@pytest.mark.parametrize(
    ("colour", "thermal"),
    [
        (["0.png", "1.png", "2.png"], ["1.png", "2.png", "3.png"]),  # one counts from zero
        (["7.033.png", "7.066.png", "7.101.png"], ["7.035.png", "7.070.png", "7.110.png"]),  # two clocks
        (["a.png", "b.png"], ["a.png", "b.png"]),
    ],
)
def test_numbers_that_go_together_or_mean_nothing_are_no_reason_to_warn(tmp_path: Path, colour, thermal) -> None:
    write_images(tmp_path / "rgb", colour)
    write_images(tmp_path / "thermal", thermal)
    read, warnings = pairs(tmp_path / "rgb", tmp_path / "thermal")
    assert (len(read), warnings) == (len(colour), [])


@pytest.mark.parametrize("missing", ["rgb", "thermal"])
def test_one_modality_is_enough(tmp_path: Path, missing: str) -> None:
    write_images(tmp_path / "frames", ["1.png"])
    path = tmp_path / "frames"
    ((pair,), _) = pairs(None, path) if missing == "rgb" else pairs(path, None)
    assert (pair.rgb is None, pair.thermal is None) == (missing == "rgb", missing == "thermal")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, ["1.png", "2.png"])
    whole = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])
    frames = iter(open_rgb(tmp_path))
    next(frames)
    with pytest.raises(SourceError, match=r"cannot read .*2\.png as an image"):
        next(frames)


def test_an_image_of_more_pixels_than_can_be_read_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, ["1.png"])
    whole = (tmp_path / "1.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 40_000, 40_000) + whole[24:29]
    (tmp_path / "1.png").write_bytes(whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:])
    with pytest.raises(SourceError, match=r"cannot read .*1\.png as an image: .*PIXELS"):
        list(open_rgb(tmp_path))


def test_samples_of_another_depth_are_refused(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "1.tiff"), np.zeros((4, 4), np.float32))
    with pytest.raises(SourceError, match=r"8-bit or 16-bit samples in .*1\.tiff, got float32"):
        list(open_thermal(tmp_path))


def test_frames_of_different_sizes_make_no_pair(tmp_path: Path) -> None:
    write_images(tmp_path / "rgb", ["1.png"])
    write_images(tmp_path / "thermal", ["1.png"], (12, 20))
    with pytest.raises(SourceError, match=r"frame 0: .* got 16x12 and 20x12"):
        pairs(tmp_path / "rgb", tmp_path / "thermal")


@pytest.mark.parametrize("opener", [open_rgb, open_thermal])
def test_a_path_without_frames_is_named(tmp_path: Path, opener) -> None:
    with pytest.raises(SourceError, match=r"found nothing at .*nowhere"):
        opener(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="expected images in the folder"):
        opener(tmp_path)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(SourceError, match=r"cannot read .*text\.mp4 as a video"):
        opener(tmp_path / "text.mp4")


def test_a_video_is_read_in_rgb_order(tmp_path: Path) -> None:
    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (32, 24))
    for _ in range(3):
        writer.write(np.full((24, 32, 3), (0, 0, 250), np.uint8))
    writer.release()
    frames = open_rgb(path)
    assert (frames.count, frames.fps) == (3, 12.5)
    read = list(frames)
    assert len(read) == 3
    assert read[0][12, 16].tolist() == pytest.approx([250, 0, 0], abs=8)
    assert next(iter(open_thermal(path))).shape == (24, 32)


def test_an_orientation_in_a_videos_metadata_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "turned.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    stored = path.read_bytes()
    matrix = stored.index(b"tkhd") + 44  # of the track's header: by a quarter
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(stored[:matrix] + turned + stored[matrix + len(turned) :])
    capture = cv2.VideoCapture(str(path))
    assert capture.read()[1].shape == (64, 48, 3)  # as OpenCV turns it
    capture.release()
    assert [frame.shape for frame in open_rgb(path)] == [(48, 64, 3)] * 3
    assert [frame.shape for frame in open_thermal(path)] == [(48, 64)] * 3


def test_a_16_bit_grey_video_keeps_its_bits(tmp_path: Path) -> None:
    path = tmp_path / "thermal.mkv"
    image = RANDOM.integers(0, 65535, (24, 32), dtype=np.uint16)
    options = [cv2.VIDEOWRITER_PROP_DEPTH, cv2.CV_16U, cv2.VIDEOWRITER_PROP_IS_COLOR, 0]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), 25, (32, 24), options)
    writer.write(image)
    writer.release()
    (read,) = open_thermal(path)
    assert np.array_equal(read, image)
    with pytest.raises(SourceError, match="expected colour frames in the video, got uint16 grey ones"):
        list(open_rgb(path))


def write_video(path: Path, frames: int) -> bytes:
    """Motion JPEG, whose frames stand alone; the file's bytes."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(frames):
        writer.write(RANDOM.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    writer.release()
    return path.read_bytes()


def test_a_video_that_is_cut_off_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rgb.avi"
    whole = write_video(path, 30)
    assert (len(pairs(path, None)[0]), pairs(path, None)[1]) == (30, [])
    path.write_bytes(whole[: len(whole) // 2])
    read, warnings = pairs(path, None)
    assert 5 < len(read) < 25
    assert warnings == [f"{path} should have 30 frames, and can be read up to frame {len(read)}"]
    read, warnings = pairs(path, path)
    assert warnings == [f"{path} should have 30 frames, and can be read up to frame {len(read)}"]


def test_a_file_without_a_frame_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "frame.jpg"
    path.write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"cannot read .*frame\.jpg as a video"):
        pairs(path, None)
