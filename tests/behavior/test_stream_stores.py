"""The stream processor with online rows on SQLite and on a Redis server, and with the event store on PostgreSQL."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from uuid import uuid4

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_feast_redis import redis  # noqa: F401

from feast_rows import TOML, write_sources
from handsell.config import load_config
from handsell.core.errors import FeatureError
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.events.store.opening import open_reader, open_writer
from handsell.features.storage import user_rows
from handsell.features.storage.row_updates import fold_into_rows
from handsell.features.store import open_store
from handsell.features.views import USER_VIEWS
from handsell.jobs.erasure.person import Person
from handsell.jobs.erasure.search import search
from handsell.serving.stream import processor as stream
from handsell.serving.stream import replay_check
from handsell.serving.stream.processor import POSITION, Processor
from handsell.testing.small_catalog import draw_snapshot

USERS, ITEMS = 12, 60
NOW = 20_000 * DAY_US


class Catalog:
    def __init__(self, snapshot):
        self._snapshot = snapshot

    def snapshot(self):
        return self._snapshot


class Shop:
    """A deployment whose batch rows include the first events of its store."""

    def __init__(self, config, rng):
        self.config, self.rng = config, rng
        self.catalog = Catalog(draw_snapshot(rng, items=ITEMS, creators=5, tags=4))
        self.writer, self.reader = open_writer(self.config), open_reader(self.config)
        self.store = open_store(self.config)
        write_sources(rng, self.config, self.catalog.snapshot())
        for name in USER_VIEWS[1:]:  # without rows before `write_batch_rows`
            self.write_source(name, self.store.views[name].schema.empty_table())
        self.users = [f"u{i}" for i in range(USERS)]

    def close(self):
        """Close the store, and remove its users from the online rows."""
        self.store.forget_users(sorted({*self.users, *self.reader.scan()["user_id"]}))
        (Layout(self.config.state).feast / "materialization.json").unlink(missing_ok=True)
        self.writer.close()
        self.reader.close()

    def save(self, name, offset):
        self.writer.save_position(name, offset).result(timeout=10)

    def processor(self):
        return Processor(self.config, self.store, self.reader, self.catalog, self.save)

    def post(self, n, users=USERS, begin=0):
        """Append events of the days before NOW; three in ten are later than those that follow."""
        times = NOW - self.rng.choice(30 * DAY_US, n, replace=False)
        kinds = ["impression", "play", "skip"]
        rows = zip(self.rng.integers(begin, users, n), self.rng.integers(0, ITEMS, n), times.tolist(), strict=True)
        events = [
            {"event_id": None, "user_id": f"u{user}", "item_id": f"i{item}", "type": kinds[item % 3], "time": at}
            for user, item, at in rows
        ]
        self.writer.append(events).result(timeout=10)

    def write_batch_rows(self):
        """Write the sources of the user views: a fold of all stored events, as the features job does."""
        tails = self.reader.read_tails(self.users, [0] * USERS, 100_000)
        empty = {name: [None] * USERS for view in USER_VIEWS for name in self.store.views[view].names}
        tables = fold_into_rows(empty, self.users, tails, self.catalog.snapshot(), self.config)
        through = self.reader.last_offset()
        for name, table in tables.items():
            if name == "user_activity":  # of every user that of the batch
                place = table.schema.get_field_index("log_offset")
                table = table.set_column(place, table.schema.field(place), [[through] * USERS])
            self.write_source(name, table)

    def write_source(self, name, table):
        folder = Layout(self.config.state).features / name
        for old in folder.glob("*.parquet"):
            old.unlink()
        pq.write_table(table, folder / "part-0.parquet")

    def compare(self):
        return replay_check.compare_online_with_replay(self.config)


@pytest.fixture(
    scope="module", params=["sqlite", "redis", pytest.param("events on postgresql", marks=pytest.mark.slow)]
)
def registered(request, tmp_path_factory):
    """The config of a deployment whose features are registered, which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HANDSELL_HOME", raising=False)
        path = tmp_path_factory.mktemp("shop") / "shop.toml"
        online = f'online_store = "{request.getfixturevalue("redis")}"\n' if request.param == "redis" else ""
        path.write_text(TOML.format(name=f"s{uuid4().hex[:20]}") + "seen_cap = 100\n" + online)
        config, rng = load_config(path), np.random.default_rng(0)
        write_sources(rng, config, draw_snapshot(rng, items=ITEMS, creators=5, tags=4))
        open_store(config).apply()
        yield config, request.param


@pytest.fixture
def shop(registered, request, rng, monkeypatch):
    config, kind = registered
    monkeypatch.delenv("HANDSELL_HOME", raising=False)
    if kind == "events on postgresql":
        monkeypatch.setenv("HANDSELL_EVENT_STORE", request.getfixturevalue("postgresql").create_database())
    else:
        shutil.rmtree(Layout(config.state).event_log.parent, ignore_errors=True)
    shop = Shop(config, rng)
    monkeypatch.setattr(replay_check, "ServedCatalog", lambda config: shop.catalog)
    yield shop
    shop.close()


