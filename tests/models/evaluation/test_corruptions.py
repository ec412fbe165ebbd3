"""Corruptions against formulas, counted pixels and a simulated sensor; determinism, and what each leaves alone."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.synthetic import SceneConfig
from duotrack.errors import EvaluationError, SourceError
from duotrack.evaluation.corruptions import CORRUPTIONS, CorruptionChoice, corrupted
from duotrack.evaluation.corruptions.dropped_frames import remaining
from duotrack.evaluation.corruptions.low_light import FULL_WELL, READ_NOISE
from duotrack.evaluation.corruptions.occlusion import Occlusion, passage
from duotrack.evaluation.corruptions.thermal_camera import CALIBRATION, counts_per_grey_level
from duotrack.evaluation.sequences import BenchmarkPairs, GeneratedSequence
from duotrack.frames import FramePair, Image

WIDTH, HEIGHT = 128, 96
DOCS = Path(__file__).resolve().parents[3] / "docs" / "robustness.md"
CAMERA_PROPERTIES = {"misalignment", "scale", "rotation", "low-light", "thermal-noise"}
"""There from the first frame on."""
MISSING = ("missing-random", "missing-interval", "rgb-off", "thermal-off", "alternating", "long-gap")


@dataclass(frozen=True)
class Footage:
    """Pairs and boxes that are in memory."""

    pairs: Sequence[FramePair]
    boxes: Sequence[Box | None]
    name: str = "footage"
    attributes: Sequence[str] = ("SV", "OCC")

    def pair(self, index: int) -> FramePair:
        return self.pairs[index]


def numbered(frames: int, name: str = "numbered") -> Footage:
    """Frame i is i everywhere, and so are its box's left and top."""
    pairs = [FramePair(np.full((8, 8, 3), i % 256, np.uint8), np.full((8, 8), i, np.uint16)) for i in range(frames)]
    return Footage(pairs, [Box(i, i, 4, 4) for i in range(frames)], name)


def still(rgb: NDArray[np.uint8] | None, thermal: Image | None, frames: int = 3, name: str = "still") -> Footage:
    return Footage([FramePair(rgb, thermal)] * frames, [Box(10, 10, 20, 20)] * frames, name)


def ground(seed: int, high: int = 200) -> NDArray[np.float64]:
    noise = np.random.default_rng(seed).standard_normal((HEIGHT, WIDTH))
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 20, high, cv2.NORM_MINMAX))


def walk(frames: int = 300, *, thermal_bits: int = 8, absent: slice = slice(0)) -> Footage:
    """A rectangle of pure red, and hottest of all, moves over noise; its box is exact."""
    colour = np.repeat(ground(1).astype(np.uint8)[..., None], 3, 2)
    heat = ground(2).astype(np.uint8) if thermal_bits == 8 else (ground(2) * 20 + 28000).astype(np.uint16)
    hottest = 255 if thermal_bits == 8 else 40000
    pairs, boxes = [], list[Box | None]()
    for number in range(frames):
        x, y = round(52 + 30 * np.sin(number / 25)), round(36 + 10 * np.cos(number / 18))
        rgb, thermal = colour.copy(), heat.copy()
        if number not in range(*absent.indices(frames)):
            rgb[y : y + 24, x : x + 16] = (255, 0, 0)
            thermal[y : y + 24, x : x + 16] = hottest
            boxes.append(Box(x, y, 16, 24))
        else:
            boxes.append(None)
        pairs.append(FramePair(rgb, thermal))
    return Footage(pairs, boxes, f"walk-{frames}")


