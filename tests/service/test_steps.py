"""What a lane does with a batch of frames, and that what is wrong with one of them stays with that one."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from duotrack.boxes import Box
from duotrack.errors import BoxError, FrameError
from duotrack.frames import FramePair
from duotrack_client.encoding import Encoding
from duotrack_client.errors import ImageError
from duotrack_client.protocol import Codec, Frame, Payload
from duotrack_service.steps import Job, Step, run

LOSSLESS = Encoding(rgb="png", thermal="png")


def encoded(pair: FramePair, seq: int = 0) -> Frame:
    return Frame(seq, 0, *LOSSLESS.encode(pair))


def damaged(seq: int = 0) -> Frame:
    return Frame(seq, 0, Payload(Codec.JPEG8, b"\xff\xd8 no image"), None)


def test_the_first_frame_starts_and_the_next_follows(match, scene) -> None:
    model = match()
    (first,) = run(model, [Job(encoded(scene.pairs[0]), {}, {0: scene.box}, {"motion": False})])
    assert isinstance(first, Step)
    assert first.results[0].box == scene.box
    assert model.options == [{"motion": False}]
    (second,) = run(model, [Job(encoded(scene.pairs[1]), first.tracks)])
    assert isinstance(second, Step)
    assert second.results[0].box == scene.boxes[1]
    assert second.decode_ms > 0
    assert second.infer_ms > 0


def test_targets_of_one_frame_are_followed_started_anew_and_added(match, scene) -> None:
    model = match()
    (first,) = run(model, [Job(encoded(scene.pairs[0]), {}, {3: Box(100, 100, 30, 30), 0: scene.box})])
    assert isinstance(first, Step)
    assert list(first.results) == [0, 3]
    jobs = [Job(encoded(scene.pairs[4]), first.tracks, {3: scene.boxes[4], 5: Box(10, 90, 20, 20)})]
    (second,) = run(model, jobs)
    assert isinstance(second, Step)
    assert {target: result.box for target, result in second.results.items()} == {
        0: scene.boxes[4],
        3: scene.boxes[4],
        5: Box(10, 90, 20, 20),
    }
    assert second.results[0].score < 1.0 == second.results[3].score


@pytest.mark.parametrize("threads", [0, 2])
def test_each_frame_of_a_batch_has_its_own_outcome(match, scene, threads: int) -> None:
    model = match(max_batch=8)
    (started,) = run(model, [Job(encoded(scene.pairs[0]), {}, {0: scene.box})])
    assert isinstance(started, Step)
    black = FramePair(np.zeros_like(scene.pairs[0].rgb), None)
    jobs = [
        Job(encoded(scene.pairs[1]), started.tracks),
        Job(damaged(), started.tracks),
        Job(encoded(black), started.tracks),
        Job(encoded(scene.pairs[2]), {}, {0: Box(500, 0, 10, 10)}),
        Job(encoded(scene.pairs[3]), started.tracks),
    ]
    if threads:
        with ThreadPoolExecutor(threads) as pool:
            outcomes = run(model, jobs, pool.map)
    else:
        outcomes = run(model, jobs)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Step, ImageError, FrameError, BoxError, Step]
    assert outcomes[0].results[0].box == scene.boxes[1]
    assert outcomes[4].results[0].box == scene.boxes[3]


def test_a_bug_met_with_one_frame_does_not_reach_the_others_of_its_batch(match, scene) -> None:
    class Fragile(match):
        def update(self, work: Sequence[tuple[object, FramePair]]) -> list[object]:
            if any(pair.thermal is None for _, pair in work):
                raise ZeroDivisionError("a bug")
            return super().update(work)

    model = Fragile(max_batch=4)
    (started,) = run(model, [Job(encoded(scene.pairs[0]), {}, {0: scene.box})])
    assert isinstance(started, Step)
    half = FramePair(scene.pairs[1].rgb, None)
    outcomes = run(model, [Job(encoded(pair), started.tracks) for pair in (scene.pairs[1], half, scene.pairs[2])])
    assert [type(outcome) for outcome in outcomes] == [Step, ZeroDivisionError, Step]
