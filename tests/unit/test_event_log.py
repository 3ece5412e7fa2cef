"""The durable log: deduplicated, group committed, one writer, nothing acknowledged that is not on disk."""

import asyncio
import multiprocessing
import os
import signal
import sqlite3

import pytest

from handsell.events.impressions import ImpressionQueue
from handsell.events.store.interface import EventStoreError
from handsell.events.store.sqlite_reader import SqliteReader
from handsell.events.store.sqlite_writer import SqliteWriter


def event(n, user="u1", **more):
    return {"event_id": f"e{n}", "user_id": user, "item_id": f"i{n}", "type": "click", "time": 1_000 + n, **more}


def slate(recommendation_id, items='{"item_id":["a","b"],"score":[0.5,0.4],"propensity":[1,1],"sources":[["x"],[]]}'):
    return {
        "recommendation_id": recommendation_id, "time": 5, "user_id": "u1",
        "surface": "home", "bundle": "b1", "items": items,
    }  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events" / "log.db"


def test_there_is_one_writer(path):
    with SqliteWriter(path), pytest.raises(EventStoreError, match=rf"process {os.getpid()}.*one writer"):
        SqliteWriter(path)
    with SqliteWriter(path) as log:
        log.append([event(1)]).result()
    with pytest.raises(EventStoreError, match="closed"):
        log.append([event(2)])


def test_a_full_disk_is_an_error_and_not_an_acknowledgement(path):
    with SqliteWriter(path) as log:
        log.append([event(0)]).result()
        pages = log._db.execute("PRAGMA page_count").fetchone()[0]
        log._db.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(EventStoreError, match="full"):
            log.append([event(n, item_id="x" * 500) for n in range(1, 200)]).result()
        assert SqliteReader(path).last_offset() == 1
        log._db.execute("PRAGMA max_page_count=100000")
        assert log.append([event(n) for n in range(1, 200)]).result().accepted == 199


def _write_until_killed(path, acknowledged):
    log = SqliteWriter(path)
    n = 0
    while True:
        n += 1
        log.append([event(n)]).result()
        acknowledged.value = n


def test_what_was_acknowledged_survives_kill_9(path):
    context = multiprocessing.get_context("fork")
    acknowledged = context.Value("i", 0)
    writer = context.Process(target=_write_until_killed, args=(path, acknowledged))
    writer.start()
    while acknowledged.value < 50:
        assert writer.is_alive()
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert SqliteReader(path).last_offset() >= acknowledged.value
    with SqliteWriter(path) as log:  # the lock went with the process
        assert log.append([event(1)]).result().duplicates == 1
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_impressions_reach_the_log_once_though_a_send_fails(path):
    lost, failures = [], iter([True, False, False])
    with SqliteWriter(path) as log:

        async def send(slates):
            await asyncio.wrap_future(log.append_slates(slates))
            if next(failures):
                raise ConnectionError("the answer was lost")

        impressions = ImpressionQueue(send, lost.append)
        impressions.offer(slate("r1"))
        impressions.offer(slate("r2"))
        await impressions.close()
        reader = SqliteReader(path)
        shown = reader.read_impressions()
    assert shown["recommendation_id"] == ["r1", "r1", "r2", "r2"]
    assert shown["position"] == [1, 2, 1, 2] and shown["item_id"] == ["a", "b", "a", "b"]
    assert shown["sources"][:2] == [["x"], []]
    assert lost == [] and reader.count_lost_impressions() == {impressions.gateway: 0}


async def test_lost_impressions_are_counted_and_leave_a_gap_in_the_sequence(path):
    lost = []
    with SqliteWriter(path) as log:

        async def send(slates):
            await asyncio.wrap_future(log.append_slates(slates))

        impressions = ImpressionQueue(send, lost.append, capacity=2)
        for n in range(4):
            impressions.offer(slate(f"r{n}"))
        await impressions.close()
        impressions.offer(slate("r9"))
        await impressions.close()
        assert lost == [1, 1]
        assert SqliteReader(path).count_lost_impressions() == {impressions.gateway: 2}


async def test_impressions_are_flushed_within_a_tenth_of_a_second_without_a_call():
    sent = asyncio.Event()

    async def send(slates):
        sent.set()

    ImpressionQueue(send, print).offer(slate("r1"))
    await asyncio.wait_for(sent.wait(), 0.5)