def same(one: Image | None, other: Image | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and np.array_equal(one, other)


def equal(one: FramePair, other: FramePair) -> bool:
    return same(one.rgb, other.rgb) and same(one.thermal, other.thermal)


def missing(sequence: BenchmarkPairs) -> str:
    """A letter for each frame: c and t where only colour or only thermal is left, b where both are."""
    pairs = [sequence.pair(index) for index in range(len(sequence.boxes))]
    return "".join("t" if pair.rgb is None else "c" if pair.thermal is None else "b" for pair in pairs)


def thermal_of(sequence: BenchmarkPairs, index: int) -> NDArray[np.float64]:
    thermal = sequence.pair(index).thermal
    assert thermal is not None
    return thermal.astype(np.float64)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_pair_is_the_same_whatever_was_asked_before(name: str, bits: int) -> None:
    source = walk(thermal_bits=bits)
    before = [FramePair(pair.rgb.copy(), pair.thermal.copy()) for pair in source.pairs]  # type: ignore[union-attr]
    choice = CorruptionChoice(name, CORRUPTIONS[name].severities[-2], seed=3)
    forward = corrupted(source, choice)
    rebuilt = corrupted(walk(thermal_bits=bits), pickle.loads(pickle.dumps(choice)))
    numbers = range(0, len(forward.boxes), 7)
    backward = {number: rebuilt.pair(number) for number in reversed(numbers)}
    for number in numbers:
        pair = forward.pair(number)
        assert equal(pair, backward[number])
        assert (pair.width, pair.height) == (WIDTH, HEIGHT)
        assert pair.thermal is None or pair.thermal.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert list(forward.boxes) == list(rebuilt.boxes)
    assert (forward.name, tuple(forward.attributes)) == (source.name, ("SV", "OCC"))
    for pair, kept in zip(source.pairs, before, strict=True):
        assert equal(pair, kept)
    with pytest.raises(IndexError, match=f"frame {len(forward.boxes)} of walk-300"):
        forward.pair(len(forward.boxes))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_it_changes_frames_and_grows_with_severity(name: str) -> None:
    kind, source = CORRUPTIONS[name], walk(200)
    changed = []
    for severity in kind.severities:
        worse = corrupted(source, CorruptionChoice(name, severity))
        number = range(1, len(worse.boxes))
        lost = len(source.boxes) - len(worse.boxes)
        changed.append(lost + sum(not equal(worse.pair(i), source.pair(i)) for i in number))
    assert min(changed) > 0
    assert changed == sorted(changed)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_only_properties_of_the_cameras_touch_the_first_frame(name: str) -> None:
    source = walk()
    for severity in CORRUPTIONS[name].severities:
        worse = corrupted(source, CorruptionChoice(name, severity))
        assert equal(worse.pair(0), source.pair(0)) == (name not in CAMERA_PROPERTIES)
        assert worse.boxes[0] == source.boxes[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_neutral_severity_is_the_sequence_itself(name: str) -> None:
    source = walk(20)
    assert corrupted(source, CorruptionChoice(name, CORRUPTIONS[name].neutral)) is source


@pytest.mark.parametrize("name", set(CORRUPTIONS) - {"rgb-off", "thermal-off"})
def test_another_seed_and_another_name_are_other_draws(name: str) -> None:
    severity = CORRUPTIONS[name].severities[1]

    def frames(sequence: Footage, seed: int) -> list[bytes]:
        worse = corrupted(sequence, CorruptionChoice(name, severity, seed))
        pairs = [worse.pair(index) for index in range(min(len(worse.boxes), 150))]
        return [b"".join(b"-" if part is None else part.tobytes() for part in (p.rgb, p.thermal)) for p in pairs]

    source = walk(150)
    if name == "scale":
        assert frames(source, 0) == frames(source, 1)
        return
    first = frames(source, 0)
    assert any(frames(source, seed) != first for seed in range(1, 5))
    assert any(frames(Footage(source.pairs, source.boxes, f"walk-{n}"), 0) != first for n in range(5))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_registry_entry_is_complete(name: str) -> None:
    kind = CORRUPTIONS[name]
    assert 4 <= len(kind.severities) <= 6
    assert list(kind.severities) == sorted(set(kind.severities))
    assert all(severity > kind.neutral for severity in kind.severities)
    for severity in (*kind.severities, kind.largest):
        CorruptionChoice(name, severity)
    assert kind.title
    assert kind.unit
    assert kind.does.endswith(".")


def test_the_documentation_has_every_corruption_with_its_severities() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for name, kind in CORRUPTIONS.items():
        severities = ", ".join(f"{severity:g}" for severity in kind.severities)
        assert f"| `{name}` | {kind.unit} | {severities} |" in text


def test_a_generated_scene_can_be_corrupted() -> None:
    scene = GeneratedSequence(SceneConfig(width=160, height=120, frames=40, seed=2, thermal_bits=16), ("street",))
    for name, kind in CORRUPTIONS.items():
        worse = corrupted(scene, CorruptionChoice(name, kind.severities[0]))
        pair = worse.pair(len(worse.boxes) - 1)
        assert (pair.width, pair.height, tuple(worse.attributes)) == (160, 120, ("street",))


def test_a_share_of_frames_lacks_either_modality_at_random() -> None:
    frames = 2000
    patterns = [
        missing(corrupted(numbered(frames), CorruptionChoice("missing-random", share))) for share in (0.2, 0.5, 1)
    ]
    for share, pattern in zip((0.2, 0.5, 1), patterns, strict=True):
        gone = frames - pattern.count("b")
        assert gone / frames == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / frames) + 1e-3)
        assert pattern.count("c") / gone == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(gone))
    for mild, severe in pairwise(patterns):
        assert all(a in ("b", b) for a, b in zip(mild, severe, strict=True))


