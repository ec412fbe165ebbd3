"""The synthetic scenes: what is drawn is compared with the truth that is given, by looking at the pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.synthetic import GENERATOR_VERSION, Scene, SceneConfig, write_scene
from duotrack.data.synthetic.config import CAST
from duotrack.errors import SourceError

SMALL = SceneConfig(width=320, height=240, frames=120)
BARE = replace(
    SMALL, thermal_bits=16, occlusion=False, exits=False, crossover=False, distractors=0, misalignment=0, view="plaza"
)
"""Nothing but the target, in raw counts and registered."""


@pytest.fixture(scope="module")
def busy() -> Scene:
    return Scene(replace(SMALL, seed=5, frames=200, view="park", target="person"))


def drawn_pixels(scene: Scene, index: int) -> NDArray[np.bool_]:
    """Where the target changes the raw thermal frame: found in the pictures, not asked of the generator.

    The frame and its clean plate have the same noise, so that every difference comes from the target. 30 counts
    (0.3 °C) is far less than the target's contrast and more than the rounding of its temperature.
    """
    with_target, without = scene[index].pair.thermal, scene.plate(index).thermal
    assert with_target is not None
    assert without is not None
    return np.asarray(np.abs(with_target.astype(int) - without.astype(int)) > 30)


def box_of(mask: NDArray[np.bool_]) -> Box:
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    return Box(x, y, w, h)


def edges(box: Box) -> NDArray[np.float64]:
    return np.array([box.x, box.y, box.x + box.w, box.y + box.h])


def contrast(scene: Scene, index: int) -> float:
    """Mean count on the target minus the mean count of a ring around it."""
    mask = scene.silhouette(index).astype(np.uint8)
    thermal = scene[index].pair.thermal
    assert thermal is not None
    inside = cv2.erode(mask, np.ones((3, 3), np.uint8)) > 0
    near, far = (cv2.dilate(mask, np.ones((size, size), np.uint8)) > 0 for size in (7, 25))
    return float(thermal[inside].mean()) - float(thermal[far & ~near].mean())


# --- the truth against the pictures -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "seed"), [("person", 1), ("cyclist", 2), ("person", 3), ("blob", 4), ("vehicle", 5)]
)
def test_box_is_where_the_target_changes_the_picture(target: Any, seed: int) -> None:
    scene = Scene(replace(BARE, target=target, seed=seed))
    for index in (0, 50, 119):
        box = scene[index].box
        assert box is not None
        seen = edges(box_of(drawn_pixels(scene, index)))
        # The lens spreads an edge by two pixels; a thin limb or spoke may be too faint to pass the threshold.
        assert np.abs(seen - edges(box)).max() <= 4


def test_thermal_box_is_where_a_misaligned_target_appears() -> None:
    scene = Scene(replace(BARE, target="person", seed=11, misalignment=8))
    shifts = []
    for index in (0, 60, 110):
        frame = scene[index]
        assert frame.box is not None
        assert frame.thermal_box is not None
        seen = edges(box_of(drawn_pixels(scene, index)))
        assert np.abs(seen - edges(frame.thermal_box)).max() <= 3
        shifts.append(np.abs(edges(frame.thermal_box) - edges(frame.box)).max())
    assert 0.5 < max(shifts) <= 8 * 320 / 640


def test_box_holds_every_pixel_of_the_silhouette_and_is_tight(busy: Scene) -> None:
    checked = 0
    for index in range(0, len(busy), 7):
        mask, box = busy.silhouette(index), busy[index].box
        assert np.array_equal(busy[index].mask, mask)
        if box is None:
            assert not mask.any()
            continue
        assert box == box_of(mask)
        checked += 1
    assert checked > 10


def test_visibility_is_the_share_of_the_silhouette_that_the_picture_shows() -> None:
    scene = Scene(replace(BARE, seed=2, target="person", occlusion=True, frames=150))
    pairs = []
    for index in range(0, 150, 3):
        mask = scene.silhouette(index)
        if mask.sum() > 0:
            core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            shown = (drawn_pixels(scene, index) & core).sum() / core.sum()
            pairs.append((shown, scene[index].visibility))
    shown, told = np.array(pairs).T
    assert told.min() < 0.4
    assert told.max() > 0.95
    assert np.abs(shown - told).mean() < 0.06
    assert np.abs(shown - told).max() < 0.35


def test_target_leaves_the_frame_and_returns(busy: Scene) -> None:
    assert busy.plan.exits
    for span in busy.plan.exits:
        gone = [busy[index] for index in (span.start, (span.start + span.stop) // 2, span.stop - 1)]
        assert [(frame.box, frame.visibility) for frame in gone] == [(None, 0.0)] * 3
        assert busy[max(span.start - 40, 0)].box is not None
        assert any(busy[index].visibility > 0.5 for index in range(span.stop, len(busy), 4))


@pytest.mark.parametrize(("target", "seed", "bits"), [("person", 3, 16), ("cyclist", 8, 16), ("person", 9, 8)])
def test_crossover_inverts_the_thermal_contrast_for_a_while(target: Any, seed: int, bits: Any) -> None:
    scene = Scene(replace(BARE, target=target, seed=seed, crossover=True, thermal_bits=bits))
    span = scene.plan.crossover
    assert span is not None
    during = [contrast(scene, index) for index in range(span.start, span.stop, 4)]
    crossing = np.array([contrast(scene, index) for index in range(0, span.start, 2)])
    assert contrast(scene, 0) > 0
    assert max(during) < 0
    assert contrast(scene, len(scene) - 1) > 0
    assert np.abs(crossing).min() < 0.35 * contrast(scene, 0)  # it fades to nothing on the way


def test_without_crossover_the_target_keeps_its_contrast() -> None:
    scene = Scene(replace(BARE, target="person", seed=3))
    assert min(contrast(scene, index) for index in range(0, 120, 10)) > 100  # counts of 0.01 K


# --- what happens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("view", "target"), [(view, kind) for view, kinds in CAST.items() for kind in kinds])
def test_target_starts_whole_and_of_reasonable_size(view: Any, target: Any) -> None:
    frame = Scene(replace(SMALL, frames=60, view=view, target=target, seed=21))[0]
    box = frame.box
    assert frame.visibility > 0.9
    assert box is not None
    assert box.area >= 16**2
    assert box.w <= 160
    assert box.h <= 120
    assert box.x > 0
    assert box.y > 0
    assert box.x + box.w < 320
    assert box.y + box.h < 240


@pytest.mark.parametrize("exits", [False, True])
@pytest.mark.parametrize(("target", "seed"), [("person", 1), ("vehicle", 2), ("animal", 3), ("cyclist", 4)])
def test_motion_is_continuous(target: Any, seed: int, exits: bool) -> None:
    scene = Scene(replace(SMALL, seed=seed, target=target, exits=exits, occlusion=False))
    masks = [scene.silhouette(index) for index in range(len(scene))]
    boxes = [box_of(mask) if mask.any() else None for mask in masks]
    steps = [(a, b) for a, b in pairwise(boxes) if a is not None and b is not None]
    overlaps = [a.iou(b) for a, b in steps if min(a.area, b.area) > 250]
    strides = [np.hypot(a.center[0] - b.center[0], a.center[1] - b.center[1]) for a, b in steps]
    if exits:
        assert 60 < len(steps) < 118
        assert max(strides) < 0.08 * 320
    else:
        assert len(steps) == 119
        assert min(overlaps) > 0.25
        assert np.median(overlaps) > 0.7


def test_target_moves_and_its_limbs_swing() -> None:
    scene = Scene(replace(BARE, seed=6, target="person"))
    boxes = [box_of(scene.silhouette(index)) for index in range(0, 60, 2)]
    travelled = np.hypot(*np.ptp([box.center for box in boxes], axis=0))
    aspects = [box.w / box.h for box in boxes]
    assert travelled > 15
    assert max(aspects) > 1.2 * min(aspects)


@pytest.mark.parametrize("count", [0, 3])
def test_distractors_are_as_many_as_asked_for(count: int) -> None:
    scene = Scene(replace(SMALL, seed=7, view="plaza", target="person", distractors=count))
    seen = [len(scene.distractor_boxes(index)) for index in range(0, 120, 10)]
    assert max(seen) <= count
    assert np.mean(seen) >= count / 3
    assert {track.actor.kind for track in scene.plan.distractors} <= {"person"}


def test_nothing_hides_the_target_without_occlusion() -> None:
    scene = Scene(replace(SMALL, seed=8, occlusion=False, exits=False, view="plaza", target="person"))
    assert min(scene[index].visibility for index in range(0, 120, 8)) > 0.99


def test_night_is_darker_than_day_in_colour_but_not_in_thermal() -> None:
    brightness = []
    for seed in range(10, 14):
        scenes = [Scene(replace(BARE, seed=seed, target="person", light=light)) for light in ("day", "night")]
        day, night = (scene[0].pair.rgb for scene in scenes)
        assert day is not None
        assert night is not None
        brightness.append(night.mean() / day.mean())
        assert contrast(scenes[1], 0) > 300  # counts of 0.01 K
    assert max(brightness) < 0.75  # under street lamps
    assert np.median(brightness) < 0.5


def test_backgrounds_become_the_world() -> None:
    still = np.full((200, 300, 3), (200, 30, 160), np.uint8)
    still[::20] = 90
    rgb = Scene(replace(BARE, seed=1, light="day"), backgrounds=[still])[0].pair.rgb
    assert rgb is not None
    red, green, blue = (float(np.median(rgb[..., channel])) for channel in range(3))
    assert red > 2.5 * green
    assert blue > 2 * green


def test_one_distractor_in_three_is_a_twin_unless_there_shall_be_none() -> None:
    """A twin has the target's own texture and size; another of its kind has not."""

    def doubles(*, twins: bool) -> list[bool]:
        plans = [Scene(replace(SMALL, seed=seed, distractors=3, twins=twins)).plan for seed in range(12)]
        return [
            bool(np.array_equal(track.actor.detail, plan.target.actor.detail))
            and track.actor.height == plan.target.actor.height
            for plan in plans
            for track in plan.distractors
        ]

    assert 0.15 < np.mean(doubles(twins=True)) < 0.55
    assert not any(doubles(twins=False))


