"""The user's own tables: mappings, types of every origin, and errors name the cause."""

import gzip
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.core.errors import DataError
from handsell.data.config import TablesConfig
from handsell.data.readers import tables as module
from handsell.data.readers.base import NULLABLE_EVENTS, read_all_events
from handsell.data.readers.conversion import convert
from handsell.data.readers.detect import open_reader
from handsell.data.readers.location import ColumnLocation
from handsell.data.readers.tables import Tables
from handsell.data.schemas import STRINGS, TIME

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def place(canonical="canonical") -> ColumnLocation:
    return ColumnLocation("file", "col", canonical)


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


def test_events_without_an_event_id_beside_others_with_one_are_read(tmp_path):
    (tmp_path / "log.csv").write_text(
        "event_id,user_id,item_id,time,type\n0-1,7,A,2026-05-01,buy\n,7,A,2026-05-01,click\n,7,A,2026-05-01,click\n"
    )
    log = events(reader(tmp_path, events={"path": "log.csv"}))
    assert log["event_id"].to_pylist() == ["0-1", None, None]
    assert log["item_id"].to_pylist() == ["A", "A", "A"]


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
        pa.array(["2026-05-01 12:00:00+00"]),
        pa.array(["2026-05-01 17:30:00+0530"]),
        pa.array(["2026-05-01 12:00:00 UTC"]),
        pa.array(["2026-05-01 05:00:00.0000000 -07:00"]),
        pa.array(["2026-05-01t12:00:00z"]),
        pa.array(["2026-05-01 12:00:00,000"]),
        pa.array([" 20260501T120000Z "]),
        pa.array(["20260501T1400+02"]),
        pa.array(["20260501120000"]),
        pa.array([20260501120000]),
        pa.array(["1.7776368e9"]),
        pa.array([NOON.replace(tzinfo=None)], pa.timestamp("ns")).dictionary_encode(),
        pa.array([NOON.replace(tzinfo=None)], pa.timestamp("ms")),
        pa.array([NOON], pa.timestamp("ns", "Europe/Berlin")),
    ],
)
def test_times_of_every_origin(array):
    assert convert(array, TIME, place(), "|").to_pylist() == [NOON]


def test_times_with_and_without_a_zone_in_one_column():
    texts = pa.array(["2026-05-01 12:00:00", "2026-05-01 12:00:00+00", None, "", "2026-05-01T14:00+02:00"])
    assert convert(texts, TIME, place(), "|").to_pylist() == [NOON, NOON, None, None, NOON]


@pytest.mark.parametrize("factor", [1, 1_000, 1_000_000])
@pytest.mark.parametrize("far", [0, 1, 99_999_999_999])
def test_one_far_value_does_not_decide_the_unit_of_a_column(factor, far):
    found = convert(pa.array([far * factor, 1_777_636_800 * factor]), TIME, place(), "|")
    assert found.cast(pa.int64()).to_pylist() == [far * 1_000_000, 1_777_636_800_000_000]


NOTATIONS = ("%Y-%m-%d{sep}%H:%M:%S", "%Y-%m-%d{sep}%H:%M:%S.%f", "%Y-%m-%d{sep}%H:%M:%S,%f", "%Y%m%d{sep}%H%M%S")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.datetimes(datetime(1, 1, 3), datetime(9998, 12, 30)), min_size=1, max_size=5),
    st.sampled_from(NOTATIONS),
    st.sampled_from(["T", "t", " "]),
    st.integers(-14 * 4, 14 * 4),
    st.sampled_from(["{0}{1:02}", "{0}{1:02}{2:02}", "{0}{1:02}:{2:02}", " {0}{1:02}:{2:02}"]),
    st.sampled_from([None, "", "Z", "z", " UTC", "GMT"]),
)
def test_a_time_written_in_any_notation_is_read_back(moments, notation, sep, quarters, offset, name):
    if "%f" not in notation:
        moments = [at.replace(microsecond=0) for at in moments]
    if "{2" not in offset:
        quarters -= quarters % 4
    shift, zone = timedelta(0), name
    if name is None:
        shift = timedelta(minutes=15 * quarters)
        zone = offset.format("-" if quarters < 0 else "+", abs(quarters) // 4, abs(quarters) % 4 * 15)
    written = []
    for at in moments:
        year = f"{(at + shift).year:04}"  # strftime does not pad years
        written.append((at + shift).strftime(notation.replace("%Y", year).format(sep=sep)) + zone)
    found = convert(pa.array(written), TIME, place(), "|").to_pylist()
    assert found == [at.replace(tzinfo=UTC) for at in moments]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(631_152_000, 4_102_444_799), min_size=3, max_size=9),
    st.sampled_from([1, 1_000, 1_000_000, 1_000_000_000]),
    st.sampled_from([pa.int64(), pa.string()]),
)
def test_epoch_times_of_each_unit_are_read_back(seconds, factor, kind):
    found = convert(pa.array([k * factor for k in seconds]).cast(kind), TIME, place(), "|")
    assert found.cast(pa.int64()).to_pylist() == [k * 1_000_000 for k in seconds]


