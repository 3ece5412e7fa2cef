"""The stream processor: its rows are those of one fold of all events, whatever the batches, crashes and overwrites."""

from __future__ import annotations

import numpy as np
import pytest
from test_features_requests import same

from feature_world import START, write_tiny_config
from handsell.config import load_config
from handsell.core.batches import NONE
from handsell.core.failures import Failures
from handsell.core.paths import Layout
from handsell.core.units import DAY_US, HOUR_US
from handsell.data.weights import compute_event_weights
from handsell.events.fold import fold
from handsell.events.states import Events, FoldRules, ItemAttributes
from handsell.events.store.opening import open_reader, open_writer
from handsell.features.request_builder import QueryBatch, build_requests
from handsell.features.row_columns import read_integers
from handsell.features.rows import Vocabularies, build_user_rows
from handsell.features.storage.materialization import record_materialization
from handsell.features.storage.online_rows import OnlineRows
from handsell.serving.stream import processor as stream
from handsell.serving.stream.processor import IDENTITIES, POSITION, Processor
from handsell.serving.stream.replay_check import find_differences
from handsell.testing.small_catalog import draw_snapshot
from serving_world import DictStore

USERS, ITEMS, N = 9, 40, 240
NOW = START + 100 * DAY_US


class Stopped(RuntimeError):
    """The process is killed here."""


class Shop:
    """A config, a catalog, an event store and online rows in a dictionary."""

    def __init__(self, folder, rng):
        path = write_tiny_config(folder).source
        path.write_text(
            path.read_text().replace("seen_cap = 12", "seen_cap = 50").replace("affinity_size = 3", "affinity_size = 4")
        )
        self.rng, self.config = rng, load_config(path)
        self.items = draw_snapshot(rng, items=ITEMS, creators=3, tags=3, tags_per_item=2)  # nothing is cut off
        self.writer, self.reader = open_writer(self.config), open_reader(self.config)
        self.store = DictStore(self.config, {})

    def snapshot(self):
        return self.items

    def save(self, name: str, offset: int) -> None:
        self.writer.save_position(name, offset).result(timeout=10)

    def processor(self, save=None) -> Processor:
        return Processor(self.config, self.store, self.reader, self, save or self.save)

    def post(self, n=N, users=USERS, times=None, items=ITEMS + 3) -> list[dict]:
        """Append events of distinct times, by default some of items that the catalog lacks."""
        times = START + self.rng.choice(60 * DAY_US, n, replace=False) if times is None else times
        events = [
            {
                "event_id": None, "user_id": f"u{user}", "item_id": f"i{item}",
                "type": str(self.rng.choice(["impression", "listen", "skip"])), "time": int(time),
            }
            for user, item, time in zip(
                self.rng.integers(0, users, n), self.rng.integers(0, items, n), times, strict=True
            )
        ]  # fmt: skip
        self.writer.append(events).result(timeout=10)
        return events

    def drain(self, processor: Processor) -> None:
        while processor.process_batch():
            pass
        processor.save()

    def rows(self, users=USERS) -> dict[str, list]:
        return self.store.online_users([f"u{i}" for i in range(users)])


@pytest.fixture
def shop(tmp_path, rng, monkeypatch):
    monkeypatch.delenv("HANDSELL_HOME", raising=False)
    monkeypatch.setattr(stream, "USERS", 4)
    shop = Shop(tmp_path, rng)
    yield shop
    shop.writer.close()
    shop.reader.close()


