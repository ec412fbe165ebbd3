import asyncio

from duotrack_service.budget import Budget


async def test_whoever_finds_it_spent_waits_until_less_than_the_limit_is_in_use() -> None:
    budget = Budget(100)
    budget.take(60)
    await asyncio.wait_for(budget.room(), 1)
    budget.take(60)  # a message that has come already counts, whatever is left
    waiting = [asyncio.create_task(budget.room()) for _ in range(2)]
    await asyncio.sleep(0)
    budget.give_back(20)
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    budget.give_back(1)
    await asyncio.wait_for(asyncio.gather(*waiting), 1)
    assert budget.used == 99