@pytest.mark.parametrize("shape", [(50, 50), (50, 50, 4), (8, 50, 3)])
def test_backgrounds_that_are_no_colour_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"backgrounds must be \(height, width, 3\) uint8"):
        Scene(SMALL, backgrounds=[np.zeros(shape, np.uint8)])


# --- frames -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
def test_frames_are_the_same_in_any_order_of_access(bits: Any) -> None:
    config = replace(SMALL, seed=31, frames=60, thermal_bits=bits)
    first, second = Scene(config), Scene(config)
    forward = [first[index] for index in range(0, 60, 6)]
    backward = [second[index] for index in reversed(range(0, 60, 6))][::-1]
    for a, b in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(a.pair.rgb, b.pair.rgb, strict=True)
        np.testing.assert_array_equal(a.pair.thermal, b.pair.thermal, strict=True)
        assert (a.box, a.thermal_box, a.visibility) == (b.box, b.thermal_box, b.visibility)


def test_another_seed_is_another_scene() -> None:
    a, b = (Scene(replace(SMALL, seed=seed))[0].pair.rgb for seed in (1, 2))
    assert a is not None
    assert b is not None
    assert np.abs(a.astype(int) - b.astype(int)).mean() > 5


def test_raw_counts_are_centikelvin_and_not_clipped() -> None:
    for seed in range(3):
        for light in ("day", "night"):
            thermal = Scene(replace(SMALL, seed=seed, thermal_bits=16, light=light))[0].pair.thermal
            assert thermal is not None
            assert thermal.dtype == np.uint16
            assert 223 < thermal.min() / 100 < thermal.max() / 100 < 373  # -50 to 100 °C
            assert np.ptp(thermal.astype(int)) > 500
            values, counts = np.unique(thermal, return_counts=True)
            assert max(counts[0], counts[-1]) < 0.001 * thermal.size
            assert len(values) > 256