def test_rare_times_decide_the_unit_beside_many_sentinels():
    column = pa.array([2**63 - 1, 253_402_300_799] * 50 + [1_777_636_800])
    assert convert(column, TIME, place("expires_at"), "|").to_pylist() == [None] * 100 + [NOON]


def test_one_far_value_among_old_times_is_an_error_instead_of_their_unit():
    old = [300_000_000 + k for k in range(50)]  # 1979, in seconds
    with pytest.raises(DataError, match=r"epoch times of one unit, got times in s and 1777636800000 \(ms\) in row 51"):
        convert(pa.array([*old, 1_777_636_800_000]), TIME, place(), "|")
    assert convert(pa.array(old), TIME, place(), "|")[0].as_py().year == 1979


def test_the_unit_of_the_first_batch_holds_for_the_whole_file():
    column = place()
    for k in (1_777_636_800_000, 86_400_000):  # the second value alone would be read as seconds
        assert convert(pa.array([k]), TIME, column, "|").cast(pa.int64()).to_pylist() == [k * 1_000]


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.string()])
@pytest.mark.parametrize("other", ["1777636800000", "1777636800000000", "1777636800000000000"])
def test_mixed_units_are_refused_with_an_example_of_each(kind, other):
    column = pa.array([1_777_636_800] * 5 + [int(other)]).cast(kind, safe=False)
    with pytest.raises(
        DataError, match=r"epoch times of one unit, got 1777636800(\.0)? \(s\) in row 1 and 1.*\((ms|µs|ns)\) in row 6"
    ):
        convert(column, TIME, place(), "|")


def test_a_wrong_time_names_its_row_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_PART", 2)
    times = pa.array(["2026-05-01 12:00"] * 4 + ["soon", "2026-05-01 12:00"])
    table = pa.table({"user_id": ["u"] * 6, "item_id": ["i"] * 6, "time": times})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=2)
    with pytest.raises(DataError, match="got 'soon' in row 5;"):
        events(reader(tmp_path, ("click",), events={"path": "log.parquet"}))


def test_decimals_of_a_warehouse_are_ids_times_and_numbers():
    def decimals(value):
        return pa.array([Decimal(value), None])

    assert convert(decimals("2025"), pa.string(), place(), "|").to_pylist() == ["2025", None]
    assert convert(decimals("2025.00"), pa.string(), place(), "|").to_pylist() == ["2025", None]
    assert convert(decimals("9" * 30), pa.string(), place(), "|").to_pylist() == ["9" * 30, None]
    assert convert(decimals("1777636800"), TIME, place(), "|").to_pylist() == [NOON, None]
    assert convert(decimals("1.5"), pa.float32(), place(), "|").to_pylist() == [1.5, None]


def test_nanoseconds_are_exact():
    found = convert(pa.array([1_777_636_800_123_456_789]), TIME, place(), "|")
    assert found.cast(pa.int64()).to_pylist() == [1_777_636_800_123_456]


def test_milliseconds_around_1970_are_not_mixed_units():
    column = pa.array([-1_000_000, 1_700_000_000, 1_777_636_800_000, 1_777_636_800_001])
    assert convert(column, TIME, place(), "|").cast(pa.int64()).to_pylist() == [k * 1_000 for k in column.to_pylist()]


