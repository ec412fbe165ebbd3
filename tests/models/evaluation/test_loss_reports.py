"""Loss reports: tracks worked out by hand, and a plain loop beside the judge on random ones."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duotrack.errors import EvaluationError
from duotrack.evaluation.loss_reports import LossTrack, judge_losses, losses
from duotrack.evaluation.scores import LossReports


def track(present: str, lost: str, overlap: list[float] | None = None) -> LossTrack:
    """From marks, one a frame: ``#`` where something is so, ``.`` where not. Overlap is 0.8 where there is a target."""
    there = np.array([mark == "#" for mark in present])
    values = 0.8 * there if overlap is None else np.array(overlap)
    return LossTrack(there, np.array([mark == "#" for mark in lost]), values)


def test_a_loss_reported_and_found_again() -> None:
    """Gone in frames 4 to 11, reported from frame 6 on; back in frame 12, said to be lost until frame 13."""
    judged = judge_losses([track("####........########", "......########......")])
    assert judged == LossReports(
        losses=1,
        reported=1.0,
        delay=2.0,
        within_10=1.0,
        false_alarms=2 / 11,  # frames 12 and 13 of the visible 1-3 and 12-19
        missed=0.0,
        returns=1,
        found_within_30=1.0,
        unfounded=2 / 11,  # the box was on it
    )


def test_who_says_lost_all_the_time_reports_at_once_and_pays_in_false_alarms() -> None:
    judged = judge_losses([track("###......###", "############")])
    assert (judged.delay, judged.within_10, judged.false_alarms) == (0.0, 1.0, 1.0)


def test_losses_that_are_reported_late_or_never() -> None:
    """Delays 0, 10, 11, and one never: a report after the return is none."""
    tracks = [
        track("#" + "." * 20 + "##", "." + "#" * 20 + ".."),
        track("#" + "." * 20 + "##", "." * 11 + "#" * 10 + ".."),
        track("#" + "." * 20 + "##", "." * 12 + "#" * 9 + ".."),
        track("#" + "." * 20 + "##", "." * 21 + "##"),
    ]
    judged = judge_losses(tracks)
    assert (judged.losses, judged.reported, judged.delay, judged.within_10) == (4, 0.75, 10.0, 0.5)
    assert judged.false_alarms == 2 / 8


def test_flicker_is_no_loss() -> None:
    assert losses(track("##....##.....##", "." * 15).present) == [(8, 13)]
    judged = judge_losses([track("##....##", "..####..")])
    assert (judged.losses, judged.reported, judged.delay, judged.within_10) == (0, None, None, None)
    assert (judged.returns, judged.found_within_30, judged.false_alarms) == (0, None, 0.0)


def test_a_loss_starts_after_the_first_frame_and_may_last_to_the_end() -> None:
    assert losses(track("......##.....", "." * 13).present) == [(8, 13)]
    judged = judge_losses([track("......##.....", "." * 13)])
    assert (judged.losses, judged.reported, judged.returns) == (1, 0.0, 0)


@pytest.mark.parametrize(("after", "found"), [(0, 1.0), (30, 1.0), (31, 0.0)])
def test_finding_again_counts_within_30_frames_of_the_return(after: int, found: float) -> None:
    """The target is back in frame 10; the box is on it, at IoU 0.5, so many frames later and only there."""
    overlap = [0.8] * 4 + [0.0] * 6 + [0.49] * 50
    overlap[10 + after] = 0.5
    judged = judge_losses([track("#" * 4 + "." * 6 + "#" * 50, "." * 60, overlap)])
    assert (judged.returns, judged.found_within_30) == (1, found)


def test_a_box_beside_a_visible_target_is_missed_unless_it_is_said() -> None:
    """Frames 1 to 4 are judged: off and silent, off and said, on, absent."""
    judged = judge_losses([track("####.", "..#..", [0.0, 0.0, 0.0, 0.1, 0.0])])
    assert (judged.missed, judged.false_alarms, judged.unfounded) == (1 / 3, 1 / 3, 0.0)


def test_an_alarm_is_unfounded_where_the_box_was_on_the_target() -> None:
    """Frames 1 to 4 are judged, and all are alarms; from an IoU of 0.5 on the tracker had not lost anything."""
    judged = judge_losses([track("#####", "#####", [0.0, 0.49, 0.5, 0.9, 0.0])])
    assert (judged.false_alarms, judged.unfounded) == (1.0, 2 / 4)


def test_frames_of_all_sequences_count_alike() -> None:
    judged = judge_losses([track("###", ".##"), track("#" * 9, "." * 9)])
    assert judged.false_alarms == 2 / 10


def test_nothing_to_judge() -> None:
    nothing = LossReports(0, None, None, None, None, None, 0, None)
    assert judge_losses([]) == nothing
    assert judge_losses([track("#", "#")]) == nothing


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"must be of one length, got shapes \[\(3,\), \(2,\), \(3,\)\]"):
        LossTrack(np.ones(3, bool), np.ones(2, bool), np.ones(3))


def judged_in_a_loop(tracks: list[LossTrack]) -> LossReports:
    """Frame by frame, as the documentation says it."""
    delays: list[int | None] = []
    found = []
    visible = alarms = unfounded = missed = 0
    for each in tracks:
        frames = len(each.present)
        for frame in range(1, frames):
            if each.present[frame]:
                visible += 1
                alarms += bool(each.lost[frame])
                unfounded += bool(each.lost[frame] and each.overlap[frame] >= 0.5)
                missed += bool(each.overlap[frame] == 0 and not each.lost[frame])
                continue
            if not each.present[frame - 1]:
                continue
            gone = 0
            while frame + gone < frames and not each.present[frame + gone]:
                gone += 1
            if gone < 5:
                continue
            delays.append(next((n for n in range(gone) if each.lost[frame + n]), None))
            back = frame + gone
            if back < frames:
                found.append(any(each.overlap[n] >= 0.5 for n in range(back, min(back + 31, frames))))
    known = [delay for delay in delays if delay is not None]
    return LossReports(
        losses=len(delays),
        reported=len(known) / len(delays) if delays else None,
        delay=float(statistics.median(known)) if known else None,
        within_10=len([delay for delay in known if delay <= 10]) / len(delays) if delays else None,
        false_alarms=alarms / visible if visible else None,
        missed=missed / visible if visible else None,
        returns=len(found),
        found_within_30=sum(found) / len(found) if found else None,
        unfounded=unfounded / visible if visible else None,
    )


@st.composite
def random_tracks(draw: st.DrawFn) -> LossTrack:
    """Runs of presence and absence, with reports that are mostly runs too."""
    runs = draw(st.lists(st.integers(1, 45), min_size=1, max_size=8))
    reports = draw(st.lists(st.integers(1, 25), min_size=1, max_size=12))
    present = np.concatenate([np.full(run, number % 2 == 0) for number, run in enumerate(runs)])
    lost = np.concatenate([np.full(run, number % 2 == 1) for number, run in enumerate(reports)])
    levels = np.random.default_rng(draw(st.integers(0, 99))).choice((0.0, 0.3, 0.49, 0.5, 0.9), len(present))
    return LossTrack(present, np.resize(lost, len(present)), np.where(present, levels, 0.0))


@given(st.lists(random_tracks(), max_size=4))
def test_the_judge_agrees_with_a_plain_loop(tracks: list[LossTrack]) -> None:
    assert judge_losses(tracks) == judged_in_a_loop(tracks)
