"""The steps of the data job without Ray: which events and ids it keeps, from files to interactions."""

import csv
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.catalog.vocabulary import Vocabulary
from handsell.config import load_config
from handsell.core.paths import Layout
from handsell.data.readers.detect import open_reader
from handsell.events.table_keys import TableKeys
from handsell.jobs.ingest.catalog import write_catalog
from handsell.jobs.ingest.catalog_changes import CatalogChanges
from handsell.jobs.ingest.event_files import InputPart, ReadingWork, read_part
from handsell.jobs.ingest.partitions import split_events, write_partition
from handsell.jobs.ingest.person_rules import PersonRules

START = datetime(2026, 5, 1, tzinfo=UTC)
NAMES = ("event_id", "user_id", "item_id", "time", "type")
SHOP = """
name = "shop"
[data]
format = "tables"
[data.tables.events]
path = "events"
[data.tables.items]
path = "items.SUFFIX"
[events.types]
view = { weight = 1.0 }
buy = { weight = 3.0 }
"""


def prepare(folder, files, items, suffix="csv", rest=""):
    """Write events in files of (event_id, user, item, second, type), and items; run the steps; return the layout."""
    (folder / "events").mkdir(parents=True)
    for number, rows in enumerate(files):
        told = [(e, u, i, (START + timedelta(seconds=t)).isoformat(), kind) for e, u, i, t, kind in rows]
        write(folder / f"events/{number}.{suffix}", NAMES, told)
    write(folder / f"items.{suffix}", ("item_id", "title"), [(item, "T") for item in items])
    path = folder / "shop.toml"
    path.write_text(SHOP.replace("SUFFIX", suffix).replace("[data]", f"[data]\n{rest}", 1))
    config = load_config(path)
    reader, fresh = open_reader(config), Layout(folder / "state")
    fresh.items.parent.mkdir(parents=True)
    PersonRules().save(fresh.state)
    parts = [InputPart(part.number, part.number, "source", source=part) for part in reader.parts()]
    work = ReadingWork(
        reader, fresh.state, fresh.compacted, config.events.names, int(datetime.now(UTC).timestamp() * 1e6)
    )
    for part in parts:
        read_part(part, work)
    counts = write_catalog(config, reader, fresh, {}, CatalogChanges({}), PersonRules(), np.zeros(0, bool))
    for part in parts:
        split_events(config, part, fresh.state, 2)
    written = sum(write_partition(partition, fresh.state).events for partition in range(2))
    return fresh, written, counts.deleted


def write(path, names, rows):
    if path.suffix == ".parquet":
        columns = zip(*rows, strict=True) if rows else [[] for _ in names]
        pq.write_table(pa.table([pa.array(list(c), pa.string()) for c in columns], names=list(names)), path)
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])


LINE = ("o1", "u1", "a", 0, "buy")
REPEATS = {
    "twice in one file": ([[LINE, LINE]], 1),
    "in two files": ([[LINE], [LINE]], 1),
    "lines of an order": ([[LINE, ("o1", "u1", "b", 0, "buy"), ("o1", "u1", "a", 9, "buy")]], 3),
    "another type": ([[LINE, ("o1", "u1", "a", 0, "view")]], 2),
    "another user": ([[LINE, ("o1", "u2", "a", 0, "buy")]], 2),
    "another event_id": ([[LINE, ("o2", "u1", "a", 0, "buy")]], 2),
    "without event_id": ([[("", "u1", "a", 0, "buy")] * 2], 1),
    "one without event_id": ([[LINE, ("", "u1", "a", 0, "buy")]], 2),
    "the same second": ([[("", "u1", "a", 0, "buy"), ("", "u1", "b", 0, "buy"), ("", "u1", "a", 1, "buy")]], 3),
}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("name", REPEATS)
def test_the_same_event_twice_is_one_event(tmp_path, name, suffix):
    files, kept = REPEATS[name]
    layout, written, _ = prepare(tmp_path, files, ["a", "b"], suffix)
    assert written == kept
    keys = [np.load(path) for path in sorted(layout.event_keys.iterdir())]
    assert len(keys) == 2 and len(np.unique(np.concatenate(keys))) == kept
    known, users = TableKeys(layout.event_keys), Vocabulary.load(layout.catalog / "users")
    number = int(users.number(["u1"])[0])
    assert known.contain(number, keys[number % 2].tolist()).all()


@pytest.mark.parametrize(
    ("rest", "items", "available", "deleted"),
    [
        ("", ["a"], [None, False], 1),
        ("", ["a", "b"], [None, None], 0),
        ("recommend_deleted_items = true", ["a"], [None, None], 0),
    ],
)
def test_an_item_without_a_row_is_deleted_and_keeps_its_events(tmp_path, rest, items, available, deleted):
    layout, written, found = prepare(tmp_path, [[LINE, ("o1", "u2", "b", 0, "buy")]], items, rest=rest)
    assert (written, found) == (2, deleted)
    assert pq.read_table(layout.items)["available"].to_pylist() == available


READ_AS_MISSING = {"NULL", "null", "NaN", "nan", "None", "NaT", "<NA>", "\\N"}
ID = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() and text.strip() not in READ_AS_MISSING
)
PLACE = st.sampled_from(
    ["007", "7", "7.0", "1e5", "a/b", "a%2Fb", 'a"b', "a,b", "a;b", " a", "a ", "A", "true", "日本/🎧"]
)


@settings(max_examples=12, deadline=None)
@given(
    users=st.lists(ID | PLACE, min_size=2, max_size=8, unique=True),
    items=st.lists(ID | PLACE, min_size=2, max_size=8, unique=True),
    suffix=st.sampled_from(["csv", "parquet"]),
)
def test_ids_come_out_of_the_files_as_they_are(users, items, suffix, tmp_path_factory):
    rows = [("", user, item, 60 * n, "view") for n, user in enumerate(users) for item in items]
    layout, written, deleted = prepare(tmp_path_factory.mktemp("shop"), [rows[::2], rows[1::2]], items, suffix)
    assert (written, deleted) == (len(rows), 0)
    for name, ids in (("users", users), ("items", items)):
        known = Vocabulary.load(layout.catalog / name)
        assert sorted(known.ids(np.arange(len(known)))) == sorted(ids)
        assert known.number(ids).min() >= 0
