import asyncio

import pytest

from duotrack_client.protocol import Mode
from duotrack_service.inbox import Inbox


@pytest.fixture
def dropped() -> list[int]:
    return []


def take_all(inbox: Inbox[int]) -> list[int]:
    taken = []
    while (item := inbox.take()) is not None:
        taken.append(item)
    return taken


def test_every_frame_is_a_queue(dropped: list[int]) -> None:
    inbox = Inbox[int](Mode.EVERY_FRAME, dropped.append)
    for item in range(5):
        inbox.put(item)
    assert take_all(inbox) == [0, 1, 2, 3, 4]
    assert dropped == []


def test_live_keeps_the_newest(dropped: list[int]) -> None:
    inbox = Inbox[int](Mode.LIVE, dropped.append)
    for item in range(5):
        inbox.put(item)
    assert take_all(inbox) == [4]
    assert dropped == [0, 1, 2, 3]


def test_live_keeps_what_is_to_be_kept_and_the_newest_after_it(dropped: list[int]) -> None:
    inbox = Inbox[int](Mode.LIVE, dropped.append)
    for item in range(6):
        inbox.put(item, keep=item in (0, 3))
    assert take_all(inbox) == [0, 3, 5]
    assert dropped == [1, 2, 4]


@pytest.mark.parametrize("mode", list(Mode))
async def test_wait_is_for_an_item_or_the_end(mode: Mode) -> None:
    inbox = Inbox[int](mode)
    waiting = asyncio.create_task(inbox.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    inbox.put(1)
    assert await waiting
    assert inbox.take() == 1
    waiting = asyncio.create_task(inbox.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    inbox.close()
    assert not await waiting


async def test_a_closed_inbox_hands_out_nothing_and_drops_all(dropped: list[int]) -> None:
    inbox = Inbox[int](Mode.EVERY_FRAME, dropped.append)
    inbox.put(1)
    inbox.close()
    inbox.put(2)
    assert not await inbox.wait()
    assert inbox.take() is None
    assert dropped == [1, 2]