def drain(shop, processor):
    while processor.process_batch():
        pass
    processor.save()


def test_materialize_beside_a_running_processor_loses_no_event(shop, monkeypatch):
    monkeypatch.setattr(stream, "BATCH", 37)
    monkeypatch.setattr(stream, "PERIOD_S", 0.01)
    monkeypatch.setattr(stream.Processor, "count_likes", lambda self: False)
    shop.post(150, users=USERS - 3)
    shop.write_batch_rows()
    stop, processor = threading.Event(), shop.processor()
    thread = threading.Thread(target=processor.run, args=(stop,))
    thread.start()
    batch_store = open_store(shop.config)
    for _ in range(4):
        shop.post(120)
        batch_store.materialize(names=USER_VIEWS)
        shop.post(30)
    last, until = shop.reader.last_offset(), time.monotonic() + 60
    while shop.reader.read_position(POSITION) < last and time.monotonic() < until:
        time.sleep(0.05)
    stop.set()
    thread.join(30)
    found = shop.compare()
    assert found.equal and found.events == 750, found
    rows = shop.store.online_users(shop.users)
    tails = shop.reader.read_tails(shop.users, rows["log_offset"])
    assert tails["offset"] == [] and max(rows["log_offset"]) == last


def test_a_lost_event_is_found(shop):
    shop.post(80)
    processor = shop.processor()
    drain(shop, processor)
    assert shop.compare().equal
    shop.post(1, users=1)
    assert shop.compare().unread == 1
    shop.save(POSITION, shop.reader.last_offset())
    (line,) = shop.compare().differing
    assert line.startswith("u0: ") and "count_" in line


def test_late_events_change_the_row(shop):
    """A late event does not move the time of a row, and is stored all the same."""
    shop.post(30, users=1)
    drain(shop, shop.processor())
    before = shop.store.online_users(["u0"])
    old = {"event_id": None, "user_id": "u0", "item_id": "i4", "type": "play", "time": NOW - 300 * DAY_US}
    shop.writer.append([old]).result(timeout=10)
    drain(shop, shop.processor())
    after = shop.store.online_users(["u0"])
    assert after["state_time_us"] == before["state_time_us"]
    assert after["count_play"][0] == before["count_play"][0] + 1 and "i4" in after["seen_item_ids"][0]


def test_a_row_is_written_whole_or_not_at_all(shop, monkeypatch):
    shop.post(60)
    drain(shop, shop.processor())
    before = shop.store.online_users(shop.users)
    shop.post(60)
    encode, encoded = user_rows.encode_column, []
    whole = sum(len(shop.store.views[name].columns) for name in USER_VIEWS[:2])

    def stop_at_the_third_view(column):
        encoded.append(column)
        if len(encoded) > whole:
            raise KeyboardInterrupt
        return encode(column)

    monkeypatch.setattr(user_rows, "encode_column", stop_at_the_third_view)
    with pytest.raises(KeyboardInterrupt):
        drain(shop, shop.processor())
    assert open_store(shop.config).online_users(shop.users) == before
    monkeypatch.setattr(user_rows, "encode_column", encode)
    drain(shop, shop.processor())
    assert shop.compare().equal


def test_forgotten_users_have_no_row(shop):
    shop.post(60)
    drain(shop, shop.processor())
    shop.store.forget_users(["u1", "u3", "nobody"])
    rows = shop.store.online_users(["u0", "u1", "u2", "u3"])
    assert [offset is None for offset in rows["log_offset"]] == [False, True, False, True]
    assert all(rows[name][1] is None for name in rows)
    with open_store(shop.config).lock, pytest.raises(FeatureError, match="being written"):
        shop.store.forget_users(["u0"], wait_s=0.05)
    assert shop.store.online_users(["u0"])["log_offset"] == rows["log_offset"][:1]


def test_ids_of_any_characters_are_forgotten(shop):
    shop.post(5, users=1)
    events = [{"event_id": None, "user_id": "a:b\"'\n", "item_id": "i1", "type": "play", "time": NOW}]
    shop.writer.append(events).result(timeout=10)
    drain(shop, shop.processor())
    assert shop.store.online_users(["a:b\"'\n"])["count_play"] == [1.0]
    shop.store.forget_users(["a:b\"'\n"])
    assert shop.store.online_users(["a:b\"'\n"])["count_play"] == [None]
    assert replace(shop.compare(), differing=()).users == 2


def test_an_erased_user_is_in_no_online_row_and_does_not_come_back(shop):
    def count_found(user_id):
        names = ("online features in Redis", "feast")
        return sum(place.found for place in search(shop.config, Person((user_id,))) if place.name in names)

    shop.post(60, users=4)
    processor = shop.processor()
    drain(shop, processor)
    assert count_found("u1") and count_found("u2")
    shop.writer.erase_user("u1", NOW).result(timeout=10)
    shop.store.forget_users(["u1"])
    drain(shop, processor)
    assert not count_found("u1") and count_found("u2") and not count_found("u")
    assert shop.store.online_users(["u1"])["log_offset"] == [None]