@pytest.mark.parametrize(
    "never",
    [
        pa.array([253_402_300_799, 1_777_636_800]),
        pa.array([0, 1_777_636_800]),
        pa.array([2**63 - 1, 1_777_636_800]),
        pa.array([253_402_300_799_000, 1_777_636_800_000]),
        pa.array([float("inf"), 1_777_636_800.0]),
        pa.array(["infinity", "2026-05-01T12:00:00Z"]),
        pa.array(["9999-12-31", "2026-05-01 12:00"]),
        pa.array(["9999-12-31 23:59:59.999999+00", "2026-05-01 12:00:00+00"]),
        pa.array(["0000-00-00 00:00:00", "2026-05-01 12:00:00"]),
        pa.array(["0", "1777636800"]),
        pa.array(["0", "2026-05-01 12:00"]),
        pa.array(["1970-01-01", "2026-05-01 12:00"]),
        pa.array([10**12, 1_777_636_800], pa.timestamp("s")),
        pa.array([datetime(9999, 12, 31), datetime(2026, 5, 1, 12)], pa.timestamp("us")),
    ],
)
def test_sentinels_mean_never_for_expires_at_only(never):
    assert convert(never, TIME, place("expires_at"), "|").to_pylist() == [None, NOON]
    try:
        event = convert(never, TIME, place("time"), "|")
    except DataError:
        return
    at = event[0].value  # such a time is an error of the doctor: at the epoch, or in the future
    assert at < 365 * 86_400_000_000 or at > 253_370_764_800_000_000


def test_epoch_numbers_beside_other_notations_are_refused_with_both():
    times = pa.array(["1777636800", None, "1777636801", "2026-05-01T12:00:00Z"])
    with pytest.raises(DataError, match="one notation, got '1777636800' in row 1 and '2026-05-01T12:00:00Z' in row 4"):
        convert(times, TIME, place("time"), "|")
    assert convert(pa.array(["20260501", "2026-05-01T00:00:00Z"]), TIME, place("time"), "|").null_count == 0


def test_a_column_of_nothing_but_never(tmp_path):
    assert convert(pa.array([253_402_300_799] * 3), TIME, place("expires_at"), "|").null_count == 3
    with pytest.raises(DataError, match="got '-infinity'"):
        convert(pa.array(["-infinity"]), TIME, place("expires_at"), "|")


def test_dates_start_at_midnight_utc():
    assert convert(pa.array([20260501]), TIME, place(), "|").to_pylist() == [datetime(2026, 5, 1, tzinfo=UTC)]
    midnight = [datetime(2026, 5, 1, tzinfo=UTC), None]
    assert convert(pa.array([date(2026, 5, 1), None]), TIME, place(), "|").to_pylist() == midnight
    assert convert(pa.array(["2026-05-01", ""]), TIME, place(), "|").to_pylist() == midnight


def test_ids_that_pandas_made_floats_are_whole_again():
    assert convert(pa.array([3.0, None, 12.0]), pa.string(), place(), "|").to_pylist() == ["3", None, "12"]


@pytest.mark.parametrize("missing", ["", "  ", "NULL", "null", "NaN", "nan", "None", "NaT", "<NA>", r"\N"])
def test_the_same_words_mean_no_value_in_csv_and_parquet(tmp_path, missing):
    rows = {"user_id": ["u", missing], "item_id": [missing, "NA"], "time": ["1777636800", missing]}
    lines = [",".join(rows), *(",".join(row) for row in zip(*rows.values(), strict=True))]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    from_csv, from_parquet = (
        events(reader(tmp_path, ("click",), events={"path": f"log.{kind}"})) for kind in ("csv", "parquet")
    )
    assert from_csv.equals(from_parquet)
    assert from_csv["user_id"].to_pylist() == ["u", None] and from_csv["item_id"].to_pylist() == [None, "NA"]
    assert from_csv["time"].to_pylist() == [NOON, None]


