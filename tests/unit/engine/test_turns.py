"""Many tasks that start at once take turns, and the loop serves others between two of them."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref

from local_llms.engine.turns import Turns


async def test_one_after_the_other_with_others_between() -> None:
    turns, order = Turns(), []

    async def prepare(number: int) -> None:
        await turns.next()
        order.append(number)

    async def other() -> None:
        for _ in range(200):
            order.append("other")
            await asyncio.sleep(0)

    aside = asyncio.create_task(other())
    await asyncio.gather(*(prepare(number) for number in range(20)))
    aside.cancel()
    places = [place for place, what in enumerate(order) if what != "other"]
    assert [order[place] for place in places] == list(range(20))
    assert all(later - earlier > 1 for earlier, later in itertools.pairwise(places)), order


async def test_who_is_cancelled_leaves_the_line() -> None:
    turns = Turns()
    waiting = [asyncio.create_task(turns.next()) for _ in range(5)]
    for task in waiting[:3]:
        task.cancel()
    assert [type(one) for one in await asyncio.gather(*waiting, return_exceptions=True)] == [
        *[asyncio.CancelledError] * 3,
        *[type(None)] * 2,
    ]
    await asyncio.wait_for(turns.next(), 5)


def test_every_loop_has_turns_of_its_own() -> None:
    turns = Turns()

    async def many() -> None:
        await asyncio.gather(*(turns.next() for _ in range(5)))

    for _ in range(3):
        asyncio.run(many())


def test_a_loop_that_has_ended_is_let_go() -> None:
    turns, loops = Turns(), []

    async def many() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        waiting = [asyncio.create_task(turns.next()) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[2].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    for _ in range(3):
        asyncio.run(many())
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3
