"""`handsell import metarank`: rankings become impressions with positions, interactions name their ranking."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest

from foreign_dumps import START, write_json_lines
from handsell.config import load_config
from handsell.doctor.inspection import examine
from handsell.migration.importing import ImportSettings, import_source
from handsell.migration.tally import KINDS

ITEM = {
    "event": "item", "id": "e1", "timestamp": "1599391467000", "item": "item1",
    "fields": [
        {"name": "title", "value": "You favorite cat"}, {"name": "color", "value": ["white", "black"]},
        {"name": "price", "value": 9.5}, {"name": "is_cute", "value": True},
    ],
}  # fmt: skip
USER = {
    "event": "user", "id": "e2", "timestamp": "2020-09-06T11:24:27Z", "user": "user1",
    "fields": [{"name": "age", "value": 33}, {"name": "gender", "value": "m"}],
}  # fmt: skip
RANKING = {
    "event": "ranking", "id": "r1", "timestamp": "1599391467000", "user": "user1", "session": "s1",
    "fields": [{"name": "query", "value": "cat"}],
    "items": [{"id": "item3", "relevancy": 2.0}, {"id": "item1", "relevancy": 1.0}, {"id": "item2"}],
}  # fmt: skip
CLICK = {
    "event": "interaction", "id": "i1", "ranking": "r1", "timestamp": 1599391468000, "user": "user1", "session": "s1",
    "type": "purchase", "item": "item1",
    "fields": [{"name": "value", "value": 3}, {"name": "shipping", "value": "DHL"}],
}  # fmt: skip
TIME = datetime(2020, 9, 6, 11, 24, 27, tzinfo=UTC)


def run(folder, records, **settings):
    path = write_json_lines(folder / "events.jsonl.gz", records)
    config, tally = import_source("metarank", str(path), folder / "shop", ImportSettings(**settings))
    for kind in KINDS:
        assert tally.read[kind] == tally.written[kind] + tally.merged[kind] + tally.count_skipped(kind), kind
    return config, tally


def read(folder, table):
    return pq.read_table(folder / "shop" / f"{table}.parquet").to_pylist()


def test_the_four_kinds_of_events(tmp_path):
    _, tally = run(tmp_path, [ITEM, USER, RANKING, CLICK], columns={"tags": "color"})
    names = ("user_id", "item_id", "type", "time", "recommendation_id", "position", "event_id", "value")
    assert [tuple(event[name] for name in names) for event in read(tmp_path, "events")] == [
        ("user1", "item3", "impression", TIME, "r1", 1, None, None),
        ("user1", "item1", "impression", TIME, "r1", 2, None, None),
        ("user1", "item2", "impression", TIME, "r1", 3, None, None),
        ("user1", "item1", "purchase", TIME + timedelta(seconds=1), "r1", None, "i1", 3.0),
    ]  # fmt: skip
    (item,) = read(tmp_path, "items")
    assert (item["item_id"], item["title"], item["tags"]) == ("item1", "You favorite cat", ["white", "black"])
    assert (item["price"], item["is_cute"]) == (9.5, True)
    assert read(tmp_path, "users") == [{"user_id": "user1", "age": 33, "gender": "m"}]
    assert dict(tally.dropped) == {"events: query": 1, "events: relevancy": 2, "events: shipping": 1}


def test_later_events_of_an_item_change_the_fields_that_they_name(tmp_path):
    later = {**ITEM, "timestamp": "1599391469000", "fields": [{"name": "price", "value": 8}]}
    earlier = {
        **ITEM,
        "timestamp": "2020-01-01T00:00:00Z",
        "fields": [{"name": "price", "value": 7}, {"name": "b", "value": 1}],
    }
    _, tally = run(tmp_path, [ITEM, later, earlier, CLICK])
    (item,) = read(tmp_path, "items")
    assert (item["title"], item["price"], item["b"]) == ("You favorite cat", 8.0, 1) and tally.merged["items"] == 2


def test_a_visitor_without_a_user_is_the_session(tmp_path):
    _, tally = run(tmp_path, [{**CLICK, "user": None}, {**RANKING, "user": "", "session": None}])
    assert [e["user_id"] for e in read(tmp_path, "events")] == ["s1"]
    assert dict(tally.skipped["events"]) == {"no user": 3}


@pytest.mark.parametrize(
    "bad",
    [
        {"event": "feedback"}, {"event": ["item"]}, {**RANKING, "items": []}, {**RANKING, "items": "item1"},
        {**ITEM, "item": None}, {**CLICK, "type": ""}, {**CLICK, "timestamp": "soon"}, {**CLICK, "timestamp": {}},
        {**RANKING, "items": [7, None, {}]}, {},
    ],
)  # fmt: skip
def test_what_is_no_event_is_counted(bad, tmp_path):
    _, tally = run(tmp_path, [CLICK, bad])
    assert sum(tally.count_skipped(kind) for kind in KINDS) >= 1
    assert tally.written["events"] == (2 if bad.get("items") == [7, None, {}] else 1)


def test_wrong_fields_are_named(tmp_path):
    _, tally = run(tmp_path, [{**CLICK, "fields": [1]}, {**ITEM, "fields": {"title": "x"}, "tenant": "t"}])
    assert dict(tally.dropped) == {"events: fields that are no list of names and values": 1}
    assert read(tmp_path, "items")[0]["title"] == "x" and read(tmp_path, "items")[0]["tenant"] == "t"


def test_the_doctor_accepts_the_config(tmp_path):
    rng = np.random.default_rng(2)
    records = [{**ITEM, "item": f"item{n}"} for n in range(30)]
    for n in range(400):
        time = int((START + timedelta(hours=5 * n)).timestamp() * 1_000)
        shown = rng.choice(30, 5, replace=False)
        base = {"timestamp": str(time), "user": f"user{rng.integers(20)}"}
        records.append({"event": "ranking", "id": f"r{n}", "items": [{"id": f"item{i}"} for i in shown], **base})
        records.append({**CLICK, **base, "id": f"c{n}", "ranking": f"r{n}", "item": f"item{shown[0]}", "fields": None})
    config, _ = run(tmp_path, records, weights={"purchase": 3.0})
    loaded = load_config(config)
    assert examine(loaded).ok
    assert loaded.events.types["purchase"].weight == 3.0 and not loaded.events.types["impression"].seen
    assert json.loads((tmp_path / "shop" / "import.json").read_text())["kinds"]["events"]["written"] == 2_400
