"""Incremental data step: any order of source parts, store ranges and runs gives what one full run gives."""

import json
import os
import re
import shutil
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.catalog.vocabulary import Vocabulary
from handsell.config import load_config
from handsell.core.errors import DataError
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.data import key_runs
from handsell.data.interaction_parts import list_later_files, list_parts, read_part
from handsell.events import compaction
from handsell.events.store.interface import CatalogChange
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.jobs.ingest import checks, ingest, publication

NOW = 20_000 * DAY_US
TYPES = ("view", "buy")
SHOP = """
name = "shop"
[data]
format = "tables"
[data.tables.events]
path = "events"
[data.tables.items]
path = "items.parquet"
[data.tables.users]
path = "users.parquet"
[events.types]
view = { weight = 1.0 }
buy = { weight = 3.0 }
[jobs]
partitions = 2
"""


class FixedClock:
    at = NOW

    def now(self) -> int:
        return self.at


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    """Run the tasks in this process, at a time that the test sets, with small files that are soon merged."""
    monkeypatch.setattr(ingest, "run_tasks", lambda function, arguments, **_: [function(*row) for row in arguments])
    monkeypatch.setattr(ingest, "open_cluster", lambda *_: nullcontext())
    monkeypatch.setattr(ingest, "Clock", FixedClock)
    monkeypatch.setattr(compaction, "RANGE_ROWS", 3)
    monkeypatch.setattr(compaction, "BATCH_EVENTS", 2)
    monkeypatch.setattr(key_runs, "SHARE", 0.6)
    monkeypatch.setattr(FixedClock, "at", NOW)
    monkeypatch.setattr(checks, "FEW_FUTURE", 1.0)


@dataclass
class Shop:
    """A deployment in a folder, with source tables and an event store."""

    folder: Path
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "events").mkdir(parents=True)
        (self.folder / "shop.toml").write_text(SHOP)
        self.write_items([("i0", "T0"), ("i1", "T1")])
        pq.write_table(pa.table({"user_id": ["u0", "u1"], "age": [30, 40]}), self.folder / "users.parquet")
        self.add_file(0, [event(0, 0), event(1, 1, time=5)])

    @property
    def config(self):
        return load_config(self.folder / "shop.toml")

    @property
    def layout(self) -> Layout:
        return Layout(self.config.state)

    def write_items(self, rows: list[tuple]) -> None:
        ids, titles = zip(*rows, strict=True)
        columns = {"item_id": ids, "title": titles, "price": [1.0] * len(ids)}
        pq.write_table(pa.table(columns), self.folder / "items.parquet")

    def add_file(self, name: int, events: list[dict]) -> None:
        names = ("user_id", "item_id", "type", "time", "event_id", "value", "position")
        columns = {name: [event.get(name) for event in events] for name in names}
        types = {"time": pa.timestamp("us", "UTC"), "value": pa.float32(), "position": pa.int16()}
        arrays = [pa.array(cells, types.get(name, pa.string())) for name, cells in columns.items()]
        pq.write_table(pa.table(arrays, names=list(names)), self.folder / f"events/{name:06d}.parquet")

    def post(self, events: list[dict]) -> None:
        with SqliteWriter(self.layout.event_log) as log:
            log.append(events).result()

    def run(self) -> dict:
        self.said.clear()
        return ingest.prepare(self.config, self.said.append)

    def copy(self, folder: Path) -> "Shop":
        """Return the same deployment before its first data step."""
        ignored = shutil.ignore_patterns("data", "catalog", "interactions", ".data*")
        shutil.copytree(self.folder, folder, ignore=ignored)
        other = object.__new__(Shop)
        other.folder, other.said = folder, []
        return other


def event(user: int, item: int, kind: int = 0, time: int = 0, event_id: str | None = None, value: float | None = None):
    return {
        "user_id": f"u{user}", "item_id": f"i{item}", "type": TYPES[kind], "time": NOW - 100 + time,
        "event_id": event_id, "value": value, "position": None if value is None else int(value),
    }  # fmt: skip