def test_gaps_come_at_intervals() -> None:
    """Of 60 frames, 15 in a row are gone; the first frame is whole even if a gap is there."""
    modalities = set()
    for number in range(12):
        pattern = missing(corrupted(numbered(241, f"s{number}"), CorruptionChoice("missing-interval", 0.25)))
        letter = min(set(pattern) - {"b"})
        modalities.add(letter)
        gone = np.array([each == letter for each in pattern[1:]])
        assert set(pattern) == {"b", letter}
        assert gone.sum() == 4 * 15
        np.testing.assert_array_equal(gone[:180], gone[60:])
        assert np.abs(np.diff(np.append(gone[:60], gone[0]).astype(int))).sum() == 2
        assert pattern[0] == "b"
    assert modalities == {"c", "t"}


@pytest.mark.parametrize(("name", "left"), [("rgb-off", "t"), ("thermal-off", "c")])
def test_a_modality_is_switched_off(name: str, left: str) -> None:
    for share, whole in ((0.25, 76), (0.5, 51), (1.0, 1)):
        assert missing(corrupted(numbered(101), CorruptionChoice(name, share))) == "b" * whole + left * (101 - whole)


def test_modalities_take_turns() -> None:
    found = {missing(corrupted(numbered(11, f"s{n}"), CorruptionChoice("alternating", 3))) for n in range(12)}
    assert found == {"btttccctttc", "bccctttccct"}


def test_one_gap_is_long_and_contains_the_shorter_ones() -> None:
    modalities, starts = set(), set()
    for number in range(20):
        source, gaps = numbered(101, f"s{number}"), []
        for share in (0.1, 0.4, 0.8, 1):
            pattern = missing(corrupted(source, CorruptionChoice("long-gap", share)))
            letter = min(set(pattern) - {"b"})
            start = pattern.index(letter)
            length = round(share * 100)
            assert pattern == "b" * start + letter * length + "b" * (101 - start - length)
            gaps.append(set(range(start, start + length)))
            modalities.add(letter)
        assert gaps[0] < gaps[1] < gaps[2] < gaps[3]
        starts.add(min(gaps[0]))
    assert modalities == {"c", "t"}
    assert len(starts) > 10


def test_a_pair_is_never_left_empty() -> None:
    for first, left, second, other in (("rgb-off", "t", "thermal-off", "c"), ("thermal-off", "c", "rgb-off", "t")):
        off = corrupted(numbered(31), CorruptionChoice(first, 0.5))
        assert missing(corrupted(off, CorruptionChoice(second, 1))) == "b" + other * 15 + left * 15


