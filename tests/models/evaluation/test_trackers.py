"""Trackers behind one interface: each follows a bright square, sees only its modality, and says when it is lost."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from duotrack.boxes import Box
from duotrack.errors import EvaluationError
from duotrack.evaluation.trackers import OneModality, OpenCVTracker, StaticBox, TrackerChoice
from duotrack.frames import FramePair

SIZE = 24


def square(x: float, y: float, *, rgb: bool = True, thermal: bool = True, bits: int = 8) -> FramePair:
    """A textured square on a plain ground, in the modalities asked for."""
    rng = np.random.default_rng(3)
    texture = rng.integers(120, 256, (SIZE, SIZE))
    image = np.full((120, 160), 40)
    image[round(y) : round(y) + SIZE, round(x) : round(x) + SIZE] = texture
    grey = image.astype(np.uint8) if bits == 8 else (image * 20 + 28_000).astype(np.uint16)
    colour = np.repeat(image.astype(np.uint8)[..., None], 3, 2) if rgb else None
    return FramePair(colour, grey if thermal else None)


@pytest.mark.parametrize(("modality", "bits"), [("rgb", 8), ("thermal", 8), ("thermal", 16)])
def test_an_opencv_tracker_follows_in_its_modality(modality: str, bits: int) -> None:
    cv2.setRNGSeed(1)
    tracker = TrackerChoice("mil", modality).open().tracker  # type: ignore[arg-type]
    hidden = {"rgb": modality == "rgb", "thermal": modality == "thermal"}
    tracker.init(square(40, 40, bits=bits, **hidden), Box(40, 40, SIZE, SIZE))
    for step in range(1, 11):
        found = tracker.update(square(40 + 2 * step, 40 + step, bits=bits, **hidden))
    assert found.box.iou(Box(60, 50, SIZE, SIZE)) > 0.2  # a box that stayed has 0.05; MIL draws at random
    assert found.lost is False


def test_an_opencv_tracker_waits_while_its_modality_is_missing() -> None:
    tracker = TrackerChoice("mil", "thermal").open().tracker
    tracker.init(square(40, 40), Box(40, 40, SIZE, SIZE))
    before = tracker.update(square(41, 40))
    found = tracker.update(square(42, 40, thermal=False))
    assert found.box == before.box
    assert found.lost is True


def test_with_both_modalities_opencv_sees_colour_where_there_is_colour() -> None:
    seen: list[np.ndarray] = []

    class Spy:
        def init(self, image: np.ndarray, box: tuple[int, ...]) -> None:
            seen.append(image)
            assert box == (0, 0, 30, 20)

    colour = np.zeros((20, 30, 3), np.uint8)
    colour[..., 0] = 200  # red, which is last in OpenCV's order
    OpenCVTracker(Spy).init(FramePair(colour, np.full((20, 30), 9, np.uint8)), Box(-4, -4, 40, 40))
    OpenCVTracker(Spy).init(FramePair(None, np.full((20, 30), 9, np.uint8)), Box(-4, -4, 40, 40))
    assert seen[0][0, 0].tolist() == [0, 0, 200]
    assert seen[1][0, 0].tolist() == [9, 9, 9]


def test_one_modality_hides_the_other() -> None:
    class Spy(StaticBox):
        def update(self, pair: FramePair):  # type: ignore[no-untyped-def]
            assert pair.rgb is None
            assert pair.thermal is not None
            return super().update(pair)

    tracker = OneModality(Spy(), "thermal")
    tracker.init(square(40, 40), Box(40, 40, SIZE, SIZE))
    assert tracker.update(square(41, 40)).lost is None
    assert tracker.update(square(41, 40, thermal=False)).lost is True
    with pytest.raises(EvaluationError, match="first pair has no thermal"):
        tracker.init(square(40, 40, thermal=False), Box(40, 40, SIZE, SIZE))


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(EvaluationError, match=r"unknown tracker 'sort'; known are duotrack, csrt"):
        TrackerChoice("sort")
    with pytest.raises(EvaluationError, match="unknown modality 'infrared'"):
        TrackerChoice("static", "infrared")  # type: ignore[arg-type]


def test_unknown_switches_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"unknown switch 'magic'; known are motion"):
        TrackerChoice("duotrack", without=("magic",))
    with pytest.raises(EvaluationError, match=r"known are none for static"):
        TrackerChoice("static", without=("motion",))


def test_a_switch_is_off_or_on() -> None:
    with pytest.raises(EvaluationError, match="expected a switch to be off or on, got 'motion' for both"):
        TrackerChoice("duotrack", without=("health", "motion"), with_=("motion",))


@pytest.mark.skipif(hasattr(cv2, "TrackerCSRT_create"), reason="this OpenCV has CSRT: nothing to refuse")
def test_a_tracker_that_this_opencv_lacks_is_named_with_its_package() -> None:
    with pytest.raises(EvaluationError, match="without csrt: it is in opencv-contrib-python-headless"):
        TrackerChoice("csrt").open()


def test_the_static_box_stays() -> None:
    tracker = TrackerChoice("static").open().tracker
    tracker.init(square(40, 40), Box(40, 40, SIZE, SIZE))
    assert tracker.update(square(90, 60)).box == Box(40, 40, SIZE, SIZE)
