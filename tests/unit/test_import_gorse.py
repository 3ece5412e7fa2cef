"""`handsell import gorse`: every format gives the same tables, and what cannot be used is counted with its reason."""

import json
import struct
from datetime import UTC, datetime

import numpy as np
import pyarrow.parquet as pq
import pytest

import foreign_dumps as dumps
from handsell.config import load_config
from handsell.core.errors import DataError
from handsell.doctor.inspection import examine
from handsell.migration import event_table, row_spool
from handsell.migration.importing import ImportSettings, import_source
from handsell.migration.tally import KINDS

SHOP = dumps.draw_users(), dumps.draw_items(), dumps.draw_feedback(np.random.default_rng(5))


def run(source, folder, **settings):
    return import_source("gorse", str(source), folder, ImportSettings(**settings))


def read(folder, table):
    return pq.read_table(folder / f"{table}.parquet").to_pylist()


def require_balance(tally):
    """All that was read was written, merged or skipped."""
    for kind in KINDS:
        assert tally.read[kind] == tally.written[kind] + tally.merged[kind] + tally.count_skipped(kind), kind


def write_lines(folder):
    folder.mkdir()
    for name, records in zip(("users", "items", "feedback"), SHOP, strict=True):
        dumps.write_json_lines(folder / f"{name}.jsonl{'.gz' if name == 'feedback' else ''}", records)
    return folder


def write_csv(folder):
    """As older versions export: no values, and lists with |."""
    folder.mkdir()
    users, items, feedback = SHOP
    (folder / "users.csv").write_text("user_id,labels\n" + "".join(f"{u['UserId']},new|g0\n" for u in users))
    header = "item_id,is_hidden,categories,time_stamp,labels,description\n"
    rows = (f"{i['ItemId']},{str(i['IsHidden']).lower()},a|b,{i['Timestamp']},x|y,{i['Comment']}\n" for i in items)
    (folder / "items.csv").write_text(header + "".join(rows))
    rows = (f"{f['FeedbackType']},{f['UserId']},{f['ItemId']},{f['Timestamp']}\n" for f in feedback)
    (folder / "feedback.csv").write_text("feedback_type,user_id,item_id,time_stamp\n" + "".join(rows))
    return folder