def read_log(shop: Shop) -> list[tuple]:
    """Return the events as readers see them, with ids instead of numbers."""
    users, items = (Vocabulary.load(shop.layout.catalog / name) for name in ("users", "items"))
    rows = []
    for part in list_parts(shop.layout.interactions):
        table = read_part(part)
        user, item = table["user"].to_numpy(), table["item"].to_numpy()
        key = user.astype(np.int64) << 40
        assert (np.diff(key) >= 0).all() and (np.diff(table["time"].to_numpy())[np.diff(user) == 0] > 0).all()
        rest = table.select(["type", "time", "weight", "position", "propensity", "surface", "recommendation_id"])
        rows += [
            (u, i, *row.values()) for u, i, row in zip(users.ids(user), items.ids(item), rest.to_pylist(), strict=True)
        ]
    return sorted(rows, key=lambda row: (row[0], row[3]))


def read_catalog(shop: Shop, name: str) -> list[dict]:
    """Return the rows of items or users by id; an item without description and events may have a number or not."""
    used, rows = {item for _, item, *_ in read_log(shop)}, pq.read_table(getattr(shop.layout, name)).to_pylist()
    described = [
        row for row in rows
        if row.get("item_id") in used or any(row[column] is not None for column in row if column not in UNDESCRIBED)
    ]  # fmt: skip
    return sorted(described, key=str)


UNDESCRIBED = ("item_id", "user_id", "available")
COMPARED = (
    "events", "origins", "duplicates", "dropped", "future", "unknown_types", "first_us", "last_us", "events_through",
    "changes_through", "deleted_items",
)  # fmt: skip


def assert_same(shop: Shop, full: Shop) -> None:
    met, whole = (json.loads(one.layout.data_meta.read_text()) for one in (shop, full))
    assert read_log(shop) == read_log(full)
    assert {name: met[name] for name in COMPARED} == {name: whole[name] for name in COMPARED}
    assert met["events"] == len(read_log(shop))
    assert read_catalog(shop, "items") == read_catalog(full, "items")
    assert read_catalog(shop, "users") == read_catalog(full, "users")


EVENT = st.builds(
    event,
    user=st.integers(0, 5),
    item=st.integers(0, 4),
    kind=st.integers(0, 1),
    time=st.sampled_from([0, 1, 2, 3, 90, 103, 107]),  # ties, and two after the first runs
    event_id=st.sampled_from([None, None, "a", "b"]),
    value=st.sampled_from([None, 1.0, 2.0]),
)
CHANGE = st.builds(
    lambda kind, action, id, value: CatalogChange(
        kind, f"{kind[0]}{id}", action,
        {} if action == "delete" else {"title": f"new {value}"} if kind == "item" else {"age": value}, NOW,
    ),
    kind=st.sampled_from(["item", "user"]),
    action=st.sampled_from(["put", "patch", "delete"]),
    id=st.integers(0, 6),
    value=st.integers(0, 9),
)  # fmt: skip
ACTION = st.one_of(
    st.tuples(st.just("file"), st.integers(1, 99), st.lists(EVENT, min_size=1, max_size=5)),
    st.tuples(st.just("post"), st.lists(EVENT, min_size=1, max_size=6)),
    st.tuples(st.just("untimed"), st.lists(EVENT, min_size=1, max_size=3)),
    st.tuples(st.just("ahead"), st.lists(EVENT, min_size=1, max_size=3)),
    st.tuples(st.just("change"), st.lists(CHANGE, min_size=1, max_size=4)),
    st.tuples(st.just("merge"), st.integers(2, 5), st.integers(0, 1)),
    st.tuples(st.just("erase"), st.integers(2, 5)),
    st.tuples(st.just("wait"), st.sampled_from([2, 4, 8])),
    st.tuples(st.just("run")),
)


def act(shop: Shop, action: tuple, used: set[int]) -> None:
    """Change the deployment, or run its data step."""
    match action:
        case ("file", name, events):
            if name not in used:
                used.add(name)
                shop.add_file(name, events)
        case ("post", events):
            shop.post([one for one in events if one["time"] <= FixedClock.at])
        case ("ahead", events):
            shop.post([one | {"sent_time": one["time"] + 50} for one in events if one["time"] <= FixedClock.at])
        case ("untimed", events):
            shop.post([one | {"sent_time": None} for one in events if one["time"] <= FixedClock.at])
        case ("change", changes):
            with SqliteWriter(shop.layout.event_log) as log:
                log.append_changes(changes).result()
        case ("merge", visitor, user):
            with SqliteWriter(shop.layout.event_log) as log:
                log.merge_identity(f"u{visitor}", f"u{user}", NOW).exception()
        case ("erase", user):
            with SqliteWriter(shop.layout.event_log) as log:
                log.erase_user(f"u{user}", FixedClock.at + 1).exception()
        case ("wait", microseconds):
            FixedClock.at += microseconds
        case _:
            shop.run()


