"""The user's own tables: mappings, types of every origin, and errors name the cause."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from handsell.core.errors import DataError
from handsell.data.config import TablesConfig
from handsell.data.readers import tables as module
from handsell.data.readers.base import NULLABLE_EVENTS, read_all_events
from handsell.data.readers.conversion import ColumnLocation, convert
from handsell.data.readers.detect import open_reader
from handsell.data.readers.tables import Tables
from handsell.data.schemas import STRINGS, TIME

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
PLACE = ColumnLocation("file", "col", "canonical")


def reader(folder, types=("click", "buy"), **tables) -> Tables:
    return Tables(folder, TablesConfig.model_validate(tables), types)


def events(source) -> pa.Table:
    return pa.Table.from_batches(list(read_all_events(source)), NULLABLE_EVENTS)


def test_csv_with_a_mapping_keeps_ids_as_they_are(tmp_path):
    (tmp_path / "log.csv").write_text(
        "uid,sku,ts,what,qty,ignored\n007,A1,2026-05-01T12:00:00Z,buy,2,x\n42,NA,2026-05-01 14:00:00+02:00,click,,y\n"
    )
    mapping = {"user_id": "uid", "item_id": "sku", "time": "ts", "type": "what", "value": "qty"}
    log = events(reader(tmp_path, events={"path": "log.csv", "columns": mapping}))
    assert log["user_id"].to_pylist() == ["007", "42"]
    assert log["item_id"].to_pylist() == ["A1", "NA"]
    assert log["time"].to_pylist() == [NOON, NOON]
    assert log["type"].to_pylist() == ["buy", "click"]
    assert log["value"].to_pylist() == [2.0, None]
    assert len(set(log["event_id"].to_pylist())) == 2
    assert log["surface"].null_count == 2


def test_parquet_folder_read_in_order_of_names_and_cut_at_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_PART", 4)
    folder = tmp_path / "events"
    folder.mkdir()
    for k, name in enumerate(("b.parquet", "a.parquet")):
        n = 6
        table = pa.table(
            {"user_id": [k] * n, "item_id": list(range(n)), "time": pa.array([NOON] * n), "type": ["click"] * n}
        )
        pq.write_table(table, folder / name, row_group_size=2)
    (folder / "_SUCCESS").write_text("")
    source = reader(tmp_path, events={"path": "events"})
    assert [part.row_groups for part in source.parts()] == [(0, 1), (2,), (0, 1), (2,)]
    log = events(source)
    assert log["user_id"].to_pylist() == ["1"] * 6 + ["0"] * 6
    assert log["item_id"].to_pylist() == list("012345") * 2
    assert len(pc.unique(log["event_id"])) == 12


def test_one_event_type_needs_no_column(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,time\nu,i,1777636800\n")
    assert events(reader(tmp_path, ("buy",), events={"path": "log.csv"}))["type"].to_pylist() == ["buy"]
    with pytest.raises(DataError, match=r"no column for `type`, and \[events.types\] names 2: click, buy"):
        events(reader(tmp_path, events={"path": "log.csv"}))


def test_items_and_users_keep_their_other_columns(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,time\nu,i,1\n")
    (tmp_path / "items.csv").write_text("sku,name,brand,cats,stock,price\n01,Lamp,Acme|Bolt,home|,yes,9.5\n02,,,,,\n")
    pq.write_table(pa.table({"user_id": [7], "age": pa.array([31], pa.int16())}), tmp_path / "users.parquet")
    columns = {"item_id": "sku", "title": "name", "creators": "brand", "tags": "cats", "available": "stock"}
    source = reader(
        tmp_path,
        events={"path": "log.csv"},
        items={"path": "items.csv", "columns": columns},
        users={"path": "users.parquet"},
    )
    lamp, bare = source.items().to_pylist()
    assert (lamp["item_id"], lamp["creators"], lamp["tags"]) == ("01", ["Acme", "Bolt"], ["home"])
    assert (lamp["available"], lamp["price"]) == (True, 9.5)
    assert (bare["title"], bare["tags"], bare["available"], bare["price"]) == (None, [], None, None)
    assert source.users().to_pylist() == [{"user_id": "7", "age": 31}]
    assert {path.name for path in source.files()} == {"log.csv", "items.csv", "users.parquet"}


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1_777_636_800]),
        pa.array([1_777_636_800_000]),
        pa.array([1_777_636_800_000_000]),
        pa.array([1_777_636_800_000_000_000]),
        pa.array([1_777_636_800.0]),
        pa.array(["1777636800"]),
        pa.array(["2026-05-01T12:00:00Z"]),
        pa.array(["2026-05-01 12:00"]),
        pa.array(["2026-05-01T14:00:00.000000000+02:00"]),
        pa.array([NOON.replace(tzinfo=None)], pa.timestamp("ms")),
        pa.array([NOON], pa.timestamp("ns", "Europe/Berlin")),
    ],
)
def test_times_of_every_origin(array):
    assert convert(array, TIME, PLACE, "|").to_pylist() == [NOON]


def test_dates_start_at_midnight_utc():
    midnight = [datetime(2026, 5, 1, tzinfo=UTC), None]
    assert convert(pa.array([date(2026, 5, 1), None]), TIME, PLACE, "|").to_pylist() == midnight
    assert convert(pa.array(["2026-05-01", ""]), TIME, PLACE, "|").to_pylist() == midnight


def test_ids_that_pandas_made_floats_are_whole_again():
    assert convert(pa.array([3.0, None, 12.0]), pa.string(), PLACE, "|").to_pylist() == ["3", None, "12"]


def test_lists_and_dictionary_columns():
    assert convert(pa.array([["a", "b"], None]), STRINGS, PLACE, "|").to_pylist() == [["a", "b"], None]
    assert convert(pa.array(["x;y", ""]).dictionary_encode(), STRINGS, PLACE, ";").to_pylist() == [["x", "y"], []]


@pytest.mark.parametrize(
    ("array", "kind", "said"),
    [
        (pa.array([1.5]), pa.string(), "expected text or whole numbers, got 1.5"),
        (pa.array([True]), TIME, "expected a timestamp.*got type bool"),
        (pa.array(["yesterday"]), TIME, "expected ISO 8601.*got 'yesterday'"),
        (pa.array(["many"]), pa.float32(), "expected a number.*'many'"),
        (pa.array(["perhaps"]), pa.bool_(), "expected true or false, got 'perhaps'"),
        (pa.array([[1.5]]), pa.string(), "expected text or whole numbers, got type list"),
        (pa.array([70_000]), pa.int16(), "expected a number"),
        (pa.array([float("inf")]), pa.string(), "expected text or whole numbers"),
        (pa.array(["9" * 23]), TIME, "expected epoch seconds"),
    ],
)
def test_a_wrong_type_names_file_column_expected_and_received(array, kind, said):
    with pytest.raises(DataError, match=r"file: column col \(canonical\): " + said):
        convert(array, kind, PLACE, "|")


def test_mistakes_in_the_tables_section(tmp_path):
    (tmp_path / "log.csv").write_text("user,item_id,time,type\nu,i,1,click\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.txt").write_text("a")
    (tmp_path / "bad.parquet").write_text("not parquet")
    (tmp_path / "nothing.csv").write_text("")

    def said(**events_table):
        with pytest.raises(DataError) as error:
            events(reader(tmp_path, events=events_table))
        return str(error.value)

    assert "expected a column 'user_id' for user_id" in said(path="log.csv")
    assert 'perhaps user_id = "user"?' in said(path="log.csv")
    assert "expected a column 'uid' for user_id" in said(path="log.csv", columns={"user_id": "uid"})
    assert "expected names among event_id" in said(path="log.csv", columns={"user": "user"})
    assert "does not exist" in said(path="no.csv")
    assert "got an empty folder" in said(path="empty")
    assert "ending in .parquet or .csv, got x.txt" in said(path="x.txt")
    assert "not readable Parquet" in said(path="bad.parquet")
    assert "nothing.csv is empty" in said(path="nothing.csv")


def test_the_template_config_opens_a_reader(repository, monkeypatch, tmp_path):
    from handsell.config import load_config

    (tmp_path / "my_data/events").mkdir(parents=True)
    (tmp_path / "my_data/events/1.csv").write_text(
        "customer_id,product_id,created_at,action\nc1,p1,2026-05-01T12:00:00Z,view\n"
    )
    (tmp_path / "my_data/products.csv").write_text(
        "product_id,name,brand,categories,price\np1,Lamp,Acme,home|light,3\n"
    )
    monkeypatch.setenv("HANDSELL_DATA", str(tmp_path))
    source = open_reader(load_config(repository / "deployments/configs/own_data.toml"))
    assert events(source)["type"].to_pylist() == ["view"]
    assert source.items()["tags"].to_pylist() == [["home", "light"]]


def test_one_column_may_stand_for_two(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,time,type\nu,i,1,click\n")
    (tmp_path / "items.csv").write_text("item_id,brand\ni,Acme\n")
    items = {"path": "items.csv", "columns": {"title": "brand", "creators": "brand"}}
    table = reader(tmp_path, events={"path": "log.csv"}, items=items).items()
    assert table["title"].to_pylist() == ["Acme"]
    assert table["creators"].to_pylist() == [["Acme"]]


def test_a_typo_in_a_canonical_name_of_items_is_an_error(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,name,cost\ni,Kettle,3\n")

    def items(columns):
        return reader(tmp_path, events={"path": "log.csv"}, items={"path": "items.csv", "columns": columns}).items()

    with pytest.raises(DataError, match=r"data\.tables\.items\.columns\.titel.*got titel \(perhaps title\?\)"):
        items({"titel": "name"})
    assert items({"price": "cost"})["price"].to_pylist() == [3]


def test_a_column_of_two_types_is_an_error(tmp_path):
    (tmp_path / "items").mkdir()
    (tmp_path / "items/a.csv").write_text("item_id,price\ni,3\n")
    (tmp_path / "items/b.csv").write_text("item_id,price\nj,cheap\n")
    with pytest.raises(DataError, match=r"data\.tables\.items .*different types"):
        reader(tmp_path, events={"path": "log.csv"}, items={"path": "items"}).items()