def test_the_same_words_mean_no_value_in_other_columns(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,brand\na,None\nb,Acme\n")
    pq.write_table(pa.table({"item_id": ["a", "b"], "brand": ["None", "Acme"]}), tmp_path / "items.parquet")
    for name in ("items.csv", "items.parquet"):
        table = reader(tmp_path, events={"path": "log.csv"}, items={"path": name}).items()
        assert table["brand"].to_pylist() == [None, "Acme"]


def test_a_folder_of_all_kinds_of_files_with_empty_parts(tmp_path):
    folder, header = tmp_path / "events", "user_id,item_id,time,type\n"
    folder.mkdir()
    for name, user in (("a.csv", "u1"), ("b.CSV", "u2")):
        (folder / name).write_text(f"{header}{user},i,1777636800,click\n")
    for name, user in (("c.csv.gz", "u3"), ("d.CSV.GZ", "u4")):
        with gzip.open(folder / name, "wt") as file:
            file.write(f"{header}{user},i,1777636800,click\n")
    table = pa.table({"user_id": ["u5"], "item_id": ["i"], "time": [1_777_636_800], "type": ["click"]})
    pq.write_table(table, folder / "e.Parquet")
    pq.write_table(table.slice(1), folder / "f.parquet")
    (folder / "g.csv").write_text(header)
    (folder / "h.csv").write_bytes(b"\xef\xbb\xbf\n")
    (folder / "i.csv.gz").write_bytes(gzip.compress(b""))
    for name in ("j.json", "_k.csv", "_SUCCESS", ".a.csv.crc"):
        (folder / name).write_text("x")
    source = reader(tmp_path, events={"path": "events"}, items={"path": "events"})
    assert events(source)["user_id"].to_pylist() == ["u1", "u2", "u3", "u4", "u5"]
    assert len(source.items()) == 5
    skipped = {path.name: reason for path, reason in source.skipped_files()}
    assert sorted(skipped) == ["_k.csv", "h.csv", "i.csv.gz", "j.json"]
    assert skipped["h.csv"] == "the file is empty" and "does not end in .parquet" in skipped["j.json"]


def test_a_folder_of_empty_files_is_an_error(tmp_path):
    (tmp_path / "events").mkdir()
    (tmp_path / "events/a.csv").write_text("")
    with pytest.raises(DataError, match=r"expected files with rows.*got a\.csv"):
        events(reader(tmp_path, events={"path": "events"}))


def test_lists_and_dictionary_columns():
    assert convert(pa.array([["a", "b"], None]), STRINGS, place(), "|").to_pylist() == [["a", "b"], None]
    assert convert(pa.array(["x;y", ""]).dictionary_encode(), STRINGS, place(), ";").to_pylist() == [["x", "y"], []]


@pytest.mark.parametrize(
    ("array", "kind", "said"),
    [
        (pa.array([1.0, 1.5]), pa.string(), r"expected text or whole numbers .*got 1\.5 in row 2"),
        (pa.array([2.0**53]), pa.string(), r".*floats lose digits of numbers from 9,007,199,254,740,992\), got 9007"),
        (pa.array([2.0**24], pa.float32()), pa.string(), r".*floats lose digits of numbers from 16,777,216"),
        (pa.array([True]), TIME, "expected a timestamp.*got type bool"),
        (pa.array(["2026-13-01 12:00:00+00"]), TIME, r"expected ISO 8601.*got '2026-13-01 12:00:00\+00'"),
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
        convert(array, kind, place(), "|")


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
    assert "ending in .parquet, .pq, .csv, .csv.gz, got x.txt" in said(path="x.txt")
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


def test_a_column_of_two_types_is_text_in_csv_and_an_error_in_parquet(tmp_path):
    (tmp_path / "items").mkdir()
    for name, price in (("a", "3"), ("b", "cheap")):
        (tmp_path / f"items/{name}.csv").write_text(f"item_id,price\n{name},{price}\n")
    source = reader(tmp_path, events={"path": "log.csv"}, items={"path": "items"})
    assert source.items()["price"].to_pylist() == ["3", "cheap"]
    for name, price in (("a", 3), ("b", "cheap")):
        pq.write_table(pa.table({"item_id": [name], "price": [price]}), tmp_path / f"items/{name}.parquet")
        (tmp_path / f"items/{name}.csv").unlink()
    with pytest.raises(DataError, match=r"data\.tables\.items .*different types"):
        source.items()