@settings(max_examples=25, deadline=None)
@given(actions=st.lists(ACTION, max_size=12))
def test_any_order_of_arrivals_and_runs_gives_what_one_full_run_gives(actions, tmp_path_factory):
    FixedClock.at = NOW
    shop, used = Shop(tmp_path_factory.mktemp("shop") / "a"), {0}
    shop.run()
    for action in actions:
        act(shop, action, used)
    shop.run()
    full = shop.copy(shop.folder.parent / "b")
    full.run()
    assert_same(shop, full)
    assert shop.run()["skipped"]


@pytest.fixture
def shop(tmp_path):
    made = Shop(tmp_path / "shop")
    made.run()
    return made


def read_ids(shop: Shop, name: str) -> list[str]:
    vocabulary = Vocabulary.load(shop.layout.catalog / name)
    return vocabulary.ids(np.arange(len(vocabulary)))


def test_an_event_that_is_exported_to_the_source_counts_once(shop):
    """Sent with a time, without one, and by a clock that is ahead: the export has the time that the store has."""
    sent = [event(0, 2, time=10), event(1, 2, time=11) | {"sent_time": None, "event_id": "x"}]
    ahead = event(1, 3, time=12) | {"sent_time": NOW + 500}
    shop.post([*sent, ahead])
    meta = shop.run()
    assert meta["origins"] == {"source": 2, "event_store": 3, "both": 0} and meta["events"] == 5
    assert "5 events: 2 in the source, 3 in the event store, 0 of them in both" in shop.said
    log = read_log(shop)
    shop.add_file(5, [{name: one[name] for name in one if name != "sent_time"} for one in [*sent, ahead]])
    exported = shop.run()
    assert exported["origins"] == {"source": 5, "event_store": 3, "both": 3}
    assert (exported["events"], exported["duplicates"]) == (5, 3) and read_log(shop) == log
    FixedClock.at = NOW + 1_000
    shop.add_file(6, [event(1, 3, time=12) | {"time": NOW + 500}])  # the sender's own log has the time that it sent
    assert shop.run()["events"] == 5 and read_log(shop) == log


def test_only_what_is_new_is_read_and_written(shop, monkeypatch):
    """A task reads the new file alone; the files of partitions are linked, not copied, until they are merged."""
    shop.add_file(1, [event(n % 4, n % 3, time=n) for n in range(40)])
    shop.run()
    read, original = [], ingest.read_part
    monkeypatch.setattr(ingest, "read_part", lambda part, work: read.append(part) or original(part, work))
    before = {path.name: path.stat().st_ino for path in list_parts(shop.layout.interactions)}
    shop.add_file(2, [event(0, 1, time=50), event(1, 1, time=51)])
    shop.run()
    assert [Path(part.source.path).name for part in read] == ["000002.parquet"]
    assert {path.name: path.stat().st_ino for path in list_parts(shop.layout.interactions)} == before
    assert [len(list_later_files(path)) for path in list_parts(shop.layout.interactions)] == [1, 1]
    shop.add_file(3, [event(0, 1, time=60 + n) for n in range(40)])
    shop.run()
    assert [len(list_later_files(path)) for path in list_parts(shop.layout.interactions)] == [0, 1]
    assert len(read_log(shop)) == 2 + 40 + 2 + 40 - 1  # an event is in two files


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "events/000001.parquet").unlink(), r"removed or has changed \(000001.parquet\)"),
        (lambda folder: os.utime(folder / "events/000001.parquet", ns=(5, 5)), "removed or has changed"),
        (lambda folder: (folder / "shop.toml").write_text(SHOP.replace("3.0", "4.0")), r"\[events\].* have changed"),
    ],
)
def test_a_changed_source_is_read_again_and_the_reason_is_said(shop, change, said):
    shop.add_file(1, [event(2, 1, time=n) for n in range(3)])
    shop.run()
    assert not any("again" in line for line in shop.said)
    shop.post([event(3, 3, time=9)])
    change(shop.folder)
    shop.run()
    assert any(re.search("reading all events again: .*" + said, line) for line in shop.said)
    full = shop.copy(shop.folder.parent / "full")
    full.run()
    assert_same(shop, full)