def test_gain_control_uses_the_range_of_bytes() -> None:
    thermal = Scene(replace(SMALL, seed=3))[0].pair.thermal
    assert thermal is not None
    assert thermal.dtype == np.uint8
    assert thermal.min() < 30
    assert thermal.max() > 200


def test_consecutive_frames_have_their_own_noise() -> None:
    scene = Scene(replace(BARE, seed=4, target="person"))
    noise = []
    for index in (10, 11):
        thermal = scene.plate(index).thermal
        assert thermal is not None
        noise.append(thermal.astype(np.float32) - cv2.GaussianBlur(thermal.astype(np.float32), (0, 0), 2))
    assert noise[0].std() > 3
    assert not np.array_equal(noise[0], noise[1])


def test_a_scene_is_a_sequence() -> None:
    scene = Scene(replace(SMALL, frames=5))
    assert len(scene) == len(list(scene)) == 5
    np.testing.assert_array_equal(scene[-1].pair.rgb, scene[4].pair.rgb)
    assert len(scene[1:4]) == 3
    with pytest.raises(IndexError, match="frame 5 of a scene of 5 frames"):
        scene[5]


@pytest.mark.parametrize("frames", [1, 2, 20])
def test_short_sequences_have_no_room_for_events(frames: int) -> None:
    scene = Scene(replace(SMALL, frames=frames))
    assert not scene.plan.exits
    assert not scene.plan.occlusions
    assert scene[frames - 1].box is not None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("width", 16, "width must be from 64 to 4096, got 16"),
        ("frames", 0, "frames must be from 1"),
        ("seed", -1, "seed must be from 0"),
        ("thermal_bits", 12, "thermal_bits must be 8 or 16, got 12"),
        ("distractors", 9, "distractors must be from 0 to 8, got 9"),
        ("misalignment", float("nan"), "misalignment must be from 0 to 8, got nan"),
        ("view", "moon", "view must be one of street, .* got 'moon'"),
        ("target", "boat", "a park scene can have person, .* got 'boat'"),
    ],
)
def test_config_refuses_what_makes_no_scene(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SceneConfig(view="park"), **{field: value})


