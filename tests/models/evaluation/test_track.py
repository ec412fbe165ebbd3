"""A tracker's run over one sequence, and its table on disk."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from duotrack.boxes import Box
from duotrack.errors import EvaluationError, SourceError
from duotrack.evaluation.track import follow, read_track, write_track
from duotrack.evaluation.trackers import Found, StaticBox
from duotrack.frames import FramePair


class Walk:
    """Ten frames whose reading takes five milliseconds."""

    name = "walk"
    boxes = tuple(Box(10 + index, 10, 20, 20) for index in range(10))

    def pair(self, index: int) -> FramePair:
        time.sleep(0.005)
        return FramePair(np.full((60, 80, 3), index, np.uint8), None)


class Doubting(StaticBox):
    """Half sure, slow, and lost from frame 5."""

    def update(self, pair: FramePair) -> Found:
        time.sleep(0.02)
        assert pair.rgb is not None
        return Found(super().update(pair).box, 0.5, bool(pair.rgb[0, 0, 0] >= 5))


def test_a_track_holds_every_answer_and_its_times() -> None:
    told: list[int] = []
    track = follow(Doubting(), Walk(), lambda: told.append(1))
    assert len(track) == len(told) == 10
    assert track.boxes.tolist() == [[10, 10, 20, 20]] * 10
    assert np.isnan(track.score[0])
    assert track.score[1:].tolist() == [0.5] * 9
    assert track.lost[1:].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert (track.read_ms >= 5).all()
    assert (track.track_ms[1:] >= 20).all()


def test_a_track_comes_back_from_its_file(tmp_path: Path) -> None:
    track = follow(Doubting(), Walk())
    write_track(tmp_path / "frames" / "walk.csv", track)
    again = read_track(tmp_path / "frames" / "walk.csv")
    for name in ("boxes", "score", "lost", "read_ms", "track_ms"):
        np.testing.assert_allclose(getattr(again, name), getattr(track, name), atol=5e-4)


def test_a_tracker_without_confidence_leaves_the_columns_empty(tmp_path: Path) -> None:
    write_track(tmp_path / "walk.csv", follow(StaticBox(), Walk()))
    assert ",,," in (tmp_path / "walk.csv").read_text().splitlines()[3]
    assert np.isnan(read_track(tmp_path / "walk.csv").lost).all()


@pytest.mark.parametrize("text", ["", "frame,x\n0,1\n", "frame,x,y,w,h,score,lost,read_ms,track_ms\n0,a,1,1,1,,,1,1\n"])
def test_a_damaged_table_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "walk.csv").write_text(text)
    with pytest.raises(EvaluationError, match=r"walk\.csv is not a track"):
        read_track(tmp_path / "walk.csv")


def test_a_sequence_that_starts_without_its_target_is_named() -> None:
    class Late(Walk):
        boxes = (None, Box(1, 1, 5, 5))

    with pytest.raises(SourceError, match="sequence walk starts without its target"):
        follow(StaticBox(), Late())
