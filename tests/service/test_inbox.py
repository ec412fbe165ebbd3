import asyncio

import pytest

from duotrack_client.protocol import Mode
from duotrack_service.inbox import Inbox


async def take(inbox: Inbox[int], count: int) -> list[int | None]:
    return [await asyncio.wait_for(inbox.get(), 1) for _ in range(count)]


async def test_every_frame_is_a_queue() -> None:
    inbox: Inbox[int] = Inbox(Mode.EVERY_FRAME, started=False)
    for item in range(5):
        inbox.put(item)
    assert await take(inbox, 5) == [0, 1, 2, 3, 4]


async def test_live_keeps_the_newest() -> None:
    inbox: Inbox[int] = Inbox(Mode.LIVE, started=True)
    for item in range(5):
        inbox.put(item)
    assert await take(inbox, 1) == [4]
    inbox.put(5)
    inbox.put(6)
    assert await take(inbox, 1) == [6]


async def test_live_keeps_the_first_of_a_new_session_too() -> None:
    inbox: Inbox[int] = Inbox(Mode.LIVE, started=False)
    for item in range(5):
        inbox.put(item)
    assert await take(inbox, 2) == [0, 4]
    for item in (5, 6, 7):
        inbox.put(item)
    assert await take(inbox, 1) == [7]


@pytest.mark.parametrize("mode", list(Mode))
async def test_get_waits_for_an_item_or_the_end(mode: Mode) -> None:
    inbox: Inbox[int] = Inbox(mode, started=True)
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    inbox.put(1)
    assert await waiting == 1
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    inbox.close()
    assert await waiting is None


async def test_a_closed_inbox_hands_out_nothing_more() -> None:
    inbox: Inbox[int] = Inbox(Mode.EVERY_FRAME, started=True)
    inbox.put(1)
    inbox.close()
    assert await take(inbox, 2) == [None, None]
