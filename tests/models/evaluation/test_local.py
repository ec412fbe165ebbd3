"""The local benchmark: linking against known identities, parts made from miniature folders, and the real folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, permutations
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.homography import Homographies, transform
from duotrack.errors import SourceError
from duotrack.evaluation.local import LOCAL_VERSION, LocalBenchmark, local_sequences
from duotrack.evaluation.local.camera_motion import Keypoints, camera_motion
from duotrack.evaluation.local.linking import LARGEST_STEP, Labelled, Tracklet, link
from duotrack.evaluation.local.thermal_tracks import run_sequences
from duotrack.evaluation.sequences import BenchmarkPairs

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
WIDTH, HEIGHT = 320, 256


# --- linking: a world whose identities are known --------------------------------------------------------------------


@dataclass(frozen=True)
class Flight:
    """Objects that move over the ground, filmed by a camera that moves too.

    Attributes:
        to_frame: (frames, 3, 3) from the ground to each frame.
        places: (frames, objects, 2) on the ground.
        sides: (objects, 2) of their boxes.
    """

    to_frame: Homographies
    places: NDArray[np.float64]
    sides: NDArray[np.float64]

    def motion(self, before: int, after: int) -> Homographies:
        return np.asarray(self.to_frame[after] @ np.linalg.inv(self.to_frame[before]), np.float64)

    def boxes(self, frame: int) -> list[tuple[int, Box]]:
        """Number and box of each object whose centre is in the frame."""
        centres = transform(self.to_frame[frame], self.places[frame])
        return [
            (number, Box.from_center(x, y, *self.sides[number].tolist()))
            for number, (x, y) in enumerate(centres.tolist())
            if 10 < x < WIDTH - 10 and 10 < y < HEIGHT - 10
        ]


def fly(rng: Generator, *, objects: int, frames: int = 14, speed: float = 3.0) -> Flight:
    """The camera turns by up to 5 degrees and moves by up to 25 pixels a frame; objects keep their pace."""
    angle, place, to_frame = 0.0, np.zeros(2), []
    for _ in range(frames):
        c, s = math.cos(angle), math.sin(angle)
        to_frame.append([[c, -s, WIDTH / 2 - place[0]], [s, c, HEIGHT / 2 - place[1]], [0, 0, 1]])
        angle += math.radians(rng.uniform(-5, 5))
        place = place + rng.uniform(-25, 25, 2)
    start = rng.uniform((-200, -160), (200, 160), (objects, 2))
    pace = rng.uniform(-speed, speed, (objects, 2))
    places = start + np.arange(frames)[:, None, None] * pace
    return Flight(np.array(to_frame), places, rng.uniform(10, 22, (objects, 2)))


def linked(
    flight: Flight, rng: Generator, *, noise: float = 1.0, missing: float = 0.05
) -> list[tuple[list[int], Tracklet]]:
    """Tracklets with the true identity of each of their boxes; labels are jittered, shuffled, and some are missing."""
    who: dict[Box, int] = {}
    frames = []
    for frame in range(len(flight.places)):
        objects = []
        for number, box in flight.boxes(frame):
            if rng.random() >= missing:
                jittered = Box(*(np.array(box.xywh) + rng.normal(0, noise, 4) * (1, 1, 0.5, 0.5)).tolist())
                who[jittered] = number
                objects.append(Labelled("Person", jittered))
        frames.append([objects[place] for place in rng.permutation(len(objects))])
    return [([who[box] for box in tracklet.boxes], tracklet) for tracklet in link(frames, flight.motion)]


def test_linked_boxes_are_of_one_object() -> None:
    rng = np.random.default_rng(4)
    right = wrong = 0
    for _ in range(40):
        for identities, tracklet in linked(fly(rng, objects=12), rng):
            assert tracklet.frames == sorted(set(tracklet.frames))
            assert max(np.diff(tracklet.frames), default=0) <= LARGEST_STEP
            same = [one == other for one, other in pairwise(identities)]
            right, wrong = right + sum(same), wrong + same.count(False)
    assert right > 2500
    assert wrong < 0.005 * right


def test_objects_that_keep_apart_are_followed_throughout() -> None:
    rng = np.random.default_rng(5)
    followed = seen = 0
    for _ in range(40):
        flight = fly(rng, objects=4)
        visible = [{number for number, _ in flight.boxes(frame)} for frame in range(len(flight.places))]
        for number in set.intersection(*visible):
            apart = np.linalg.norm(np.delete(flight.places, number, 1) - flight.places[:, [number]], axis=-1)
            if apart.min() > 60:
                seen += 1
                followed += any(
                    len(found) >= 10 and set(found) == {number}
                    for found, _ in linked(flight, np.random.default_rng(number), missing=0)
                )
    assert seen > 20
    assert followed >= 0.95 * seen


def stand(*places: tuple[float, float], kind: str = "Car", side: float = 20) -> list[Labelled]:
    return [Labelled(kind, Box.from_center(x, y, side, side)) for x, y in places]


def unmoved(before: int, after: int) -> Homographies:  # noqa: ARG001
    return np.eye(3)


def lengths(frames: list[list[Labelled]], motions: Callable[[int, int], Homographies | None] = unmoved) -> list[int]:
    return sorted(len(tracklet.boxes) for tracklet in link(frames, motions))


def test_what_could_be_either_of_two_is_linked_to_neither() -> None:
    apart = [stand((50, 50), (100, 50))] * 3
    assert lengths(apart) == [3, 3]
    between = [stand((50, 50), (100, 50)), stand((75, 50))]
    assert lengths(between) == [1, 1, 1]
    crowd = [stand((50, 50), (62, 50))] * 2  # as far apart as two thirds of their size
    assert lengths(crowd) == [1, 1, 1, 1]


def test_what_is_linked_is_near_alike_and_of_one_class() -> None:
    here = stand((50, 50))
    assert lengths([here, stand((88, 50))]) == [2]
    assert lengths([here, stand((92, 50))]) == [1, 1]
    assert lengths([here, stand((50, 50), kind="Person")]) == [1, 1]
    assert lengths([here, stand((50, 50), side=36)]) == [1, 1]


def test_an_object_keeps_its_pace() -> None:
    running = [stand((20 + 36 * frame, 50)) for frame in range(4)]
    stopping = stand((20 + 3 * 36 + 2, 50))
    tracklet, left_behind = link([*running, stand((20 + 3 * 36, 50), (20 + 4 * 36, 50))], unmoved)
    assert tracklet.boxes[-1].center == (20 + 4 * 36, 50)
    assert left_behind.boxes[0].center == (20 + 3 * 36, 50)
    assert lengths([*running, stopping]) == [5]


def test_a_gap_of_labels_is_bridged_and_an_unknown_motion_is_not() -> None:
    here = stand((50, 50))
    assert [tracklet.frames for tracklet in link([here, [], [], here], unmoved)] == [[0, 3]]
    assert lengths([here, [], [], [], here]) == [1, 1]
    assert lengths([here, here], lambda before, after: None) == [1, 1]  # noqa: ARG005
    # From the first to the third view the camera looked away.
    assert [
        tracklet.frames
        for tracklet in link([here, here, here], lambda before, after: np.eye(3) if after - before == 2 else None)
    ] == [[0, 2], [1]]


# --- the camera's motion --------------------------------------------------------------------------------------------


def terrain(seed: int, side: int = 900) -> NDArray[np.uint8]:
    """Ground as a thermal camera sees it: broad patches and fine grain, little contrast."""
    rng = np.random.default_rng(seed)
    picture = sum(cv2.GaussianBlur(rng.standard_normal((side, side)), (0, 0), sigma) * sigma for sigma in (1.5, 6, 25))
    return np.asarray(cv2.normalize(np.asarray(picture), None, 60, 170, cv2.NORM_MINMAX), np.uint8)


def film(ground: NDArray[np.uint8], flight: Flight, frame: int, rng: Generator) -> NDArray[np.uint8]:
    """The frame with its objects, hot ellipses, under sensor noise."""
    centre = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])  # OpenCV's coordinates are those of pixel centres
    middle = np.array([[1, 0, -ground.shape[1] / 2], [0, 1, -ground.shape[0] / 2], [0, 0, 1]])
    matrix = centre @ flight.to_frame[frame] @ middle @ np.linalg.inv(centre)
    image = cv2.warpPerspective(ground, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    for _, box in flight.boxes(frame):
        (x, y), (w, h) = box.center, (box.w, box.h)
        cv2.ellipse(image, (round(x), round(y)), (round(w / 2), round(h / 2)), 0, 0, 360, 235, -1)
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def test_camera_motion_is_found_to_a_pixel() -> None:
    rng = np.random.default_rng(6)
    grid = np.stack(np.meshgrid(np.arange(0, WIDTH, 20.0), np.arange(0, HEIGHT, 16.0)), -1).reshape(-1, 2)
    for seed in range(3):
        flight, ground = fly(rng, objects=8, frames=5), terrain(seed)
        keypoints = [Keypoints.of(film(ground, flight, frame, rng)) for frame in range(5)]
        for before, after in ((0, 1), (1, 2), (1, 4)):
            found = camera_motion(keypoints[before], keypoints[after])
            assert found is not None
            expected = transform(flight.motion(before, after), grid)
            shared = ((expected >= 0) & (expected <= (WIDTH, HEIGHT))).all(1)
            assert shared.sum() > 50
            error = np.linalg.norm(transform(found, grid) - expected, axis=1)[shared]
            assert error.mean() < 1
            assert error.max() < 2.5


def test_views_of_different_places_have_no_motion_between_them() -> None:
    rng = np.random.default_rng(7)
    flight = fly(rng, objects=6, frames=2)
    views = [Keypoints.of(film(terrain(seed), flight, 0, rng)) for seed in range(6)]
    views.append(Keypoints.of(np.full((HEIGHT, WIDTH), 90, np.uint8)))  # nothing to be seen
    assert [camera_motion(one, other) for one, other in permutations(views, 2)] == [None] * 42


# --- miniature folders ----------------------------------------------------------------------------------------------


def write(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def write_colour(folder: Path, *, masks: bool, absent: tuple[int, ...] = (), frames: int = 12) -> None:
    rng = np.random.default_rng(8)
    ground = cv2.merge([terrain(seed, 200)[:150] for seed in (11, 12, 13)])
    lines = []
    for frame in range(frames):
        image, mask = ground.copy(), np.zeros(ground.shape[:2], np.uint8)
        cv2.ellipse(mask, (50 + 5 * frame, 70), (18, 24), 0, 0, 360, 255, -1)
        image[mask > 0] = rng.normal((60, 85, 200), 8, (int((mask > 0).sum()), 3))
        write(folder / "visible" / f"{frame + 1:04}.jpg", image)
        if masks:
            write(folder / "mask" / f"{frame + 1:04}.png", mask)
        lines.append("0,0,0,0" if frame in absent else f"{32 + 5 * frame},46,37,49")
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")


def write_pair(folder: Path, name: str, seed: int) -> None:
    thermal = terrain(seed, 260)[:200]
    write(folder / "visible" / f"{name}.jpg", cv2.merge([terrain(seed + 20, 260)[:200], thermal // 2, 255 - thermal]))
    write(folder / "infrared" / f"{name}.jpg", thermal)


def write_run(folder: Path, flight: Flight, seed: int, missing: tuple[int, int] | None = None) -> None:
    """A run in which everything is labelled but, if that is given, ``missing``: a frame and an object."""
    rng, ground, lines = np.random.default_rng(seed), terrain(seed), ["frame,class,x,y,w,h"]
    for frame in range(len(flight.places)):
        write(folder / "infrared" / f"f_{frame:05}.jpg", film(ground, flight, frame, rng))
        boxes = [(number, box) for number, box in flight.boxes(frame) if (frame, number) != missing]
        lines += [f"f_{frame:05},Person,{boxes[place][1].text()}" for place in rng.permutation(len(boxes)).tolist()]
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")


FLIGHT = fly(np.random.default_rng(9), objects=7, frames=9)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_colour(root / "rgb-sequences" / "cows", masks=True)
    write_colour(root / "rgb-sequences" / "Skiing", masks=False, absent=(0, 1, 7))
    write_colour(root / "rgb-sequences" / "bear", masks=True)  # trained on
    for name in ("0009", "0010", "0019"):
        write_pair(root / "rgbt-pairs" / "tno", name, int(name))
    write_run(root / "thermal-frames" / "run007", FLIGHT, 14, missing=(3, 3))
    write_run(root / "thermal-frames" / "run001", FLIGHT, 15)
    return root


@pytest.fixture(scope="module")
def benchmark(root: Path) -> LocalBenchmark:
    return local_sequences(root)


@pytest.fixture(scope="module")
def named(benchmark: LocalBenchmark) -> dict[str, BenchmarkPairs]:
    return {sequence.name: sequence for sequence in benchmark.sequences}


def part(sequences: dict[str, BenchmarkPairs], name: str) -> list[BenchmarkPairs]:
    return [sequence for sequence in sequences.values() if sequence.attributes[0] == name]


def test_the_parts_hold_what_is_held_out(benchmark: LocalBenchmark, named: dict[str, BenchmarkPairs]) -> None:
    assert len(named) == len(benchmark.sequences)
    for name in ("rgb", "rendered"):
        assert [sequence.name for sequence in part(named, name)] == [f"{name}-Skiing", f"{name}-cows"]
    assert [sequence.name for sequence in part(named, "pair")] == ["pair-tno-0009", "pair-tno-0019"]
    assert {sequence.name.rsplit("-", 1)[0] for sequence in part(named, "thermal")} == {"thermal-run007"}
    assert all(sequence.boxes[0] is not None for sequence in named.values())
    assert any("synthetic" in note for note in benchmark.notes)
    assert any("linked" in note for note in benchmark.notes)
    assert "rgb-Skiing" not in benchmark.notes


def test_the_other_split_holds_the_rest(root: Path) -> None:
    names = {sequence.name for sequence in local_sequences(root, "train").sequences}
    assert {"rgb-bear", "rendered-bear", "pair-tno-0010"} <= names
    assert any(name.startswith("thermal-run001-") for name in names)
    assert not any("cows" in name or "0009" in name or "run007" in name for name in names)
    with pytest.raises(SourceError, match="local has the splits train, val; got 'test'"):
        local_sequences(root, "test")


def test_a_colour_sequence_starts_where_its_target_is_seen(
    benchmark: LocalBenchmark, named: dict[str, BenchmarkPairs]
) -> None:
    sequence = named["rgb-Skiing"]
    assert len(sequence.boxes) == 10
    assert sequence.boxes[0] == Box(42, 46, 37, 49)
    assert sequence.boxes[5] is None
    assert "OV" in sequence.attributes
    assert "Skiing: starts 2 frames later, where its target is first seen" in benchmark.notes
    pair = sequence.pair(0)
    assert pair.thermal is None
    assert pair.rgb is not None
    assert pair.rgb[70, 60, 0] > 150 > pair.rgb[70, 60, 2]  # the third frame's target


def test_rendered_thermal_shows_a_target_of_its_own_heat(named: dict[str, BenchmarkPairs]) -> None:
    sequence = named["rendered-cows"]
    assert sequence.attributes[:2] == ("rendered", "synthetic-thermal")
    contrasts, changes = [], []
    for index in range(12):
        thermal, box = sequence.pair(index).thermal, sequence.boxes[index]
        assert thermal is not None
        assert box is not None
        cx, cy = (round(value) for value in box.center)
        inside = float(thermal[cy - 10 : cy + 10, cx - 8 : cx + 8].mean())
        around = float(np.median(np.concatenate((thermal[cy - 10 : cy + 10, cx - 32 : cx - 24].ravel(),
                                                 thermal[cy - 10 : cy + 10, cx + 24 : cx + 32].ravel()))))  # fmt: skip
        contrasts.append(inside - around)
        changes.append(inside)
    assert min(np.abs(contrasts)) > 15
    assert len(set(np.sign(contrasts))) == 1  # it does not change its polarity
    assert np.abs(np.diff(changes)).max() < 12  # nor does it flicker
    assert np.ptp(changes) > 0.3  # but drifts


def test_rendered_thermal_has_less_detail_than_colour(named: dict[str, BenchmarkPairs]) -> None:
    pair = named["rendered-Skiing"].pair(3)
    assert pair.rgb is not None
    assert pair.thermal is not None
    grey = cv2.cvtColor(pair.rgb, cv2.COLOR_RGB2GRAY)

    def fineness(image: NDArray[np.uint8]) -> float:
        """The share of the variance that a slight blur takes away (blurred once before, which removes noise)."""
        smooth = cv2.GaussianBlur(image.astype(float), (0, 0), 1.5)
        return float((smooth - cv2.GaussianBlur(smooth, (0, 0), 4)).var() / smooth.var())

    assert fineness(np.asarray(pair.thermal, np.uint8)) < 0.8 * fineness(np.asarray(grey, np.uint8))


def test_pairs_move_colour_and_thermal_together(named: dict[str, BenchmarkPairs]) -> None:
    region, pasted = named["pair-tno-0009"], named["pair-tno-0019"]
    assert (len(region.boxes), len(pasted.boxes)) == (100, 100)
    assert "pasted" in pasted.attributes
    assert "pasted" not in region.attributes
    for index in (0, 50, 99):
        pair = region.pair(index)
        assert pair.rgb is not None
        assert pair.thermal is not None
        # Blue is half of the thermal still, and red is what the thermal camera sees turned over.
        red, thermal = pair.rgb[..., 0].astype(float), pair.thermal.astype(float)
        assert np.corrcoef(red.ravel(), thermal.ravel())[0, 1] < -0.9
    assert not np.array_equal(region.pair(0).rgb, region.pair(30).rgb)  # type: ignore[arg-type]


def test_a_pasted_target_comes_from_the_same_split(named: dict[str, BenchmarkPairs]) -> None:
    sequence = named["pair-tno-0019"]
    shown = 0
    for index in range(0, 100, 9):
        box, rgb = sequence.boxes[index], sequence.pair(index).rgb
        assert rgb is not None
        if box is not None:
            red = (rgb[..., 0].astype(int) - rgb[..., 1] > 60) & (rgb[..., 0].astype(int) - rgb[..., 2] > 60)
            rows, columns = (slice(max(round(low), 0), round(low + side)) for low, side in
                             ((box.y, box.h), (box.x, box.w)))  # fmt: skip
            shown += red[rows, columns].mean() > 0.4
    assert shown >= 6  # the cow's red ellipse, unless something else is in front


def test_thermal_identities_are_those_of_the_flight(named: dict[str, BenchmarkPairs]) -> None:
    sequences = part(named, "thermal")
    assert len(sequences) >= 3
    followed = []
    for sequence in sequences:
        assert sequence.pair(0).rgb is None
        assert len(sequence.boxes) >= 4
        owners = set()
        frames = [int(path.stem[2:]) for path in sequence.thermal]  # type: ignore[attr-defined]
        for frame, box in zip(frames, sequence.boxes, strict=True):
            assert box is not None
            near = [number for number, true in FLIGHT.boxes(frame) if math.dist(true.center, box.center) < 0.1]
            owners.update(near)
        assert len(owners) == 1
        followed.append((owners.pop(), frames))
    assert (3, [0, 1, 2, 4, 5, 6, 7, 8]) in followed


def test_no_thermal_sequence_starts_with_a_target_that_is_cut_off(tmp_path: Path) -> None:
    hovering = np.repeat(np.array([[[1, 0, WIDTH / 2], [0, 1, HEIGHT / 2], [0, 0, 1]]]), 8, axis=0)
    entering = np.array([[[11.0 + 3 * frame - WIDTH / 2, 0.0]] for frame in range(8)])
    write_run(tmp_path / "run", Flight(hovering, entering, np.array([[30.0, 20.0]])), 16)
    text = (tmp_path / "run" / "boxes.csv").read_text()
    assert "f_00000,Person,-4" in text  # the centre is inside, the left edge is not
    (sequence,) = run_sequences(tmp_path / "run")
    assert len(sequence.boxes) == 6
    assert sequence.boxes[0] is not None
    assert sequence.boxes[0].x >= 1


def test_frames_are_the_same_whenever_they_are_asked_for(root: Path, named: dict[str, BenchmarkPairs]) -> None:
    again = {sequence.name: sequence for sequence in local_sequences(root).sequences}
    for name, sequence in named.items():
        other = again[name]
        assert list(sequence.boxes) == list(other.boxes)
        assert sequence.attributes == other.attributes
        last = len(sequence.boxes) - 1
        forward = [sequence.pair(index) for index in (0, last)]
        backward = [other.pair(index) for index in (last, 0)][::-1]
        for one, two in zip(forward, backward, strict=True):
            for image, same in ((one.rgb, two.rgb), (one.thermal, two.thermal)):
                assert (image is None) == (same is None)
                assert image is None or np.array_equal(image, same)  # type: ignore[arg-type]


# --- folders that lack something ------------------------------------------------------------------------------------


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    write_colour(tmp_path / "rgb-sequences" / "cows", masks=True, frames=3)
    found = local_sequences(tmp_path)
    assert [sequence.name for sequence in found.sequences] == ["rgb-cows", "rendered-cows"]
    assert f"part pair is left out: {tmp_path / 'rgbt-pairs'} does not exist" in found.notes
    write_pair(tmp_path / "rgbt-pairs" / "tno", "0010", 1)
    assert any("has nothing of the split val" in note for note in local_sequences(tmp_path).notes)


def test_nothing_is_pasted_where_no_sequence_has_masks(tmp_path: Path) -> None:
    for name in ("0009", "0019"):
        write_pair(tmp_path / "rgbt-pairs" / "tno", name, 3)
    found = local_sequences(tmp_path)
    assert [sequence.attributes[:1] for sequence in found.sequences] == [("pair",), ("pair",)]
    assert not any("pasted" in sequence.attributes for sequence in found.sequences)
    assert any(note.startswith("nothing is pasted") for note in found.notes)


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected rgb-sequences, rgbt-pairs, thermal-frames in it"):
        local_sequences(tmp_path)


def test_a_broken_part_names_the_file(tmp_path: Path) -> None:
    write_colour(tmp_path / "a" / "rgb-sequences" / "cows", masks=True, frames=3)
    (tmp_path / "a" / "rgb-sequences" / "cows" / "mask" / "0002.png").unlink()
    with pytest.raises(SourceError, match=r"a mask for every frame, but .*0002\.png does not exist"):
        local_sequences(tmp_path / "a")
    write_pair(tmp_path / "b" / "rgbt-pairs" / "tno", "0009", 3)
    (tmp_path / "b" / "rgbt-pairs" / "tno" / "infrared" / "0009.jpg").unlink()
    with pytest.raises(SourceError, match=r"expected the thermal image of .*visible/0009\.jpg at .*infrared/0009\.jpg"):
        local_sequences(tmp_path / "b")
    run = tmp_path / "c" / "thermal-frames" / "run007"
    write_run(run, FLIGHT, 14)
    (run / "boxes.csv").write_text("frame,class,x,y,w\nf_00000,Person,1,2,3\n")
    with pytest.raises(SourceError, match=r"cannot read .*boxes\.csv \(frame,class,x,y,w,h\): KeyError\('h'\)"):
        local_sequences(tmp_path / "c")
    (run / "boxes.csv").write_text("frame,class,x,y,w,h\nother,Person,1,2,3,4\n")
    with pytest.raises(SourceError, match=r"has boxes for frame other, which is not in .*infrared"):
        local_sequences(tmp_path / "c")


# --- the real folder ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> LocalBenchmark:
    if not SHARED.is_dir():
        pytest.skip(f"no local data: {SHARED} does not exist")
    return local_sequences(SHARED)


def test_the_real_benchmark_is_that_of_its_version(real: LocalBenchmark) -> None:
    """Other counts mean another benchmark, which needs another version number."""
    assert LOCAL_VERSION == 1, "write down the counts of the new version"
    counted: dict[str, tuple[int, int]] = {}
    for sequence in real.sequences:
        name = sequence.name.split("-")[0]
        sequences, frames = counted.get(name, (0, 0))
        counted[name] = sequences + 1, frames + len(sequence.boxes)
    assert counted == {"rgb": (7, 610), "rendered": (7, 610), "pair": (32, 3200), "thermal": (27, 218)}


def test_every_real_box_is_in_its_frame(real: LocalBenchmark) -> None:
    chosen = [sequence for sequence in real.sequences if not sequence.name.startswith("pair")]
    chosen += [sequence for sequence in real.sequences if sequence.name.startswith("pair")][::5]
    for sequence in chosen:
        assert sequence.boxes[0] is not None
        pair = sequence.pair(0)
        for box in sequence.boxes:
            if box is not None:
                assert box.x + box.w > 0
                assert box.y + box.h > 0
                assert box.x < pair.width
                assert box.y < pair.height