FORMATS = {
    "json_lines": lambda path: write_lines(path),
    "binary_0.4": lambda path: dumps.write_binary_dump(path, *SHOP),
    "binary_first": lambda path: dumps.write_binary_dump(path, *SHOP, first=1),
    "binary_value": lambda path: dumps.write_binary_dump(path, *SHOP, first=1, with_value=True),
    "binary_namespace_value": lambda path: dumps.write_binary_dump(path, *SHOP, first=2, with_value=True),
    "mysql": lambda path: dumps.write_mysql_dump(path, dumps.list_rows(*SHOP)),
    "postgresql": lambda path: dumps.write_postgresql_dump(path, dumps.list_rows(*SHOP)),
    "sqlite": lambda path: dumps.write_sqlite_dump(path, dumps.list_rows(*SHOP)),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_tables(kind, tmp_path):
    config, tally = run(FORMATS[kind](tmp_path / "source"), tmp_path / "shop")
    users, items, feedback = SHOP
    with_value = kind not in ("binary_0.4", "binary_first")
    assert read(tmp_path / "shop", "events") == [
        {
            "event_id": None, "user_id": f["UserId"], "item_id": f["ItemId"], "type": f["FeedbackType"],
            "time": datetime.fromisoformat(f["Timestamp"]), "value": (f["Value"] or None) if with_value else None,
            "surface": None, "recommendation_id": None, "position": None, "propensity": None,
        }
        for f in feedback
    ]  # fmt: skip
    found = {item["item_id"]: item for item in read(tmp_path / "shop", "items")}
    assert found.keys() == {item["ItemId"] for item in items}
    for item in items:
        row = found[item["ItemId"]]
        assert row["title"] == item["Comment"] and row["available"] is (not item["IsHidden"])
        assert row["categories"] == item["Categories"] and json.loads(row["labels"]) == item["Labels"]
        assert row["tags"] == [*item["Categories"], "language:Go", *(f"topics:{t}" for t in item["Labels"]["topics"])]
        assert row["published_at"] == datetime(2024, 2, 24, tzinfo=UTC)
        assert (row["label_stars"], row["label_language"]) == (item["Labels"]["stars"], "Go")
    by_id = {user["user_id"]: user for user in read(tmp_path / "shop", "users")}
    assert all(json.loads(by_id[u["UserId"]]["labels"]) == u["Labels"] for u in users)
    assert {u["comment"] for u in by_id.values()} == {u["Comment"] for u in users}
    require_balance(tally)
    assert tally.written == {"events": len(feedback), "items": len(items), "users": len(users)}
    report = examine(load_config(config))
    assert report.ok, [p.message for p in report.problems]


def test_csv_of_older_versions(tmp_path):
    config, tally = run(write_csv(tmp_path / "source"), tmp_path / "shop")
    assert examine(load_config(config)).ok
    require_balance(tally)
    row = read(tmp_path / "shop", "items")[0]
    assert row["categories"] == ["a", "b"] and json.loads(row["labels"]) == ["x", "y"] and row["tags"] == list("abxy")


def test_what_cannot_be_used_is_counted_with_reason_and_place(tmp_path):
    good = [dict(record) for record in SHOP[2][:300]]
    bad = [
        {**good[0], "UserId": ""}, {**good[0], "Timestamp": "soon"}, {**good[0], "Timestamp": "0001-01-01T00:00:00Z"},
        {**good[0], "ItemId": 1.5}, {**good[0], "UserId": "x" * 257}, {**good[0], "UserId": "a\nb"}, {"Nothing": 1},
        {**good[0], "Value": "much", "Reviewer": "z", "Comment": "nice"}, {"ItemId": None}, {"UserId": "u1", "Age": 3},
    ]  # fmt: skip
    path = dumps.write_json_lines(tmp_path / "feedback.jsonl", [*good, *bad])
    with path.open("a") as out:
        out.write("not json\n\n[1]\n")
    _, tally = run(path, tmp_path / "shop")
    require_balance(tally)
    assert dict(tally.skipped["events"]) == {
        "no user": 1, "a time that cannot be read": 1, "no time": 1, "user_id: an id with control characters": 1,
        "item_id: an id that is neither text nor a whole number (float)": 1,
        "user_id: an id of more than 256 characters": 1,
    }  # fmt: skip
    assert str(tally.first["events", "no user"]) == f"{path}, line 301"
    assert str(tally.first["events", "a time that cannot be read"]) == f"{path}, line 302"
    assert tally.count_skipped("other") == 3 and tally.count_skipped("items") == 1
    assert dict(tally.dropped) == {"events: Reviewer": 1, "events: Comment": 1, "events: value that is no number": 1}
    assert read(tmp_path / "shop", "users") == [{"user_id": "u1", "Age": 3}]
    told = json.loads((tmp_path / "shop" / "import.json").read_text())
    assert told["kinds"]["events"]["read"] == 307 and told["not_kept"]["events: Reviewer"] == 1


def test_a_folder_may_be_a_uri(tmp_path):
    _, tally = run(write_lines(tmp_path / "source").as_uri(), tmp_path / "shop")
    assert tally.written == {"events": dumps.EVENTS, "items": dumps.ITEMS, "users": dumps.USERS}


def test_a_later_record_of_an_item_replaces_the_earlier_one(tmp_path):
    items = [{"ItemId": "i1", "Comment": "old", "Labels": {"a": 1}}, {"ItemId": "i1", "Comment": "new"}]
    folder = tmp_path / "source"
    folder.mkdir()
    dumps.write_json_lines(folder / "items.jsonl", items)
    dumps.write_json_lines(folder / "feedback.jsonl", SHOP[2][:50])
    _, tally = run(folder, tmp_path / "shop")
    (row,) = read(tmp_path / "shop", "items")
    assert (row["title"], row["labels"]) == ("new", None) and tally.merged["items"] == 1


def test_labels_of_several_types_become_text_and_rare_ones_one_column(tmp_path, monkeypatch):
    monkeypatch.setattr(row_spool, "MOST_COLUMNS", 4)
    monkeypatch.setattr(row_spool, "BATCH", 2)
    labels = [{"a": 1, "b": 1}, {"a": 2.5, "b": "x"}, {"a": 3}, {f"c{n}": n for n in range(3)}]
    folder = tmp_path / "source"
    folder.mkdir()
    dumps.write_json_lines(folder / "items.jsonl", [{"ItemId": f"i{n}", "Labels": one} for n, one in enumerate(labels)])
    dumps.write_json_lines(folder / "feedback.jsonl", SHOP[2][:50])
    _, tally = run(folder, tmp_path / "shop")
    rows = read(tmp_path / "shop", "items")
    assert [row["label_a"] for row in rows] == [1.0, 2.5, 3.0, None]
    assert [row["label_b"] for row in rows] == ["1", "x", None, None]
    assert json.loads(rows[3]["other_fields"]) == {"label_c1": 1, "label_c2": 2} and "kept as JSON" in tally.notes[0]


def test_events_are_written_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(event_table, "BATCH", 100)
    run(write_lines(tmp_path / "source"), tmp_path / "shop")
    file = pq.ParquetFile(tmp_path / "shop" / "events.parquet")
    assert file.num_row_groups == 15 and file.metadata.num_rows == dumps.EVENTS


def test_a_dump_that_is_cut_off_is_an_error_and_leaves_nothing(tmp_path):
    whole = dumps.write_binary_dump(tmp_path / "dump.bin", *SHOP).read_bytes()
    for size in (len(whole) // 2, 12, len(whole) - 80):
        (tmp_path / "cut.bin").write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"cut off after record|expected a complete dump"):
            run(tmp_path / "cut.bin", tmp_path / "shop")
        assert not (tmp_path / "shop").exists()


def test_counts_that_differ_from_those_of_gorse_are_told(tmp_path):
    path = dumps.write_binary_dump(tmp_path / "dump.bin", *SHOP)
    path.write_bytes(path.read_bytes().replace(b'"Users": 40', b'"Users": 41'))
    _, tally = run(path, tmp_path / "shop")
    assert any("41 users, the file has 40" in note for note in tally.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00\x01binary", "got something else"),
        (b"[{}]", "jq -c"),
        (b"", "no event"),
        (struct.pack("<qq", -1, 5) + b"\xff\xff\xff\xff\xff", "cannot be decoded"),
        (struct.pack("<qq", -9, 5), "got something else"),
        (struct.pack("<qq", -1, -9), "expected a section"),
    ],
)
def test_other_files_are_errors_that_say_what_to_do(content, message, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=message):
        run(tmp_path / "file", tmp_path / "shop")