def test_items_and_users_that_came_over_http(shop):
    def append(*changes):
        with SqliteWriter(shop.layout.event_log) as log:
            log.append_changes([CatalogChange(*change, NOW) for change in changes]).result()

    put = {"title": "New", "creators": ["C"], "tags": ["t"], "text": None, "published_at": NOW, "expires_at": None}
    append(
        ("item", "fresh", "put", put | {"available": True, "price": 7, "size": {"w": 3}}),
        ("item", "i0", "patch", {"title": "Changed", "price": "not a number"}),
        ("item", "i1", "delete", {}),
        ("item", "nobody", "patch", {"title": "of an item that is no longer there"}),
        ("user", "u9", "put", {"age": 50}),
        ("user", "u0", "patch", {"age": 31}),
    )
    meta = shop.run()
    assert (meta["changes_through"], meta["users"], meta["items"]) == (6, 3, 3)
    items = {row["item_id"]: row for row in pq.read_table(shop.layout.items).to_pylist()}
    assert list(items) == ["i0", "i1", "fresh"]
    assert items["fresh"]["price"] == 7.0 and items["fresh"]["size"] == {"w": 3} and items["fresh"]["available"]
    assert items["fresh"]["published_at"].timestamp() * 1e6 == NOW and items["fresh"]["creators"] == ["C"]
    assert items["i0"]["title"] == "Changed" and items["i0"]["price"] is None
    assert items["i1"]["title"] is None and items["i1"]["available"] is False and meta["deleted_items"] == 1
    assert pq.read_table(shop.layout.users).to_pylist() == [
        {"user_id": "u0", "age": 31}, {"user_id": "u1", "age": 40}, {"user_id": "u9", "age": 50},
    ]  # fmt: skip
    assert read_ids(shop, "creators") == ["C"]
    shop.write_items([("i0", "Newer"), ("i1", "Back")])  # a change over HTTP wins over the source
    append(("item", "i1", "put", {"title": "Put again"}), ("item", "fresh", "delete", {}))
    shop.run()
    items = {row["item_id"]: row for row in pq.read_table(shop.layout.items).to_pylist()}
    assert [items[name]["title"] for name in ("i0", "i1", "fresh")] == ["Changed", "Put again", None]
    assert [items[name]["available"] for name in ("i0", "i1", "fresh")] == [None, None, False]
    full = shop.copy(shop.folder.parent / "full")
    full.run()
    assert_same(shop, full)


def test_a_deleted_item_stays_deleted_where_the_config_recommends_items_without_a_row(shop):
    (shop.folder / "shop.toml").write_text(SHOP.replace("[data]", "[data]\nrecommend_deleted_items = true"))
    with SqliteWriter(shop.layout.event_log) as log:
        log.append_changes([CatalogChange("item", "i0", "delete", {}, NOW)]).result()
    assert shop.run()["deleted_items"] == 1
    assert pq.read_table(shop.layout.items)["available"].to_pylist() == [False, None]


def test_an_erased_person_leaves_no_trace_and_may_come_back(shop):
    shop.add_file(1, [event(2, 1, time=1), event(3, 1, time=2)])
    shop.post([event(2, 0, time=3), event(4, 0, time=4)])
    shop.run()
    before = read_ids(shop, "users")
    assert before == ["u0", "u1", "u2", "u3", "u4"]
    with SqliteWriter(shop.layout.event_log) as log:
        log.erase_user("u2", NOW).result()
    shop.run()
    assert read_ids(shop, "users") == ["u0", "u1", "(erased user 2)", "u3", "u4"]
    assert {row[0] for row in read_log(shop)} == {"u0", "u1", "u3", "u4"}
    assert any("1 people whose events were read were erased" in line for line in shop.said)
    FixedClock.at = NOW + 1_000
    shop.post([event(2, 1, time=200)])
    assert shop.run()["events"] == 5 and read_ids(shop, "users")[-1] == "u2"
    (shop.folder / "shop.toml").write_text(SHOP.replace("3.0", "4.0"))  # everything is read again
    shop.run()
    assert read_ids(shop, "users") == ["u0", "u1", "(erased user 2)", "u3", "u4", "u2"]
    assert [row[0] for row in read_log(shop)].count("u2") == 1


def test_a_visitor_who_became_a_user_counts_as_that_user(shop):
    shop.post([event(7, 0, time=1), event(7, 1, time=2) | {"sent_time": None}, event(0, 2, time=2)])
    shop.run()
    with SqliteWriter(shop.layout.event_log) as log:
        log.merge_identity("u7", "u0", NOW).result()
    meta = shop.run()
    assert meta["origins"] == {"source": 2, "event_store": 3, "both": 0}
    assert not any("again:" in line for line in shop.said)
    assert "1 visitors became users: 1 partitions are written again" in shop.said
    assert [row[:2] for row in read_log(shop)] == [
        ("u0", "i0"),
        ("u0", "i0"),
        ("u0", "i1"),
        ("u0", "i2"),
        ("u1", "i1"),
    ]