def test_thermal_is_moved_by_so_many_pixels() -> None:
    """The displacement is found again by phase correlation; its direction is one for all severities."""
    thermal = ground(5, 240).astype(np.uint8)
    source = still(np.zeros((HEIGHT, WIDTH, 3), np.uint8), thermal)
    middle = np.s_[16:-16, 16:-16]
    angles = []
    for pixels in (2, 4, 8):
        pair = corrupted(source, CorruptionChoice("misalignment", pixels)).pair(2)
        assert same(pair.rgb, source.pair(2).rgb)
        assert pair.thermal is not None
        window = cv2.createHanningWindow((WIDTH - 32, HEIGHT - 32), cv2.CV_64F)
        before, after = thermal[middle].astype(float), pair.thermal[middle].astype(float)
        (x, y), _ = cv2.phaseCorrelate(before, after, window)
        assert np.hypot(x, y) == pytest.approx(pixels, abs=0.3)
        angles.append(np.arctan2(y, x))
    assert np.ptp(angles) < 0.1
    far = thermal_of(corrupted(source, CorruptionChoice("misalignment", 32)), 1)
    assert far.min() >= 15  # mirrored beyond the edge, where there would be nothing


def spot(x: int, y: int, bits: int = 8) -> Image:
    thermal = np.zeros((HEIGHT, WIDTH), np.uint8 if bits == 8 else np.uint16)
    thermal[y, x] = 200 if bits == 8 else 20000
    return np.asarray(cv2.GaussianBlur(thermal, (0, 0), 1.5))


def centre_of(thermal: Image | None) -> NDArray[np.float64]:
    assert thermal is not None
    weight = thermal.astype(float)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


@pytest.mark.parametrize("bits", [8, 16])
def test_thermal_drifts_away_steadily(bits: int) -> None:
    source = still(np.zeros((HEIGHT, WIDTH, 3), np.uint8), spot(64, 48, bits), frames=11)
    drift = corrupted(source, CorruptionChoice("misalignment-drift", 20))
    away = [np.hypot(*(centre_of(drift.pair(index).thermal) - (64, 48))) for index in range(11)]
    np.testing.assert_allclose(away, np.arange(11) * 2, atol=0.15)


@pytest.mark.parametrize("bits", [8, 16])
def test_thermal_is_scaled_and_turned_about_the_middle(bits: int) -> None:
    middle, at = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2]), np.array([84, 38])
    source = still(np.zeros((HEIGHT, WIDTH, 3), np.uint8), spot(84, 38, bits))
    larger = corrupted(source, CorruptionChoice("scale", 1.2)).pair(1)
    np.testing.assert_allclose(centre_of(larger.thermal), middle + 1.2 * (at - middle), atol=0.1)
    ways = set()
    for seed in range(8):
        turned = corrupted(source, CorruptionChoice("rotation", 15, seed)).pair(1)
        before, after = at - middle, centre_of(turned.thermal) - middle
        angle = np.degrees(np.arctan2(*after[::-1]) - np.arctan2(*before[::-1]))
        assert abs(angle) == pytest.approx(15, abs=0.3)
        assert np.hypot(*after) == pytest.approx(np.hypot(*before), abs=0.1)
        ways.add(bool(angle > 0))
    assert ways == {True, False}


@pytest.mark.parametrize("stops", [2, 6, 8])
def test_low_light_is_what_photons_and_a_converter_give(stops: float) -> None:
    """Mean and deviation of each grey against a simulation that counts photons with a Poisson generator."""
    rng = np.random.default_rng(0)
    for grey in (60, 128, 250):
        source = still(np.full((HEIGHT, WIDTH, 3), grey, np.uint8), np.full((HEIGHT, WIDTH), 9, np.uint8), 4)
        dark = corrupted(source, CorruptionChoice("low-light", stops))
        found = np.stack([dark.pair(index).rgb for index in range(4)]).astype(float)  # type: ignore[misc]
        expected = rng.poisson(FULL_WELL / 2**stops * (grey / 255) ** 2.2, found.size) + READ_NOISE * rng.normal(
            size=found.size
        )
        codes = np.clip(np.rint(expected / FULL_WELL * 2 ** (stops / 2) * 4095), 0, 4095)
        developed = 255 * (codes / 4095) ** (1 / 2.2)
        assert found.mean() == pytest.approx(developed.mean(), rel=0.01, abs=0.2)
        assert found.std() == pytest.approx(developed.std(), rel=0.03, abs=0.3)
        assert not np.array_equal(found[0], found[1])
        assert same(dark.pair(1).thermal, source.pair(1).thermal)


