"""`handsell import csv`: columns are found by their names, in any dialect."""

import csv
from datetime import timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from foreign_dumps import START
from handsell.cli import app
from handsell.config import load_config
from handsell.core.errors import DataError
from handsell.doctor.inspection import examine
from handsell.migration.importing import ImportSettings, import_source
from handsell.migration.tally import KINDS

EVENTS, USERS, ITEMS = 900, 30, 40


def write_shop(folder, names=("Customer ID", "Product_ID", "created_at", "Rating"), delimiter=",", encoding="utf-8"):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(4)
    with (folder / "orders.csv").open("w", newline="", encoding=encoding) as out:
        writer = csv.writer(out, delimiter=delimiter)
        writer.writerow([*names, "Überweisung"])
        for n in range(EVENTS):
            time = (START + timedelta(hours=2 * n)).strftime("%Y-%m-%d %H:%M:%S")
            rating = f"{rng.integers(1, 11) / 2}".replace(".", "," if delimiter == ";" else ".")
            writer.writerow([f"0{rng.integers(USERS)}", f"i{rng.integers(ITEMS)}", time, rating, "ja"])
    return folder


def run(source, folder, **settings):
    config, tally = import_source("csv", str(source), folder, ImportSettings(**settings))
    for kind in KINDS:
        assert tally.read[kind] == tally.written[kind] + tally.merged[kind] + tally.count_skipped(kind), kind
    return config, tally


def read(folder, table):
    return pq.read_table(folder / f"{table}.parquet").to_pylist()


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(",", "utf-8"), (";", "cp1252"), ("\t", "utf-16"), ("|", "utf-8-sig")]
)
def test_any_dialect(delimiter, encoding, tmp_path):
    config, tally = run(write_shop(tmp_path / "source", delimiter=delimiter, encoding=encoding), tmp_path / "shop")
    events = read(tmp_path / "shop", "events")
    assert len(events) == EVENTS and events[0]["time"] == START
    assert events[0]["user_id"].startswith("0") and events[0]["type"] == "rating"
    assert {e["value"] for e in events} == {n / 2 for n in range(1, 11)}
    assert dict(tally.dropped) == {"events: column Überweisung": EVENTS}
    assert "user_id = Customer ID, item_id = Product_ID, time = created_at, value = Rating" in tally.notes[0]
    loaded = load_config(config)
    assert loaded.events.types["rating"].weight_by_value[0] == (1.0, -1.0) and examine(loaded).ok


def test_items_and_users_beside_the_events(tmp_path):
    source = write_shop(tmp_path / "source")
    (source / "products.csv").write_text(
        "product_id,name,genres,price,in_stock,code,mixed\ni0,First,a|b,1.5,yes,007,1\ni1,Second,c,2,no,8,x\ni0,Again,d,3,,9,2\n"
    )
    (source / "customers.csv").write_text("customer_id,age,newsletter\n00,33,true\n01,,false\n,4,true\n")
    (source / "notes.txt").write_text("no table")
    (source / "colors.csv").write_text("color,hex\nred,f00\n")
    config, tally = run(source, tmp_path / "shop")
    items = read(tmp_path / "shop", "items")
    assert [(i["item_id"], i["title"], i["tags"], i["available"]) for i in items] == [
        ("i0", "Again", ["d"], None), ("i1", "Second", ["c"], False),
    ]  # fmt: skip
    assert [(i["price"], i["code"], i["mixed"]) for i in items] == [(3.0, "9", "2"), (2.0, "8", "x")]
    assert read(tmp_path / "shop", "users") == [
        {"user_id": "00", "age": 33, "newsletter": True}, {"user_id": "01", "age": None, "newsletter": False},
    ]  # fmt: skip
    assert tally.merged["items"] == 1 and dict(tally.skipped["users"]) == {"no user_id": 1}
    assert dict(tally.skipped["other"]) == {"a table without ids of users or items": 1}
    assert load_config(config).data.recommend_deleted_items and "38 of 40 items" in tally.notes[-1]
    assert examine(load_config(config)).ok


def test_columns_that_are_named(tmp_path):
    source = write_shop(tmp_path / "source", names=("wer", "was", "wann", "wie"))
    with pytest.raises(DataError, match="--column user_id=COLUMN"):
        run(source, tmp_path / "shop")
    columns = {"user_id": "wer", "item_id": "was", "time": "wann", "type": "wie"}
    config, tally = run(source, tmp_path / "shop", columns=columns, weights={"1.5": -1.0})
    assert tally.written["events"] == EVENTS and len(load_config(config).events.types) == 10
    assert load_config(config).events.types["1.5"].weight == -1.0
    with pytest.raises(DataError, match="expected one of"):
        run(source, tmp_path / "other", columns={"who": "wer"})


def test_rows_that_cannot_be_used_are_counted(tmp_path):
    source = write_shop(tmp_path / "source")
    with (source / "orders.csv").open("a") as out:
        out.write(",i1,2026-01-01,4,x\nu1,,2026-01-01,4,x\nu1,i1,yesterday,4,x\nu1,i1,,4,x\nu1,i1,2026-01-01,many,x\n")
    _, tally = run(source, tmp_path / "shop")
    assert dict(tally.skipped["events"]) == {
        "no user": 1, "no item": 1, "a time that cannot be read": 1, "no time": 1,
    }  # fmt: skip
    assert tally.written["events"] == EVENTS + 1 and tally.dropped["events: value that is no number"] == 1
    assert tally.first["events", "no user"].number == EVENTS + 1


def test_an_old_log_runs_by_the_clock_of_the_data(tmp_path):
    source = tmp_path / "old.csv"
    source.write_text("user,item,ts\n" + "".join(f"u{n % 9},i{n % 70},{1_100_000_000 + 900 * n}\n" for n in range(300)))
    config, _ = run(source, tmp_path / "shop")
    assert load_config(config).serving.clock == "data" and examine(load_config(config)).ok


def test_the_command_says_what_it_did_and_what_is_wrong(tmp_path):
    source = write_shop(tmp_path / "source")
    done = CliRunner().invoke(app, ["import", "csv", str(source), "--out", str(tmp_path / "Shop 1")])
    assert done.exit_code == 0 and f"events: {EVENTS:,} read, {EVENTS:,} written" in done.output
    assert (tmp_path / "Shop 1" / "shop_1.toml").exists() and "handsell doctor" in done.output
    for wrong, message in (
        (["--out", str(source)], "choose another"),
        (["--out", str(tmp_path / "b"), "--column", "user_id"], "expected NAME=VALUE"),
        (["--out", str(tmp_path / "b"), "--weight", "view=heavy"], "expected a number"),
        (["--out", str(tmp_path / "b"), "--weight", "nope=1"], "expected a type of the events"),
        (["--out", str(tmp_path / "b"), "--name", "My Shop"], "expected small letters"),
    ):
        done = CliRunner().invoke(app, ["import", "csv", str(source), *wrong])
        assert done.exit_code == 1 and message in str(done.exception), wrong