def test_events_of_a_visitor_whose_clock_is_ahead_count_once_each_as_the_users(shop):
    ahead = [event(7, 1, time=2) | {"sent_time": NOW + 500 + n} for n in range(2)]
    shop.post(ahead)
    shop.run()
    with SqliteWriter(shop.layout.event_log) as log:
        log.merge_identity("u7", "u0", NOW).result()
    shop.post(ahead)  # sent again
    assert shop.run()["origins"] == {"source": 2, "event_store": 2, "both": 0}
    FixedClock.at = NOW + 1_000
    shop.add_file(5, [one | {"time": one["sent_time"]} for one in ahead])  # the sender's own log
    assert shop.run()["origins"] == {"source": 4, "event_store": 2, "both": 2}
    full = shop.copy(shop.folder.parent / "full")
    full.run()
    assert_same(shop, full)


def test_events_of_a_type_that_the_config_lacks_are_left_out(shop):
    shop.post([event(0, 1, time=7) | {"type": "wish"}, event(1, 0, time=8)])
    meta = shop.run()
    assert (meta["events"], meta["unknown_types"]) == (3, 1)
    (shop.folder / "shop.toml").write_text(SHOP.replace("buy =", "wish = {}\nbuy ="))
    meta = shop.run()
    assert (meta["events"], meta["unknown_types"]) == (4, 0)


def test_events_in_the_future_wait_for_a_later_run(shop):
    shop.add_file(1, [event(0, 1, time=n) for n in range(40)] + [event(2, 1, time=150)])
    meta = shop.run()
    assert (meta["events"], meta["future"], meta["users"]) == (42, 1, 2)
    assert shop.run()["skipped"]
    FixedClock.at = NOW + 50
    meta = shop.run()
    assert (meta["events"], meta["future"], meta["users"], meta["last_us"]) == (43, 0, 3, NOW + 50)
    assert not any("again" in line for line in shop.said) and shop.run()["skipped"]


def test_a_damaged_compacted_file_is_refused_and_the_old_data_stays(shop):
    shop.post([event(0, 1, time=7)])
    compaction.compact(shop.config, lambda text: None)
    path = next((shop.layout.compacted / "events").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"compacted file .* is truncated: expected \d+ bytes, got \d+: restore it"):
        shop.run()
    assert len(read_log(shop)) == 2


def test_a_run_that_ends_anywhere_is_repeated_and_nothing_is_lost_or_counted_twice(shop, monkeypatch):
    """Fail before the k-th rename or removal of the publication, for every k, with new events each time."""
    left = [0]

    def interruptible(original):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        return call

    monkeypatch.setattr(Path, "rename", interruptible(Path.rename))
    monkeypatch.setattr(publication.shutil, "rmtree", interruptible(shutil.rmtree))
    interrupted = 0
    for k in range(1, 30):
        shop.post([event(k % 5, k % 4, time=k, event_id=f"e{k}")])
        left[0] = k
        try:
            shop.run()
        except KeyboardInterrupt:
            interrupted += 1
    left[0] = 0
    meta = shop.run()
    assert 8 < interrupted < 29 and meta["events"] == 2 + 29 == len(read_log(shop))
    full = shop.copy(shop.folder.parent / "full")
    full.run()
    assert_same(shop, full)
    assert not list(shop.layout.state.glob(".data-*"))


@pytest.mark.parametrize("value", [2**64, 10**400, [10**400]])
def test_any_json_that_a_change_brings_becomes_a_column(shop, value):
    """Also where all rows have the same, and in columns of numbers."""
    fields = {"note": value, "price": value, "age": value}
    with SqliteWriter(shop.layout.event_log) as log:
        ids = [("item", "i0"), ("item", "i1"), ("user", "u0"), ("user", "u1")]
        log.append_changes([CatalogChange(kind, id, "put", fields, NOW) for kind, id in ids]).result()
    shop.run()
    shown = pq.read_table(shop.layout.items)["note"].to_pylist()
    assert json.loads(shown[0]) == value if isinstance(shown[0], str) else shown[0] == value
