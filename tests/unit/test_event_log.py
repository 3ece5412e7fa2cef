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


def test_a_second_event_with_the_same_key_changes_nothing(path):
    with SqliteWriter(path) as log:
        first = log.append([event(1, value=3.0), event(2)]).result()
        again = log.append([event(2, value=9.0), event(3), event(3)]).result()
    assert (first.accepted, first.duplicates, first.offsets) == (2, 0, (1, 2))
    assert (again.accepted, again.duplicates) == (1, 2)
    assert [o > 0 for o in again.offsets] == [False, True, False]
    rows = SqliteReader(path).scan()
    assert rows["event_id"] == ["e1", "e2", "e3"]
    assert rows["user_id"] == ["u1"] * 3
    assert rows["value"] == [3.0, None, None]


def test_lines_of_an_order_and_events_without_an_id_are_told_apart_by_their_key(path):
    line = {"event_id": "order 7", "user_id": "u1", "item_id": "a", "type": "buy", "time": 5}
    bare = {**line, "event_id": None}
    arrived = {**line, "sent_time": None}  # without a timestamp: `time` is that of the arrival
    with SqliteWriter(path) as log:
        done = log.append([
            line, {**line, "item_id": "b"}, {**line, "type": "return"}, {**line, "user_id": "u2"}, {**line, "time": 6},
            line, bare, bare, {**bare, "time": 6}, arrived, {**arrived, "time": 9}, {**arrived, "item_id": "b"},
        ]).result()  # fmt: skip
    assert [offset > 0 for offset in done.offsets] == [
        True, True, True, True, True, False, True, False, True, True, False, True,
    ]  # fmt: skip
    assert (done.accepted, done.duplicates) == (9, 3)


def test_a_log_without_keys_is_upgraded_and_keeps_its_events(path):
    path.parent.mkdir()
    old = sqlite3.connect(path)
    old.executescript(
        """CREATE TABLE events ("offset" INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE,
        user_id TEXT NOT NULL, item_id TEXT NOT NULL, type TEXT NOT NULL, time INTEGER NOT NULL, value REAL,
        surface TEXT, recommendation_id TEXT, position INTEGER, propensity REAL);
        CREATE INDEX events_of_user ON events (user_id, "offset");
        INSERT INTO events ("offset", event_id, user_id, item_id, type, time)
        VALUES (3, 'e1', 'u1', 'i1', 'click', 1001), (8, 'e2', 'u1', 'i2', 'click', 1002);"""
    )
    old.close()
    reader = SqliteReader(path)
    with SqliteWriter(path) as log:
        done = log.append([event(2), event(2, item_id="i9"), event(3)]).result()
    assert done.offsets[0] == -1 and 8 < done.offsets[1] < done.offsets[2]
    tail = reader.read_tail("u1")
    assert tail["offset"] == [3, 8, *done.offsets[1:]] and None not in tail["key"]
    with SqliteWriter(path):
        assert SqliteReader(path).scan()["item_id"] == ["i1", "i2", "i9", "i3"]


def test_readers_follow_the_writer_and_a_missing_log_is_empty(path):
    reader = SqliteReader(path)
    assert reader.scan()["event_id"] == [] and reader.last_offset() == 0 and reader.count_lost_impressions() == {}
    with SqliteWriter(path) as log:
        log.append([event(1), event(2, user="u2"), event(3)]).result()
        assert reader.read_tail("u1", 0)["item_id"] == ["i1", "i3"]
        log.append([event(4)]).result()
        assert reader.read_tail("u1", 3)["item_id"] == ["i4"]
        assert reader.read_tail("u1", 0, limit=2)["item_id"] == ["i3", "i4"]
        assert reader.scan(after_offset=1, limit=2)["event_id"] == ["e2", "e3"]
        assert reader.last_offset() == 4
        assert reader.read_tail("nobody")["time"] == []


def test_concurrent_appends_share_commits_and_lose_nothing(path):
    with SqliteWriter(path) as log:
        commits = []
        real = log._commit
        log._commit = lambda group: (commits.append(len(group)), real(group))
        futures = [log.append([event(n)]) for n in range(500)]
        assert sum(f.result().accepted for f in futures) == 500
    assert len(commits) < 500 and sum(commits) == 500
    assert len(set(SqliteReader(path).scan()["offset"])) == 500


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
