"""Faults made on purpose: each is noticed in the frame that it begins in, and nothing sound is taken for one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from numpy.typing import NDArray

from duotrack.data.synthetic import Scene, SceneConfig
from duotrack.evaluation.corruptions import CorruptionChoice, corrupted
from duotrack.evaluation.sequences import GeneratedSequence
from duotrack.frames import FramePair
from duotrack.health import DIM, STALE, Examined, Fault, FaultKind, Health, examine

SCENE = [frame.pair for frame in Scene(SceneConfig(width=160, height=120, frames=16, seed=2**41 + 7001, light="day"))]


def through(pairs: Iterable[FramePair]) -> list[Examined]:
    found, health = [], Health()
    for pair in pairs:
        found.append(examine(health, pair))
        health = found[-1].health
    return found


def faults(pairs: Iterable[FramePair]) -> list[tuple[Fault, ...]]:
    return [each.faults for each in through(pairs)]


def rgb(index: int) -> NDArray[np.uint8]:
    colour = SCENE[index].rgb
    assert colour is not None
    return colour


def with_thermal(pair: FramePair, value: int) -> FramePair:
    assert pair.thermal is not None
    return FramePair(pair.rgb, np.full_like(pair.thermal, value))


def with_rgb(pair: FramePair, value: int) -> FramePair:
    assert pair.rgb is not None
    return FramePair(np.full_like(pair.rgb, value), pair.thermal)


def test_sound_frames_pass_as_they_are() -> None:
    for pair, examined in zip(SCENE, through(SCENE), strict=True):
        assert examined.pair is pair
        assert examined.faults == ()


@pytest.mark.parametrize("light", ["day", "dusk", "night"])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_night_frame_that_shows_something_is_sound(light: str, bits: int) -> None:
    config = SceneConfig(width=160, height=120, frames=4, seed=2**41 + 7002, light=light, thermal_bits=bits)  # type: ignore[arg-type]
    assert faults(frame.pair for frame in Scene(config)) == [()] * 4


def test_a_frozen_frame_is_reported_at_once_and_ignored_when_it_is_stale() -> None:
    still = SCENE[3].thermal
    pairs = [*SCENE[:4], *(FramePair(rgb(index), still) for index in range(4, 13)), *SCENE[13:]]
    found = through(pairs)
    for index, examined in enumerate(found):
        repeats = index - 3 if 4 <= index < 13 else 0
        expected = (Fault("thermal", FaultKind.FROZEN, ignored=repeats >= STALE),) if repeats else ()
        assert examined.faults == expected, index
        assert (examined.pair.thermal is None) == (repeats >= STALE)
        assert examined.pair.rgb is not None


def test_a_frozen_colour_frame_is_noticed_alike() -> None:
    found = through([SCENE[0], *(FramePair(rgb(0), pair.thermal) for pair in SCENE[1:8])])
    assert [fault.kind for fault in found[1].faults] == [FaultKind.FROZEN]
    assert found[-1].faults == (Fault("rgb", FaultKind.FROZEN, ignored=True),)
    assert found[-1].pair.rgb is None


def test_one_changed_pixel_in_each_row_is_another_frame() -> None:
    still = np.array(SCENE[0].thermal)
    pairs = []
    for pair in SCENE:
        still = still.copy()
        still[:, 5] ^= 1
        pairs.append(FramePair(pair.rgb, still))
    assert not any(faults(pairs))


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_small_target_is_all_that_moves_in_a_picture_without_noise(mirrored: bool) -> None:
    """Nine pixels of 1080 × 1920, between the rows that are looked at for noise."""
    rng = np.random.default_rng(4)
    still = np.repeat(rng.integers(0, 256, (1080, 1, 3), np.uint8), 1920, axis=1)
    pairs = []
    for index in range(STALE + 2):
        colour = still.copy()
        colour[511:514, 100 + index : 103 + index] = 255 - colour[511:514, 100 + index : 103 + index]
        shown = colour[:, ::-1, ::-1] if mirrored else colour
        pairs.append(FramePair(shown, rng.integers(90, 110, (1080, 1920), np.uint8)))
    assert not any(faults(pairs))


def test_a_paused_video_has_nothing_ignored() -> None:
    """Both repeat themselves: nothing tells that time goes on until it is too long, and then neither is better."""
    found = through([SCENE[0]] * 10)
    assert not any(each.faults for each in found[:STALE])
    for each in found[STALE:]:
        assert {fault.kind for fault in each.faults} == {FaultKind.FROZEN}
        assert not any(fault.ignored for fault in each.faults)
        assert each.pair is SCENE[0]


def test_what_froze_in_a_pause_is_noticed_when_the_other_goes_on() -> None:
    goes_on = FramePair(rgb(1), SCENE[0].thermal)
    frozen = (Fault("thermal", FaultKind.FROZEN, ignored=False),)
    assert faults([SCENE[0], SCENE[0], SCENE[0], goes_on]) == [(), (), (), frozen]
    assert faults([SCENE[0], goes_on, goes_on, SCENE[2]]) == [(), frozen, frozen, ()]  # and stays so in a pause


def test_frozen_stays_frozen_while_the_other_pauses_and_across_gaps() -> None:
    still = SCENE[0].thermal
    colours = [0, 1, 2, 3, 4, 5, 5, None, 5]
    pairs = [FramePair(rgb(0), still), FramePair(rgb(1), still)]
    pairs += [FramePair(rgb(index or 0), None if index is None else still) for index in colours[2:]]
    *_, last_pause, gap, after = through(pairs)
    assert Fault("thermal", FaultKind.FROZEN, ignored=True) in last_pause.faults
    assert gap.faults == (Fault("thermal", FaultKind.MISSING, ignored=True),)
    assert after.faults == (Fault("thermal", FaultKind.FROZEN, ignored=True),)


def test_a_camera_alone_is_never_ignored() -> None:
    found = through([FramePair(None, SCENE[0].thermal)] * (STALE + 2))
    assert [len(each.faults) for each in found] == [0] * STALE + [1, 1]
    assert all(each.pair.thermal is not None for each in found)
    black = examine(Health(), FramePair(np.zeros((40, 60, 3), np.uint8), None))
    assert black.faults == (Fault("rgb", FaultKind.BLANK, ignored=False),)
    assert black.pair.rgb is not None


@pytest.mark.parametrize("value", [0, 2, 128])
def test_a_frame_without_any_contrast_is_blank_from_its_first(value: int) -> None:
    thermal = examine(Health(), with_thermal(SCENE[0], value))
    assert thermal.faults == (Fault("thermal", FaultKind.BLANK, ignored=True),)
    assert thermal.pair.thermal is None
    colour = examine(Health(), with_rgb(SCENE[0], value))
    assert colour.faults == (Fault("rgb", FaultKind.BLANK, ignored=True),)
    assert colour.pair.rgb is None


def test_one_warm_thing_in_a_plain_sky_is_not_blank() -> None:
    """Three pixels of 640 × 480, between the rows that are looked at first."""
    sky = np.full((480, 640), 7000, np.uint16)
    sky[241, 300:303] = 7200
    pair = FramePair(np.random.default_rng(0).integers(100, 200, (480, 640, 3), np.uint8).astype(np.uint8), sky)
    assert examine(Health(), pair).faults == ()
    sky[241, 300:303] = 7000
    assert [fault.kind for fault in examine(Health(), pair).faults] == [FaultKind.BLANK]


@pytest.mark.parametrize("bits", [8, 16])
def test_all_but_a_thousandth_at_the_top_is_saturated(bits: int) -> None:
    rng = np.random.default_rng(1)
    top, dtype = (255, np.uint8) if bits == 8 else (16383, np.uint16)
    for dark, expected in ((0.001, [FaultKind.SATURATED]), (0.01, [])):
        thermal = np.where(rng.random((240, 320)) < dark, 40, top).astype(dtype)
        pair = FramePair(rng.integers(100, 200, (240, 320, 3), np.uint8).astype(np.uint8), thermal)
        assert [fault.kind for fault in examine(Health(), pair).faults] == expected


def test_a_drone_in_an_overexposed_sky_is_tracked_in_colour() -> None:
    colour = np.full((480, 640, 3), 255, np.uint8)
    colour[200:226, 300:330] = 60
    assert examine(Health(), FramePair(colour, SCENE_THERMAL)).faults == ()


SCENE_THERMAL = np.tile(np.asarray(SCENE[0].thermal), (4, 4))


def test_colour_of_ten_stops_less_light_is_noise_and_of_two_is_not() -> None:
    scene = GeneratedSequence(SceneConfig(width=160, height=120, frames=4, seed=2**41 + 7001, light="day"))
    for stops, expected in ((10, [FaultKind.NOISE]), (2, [])):
        pair = corrupted(scene, CorruptionChoice("low-light", stops)).pair(1)
        assert [fault.kind for fault in examine(Health(), pair).faults] == expected


def test_noise_in_the_light_is_kept() -> None:
    rng = np.random.default_rng(2)
    for middle, expected in ((DIM - 20, ["noise"]), (DIM + 40, [])):
        colour = np.clip(rng.normal(middle, 5, (120, 160, 3)), 0, 255).astype(np.uint8)
        assert [fault.kind for fault in examine(Health(), FramePair(colour, SCENE[0].thermal)).faults] == expected


def test_a_camera_that_never_was_is_not_missing() -> None:
    alone = [FramePair(pair.rgb, None) for pair in SCENE]
    assert not any(faults(alone))
    assert faults([SCENE[0], *alone[1:3]])[1:] == [(Fault("thermal", FaultKind.MISSING, ignored=True),)] * 2


def test_where_both_are_faulty_both_are_used() -> None:
    pair = FramePair(np.zeros((120, 160, 3), np.uint8), np.zeros((120, 160), np.uint8))
    found = examine(Health(), pair)
    assert found.pair is pair
    assert [(fault.modality, fault.ignored) for fault in found.faults] == [("rgb", False), ("thermal", False)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (65, 3)])
def test_tiny_frames_are_examined_too(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    for _ in range(3):
        pair = FramePair(rng.integers(0, 60, (*shape, 3), np.uint8).astype(np.uint8), np.zeros(shape, np.uint16))
        examined = examine(Health(), pair)
        assert examined.pair.rgb is not None or examined.pair.thermal is not None


def test_frames_need_not_lie_in_one_piece() -> None:
    turned = [FramePair(np.asarray(pair.rgb)[:, ::-1, ::-1], np.asarray(pair.thermal)[:, ::-1]) for pair in SCENE[:3]]
    assert not any(faults(turned))
    assert turned[0].rgb is not None
    assert len(faults([turned[0], FramePair(turned[1].rgb, turned[0].thermal)])[1]) == 1
