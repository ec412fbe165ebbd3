"""Pictures of failures: the right sequences, the right moments, and what is in the pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.errors import EvaluationError
from duotrack.evaluation.report import FailurePicture, ReportInputs, failure_pictures, page
from duotrack.evaluation.scores import Axes, BenchmarkScore, Curves, SequenceScore
from duotrack.evaluation.sequences import Boxes
from duotrack.frames import FramePair

WIDTH, HEIGHT = 640, 480
HOME = (300.0, 200.0, 40.0, 30.0)


@dataclass
class Still:
    """A target that stays at ``HOME``; the frames' brightness is their number."""

    name: str
    frames: int = 60
    absent: Sequence[int] = ()
    attributes: Sequence[str] = ()
    rgb: bool = True
    thermal: str | None = "uint8"
    asked: list[int] = field(default_factory=list)

    @property
    def boxes(self) -> list[Box | None]:
        return [None if index in self.absent else Box(*HOME) for index in range(self.frames)]

    def pair(self, index: int) -> FramePair:
        self.asked.append(index)
        colour = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        colour[..., 0] = 4 * index  # red
        thermal = None if self.thermal is None else np.full((HEIGHT, WIDTH), 3 * index, self.thermal)
        return FramePair(colour if self.rgb else None, thermal)


def track(frames: int = 60, **shifts: tuple[slice, float]) -> Boxes:
    """Boxes at ``HOME``, moved right by a share of its width in some frames."""
    boxes = np.tile(np.array(HOME), (frames, 1))
    for part, share in shifts.values():
        boxes[part, 0] += share * HOME[2]
    return boxes


def pictured(sequence: Still, boxes: Boxes, others: dict[str, Boxes] | None = None) -> tuple[FailurePicture, ...]:
    found = {"first": boxes, **(others or {})}
    return failure_pictures([sequence], {label: {sequence.name: entry} for label, entry in found.items()})


def moments(picture: FailurePicture) -> list[tuple[int, str]]:
    return [(shot.frame, shot.moment) for shot in picture.shots]


def image(data: bytes | None) -> NDArray[np.uint8]:
    assert data is not None
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def test_the_loss_is_where_the_overlap_stays_low() -> None:
    # a jump of 5 frames, then one that stays; between 20 and 30 the box is half off (IoU 1/3)
    boxes = track(jump=(slice(10, 15), 3.0), half=(slice(20, 30), 0.5), lost=(slice(30, None), 2.0))
    (picture,) = pictured(Still("a"), boxes)
    assert moments(picture) == [(0, "first frame"), (19, "before"), (30, "lost")]
    assert picture.frame == 30
    assert "first lost the target in frame 30 of 59; frame 19 was the last good one before" in picture.caption
    # of frames 1 to 59, 14 + 10 are good to 1 or lost to 0: (59 - 5 - 10 - 30) and 10 thirds
    assert f"Mean IoU {(14 + 10 / 3) / 59:.2f}." in picture.caption
    assert [round(shot.overlaps["first"] or 0, 3) for shot in picture.shots] == [1.0, 1.0, 0.0]


def test_ten_bad_frames_are_a_loss_and_nine_are_not() -> None:
    (nine,) = pictured(Still("a"), track(bad=(slice(20, 29), 2.0)))
    (ten,) = pictured(Still("a"), track(bad=(slice(20, 30), 2.0)))
    assert moments(nine)[-1] == (20, "lowest overlap")
    assert moments(ten)[-1] == (20, "lost")


def test_frames_without_the_target_do_not_count() -> None:
    absent = range(20, 40)
    (picture,) = pictured(Still("a", absent=absent), track(lost=(slice(25, None), 2.0)))
    assert moments(picture) == [(0, "first frame"), (19, "before"), (40, "lost")]


def test_a_tracker_that_never_tracked() -> None:
    (picture,) = pictured(Still("a"), track(lost=(slice(1, None), 2.0)))
    assert moments(picture) == [(0, "first frame"), (1, "lost")]


def test_what_went_well_is_not_shown() -> None:
    assert pictured(Still("a"), track(half=(slice(20, 30), 0.2))) == ()  # IoU 2/3
    assert failure_pictures([Still("a")], {}) == ()
    assert failure_pictures([Still("a")], {"first": {"b": track()}}) == ()


def test_losses_come_first_then_the_worst() -> None:
    found = {
        "dips": track(bad=(slice(1, 60, 2), 2.0)),
        "late": track(lost=(slice(50, None), 2.0)),
        "early": track(lost=(slice(5, None), 2.0)),
        "fine": track(),
    }
    sequences = [Still(name) for name in found]
    pictures = failure_pictures(sequences, {"first": found}, count=2)
    assert [picture.sequence for picture in pictures] == ["early", "late"]
    assert [picture.sequence for picture in failure_pictures(sequences, {"first": found})] == ["early", "late", "dips"]
    assert failure_pictures(sequences, {"first": found}, count=0) == ()


def test_only_the_frames_that_are_shown_are_read() -> None:
    sequences = [Still("early"), Still("late")]
    found = {"early": track(lost=(slice(5, None), 2.0)), "late": track(lost=(slice(50, None), 2.0))}
    failure_pictures(sequences, {"first": found}, count=1)
    assert [sequence.asked for sequence in sequences] == [[0, 4, 5], []]


