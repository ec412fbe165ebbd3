"""The bytes that wait: a limit for all, and a part for each."""

import asyncio

from duotrack_service.budget import Budget


async def test_whoever_finds_it_spent_waits_until_less_than_the_limit_is_in_use() -> None:
    budget = Budget(100)
    for principal in "abc":
        await asyncio.wait_for(budget.room(principal), 1)
        budget.take(principal, 40)  # a message that has come already counts, whatever is left
    waiting = [asyncio.create_task(budget.room(principal)) for principal in ("a", "b", "new")]
    await asyncio.sleep(0)
    budget.give_back("c", 20)  # 100 of 100
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    budget.give_back("c", 11)
    await asyncio.wait_for(asyncio.gather(*waiting), 1)
    assert budget.used == 89


async def test_one_alone_has_four_fifths_and_leaves_the_rest_to_others() -> None:
    budget = Budget(100)
    while budget.used < 80:
        await asyncio.wait_for(budget.room("hog"), 1)
        budget.take("hog", 10)
    hog = asyncio.create_task(budget.room("hog"))
    for _ in range(8):  # its frames stay, and those of another come and go
        await asyncio.wait_for(budget.room("other"), 1)
        budget.take("other", 15)
        await asyncio.sleep(0)
        budget.give_back("other", 15)
    assert not hog.done()
    budget.give_back("hog", 10)
    await asyncio.wait_for(hog, 1)
    assert budget.used == 70