def test_white_stays_white_when_noise_takes_it_over_the_top() -> None:
    white = still(np.full((HEIGHT, WIDTH, 3), 255, np.uint8), None)
    picture = corrupted(white, CorruptionChoice("low-light", 0.01)).pair(1).rgb
    assert picture is not None
    assert picture.max() == 255
    assert picture.min() > 235


def test_less_light_is_darker_and_noisier() -> None:
    grey = still(np.full((HEIGHT, WIDTH, 3), 128, np.uint8), None)
    pictures = [corrupted(grey, CorruptionChoice("low-light", stops)).pair(1).rgb for stops in (0, 2, 4, 6, 8)]
    means, ratios = [], []
    for picture in pictures:
        assert picture is not None
        means.append(picture.mean())
        ratios.append(picture.std() / picture.mean())
    assert means == sorted(means, reverse=True)
    assert ratios == sorted(ratios)


@pytest.mark.parametrize("bits", [8, 16])
def test_thermal_noise_has_its_deviation_and_a_fixed_pattern(bits: int) -> None:
    flat = np.full((200, 160), 128, np.uint8) if bits == 8 else np.full((200, 160), 30000, np.uint16)
    flat[::9, ::7] += 1 if bits == 8 else 5000  # so that 16 bits have a range
    source = still(np.zeros((200, 160, 3), np.uint8), flat, frames=41)
    worse = corrupted(source, CorruptionChoice("thermal-noise", 12))
    unit = counts_per_grey_level(flat)
    assert unit == (1 if bits == 8 else pytest.approx(5000 * 1.2 / 255, rel=0.01))
    noise = np.stack([thermal_of(worse, index) - flat for index in range(41)]) / unit
    fixed = noise.mean(0)
    assert abs(noise.mean()) < 1.2
    assert np.sqrt((noise**2).mean()) == pytest.approx(12, rel=0.04)
    assert noise.std(0).mean() == pytest.approx(12 * 0.8, rel=0.03)
    assert fixed.mean(0).std() == pytest.approx(12 * 0.5, rel=0.2)
    assert (fixed - fixed.mean(0)).std() == pytest.approx(12 * 0.33, rel=0.1)
    assert same(worse.pair(5).rgb, source.pair(5).rgb)


def test_noise_stays_in_range() -> None:
    for value in (0, 255):
        source = still(None, np.full((HEIGHT, WIDTH), value, np.uint8))
        noisy = thermal_of(corrupted(source, CorruptionChoice("thermal-noise", 30)), 1)
        assert (noisy == value).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("frames", [10, 80])
def test_thermal_stands_still_now_and_then(frames: int) -> None:
    starts = set()
    for number in range(5):
        worse = corrupted(numbered(300, f"s{number}"), CorruptionChoice("thermal-freeze", frames))
        shown = [int(thermal_of(worse, index)[0, 0]) for index in range(300)]
        held = np.array([index - frame for index, frame in enumerate(shown)])
        start = int(np.flatnonzero(held)[0]) - 1
        expected = np.zeros(CALIBRATION, int)
        expected[1 : frames + 1] = np.arange(1, frames + 1)
        repeated = np.concatenate([np.zeros(start, int), np.tile(expected, 4)])[:300]
        np.testing.assert_array_equal(held, repeated)
        assert [int(worse.pair(index).rgb[0, 0, 0]) for index in range(300)] == [i % 256 for i in range(300)]  # type: ignore[index]
        starts.add(start)
    assert len(starts) > 1
    assert max(starts) < 30


def test_dropped_frames_take_their_boxes_with_them() -> None:
    worse = corrupted(numbered(201), CorruptionChoice("dropped-frames", 0.5))
    numbers = [int(thermal_of(worse, index)[0, 0]) for index in range(len(worse.boxes))]
    assert len(numbers) == 101
    assert [box.x for box in worse.boxes if box is not None] == numbers
    gaps = np.diff(numbers) - 1
    bursts = gaps[gaps > 0].tolist()
    assert sum(bursts) + 200 - numbers[-1] == 100
    assert np.median(bursts) == 5


