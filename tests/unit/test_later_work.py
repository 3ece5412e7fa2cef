"""Work that an answer does not need is done after it."""

import asyncio

from handsell.serving.telemetry.later_work import COMPUTED, work_later


async def make_answer(done: list[str]) -> None:
    """A batch in a task of its own, and the caller that makes an answer of its result and writes it."""
    slate = asyncio.get_running_loop().create_future()

    async def run_batch() -> None:
        work_later(lambda: done.append("candidates"), COMPUTED)
        slate.set_result("slate")

    batch = asyncio.create_task(run_batch())
    await slate
    work_later(lambda: done.append("slate"))
    done.append("answer")
    asyncio.get_running_loop().call_soon(done.append, "next")  # what a server or a caller does in the next turn
    await batch


async def test_metrics_follow_the_answer_and_come_before_what_its_caller_does_next():
    done: list[str] = []
    await asyncio.create_task(make_answer(done))
    await asyncio.sleep(0)
    assert done == ["answer", "candidates", "slate", "next"]


async def test_a_failure_does_not_reach_the_answer():
    problems: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))

    def fail() -> None:
        raise ValueError("no metric")

    work_later(fail)
    await asyncio.sleep(0)
    assert [str(one["exception"]) for one in problems] == ["no metric"]