def replay(shop, events) -> dict[str, list]:
    """The rows that the batch job writes of all events: in order of time, with items that the catalog lacks."""
    items = shop.items.items.extend(event["item_id"] for event in events)
    extra = len(items) - ITEMS
    creator = np.concatenate([shop.items.creator, np.full(extra, NONE, np.int32)])
    tags = shop.items.item_tags
    tags = type(tags)(tags.values, np.concatenate([tags.offsets, np.full(extra, tags.offsets[-1])]))
    names, users = shop.config.events.names, [f"u{i}" for i in range(USERS)]
    kind = np.array([names.index(event["type"]) for event in events], np.int8)
    weight = compute_event_weights(kind, np.full(len(events), np.nan, np.float32), shop.config.events)
    time = np.array([event["time"] for event in events])
    row = np.array([users.index(event["user_id"]) for event in events])
    item = items.number([event["item_id"] for event in events])
    order = np.argsort(time)
    log = Events.of(row[order], item[order], kind[order], time[order], weight[order])
    rules = FoldRules.of(shop.config)
    states = fold(rules.empty_states(USERS), log, ItemAttributes(creator, tags), rules)
    vocabularies = Vocabularies(type(items).of(users), items, shop.items.creators, shop.items.tags)
    expected = DictStore(shop.config, {})
    expected.write_user_rows(build_user_rows(states, np.arange(USERS), vocabularies, shop.config))
    return expected.online_users(users)


def last_offsets(events) -> list[int]:
    """The offset of each user's last event in a new store."""
    last = {event["user_id"]: offset for offset, event in enumerate(events, start=1)}
    return [last.get(f"u{i}", 0) for i in range(USERS)]


def assert_equal(shop, events) -> None:
    """The online rows are those of a replay, up to rounding."""
    users = [f"u{i}" for i in range(USERS)]
    assert find_differences(users, shop.rows(), replay(shop, events), shop.config) == []


@pytest.mark.parametrize("batch", [1, 7, 1_000])
def test_rows_are_those_of_one_fold_of_all_events(shop, monkeypatch, batch):
    """Batches of any size, in order of arrival, not of time, and with a new processor after each."""
    monkeypatch.setattr(stream, "BATCH", batch)
    events = shop.post()
    while shop.processor().process_batch():
        shop.save(POSITION, 0)  # nothing is lost or counted twice where the position is not saved
        shop.save(POSITION, max(cell or 0 for cell in shop.rows()["log_offset"]))
    assert_equal(shop, events)
    assert shop.rows()["log_offset"] == last_offsets(events)


def test_a_crash_at_any_point_neither_loses_nor_repeats_an_event(shop, monkeypatch):
    monkeypatch.setattr(stream, "BATCH", 20)
    monkeypatch.setattr(stream, "SAVE_S", 0.0)
    events, write = shop.post(), shop.store.write_user_rows

    def write_or_stop(rows):
        if shop.rng.random() < 0.2:
            raise Stopped
        write(rows)
        if shop.rng.random() < 0.2:
            raise Stopped

    def save_or_stop(name, offset):
        if shop.rng.random() < 0.5:
            raise Stopped
        shop.save(name, offset)

    shop.store.write_user_rows = write_or_stop
    stops = 0
    while shop.reader.read_position(POSITION) < len(events):
        processor = shop.processor(save_or_stop)
        try:
            shop.drain(processor)
        except Stopped:
            stops += 1
    assert stops > 5
    assert_equal(shop, events)
    assert shop.rows()["log_offset"] == last_offsets(events)