# --- on disk ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[8, 16])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Path]:
    scene = Scene(replace(SMALL, frames=8, seed=9, thermal_bits=request.param))
    directory = tmp_path_factory.mktemp("scenes") / "new" / "scene"
    write_scene(scene, directory)
    return scene, directory


def test_written_frames_read_back(written: tuple[Scene, Path]) -> None:
    scene, directory = written
    assert len(list((directory / "visible").iterdir())) == len(list((directory / "infrared").iterdir())) == 8
    for number, frame in enumerate(scene, start=1):
        thermal = cv2.imread(str(directory / "infrared" / f"{number:06d}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(thermal, frame.pair.thermal, strict=True)
        colour = cv2.imread(str(directory / "visible" / f"{number:06d}.jpg"))
        assert colour is not None
        assert frame.pair.rgb is not None
        assert cv2.PSNR(np.ascontiguousarray(colour[..., ::-1]), frame.pair.rgb) > 28


def test_written_truth_reads_back(written: tuple[Scene, Path]) -> None:
    scene, directory = written
    for name, attribute in (("visible", "box"), ("init", "box"), ("infrared", "thermal_box")):
        boxes = [Box.parse(line) for line in (directory / f"{name}.txt").read_text().splitlines()]
        expected = [getattr(frame, attribute) for frame in scene]
        np.testing.assert_allclose([box.xywh for box in boxes], [box.xywh for box in expected], atol=0.006)
    shares = [float(line) for line in (directory / "visibility.txt").read_text().splitlines()]
    np.testing.assert_allclose(shares, [frame.visibility for frame in scene], atol=1e-4)
    record = json.loads((directory / "scene.json").read_text())
    assert SceneConfig(**record["config"]) == scene.config
    assert record["version"] == GENERATOR_VERSION


def test_absent_targets_are_written_as_zeros(tmp_path: Path) -> None:
    scene = Scene(replace(SMALL, width=96, height=72, seed=4, frames=80))
    write_scene(scene, tmp_path)
    lines = (tmp_path / "visible.txt").read_text().splitlines()
    assert len(lines) == 80
    absent = {index for index, line in enumerate(lines) if line == "0,0,0,0"}
    for span in scene.plan.exits:
        assert set(range(span.start, span.stop)) <= absent
    assert 0 not in absent


def test_what_was_written_before_an_interruption_stays(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert total == 8
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scene(Scene(replace(SMALL, frames=8)), tmp_path, progress=interrupt)
    assert [path.name for path in sorted((tmp_path / "visible").iterdir())] == [f"00000{i}.jpg" for i in (1, 2, 3)]
    assert len((tmp_path / "visible.txt").read_text().splitlines()) == 3
    assert len((tmp_path / "visibility.txt").read_text().splitlines()) == 3


def test_written_videos_read_back(tmp_path: Path) -> None:
    scene = Scene(replace(SMALL, frames=6, light="day", seed=2))
    write_scene(scene, tmp_path, "video")
    for name in ("visible", "infrared"):
        (path,) = (path for path in tmp_path.iterdir() if path.stem == name and path.suffix in (".mp4", ".avi"))
        capture = cv2.VideoCapture(str(path))
        for frame in scene:
            read, image = capture.read()
            assert read
            original = frame.pair.rgb if name == "visible" else frame.pair.thermal
            assert original is not None
            red = image[..., ::-1] if name == "visible" else image[..., 0]
            assert np.abs(red.astype(int) - original.astype(int)).mean() < 9
        assert not capture.read()[0]
        capture.release()
    assert len((tmp_path / "infrared.txt").read_text().splitlines()) == 6


def test_a_video_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    """As by a full disk, of which OpenCV's writer does not tell: here files may have 10 kB."""
    resource = pytest.importorskip("resource", reason="only Unix limits the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(SourceError, match=r"cannot write .*: it has 0 of 8 frames; is the disk full"):
            write_scene(Scene(replace(SMALL, frames=8)), tmp_path, "video")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_video_cannot_hold_raw_counts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="write form 'frames', or set thermal_bits to 8"):
        write_scene(Scene(replace(SMALL, frames=2, thermal_bits=16)), tmp_path / "video", "video")
    assert not (tmp_path / "video").exists()


def test_a_directory_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SourceError, match="it is not empty"):
        write_scene(Scene(replace(SMALL, frames=2)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    scene = Scene(replace(SMALL, frames=2))
    with pytest.raises(SourceError, match="it is a file"):
        write_scene(scene, tmp_path / "file")
    with pytest.raises(SourceError, match="cannot write a scene to"):
        write_scene(scene, tmp_path / "file" / "below")
