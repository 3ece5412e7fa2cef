"""Calls of stages over sockets: messages, the proof of the key, answers, failures, lost connections."""

import asyncio
import contextlib
from dataclasses import fields, is_dataclass, replace
from datetime import datetime

import numpy as np
import pytest
import uvloop

from handsell.core.batches import Candidates, History, Profile, Ragged, Requests, Seen, Slates, UserExclusions
from handsell.serving.graph.stages import BundleNotHeld
from handsell.serving.sockets import messages
from handsell.serving.sockets.connection import MessageConnection
from handsell.serving.sockets.messages import CALL, HEADER, Header, MessageError, decode, encode
from handsell.serving.sockets.serve_router import Replica
from handsell.serving.sockets.stage_caller import NoSocket, ReplicaConnection, StageCaller, StageFailed
from handsell.serving.sockets.stage_listener import StageListener
from handsell.serving.telemetry.feature_log import Sample

KEY = b"k" * 32
HOST = "127.0.0.1"


def make_requests(rng, rows=3):
    ragged = Ragged.from_rows([rng.integers(0, 9, n) for n in range(rows)])
    return Requests(
        user=rng.integers(0, 9, rows).astype(np.int32), time=rng.integers(0, 2**60, rows),
        surface=np.zeros(rows, np.int8), history=History.empty(rows, 4),
        profile=Profile(
            rng.random((rows, 5)).astype(np.float32), np.zeros((rows, 2), np.int32), np.ones((rows, 2), np.float32),
            np.zeros((rows, 0), np.int32), np.ones((rows, 0), np.float32),
        ),
        seen=Seen(ragged, Ragged.empty(rows, np.int64)), exclude=ragged, seed=np.arange(rows, dtype=np.uint64),
        exclusions=UserExclusions.empty(rows),
        attributes=np.array([["de", None], [("a", "b"), "ü"], [None, 1.5]], object),
        arms=np.array([("one=a", "two=b"), (), ("one=b",), None], object)[:rows],
    ).with_filters(["year > 3", None, "year > 3"])  # fmt: skip


def make_candidates(rng, rows=2, k=7, sources=("als", "item_knn")):
    shape = (rows, k, len(sources))
    return Candidates(
        rng.integers(-1, 9, (rows, k)).astype(np.int32), rng.random((rows, k), np.float32),
        np.where(rng.random(shape) < 0.5, np.nan, rng.random(shape)).astype(np.float32),
        rng.random(shape).astype(np.float32)[:, ::-1], rng.random((rows, k), np.float32), sources, ("als",), 2,
    )  # fmt: skip


def list_parts(kind, number, value):
    sent = b"".join(bytes(part) for part in encode(kind, number, value))
    return Header.read(sent[: HEADER.size]), bytearray(sent[HEADER.size :])


def assert_same(a, b):
    assert type(a) is type(b)
    if is_dataclass(a):
        for field in fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


def test_batches_arrive_as_they_were_sent(rng):
    slates = Slates(
        np.ones((2, 3), np.int32), np.ones((2, 3), np.float32), np.ones((2, 3), np.uint32), np.ones((2, 3), np.int8),
        np.ones((2, 3), np.int32), np.ones((2, 3), np.float32), ("als",),
        rules=messages.RulesStamp("v", "", (("q", 0.5),)),
    )  # fmt: skip
    sent = (
        (("r", "t", "s"),),
        "bundle",
        "rank",
        make_requests(rng),
        make_candidates(rng),
        slates,
        50,
        (Sample(0, "r", None),),
    )
    header, data = list_parts(CALL, 7, sent)
    assert header == Header(CALL, 7, header.tree, header.arrays) and len(data) == header.tree + header.arrays
    got = decode(header, data)
    for one, other in zip(got, sent, strict=True):
        assert_same(one, other)
    got[4].score[0, 0] = 2.0  # the stage may write into its own copy
    assert all(one.flags.aligned for one in (got[3].time, got[3].profile.features, got[4].source_rank, got[5].score))


def test_every_class_that_stages_exchange_is_known(rng):
    def list_classes(value):
        if is_dataclass(value):
            yield type(value)
            for field in fields(value):
                yield from list_classes(getattr(value, field.name))

    met = {one for value in (make_requests(rng), make_candidates(rng)) for one in list_classes(value)}
    assert met <= set(messages.FIELDS)


