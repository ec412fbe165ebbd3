"""Whose turn it is: work-conserving, fair between sessions, and the newest frame when the turn has come."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from duotrack_client.encoding import Encoding
from duotrack_client.protocol import Frame
from duotrack_service.scheduler import Scheduler
from duotrack_service.steps import Job, Step


@pytest.fixture
def job(scene) -> Job:
    return Job(Frame(0, 0, *Encoding().encode(scene.pairs[0])), {}, {0: scene.box})


class Held:
    """Lets a model's starts wait, and notes how many ran at once and in which order."""

    def __init__(self, model_class: type, **options: int) -> None:
        self.gate = threading.Event()
        self.running = self.most = 0
        self.order: list[float] = []
        lock = threading.Lock()
        held = self

        class Model(model_class):
            def start(self, pair, box, options):
                with lock:
                    held.running += 1
                    held.most = max(held.most, held.running)
                    held.order.append(box.x)
                assert held.gate.wait(10)
                with lock:
                    held.running -= 1
                return super().start(pair, box, options)

        self.model = Model(**options)


@pytest.fixture
def schedulers() -> Iterator[list[Scheduler]]:
    made: list[Scheduler] = []
    yield made
    for scheduler in made:
        scheduler.close()


def moved(job: Job, x: float) -> Job:
    box = job.starts[0]
    return Job(job.frame, {}, {0: type(box)(x, box.y, box.w, box.h)})


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("lanes", [1, 3])
async def test_as_many_frames_are_under_way_as_there_are_lanes(match, job, schedulers, lanes: int) -> None:
    held = Held(match, lanes=lanes)
    scheduler = Scheduler(held.model)
    schedulers.append(scheduler)
    steps = [asyncio.create_task(scheduler.step(lambda: job)) for _ in range(5)]
    await until(lambda: held.running == lanes)
    assert scheduler.waiting == 5 - lanes
    held.gate.set()
    assert all(isinstance(step, Step) for step in await asyncio.gather(*steps))
    assert held.most == lanes


async def test_turns_go_round_whoever_has_how_much(match, job, schedulers) -> None:
    held = Held(match)
    scheduler = Scheduler(held.model)
    schedulers.append(scheduler)

    async def session(x: float, frames: int) -> None:
        for _ in range(frames):
            await scheduler.step(lambda: moved(job, x))

    greedy = asyncio.create_task(session(1, 9))
    await until(lambda: held.running == 1)
    polite = [asyncio.create_task(session(x, 1)) for x in (2, 3)]
    await asyncio.sleep(0)
    held.gate.set()
    await asyncio.gather(greedy, *polite)
    assert held.order == [1, 2, 3, *[1] * 8]


async def test_a_free_lane_takes_all_that_waits_as_one_batch(match, job, schedulers) -> None:
    sizes: list[int] = []
    held = Held(match, max_batch=4)
    scheduler = Scheduler(held.model, lambda size, _: sizes.append(size), decode_threads=2)
    schedulers.append(scheduler)
    first = asyncio.create_task(scheduler.step(lambda: job))
    await until(lambda: held.running == 1)
    rest = [asyncio.create_task(scheduler.step(lambda: job)) for _ in range(6)]
    await asyncio.sleep(0)
    held.gate.set()
    await asyncio.gather(first, *rest)
    assert sizes == [1, 4, 2]


async def test_which_frame_it_is_is_asked_when_the_turn_has_come(match, job, schedulers) -> None:
    held = Held(match)
    scheduler = Scheduler(held.model)
    schedulers.append(scheduler)
    newest = moved(job, 5)
    first = asyncio.create_task(scheduler.step(lambda: job))
    await until(lambda: held.running == 1)
    second = asyncio.create_task(scheduler.step(lambda: newest))
    nothing = asyncio.create_task(scheduler.step(lambda: None))
    await asyncio.sleep(0)
    newest = moved(job, 7)
    held.gate.set()
    await asyncio.gather(first, second)
    assert held.order[1] == 7
    assert await nothing is None


async def test_who_gives_up_waiting_costs_no_turn(match, job, schedulers) -> None:
    held = Held(match)
    scheduler = Scheduler(held.model)
    schedulers.append(scheduler)
    first = asyncio.create_task(scheduler.step(lambda: job))
    await until(lambda: held.running == 1)
    asked = []
    gone = asyncio.create_task(scheduler.step(lambda: asked.append(1)))
    last = asyncio.create_task(scheduler.step(lambda: moved(job, 3)))
    await asyncio.sleep(0)
    gone.cancel()
    first.cancel()  # its step runs on, and its lane comes free
    await asyncio.gather(first, gone, return_exceptions=True)
    held.gate.set()
    assert isinstance(await last, Step)
    assert asked == []


async def test_an_error_is_of_the_one_who_met_it(match, job, schedulers) -> None:
    scheduler = Scheduler(match(max_batch=2))
    schedulers.append(scheduler)
    good, bad = await asyncio.gather(
        scheduler.step(lambda: job), scheduler.step(lambda: moved(job, 5000)), return_exceptions=True
    )
    assert isinstance(good, Step)
    assert "outside" in str(bad)


async def test_closing_lets_no_one_wait(match, job) -> None:
    held = Held(match)
    scheduler = Scheduler(held.model)
    first = asyncio.create_task(scheduler.step(lambda: job))
    await until(lambda: held.running == 1)
    second = asyncio.create_task(scheduler.step(lambda: job))
    await asyncio.sleep(0)
    held.gate.set()
    scheduler.close()
    outcomes = await asyncio.gather(first, second, return_exceptions=True)
    assert isinstance(outcomes[0], Step)
    assert isinstance(outcomes[1], asyncio.CancelledError)