def test_older_rows_of_a_materialize_lose_no_event(shop, monkeypatch):
    """The batch rows include the first half of the log and are written when all of it has been folded."""
    monkeypatch.setattr(stream, "BATCH", 50)
    first, more = shop.post(N // 2), shop.post(N // 2)
    processor = shop.processor()
    shop.drain(processor)
    layout, older = Layout(shop.config.state), DictStore(shop.config, {})
    batch = replay(shop, first)
    for place in range(USERS):
        row = {name: cells[place] for name, cells in batch.items()} | {"log_offset": len(first)}
        older.rows[f"u{place}"] = row
    record_materialization(layout, len(first))
    shop.store.rows.update(older.rows)
    assert processor.process_batch() == 50  # of the second half
    assert shop.reader.read_position(POSITION) < len(first) + 51
    shop.drain(processor)
    assert_equal(shop, [*first, *more])
    folded = processor.progress.events
    shop.drain(shop.processor())  # a restart does not go back again
    shop.drain(processor)
    assert processor.progress.events == folded


def test_a_materialize_that_was_killed_half_way_is_undone(shop):
    events = shop.post()
    processor = shop.processor()
    shop.drain(processor)
    record_materialization(Layout(shop.config.state), 0)
    shop.store.forget_users(["u0", "u1"])
    shop.drain(processor)
    assert_equal(shop, events)


def test_a_clock_that_is_set_back_changes_nothing(shop):
    early, late = START + np.arange(30) * HOUR_US, START + np.arange(30) * HOUR_US + 600_000_000
    events = [*shop.post(30, times=late), *shop.post(30, times=early)]
    shop.drain(shop.processor())
    assert_equal(shop, events)


def test_a_request_is_the_same_before_and_after_the_fold(shop):
    """Events of items that the catalog has: the row replaces the tail of the log."""
    shop.post(N // 2, users=USERS - 1, items=ITEMS)
    shop.drain(shop.processor())
    shop.post(N // 2, items=ITEMS)
    users = [f"u{i}" for i in range(USERS)]
    queries = QueryBatch.of(users, np.full(USERS, NOW), np.zeros(USERS, np.int8))

    def build():
        rows = OnlineRows(shop.store, shop.config).read(users)
        built = build_requests(queries, rows, shop.reader, shop.items, shop.config, Failures(strict=True))
        return built, len(shop.reader.read_tails(users, [offset or 0 for offset in rows["log_offset"]])["offset"])

    before, tail = build()
    shop.drain(shop.processor())
    after, empty = build()
    assert (tail, empty) == (N // 2, 0)
    same(before.requests, after.requests)
    assert before.cold.tolist() == after.cold.tolist()


def test_ids_that_the_catalog_lacks_stay_in_a_row(shop):
    """A row of a newer catalog is updated by a processor with the older bundle."""
    shop.post(N, users=1)
    shop.drain(shop.processor())
    shop.store.rows["u0"]["history_item_ids"] = ["new"] * len(shop.store.rows["u0"]["history_item_ids"])
    shop.store.rows["u0"]["top_tags"][0] = "new tag"
    shop.post(1, users=1, times=[NOW])
    shop.drain(shop.processor())
    assert "new" in shop.rows(1)["history_item_ids"][0] and "new tag" in shop.rows(1)["top_tags"][0]


def test_a_merged_visitor_has_no_row(shop):
    shop.post(20, users=2)
    processor = shop.processor()
    shop.drain(processor)
    assert "u1" in shop.store.rows
    shop.writer.merge_identity("u1", "u0", NOW).result(timeout=10)
    shop.drain(processor)
    assert "u1" not in shop.store.rows and shop.reader.read_position(IDENTITIES) > 0
    counted = sum(shop.store.rows["u0"][f"count_{name}"] for name in shop.config.events.names)
    assert counted == 20
    assert read_integers(shop.rows(1), ("log_offset",))[0, 0] == shop.reader.last_offset()


def test_an_erased_user_has_the_row_of_a_new_history(shop, monkeypatch):
    monkeypatch.setattr(stream, "ERASURES_S", 0.0)
    shop.post(30, users=2)
    processor = shop.processor()
    shop.drain(processor)
    shop.writer.erase_user("u1", NOW).result(timeout=10)
    shop.drain(processor)
    assert "u1" not in shop.store.rows and "u0" in shop.store.rows
    again = {"event_id": "new", "user_id": "u1", "item_id": "i3", "type": "listen", "time": NOW}
    shop.writer.append([again]).result(timeout=10)
    for follower in (processor, shop.processor()):  # also after a restart, while the erasure is pending
        shop.drain(follower)
        assert shop.store.rows["u1"]["count_listen"] == 1 and shop.store.rows["u1"]["seen_item_ids"] == ["i3"]
