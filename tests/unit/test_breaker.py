"""Who waits for a stage that does not answer: the first few, then nobody, until it answers again."""

import asyncio

import pytest

from handsell.serving.graph import circuit_breaker
from handsell.serving.graph.circuit_breaker import Breaker

STALL_S = 0.05


class Stage:
    """Answers when `up` is set."""

    def __init__(self):
        self.up, self.asked = asyncio.Event(), 0

    async def answer(self):
        self.asked += 1
        await self.up.wait()
        return "answer"


@pytest.fixture
def stage(monkeypatch):
    monkeypatch.setattr(circuit_breaker, "RETRY_S", 0.0)
    return Stage()


async def ask(breaker: Breaker, stage: Stage, limit_s: float = 60.0) -> str:
    return await breaker.wait(stage.answer, asyncio.get_running_loop().time() + limit_s)


async def late(breaker: Breaker, stage: Stage, times: int, limit_s: float = 60.0) -> None:
    for _ in range(times):
        with pytest.raises(TimeoutError):
            await ask(breaker, stage, limit_s)


async def test_a_stage_that_answers_is_waited_for(stage):
    stage.up.set()
    watch = Breaker("ranking", STALL_S)
    assert [await ask(watch, stage) for _ in range(5)] == ["answer"] * 5 and not watch.open


async def test_after_two_late_answers_one_tries_and_nobody_waits(stage):
    watch = Breaker("ranking", 60.0)
    watch._late = circuit_breaker.LATE_CALLS
    assert watch.open
    await asyncio.wait_for(late(watch, stage, 4), 5)  # were they to wait, it would be for a minute
    await asyncio.sleep(0)
    assert stage.asked == 1  # one trial under way, whoever else came
    stage.up.set()
    while watch.open:
        await asyncio.sleep(0)
    assert await ask(watch, stage) == "answer"


async def test_it_opens_after_strikes_in_a_row(stage):
    watch = Breaker("ranking", STALL_S)
    await late(watch, stage, circuit_breaker.LATE_CALLS - 1)
    assert not watch.open
    stage.up.set()
    assert await ask(watch, stage) == "answer"  # begins anew
    stage.up.clear()
    await late(watch, stage, circuit_breaker.LATE_CALLS - 1)
    assert not watch.open
    await late(watch, stage, 1)
    assert watch.open


async def test_callers_in_a_hurry_say_nothing_of_the_stage(stage):
    watch = Breaker("ranking", 60.0)
    await late(watch, stage, 5, limit_s=0.01)
    await late(watch, stage, 5, limit_s=-1.0)
    assert not watch.open


async def test_an_error_is_an_answer(stage):
    watch = Breaker("ranking", STALL_S)

    async def broken():
        raise ConnectionError("no")

    await late(watch, stage, circuit_breaker.LATE_CALLS - 1)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await watch.wait(broken, asyncio.get_running_loop().time() + 60)
    await late(watch, stage, 1)
    assert not watch.open  # that was not the second in a row
    watch._late = circuit_breaker.LATE_CALLS
    with pytest.raises(TimeoutError):
        await watch.wait(broken, asyncio.get_running_loop().time() + 60)
    while watch.open:
        await asyncio.sleep(0)


async def test_an_error_that_took_long_is_a_late_answer(stage):
    watch = Breaker("ranking", STALL_S)

    async def slow():
        await asyncio.sleep(0.7 * STALL_S)
        raise ConnectionError("the node has gone")

    for _ in range(circuit_breaker.LATE_CALLS):
        with pytest.raises(ConnectionError):
            await watch.wait(slow, asyncio.get_running_loop().time() + 60)
    assert watch.open
    with pytest.raises(TimeoutError):
        await watch.wait(slow, asyncio.get_running_loop().time() + 60)
    await asyncio.sleep(2 * STALL_S)
    assert watch.open  # nor does a slow error of a trial close it
