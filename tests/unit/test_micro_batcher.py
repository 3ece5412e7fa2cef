"""A batch is cut when a slot frees: nobody waits for company, nobody waits for a timer."""

import asyncio

import pytest

from handsell.core.errors import RequestError
from handsell.serving.graph.batcher import RECENT, WAITING_BATCHES, MicroBatcher


class Stages:
    """Answers a batch with its doubled queries when told to."""

    def __init__(self):
        self.batches, self.gate = [], asyncio.Event()

    async def run(self, queries):
        self.batches.append(list(queries))
        await self.gate.wait()
        return [2 * q for q in queries]


async def asked(batcher, queries):
    """Tasks that have reached the batcher one after another."""
    tasks = []
    for query in queries:
        tasks.append(asyncio.create_task(batcher.submit(query)))
        for _ in range(3):  # turns of the loop, until the task is there and a batch with a slot is cut
            await asyncio.sleep(0)
    return tasks


async def test_one_request_alone_goes_at_once():
    stages = Stages()
    stages.gate.set()
    assert await asyncio.wait_for(MicroBatcher(stages.run, 16, 2).submit(21), 0.1) == 42


async def test_what_arrives_while_all_slots_are_taken_shares_the_next_trip():
    stages = Stages()
    batcher = MicroBatcher(stages.run, size=4, in_flight=2)
    tasks = await asked(batcher, range(9))
    assert stages.batches == [[0], [1]] and len(batcher) == 7
    stages.gate.set()
    assert await asyncio.gather(*tasks) == [2 * q for q in range(9)]
    assert stages.batches[2:] == [[2, 3, 4, 5], [6, 7, 8]]


async def test_what_arrives_in_one_turn_of_the_loop_shares_a_batch_though_slots_are_free():
    stages = Stages()
    stages.gate.set()
    batcher = MicroBatcher(stages.run, size=4, in_flight=3)
    assert await asyncio.gather(*map(batcher.submit, range(6))) == [0, 2, 4, 6, 8, 10]
    assert stages.batches == [[0, 1, 2, 3], [4, 5]]


async def test_after_a_shared_batch_queries_of_the_next_turns_share_one_and_a_single_one_ends_that():
    stages = Stages()
    stages.gate.set()
    batcher = MicroBatcher(stages.run, size=4, in_flight=3)
    await asyncio.gather(*map(batcher.submit, range(2)))
    tasks = [asyncio.create_task(batcher.submit(2))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(batcher.submit(3)))
    await asyncio.gather(*tasks)
    await batcher.submit(4)
    await asyncio.gather(*await asked(batcher, [5, 6]))
    assert stages.batches == [[0, 1], [2, 3], [4], [5], [6]]


@pytest.mark.parametrize("slots", [1, 3, 40])
async def test_what_free_slots_take_is_not_refused_and_more_than_may_wait_beside_it_is(slots):
    stages = Stages()
    batcher = MicroBatcher(stages.run, size=2, in_flight=slots)
    room = 2 * slots + batcher.capacity
    tasks = [asyncio.create_task(batcher.submit(q)) for q in range(room + 1)]
    await asyncio.sleep(0)
    stages.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, RequestError) for one in found] == [False] * room + [True]


async def test_more_than_may_wait_is_told_to_come_back():
    stages = Stages()
    batcher = MicroBatcher(stages.run, size=1, in_flight=1)
    tasks = await asked(batcher, range(1 + WAITING_BATCHES))
    with pytest.raises(RequestError, match="retry") as refused:
        await batcher.submit(99)
    assert refused.value.status == 503
    stages.gate.set()
    assert len(await asyncio.gather(*tasks)) == 9


async def test_a_failed_trip_reaches_its_callers_and_frees_the_slot():
    fail = True

    async def run(queries):
        if fail:
            raise ValueError("the stage broke")
        return queries

    batcher = MicroBatcher(run, 4, 1)
    with pytest.raises(ValueError, match="broke"):
        await batcher.submit(1)
    fail = False
    assert await batcher.submit(2) == 2


async def test_a_caller_who_hangs_up_is_not_carried_along():
    stages = Stages()
    batcher = MicroBatcher(stages.run, 4, 1)
    first, gone, last = await asked(batcher, (1, 2, 3))
    gone.cancel()
    await asyncio.sleep(0)
    stages.gate.set()
    assert await asyncio.gather(first, last) == [2, 6]
    assert stages.batches == [[1], [3]]


async def test_who_would_wait_too_long_is_told_to_come_back_before_the_queue_is_full():
    stages = Stages()
    stages.gate.set()
    batcher = MicroBatcher(stages.run, size=2, in_flight=1, max_wait_s=0.05)

    async def slow(queries):
        await asyncio.sleep(0.04)
        return [2 * q for q in queries]

    batcher._run = slow
    for _ in range(RECENT // 2 + 1):
        await batcher.submit(1)  # trips take 40 ms from now on
    tasks = await asked(batcher, range(3))  # one under way, two wait: the next would go with the trip after theirs
    with pytest.raises(RequestError) as refused:
        await batcher.submit(99)
    assert refused.value.status == 503 and len(batcher) < WAITING_BATCHES
    assert await asyncio.gather(*tasks) == [0, 2, 4]
    assert await batcher.submit(5) == 10


async def test_only_queries_of_one_kind_share_a_trip_and_none_is_passed_over():
    stages = Stages()
    batcher = MicroBatcher(stages.run, size=3, in_flight=1, kind=lambda q: q % 2)
    tasks = await asked(batcher, [1, 2, 4, 3, 6, 5, 8])
    stages.gate.set()
    assert await asyncio.gather(*tasks) == [2 * q for q in (1, 2, 4, 3, 6, 5, 8)]
    assert stages.batches == [[1], [2, 4, 6], [3, 5], [8]]


async def test_callers_of_a_batch_that_is_cancelled_are_answered():
    async def run(queries):
        raise asyncio.CancelledError

    batcher = MicroBatcher(run, size=2, in_flight=1)
    with pytest.raises(RequestError, match="ending") as refused:
        await asyncio.wait_for(batcher.submit("a"), 10)
    assert refused.value.status == 503


async def test_a_few_batches_that_a_hanging_stage_held_do_not_refuse_those_that_follow():
    hangs = False

    async def run(queries):
        await asyncio.sleep(0.3 if hangs else 0.001)
        return queries

    batcher = MicroBatcher(run, size=2, in_flight=3, max_wait_s=0.1)
    for query in range(10):
        await batcher.submit(query)
    hangs = True
    held = await asked(batcher, range(3))
    hangs = False
    waiting = await asked(batcher, range(6))
    await asyncio.gather(*held)
    follows = await asked(batcher, range(6))
    assert await asyncio.gather(*waiting, *follows) == [*range(6), *range(6)]


async def test_the_first_batches_of_a_new_gateway_refuse_nobody():
    async def run(queries):
        await asyncio.sleep(0.05)
        return queries

    batcher = MicroBatcher(run, size=2, in_flight=1, max_wait_s=0.01)
    await batcher.submit(1)
    assert await asyncio.gather(*await asked(batcher, range(6))) == [*range(6)]