def test_pictures_show_the_window_of_the_frames() -> None:
    (picture,) = pictured(Still("a"), track(lost=(slice(30, None), 2.0)))
    x, y, width, height = picture.window
    # boxes from 300 to 420 and 200 to 230, with twice √1200 px around: 189 of 640, less than a third, which it gets
    assert (width, height) == (213, 160)
    assert (x, y) == (254, 135)  # around (360, 215), to whole pixels
    for shot in picture.shots:
        colour, thermal = image(shot.colour), image(shot.thermal)
        assert colour.shape == thermal.shape == (160, 213, 3)
        np.testing.assert_allclose(colour.mean((0, 1)), (4 * shot.frame, 0, 0), atol=2)
        np.testing.assert_allclose(thermal.mean((0, 1)), 3 * shot.frame, atol=2)
    assert picture.shots[-1].boxes["first"] == (380.0, 200.0, 40.0, 30.0)
    assert picture.shots[-1].truth == HOME


def test_pictures_are_small() -> None:
    class Noise(Still):
        def pair(self, index: int) -> FramePair:
            noise = np.random.default_rng(index).integers(0, 256, (960, 1280, 4), np.uint8)
            return FramePair(np.ascontiguousarray(noise[..., :3]), np.ascontiguousarray(noise[..., 3]))

    (picture,) = pictured(Noise("a"), track(lost=(slice(30, None), 15.0)))
    assert picture.window[2] > 480
    for shot in picture.shots:
        assert image(shot.colour).shape[1] == 480
        # noise is the worst case: 36 of these as base64 are 4.3 MB
        assert len(shot.colour or b"") < 90_000
        assert len(shot.thermal or b"") < 90_000


def test_radiometric_thermal_is_spread_over_eight_bits() -> None:
    class Warm(Still):
        def pair(self, index: int) -> FramePair:  # noqa: ARG002
            ramp = np.linspace(29_000, 31_000, WIDTH).astype(np.uint16)
            return FramePair(None, np.tile(ramp, (HEIGHT, 1)))

    (picture,) = pictured(Warm("a"), track(lost=(slice(30, None), 2.0)))
    shown = image(picture.shots[0].thermal)
    # the window is columns 254 to 467 of 640, and a tenth is left at either end of the range: 0.4 and 0.7 of it
    assert 90 < int(shown[:, 0].mean()) < 110
    assert 170 < int(shown[:, -1].mean()) < 190
    assert picture.shots[0].colour is None


def test_other_trackers_are_shown_where_they_have_the_sequence() -> None:
    nan = track()
    nan[30] = np.nan
    others = {"second": track(), "third": nan}
    (picture,) = pictured(Still("a"), track(lost=(slice(30, None), 2.0)), others)
    lost = picture.shots[-1]
    assert lost.overlaps == {"first": 0.0, "second": 1.0, "third": 0.0}
    assert set(lost.boxes) == {"first", "second"}


def test_boxes_of_another_number_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"sequence a: 60 frames need boxes of shape \(60, 4\), got \(59, 4\)"):
        pictured(Still("a"), track(59))


# on the page


def report_page(*pictures: FailurePicture) -> str:
    curves = Curves(np.array([0.0, 1]), np.array([1.0, 0]))
    sequence = SequenceScore("a", 59, {"PR": 0.5, "SR": 0.4}, curves, 0.4)
    score = BenchmarkScore(
        "set", "first", {"PR": 0.5, "SR": 0.4}, Axes(np.array([0.0, 50]), np.array([0.0, 1])), curves, (sequence,)
    )
    return page(ReportInputs((score,), failures=pictures))


def test_the_page_shows_boxes_overlaps_and_missing_modalities() -> None:
    (picture,) = pictured(Still("a", thermal=None), track(lost=(slice(30, None), 2.0)), {"<b>": track()})
    text = report_page(picture)
    assert text.count("data:image/jpeg;base64,") == 3
    assert text.count("no thermal frame") == 3
    assert '<rect class="outline c1 d1" x="380" y="200" width="40" height="30"><title>first: IoU 0.00</title>' in text
    assert "first: IoU 0.00" in text
    assert "&lt;b&gt;: IoU 1.00" in text
    assert "<b>" not in text
    assert '<a href="#b0-failure-0">a</a>' in text  # from the table of sequences
    assert 'id="b0-failure-0"' in text


def test_an_absent_target_has_no_outline() -> None:
    (picture,) = pictured(Still("a"), track(lost=(slice(30, None), 2.0)))
    absent = replace(picture.shots[-1], truth=None, overlaps={"first": None})
    text = report_page(replace(picture, shots=(absent,)))
    assert "target absent" in text
    assert "first: IoU –" in text
    assert "<title>truth</title>" not in text


def test_pictures_of_another_benchmark_get_a_section() -> None:
    (picture,) = pictured(Still("a"), track(lost=(slice(30, None), 2.0)))
    assert "<h2>other</h2>" in report_page(replace(picture, benchmark="other"))


def test_the_record_leaves_the_pixels_out() -> None:
    (picture,) = pictured(Still("a"), track(lost=(slice(30, None), 2.0)))
    record = json.loads(json.dumps(picture.to_record(), allow_nan=False))
    assert record["sequence"] == "a"
    assert [shot["frame"] for shot in record["shots"]] == [0, 29, 30]
    assert record["shots"][-1]["boxes"] == {"first": [380.0, 200.0, 40.0, 30.0]}
    assert "colour" not in record["shots"][0]