@given(st.integers(1, 400), st.floats(0.01, 0.95), st.integers(0, 99))
@example(2, 0.9, 0)
@example(200, 0.34, 0)
def test_so_many_frames_are_left(frames: int, share: float, seed: int) -> None:
    left = remaining(frames, share, np.random.default_rng(seed))
    assert left[0] == 0
    assert (np.diff(left) > 0).all()
    assert left[-1] < frames
    lost = min(round(share * (frames - 1)), max(frames - 2, 0))
    assert len(left) == frames - lost
    gaps = np.diff(np.append(left, frames)) - 1
    bursts = set(gaps[gaps > 0].tolist())
    assert gaps.sum() == lost
    assert len(bursts) <= 1 or max(bursts) == min(bursts) + 1


def red_share(pair: FramePair, box: Box) -> float:
    """The share of a box that is pure red."""
    assert pair.rgb is not None
    x, y, w, h = (int(value) for value in box.xywh)
    return float((pair.rgb[y : y + h, x : x + w] == (255, 0, 0)).all(-1).mean())


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("frames", [5, 20, 80])
def test_an_occluder_hides_the_target_and_goes(bits: int, frames: int) -> None:
    """The target's pixels are counted: what is left of it decides on the box."""
    source = walk(600, thermal_bits=bits)
    worse = corrupted(source, CorruptionChoice("occlusion", frames))
    shares = []
    for index, (before, after) in enumerate(zip(source.boxes, worse.boxes, strict=True)):
        pair = worse.pair(index)
        assert before is not None
        assert pair.thermal is not None
        share = red_share(pair, before)
        x, y, w, h = (int(value) for value in before.xywh)
        hot = (pair.thermal[y : y + h, x : x + w] == (255 if bits == 8 else 40000)).mean()
        assert hot == pytest.approx(share)
        assert after in (None, before)
        if abs(share - 0.2) > 0.07:  # an occluder is drawn at whole pixels
            assert (after is None) == (share < 0.2)
        shares.append(share)
    hidden = np.array(shares) == 0
    edges = np.flatnonzero(np.diff(hidden.astype(int)))
    runs = [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
    assert len(runs) == 4
    for start, end in runs:
        assert frames <= end - start <= frames + 6
        assert shares[max(start - 14, 0)] == 1
        assert shares[min(end + 14, 599)] == 1
    assert {shares[0], shares[-1]} == {1}


def test_an_occluder_has_the_scene_s_colours_and_temperatures() -> None:
    source = walk(200, thermal_bits=16)
    worse = corrupted(source, CorruptionChoice("occlusion", 40))
    index = worse.boxes.index(None) + 10
    box, pair = source.boxes[index], worse.pair(index)
    assert box is not None
    assert pair.rgb is not None
    inside = np.s_[int(box.y) : int(box.y + 24), int(box.x) : int(box.x + 16)]
    heat = thermal_of(worse, index)[inside]
    assert 28000 < heat.min() < heat.max() < 33000
    assert heat.std() > 1
    assert 10 < pair.rgb[inside].mean() < 220
    assert pair.rgb[inside].std() > 3


def test_occlusions_keep_to_frames_with_a_target() -> None:
    worse = corrupted(walk(300, absent=slice(75, 150)), CorruptionChoice("occlusion", 20))
    gone = np.array([box is None for box in worse.boxes])
    runs = np.flatnonzero(np.diff(gone.astype(int))).reshape(-1, 2)
    assert [75, 150] in (runs + 1).tolist()
    assert len(runs) == 3
    assert gone.sum() >= 75 + 2 * 20


@pytest.mark.parametrize("frames", [5, 20, 40])
def test_an_occlusion_finds_the_frames_that_show_the_target(frames: int) -> None:
    """Away for more than half of the sequence, and there only near its end."""
    worse = corrupted(walk(150, absent=slice(1, 75)), CorruptionChoice("occlusion", frames))
    assert sum(box is None for box in worse.boxes[75:]) >= frames
    assert worse.boxes[75] is not None
    assert worse.boxes[-1] is not None


def test_an_occluder_comes_from_one_side_and_leaves_to_the_other() -> None:
    """It crosses half of the picture in 40 frames and the target in 12; meanwhile it slides by 2 · 0.15 widths.

    Before and after, it goes its own way, whatever the target does.
    """
    boxes = np.tile([310.0, 200.0, 20.0, 30.0], (300, 1))
    boxes[:70, 0] -= 9 * np.arange(70, 0, -1)
    boxes[170:, 1] += 3 * np.arange(130)
    sides = set()
    for seed in range(6):
        rectangle = passage(Occlusion(100, 40, 12), boxes, 640, np.random.default_rng(seed))
        covered = rectangle.covered(boxes)
        assert set(range(100, 140)) <= set(np.flatnonzero(covered == 1).tolist()) <= set(range(98, 142))
        np.testing.assert_array_equal(np.flatnonzero(covered > 1e-9), range(89, 151))
        side = np.sign(rectangle.left[139] - rectangle.left[100])
        assert rectangle.left[139] - rectangle.left[100] == pytest.approx(side * 6)
        steps = side * np.diff(rectangle.left)
        assert steps.min() > 0
        np.testing.assert_allclose([*steps[:80], *steps[160:]], 8)
        assert np.ptp(rectangle.top) == 0
        sides.add(float(side))
    assert sides == {-1.0, 1.0}


def test_the_first_box_stays_even_if_the_target_jumps() -> None:
    """Nothing is drawn in the first frame, so nothing is hidden in it."""
    source = walk(20)
    for x in range(-250, 350, 5):
        jumping = Footage(source.pairs, [Box(x, 40, 16, 24), *[Box(50, 40, 16, 24)] * 19])
        assert corrupted(jumping, CorruptionChoice("occlusion", 5)).boxes[0] == jumping.boxes[0]


def test_a_short_sequence_shows_its_target_again() -> None:
    for frames in (12, 20, 45, 90):
        worse = corrupted(walk(frames), CorruptionChoice("occlusion", 80))
        gone = sum(box is None for box in worse.boxes)
        assert int(0.6 * (frames - 1)) <= gone <= 0.7 * frames
        assert worse.boxes[-1] is not None
    tiny = corrupted(walk(8), CorruptionChoice("occlusion", 5))
    assert None not in tiny.boxes


@pytest.mark.parametrize("lacking", ["rgb", "thermal"])
def test_a_sequence_of_one_modality_takes_what_it_can(lacking: str) -> None:
    source = walk(80)
    parts = [FramePair(None, p.thermal) if lacking == "rgb" else FramePair(p.rgb, None) for p in source.pairs]
    single = Footage(parts, source.boxes, "single")
    for name, kind in CORRUPTIONS.items():
        choice = CorruptionChoice(name, kind.severities[1])
        if lacking in kind.needs:
            assert not kind.suits(single.pair(0))
            with pytest.raises(SourceError, match=rf"sequence single cannot have {name}: expected .*=missing"):
                corrupted(single, choice)
        else:
            worse = corrupted(single, choice)
            assert any(
                not equal(worse.pair(i), single.pair(i)) or worse.boxes[i] != single.boxes[i]
                for i in range(len(worse.boxes))
            )
    needing_both = {name for name, kind in CORRUPTIONS.items() if kind.needs_both}
    assert needing_both == {*MISSING, "misalignment", "misalignment-drift", "scale", "rotation"}


@pytest.mark.parametrize(
    ("name", "severity", "seed", "message"),
    [
        ("fog", 1, 0, "unknown corruption 'fog'; known are missing-random, "),
        ("long-gap", 1.5, 0, r"the severity of long-gap is from 0 to 1 \(share of frames\), got 1.5"),
        ("scale", 0.9, 0, r"from 1 to 2 \(times\), got 0.9"),
        ("rotation", float("nan"), 0, "got nan"),
        ("occlusion", 2.5, 0, r"the severity of occlusion is a whole number \(frames\), got 2.5"),
        ("low-light", 2, -1, "a seed is not negative, got -1"),
    ],
)
def test_a_wrong_choice_says_what_would_be_right(name: str, severity: float, seed: int, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        CorruptionChoice(name, severity, seed)
