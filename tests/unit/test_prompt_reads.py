"""Users' rows and events in local files are read on the event loop, unless another process holds the file."""

import asyncio
import sqlite3
import time
from types import SimpleNamespace

import pytest

from handsell.core.paths import Layout
from handsell.events.store.interface import EventStoreError
from handsell.events.store.sqlite_file import connect_to_write
from handsell.events.store.sqlite_reader import SqliteReader
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.features.storage import user_rows
from handsell.serving.graph import users
from handsell.serving.graph.users import PAUSE_S, SLOW_S, PromptReads
from serving_service import start_service
from serving_world import DictStore, write_world

CONFIG = SimpleNamespace(project="shop", entity_key_serialization_version=3)
VIEWS = [
    SimpleNamespace(name=name, features=[SimpleNamespace(name=f"{name}_{column}") for column in "ab"])
    for name in ("activity", "seen")
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def store(tmp_path):
    """The part of Feast's SQLite store that is used, with rows of u0 to u2."""
    path = tmp_path / "online.db"
    connection = sqlite3.connect(path)
    for view in VIEWS:
        connection.execute(f'CREATE TABLE "shop_{view.name}" (entity_key, feature_name, value)')
        for user in range(3):
            (key,) = user_rows.encode_users([f"u{user}"], CONFIG)
            cells = [(key, f"{view.name}_{column}", f"{user}{column}".encode()) for column in "abc"]  # c was removed
            connection.executemany(f'INSERT INTO "shop_{view.name}" VALUES (?, ?, ?)', cells)
    connection.commit()
    yield SimpleNamespace(_get_conn=lambda _: connection, _get_db_path=lambda _: str(path), path=path)
    connection.close()


def test_all_views_are_read_in_one_statement_with_and_without_waiting(store):
    views = user_rows.SqliteViews(store, CONFIG)
    statements = []
    store._get_conn(None).set_trace_callback(statements.append)
    cells = views.read(VIEWS, ["u2", "nobody", "u0", "u2"])
    assert cells == {
        f"{view.name}_{column}": [f"2{column}".encode(), None, f"0{column}".encode(), f"2{column}".encode()]
        for view in VIEWS for column in "ab"
    }  # fmt: skip
    assert len(statements) == 1  # as of one moment
    assert views.read_at_once(VIEWS, ["u2", "nobody", "u0", "u2"]) == cells


def test_a_held_or_missing_file_is_not_waited_for(store):
    views = user_rows.SqliteViews(store, CONFIG)
    holder = sqlite3.connect(store.path)
    holder.execute("BEGIN EXCLUSIVE")
    assert views.read_at_once(VIEWS, ["u1"]) is None
    holder.rollback()
    assert views.read_at_once(VIEWS, ["u1"])["seen_b"] == [b"1b"]
    holder.close()
    views.close()
    store.path.unlink()
    assert views.read_at_once(VIEWS, ["u1"]) is None and not store.path.exists()


def test_an_event_store_that_is_held_is_not_waited_for(tmp_path):
    path = tmp_path / "log.db"
    with SqliteWriter(path) as log:
        log.append([{"event_id": "e1", "user_id": "u1", "item_id": "i1", "type": "like", "time": 1}]).result()
    reader = SqliteReader(path, waits=False)
    assert reader.read_tail("u1")["item_id"] == ["i1"]
    holder = connect_to_write(path)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    reader.close()
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(EventStoreError, match="locked"):
        reader.read_tail("u1")
    holder.execute("ROLLBACK")
    holder.close()
    assert reader.read_tail("u1")["item_id"] == ["i1"]
    assert reader._connection.execute("PRAGMA busy_timeout").fetchall() == [(0,)]
    reader.close()


async def test_a_read_that_only_waited_for_the_processor_is_not_slow(monkeypatch):
    now, reads = [100.0], PromptReads()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0], raising=False)
    monkeypatch.setattr(users, "count_waits", lambda: 7)

    def read():
        now[0] += 2 * SLOW_S
        return "rows"

    assert [reads.try_read(read) for _ in range(2)] == ["rows", "rows"]


@pytest.mark.parametrize("how", ["none", "error", "slow"])
async def test_after_a_read_that_is_slow_or_impossible_threads_read_for_a_while(how, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0], raising=False)
    reads, calls = PromptReads(), []

    def read():
        calls.append(now[0])
        if how == "error":
            raise OSError("no")
        if how == "slow":
            time.sleep(0.001)
            now[0] += 2 * SLOW_S
        return "rows" if how == "slow" else None

    assert reads.try_read(read) == ("rows" if how == "slow" else None)
    assert reads.try_read(read) is None and len(calls) == 1
    now[0] += PAUSE_S
    reads.try_read(read)
    assert len(calls) == 2


class LocalStore(DictStore):
    """A store that counts how it is read, and is held by another process while `held`."""

    held, at_once, in_threads = False, 0, 0

    def online_users_at_once(self, user_ids):
        if self.held:
            return None
        self.at_once += 1
        return super().online_users(user_ids)

    def online_users(self, user_ids):
        self.in_threads += 1
        return super().online_users(user_ids)


async def test_a_request_reads_at_once_and_in_a_thread_while_the_file_is_held(world):
    store = LocalStore(world.config, world.rows)
    async with start_service(world, store=store) as (client, service):
        lookup = service.bundle._users
        first = (await client.get("/v1/users/u1/recommendations")).json()
        assert (store.at_once, store.in_threads) == (1, 0) and not first["cold_start"]
        store.held = True
        held = (await client.get("/v1/users/u2/recommendations")).json()
        assert (store.at_once, store.in_threads) == (1, 1) and not held["cold_start"] and not held["degraded"]
        event = {"user_id": "u3", "item_id": "i3", "type": "like"}
        await client.post("/v1/events", json={"events": [event]})
        answer = (await client.get("/v1/users/u3/recommendations")).json()
        assert "i3" not in [item["item_id"] for item in answer["items"]]
        assert lookup._impatient.path == Layout(world.config.state).event_log