OTHERS = (np.zeros(2, "datetime64[us]"), object(), {1, 2}, np.array(["a"]), 2**70, "half \ud800", datetime(2026, 1, 1))


@pytest.mark.parametrize(
    "value", [*OTHERS, np.array([[one] for one in OTHERS], object)], ids=lambda v: type(v).__name__
)
async def test_other_values_go_another_way(value):
    async def answer(*_):
        return value

    listener, address = await open_echo(answer)
    caller = make_caller(address)
    with pytest.raises(NoSocket):
        await caller.call(value)
    with pytest.raises(NoSocket):
        await caller.call("an answer with it")
    assert len(caller._open[address]) == 0 and caller._open[address].is_open
    caller.close()
    listener.close()


def test_damaged_messages_are_errors_and_run_nothing(rng):
    header, data = list_parts(CALL, 7, (make_requests(rng),))
    for at in range(header.arrays, len(data), 3):
        broken = bytearray(data)
        broken[at] ^= 0xFF
        with contextlib.suppress(MessageError):
            decode(header, broken)
    with pytest.raises(MessageError):
        decode(replace(header, tree=header.tree - 1), data)
    for raw in (
        b"xx" + bytes(HEADER.size - 2),
        HEADER.pack(b"hs", 9, CALL, 0, 0, 0),
        HEADER.pack(b"hs", 1, 1, 0, 2**31, 0),
    ):
        with pytest.raises(MessageError):
            Header.read(raw)


class Replicas:
    """In place of Serve's router: the replicas of a test, and how many calls it was told of."""

    def __init__(self, *addresses):
        self.replicas = [Replica(address, address) for address in addresses]
        self.counted = []

    def list_replicas(self):
        return self.replicas

    def count(self, replica):
        self.counted.append(replica.id)
        return contextlib.nullcontext()


def make_caller(*addresses, key=KEY):
    return StageCaller(Replicas(*addresses), key)


async def call_when_open(caller, *args):
    for _ in range(200):
        try:
            return await caller.call(*args)
        except NoSocket:
            await asyncio.sleep(0.01)
    raise TimeoutError


async def open_echo(run=None, most=8):
    async def echo(*args):
        return args

    listener = StageListener(run or echo, KEY, most)
    return listener, await listener.open(HOST)


async def test_a_call_is_answered_and_counted(rng):
    listener, address = await open_echo()
    caller = make_caller(address)
    sent = make_candidates(rng)
    (got,) = await caller.call(sent)  # opens the connection
    assert_same(got, sent)
    answers = await asyncio.gather(*(caller.call(n, "x" * n) for n in range(20)))
    assert answers == [(n, "x" * n) for n in range(20)] and caller._router.counted.count(address) == 21
    caller.close()
    listener.close()


async def test_errors_of_the_stage_reach_the_caller():
    async def fail(name):
        raise {"held": BundleNotHeld("b7 is not held"), "other": ZeroDivisionError("by zero")}[name]

    listener, address = await open_echo(fail)
    caller = make_caller(address)
    with pytest.raises(BundleNotHeld, match="b7 is not held"):
        await call_when_open(caller, "held")
    with pytest.raises(StageFailed, match="by zero"):
        await caller.call("other")
    caller.close()
    listener.close()


async def test_whoever_does_not_know_the_key_gets_nothing():
    asked = []

    async def note(*args):
        asked.append(args)

    listener, address = await open_echo(note)
    caller = make_caller(address, key=b"another key")
    for _ in range(10):
        with pytest.raises(NoSocket):
            await caller.call("one")
        await asyncio.sleep(0.01)
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.writelines(encode(CALL, 1, ("one",)))  # without a proof
    assert len(await asyncio.wait_for(reader.read(), 5)) < 200 and asked == []  # the challenge, then the end
    writer.close()
    listener.close()


async def test_a_listener_that_does_not_know_the_key_is_not_called():
    loop = asyncio.get_running_loop()

    class Liar(MessageConnection):
        def _prove(self, kind, value):
            self.is_trusted = True
            self.send(encode(messages.WELCOME, 0, b"x" * 32))

    server = await loop.create_server(lambda: Liar(b"other", listens=True), HOST, 0)
    _, connection = await loop.create_connection(
        lambda: ReplicaConnection(KEY), HOST, server.sockets[0].getsockname()[1]
    )
    with pytest.raises(ConnectionError):
        await connection.wait_until_trusted()
    server.close()


