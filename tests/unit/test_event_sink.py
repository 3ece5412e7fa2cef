"""Calls of a gateway to the one writer: those that wait share the next call; each gets its own answer."""

import asyncio

import pytest

from handsell.events.store.interface import AppendResult, EventStoreError, IdentityConflict, MergeResult
from handsell.serving.graph import event_sink
from handsell.serving.graph.event_sink import IN_FLIGHT, LocalSink, RemoteSink


class SlowWriter:
    """Stands for the deployment; notes the size of each call."""

    def __init__(self):
        self.groups, self.gate, self.failing = [], asyncio.Event(), False

    async def answer(self, handle, method, calls, traces):
        assert method == "call_group" and traces == ()  # no request is sampled
        self.groups.append(len(calls))
        await self.gate.wait()
        if self.failing:
            raise ConnectionError("the replica is gone")
        return [EventStoreError("full") if args == ("bad",) else AppendResult(args[0], 0, ()) for _, args in calls]


@pytest.fixture
async def writer(monkeypatch):
    writer = SlowWriter()
    monkeypatch.setattr(event_sink, "call", writer.answer)
    return writer


async def test_concurrent_calls_share_calls_of_the_deployment(writer):
    sink = RemoteSink(None)
    tasks = [asyncio.create_task(sink.append(n)) for n in range(200)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(sink.append(n)) for n in range(200, 250)]
    await asyncio.sleep(0.01)
    assert sum(writer.groups) < 250 and len(writer.groups) == IN_FLIGHT
    writer.gate.set()
    assert [(await task).accepted for task in tasks] == list(range(250))
    assert sum(writer.groups) == 250 and len(writer.groups) <= 4
    assert (await sink.append(7)).accepted == 7  # alone, without waiting for others


@pytest.mark.parametrize("again", range(IN_FLIGHT))
async def test_a_call_right_after_an_answer_is_sent(writer, again):
    """When the last calls of the deployment end together, nothing else would send what their callers want next."""
    sink = RemoteSink(None)

    async def append(n: int) -> list[int]:
        return [(await sink.append(n)).accepted for _ in range(2 if n == again else 1)]

    tasks = []
    for n in range(IN_FLIGHT):
        tasks.append(asyncio.create_task(append(n)))
        while len(writer.groups) <= n:
            await asyncio.sleep(0)
    writer.gate.set()
    async with asyncio.timeout(5):
        answers = [await task for task in tasks]
    assert answers == [[n, n] if n == again else [n] for n in range(IN_FLIGHT)]


async def test_each_call_has_its_own_failure(writer):
    sink = RemoteSink(None)
    writer.gate.set()
    good, bad, gone = (asyncio.create_task(sink.append(value)) for value in (3, "bad", 4))
    gone.cancel()
    assert (await good).accepted == 3
    with pytest.raises(EventStoreError, match="full"):
        await bad
    writer.failing = True
    failed = await asyncio.gather(*(sink.append(n) for n in range(5)), return_exceptions=True)
    assert all(isinstance(error, EventStoreError) and "the replica is gone" in str(error) for error in failed)


async def test_a_group_keeps_refusals_apart(event_store):
    sink = LocalSink(event_store.open_writer())
    calls = [("merge_identity", ("v", "u", 1)), ("merge_identity", ("v", "w", 1)), ("save_position", ("p", 3))]
    merged, refused, saved = await sink.call_group(calls)
    assert merged == MergeResult(0, 0, (), "v") and saved.accepted == 1 and isinstance(refused, IdentityConflict)
    sink.close()


async def test_a_writer_that_hangs_counts_as_failed(monkeypatch):
    class Hanging:
        def append(self, events):
            from concurrent.futures import Future

            return Future()

    monkeypatch.setattr(event_sink, "ANSWER_S", 0.05)
    with pytest.raises(EventStoreError, match="did not answer within"):
        await LocalSink(Hanging()).append([])