def test_the_folder_must_be_new(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="choose another"):
        run(write_lines(tmp_path / "source"), tmp_path / "shop")
    assert (tmp_path / "shop" / "mine.txt").read_text() == "precious"
    with pytest.raises(DataError, match="expected a file, a folder"):
        run(tmp_path / "nowhere", tmp_path / "other")


VALUES = (
    None, True, 0, -1, 2**70, 1.5, "", " ", "a", "\x00", "2026-01-01T00:00:00Z", "soon", [], ["a", 1, None], [[1]], {},
    {"a": 1, "b": [1], "": "x"}, {"c": {"d": None}},
)  # fmt: skip
NAMES = (
    "ItemId", "UserId", "FeedbackType", "Timestamp", "Labels", "Categories", "IsHidden", "title", "Value", "Comment",
    "Subscribe", "item_id", "\x00", " ",
)  # fmt: skip


def test_any_json_is_read_or_counted(tmp_path):
    rng = np.random.default_rng(3)
    for n in range(60):
        records = [
            {NAMES[name]: VALUES[rng.integers(len(VALUES))] for name in rng.integers(0, len(NAMES), 5)}
            for _ in range(20)
        ]
        path = dumps.write_json_lines(tmp_path / f"mixed{n}.jsonl", [SHOP[2][0], *records])
        config, tally = run(path, tmp_path / f"shop{n}")
        require_balance(tally)
        assert sum(tally.read.values()) == 21
        load_config(config)


def test_labels_that_are_nested_too_deeply_are_counted(tmp_path):
    deep = "[" * 400 + "]" * 400
    path = dumps.write_json_lines(tmp_path / "feedback.jsonl", SHOP[2][:20])
    with path.open("a") as out:
        out.write(f'{{"ItemId": "i1", "Labels": {deep}}}\n{{"ItemId": "i2", "Other": {deep}}}\n')
        out.write(f'{{"UserId": "u", "Something": {deep}}}\n')
    _, tally = run(path, tmp_path / "shop")
    require_balance(tally)
    assert tally.count_skipped("items") == 2 and tally.count_skipped("users") == 1