async def test_a_replica_that_ends_fails_its_calls_at_once_and_others_take_over():
    never = asyncio.Event()

    async def hang(*_):
        await never.wait()

    first, one = await open_echo(hang)
    caller = make_caller(one)
    waiting = asyncio.create_task(call_when_open(caller, "x"))
    while not any(len(connection) for connection in caller._open.values()):
        await asyncio.sleep(0.01)
    caller._open[one]._transport.abort()
    second, two = await open_echo()
    caller._router.replicas = [Replica(two, two)]
    assert await asyncio.wait_for(waiting, 5) == ("x",)
    assert list(caller._open) == [two]  # the connection to the replica that Serve no longer lists is closed
    caller.close()
    first.close()
    second.close()


async def test_an_abandoned_call_is_canceled_where_it_runs():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(*_):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    listener, address = await open_echo(hang)
    caller = make_caller(address)
    task = asyncio.create_task(call_when_open(caller, "x"))
    await asyncio.wait_for(begun.wait(), 5)
    task.cancel()
    await asyncio.wait_for(ended.wait(), 5)
    async with asyncio.timeout(5):
        while caller._open[address].is_late:  # the replica says that it is not stuck
            await asyncio.sleep(0.01)
    caller.close()
    listener.close()


async def test_calls_beyond_the_limit_wait_and_too_many_are_refused(monkeypatch):
    monkeypatch.setattr("handsell.serving.sockets.stage_listener.MOST_WAITING", 2)
    go, running = asyncio.Event(), []

    async def wait(n):
        running.append(n)
        await go.wait()
        return n

    listener, address = await open_echo(wait, most=1)
    caller = make_caller(address)
    first = asyncio.create_task(call_when_open(caller, 0))
    while not running:
        await asyncio.sleep(0.01)
    others = [asyncio.create_task(caller.call(n)) for n in (1, 2, 3)]
    with pytest.raises(StageFailed, match="2 calls are waiting"):
        await asyncio.wait_for(others[2], 5)
    assert running == [0]
    go.set()
    assert await asyncio.gather(first, *others[:2]) == [0, 1, 2]
    caller.close()
    listener.close()


def test_the_event_loop_of_serve_carries_calls_too():
    async def ask():
        listener, address = await open_echo()
        caller = make_caller(address)
        try:
            return await call_when_open(caller, np.arange(100_000))
        finally:
            caller.close()
            listener.close()

    (got,) = uvloop.run(ask())
    np.testing.assert_array_equal(got, np.arange(100_000))


async def test_a_silent_stranger_is_left(monkeypatch):
    monkeypatch.setattr("handsell.serving.sockets.connection.PROOF_S", 0.05)
    listener, address = await open_echo()
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    assert len(await asyncio.wait_for(reader.read(), 5)) < 200  # the challenge, then the end
    caller = make_caller(address)
    assert await caller.call("x") == ("x",)
    await asyncio.sleep(0.1)
    assert await caller.call("y") == ("y",)  # who has proved the key stays
    writer.close()
    caller.close()
    listener.close()


async def test_a_replica_that_hangs_gets_no_calls_until_it_says_something():
    class Stuck(MessageConnection):
        async def answer_all(self):
            for number in sorted(self.asked):
                self.send(encode(messages.ANSWER, number, "late"))

        def __init__(self):
            super().__init__(KEY, listens=True)
            self.asked = set()

        def receive(self, kind, number, value):
            self.asked.add(number)

    stuck, loop = [], asyncio.get_running_loop()

    def accept():
        stuck.append(Stuck())
        return stuck[-1]

    server = await loop.create_server(accept, HOST, 0)
    listener, good = await open_echo()
    bad = f"{HOST}:{server.sockets[0].getsockname()[1]}"
    caller = make_caller(bad, good)
    while len([one for one in caller._open.values() if one.is_trusted]) < 2:
        caller._list_ready()
        await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):  # two idle replicas are chosen in turns: soon it is this one
        async with asyncio.timeout(0.3):
            while True:
                await caller.call("x")
                await asyncio.sleep(0)
    before = len(stuck[0].asked)
    async with asyncio.timeout(20):
        assert [await caller.call(n) for n in range(50)] == [(n,) for n in range(50)]
    assert len(stuck[0].asked) == before
    await stuck[0].answer_all()
    while caller._open[bad].is_late:
        await asyncio.sleep(0.01)
    server.close()
    caller.close()
    listener.close()
