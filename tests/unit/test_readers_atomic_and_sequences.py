"""RecBole atomic files, sequence files, and how a folder's format is recognized."""

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from handsell.config import load_config
from handsell.core.errors import DataError
from handsell.core.units import DAY_US
from handsell.data.config import SplitConfig
from handsell.data.readers.atomic import Atomic
from handsell.data.readers.base import NULLABLE_EVENTS, read_all_events
from handsell.data.readers.detect import detect, open_reader
from handsell.data.readers.sequences import END_US, Sequences
from handsell.data.splits import RANKER, RETRIEVAL, TEST, VALIDATION, Bounds

END = datetime(2020, 1, 1, 12, tzinfo=UTC)


def events(reader) -> pa.Table:
    return pa.Table.from_batches(list(read_all_events(reader)), NULLABLE_EVENTS)


@pytest.mark.data
def test_ml_100k_atomic_counts(test_data):
    reader = detect(test_data("ml-100k"))
    log, items, users = events(reader), reader.items(), reader.users()
    assert isinstance(reader, Atomic)
    assert (len(log), len(items), len(users)) == (100_000, 1_682, 943)
    assert len(pc.unique(log["user_id"])) == 943
    assert log.slice(0, 1).to_pylist()[0]["time"] == datetime.fromtimestamp(881_250_949, UTC)
    first = items.slice(0, 1).to_pylist()[0]
    assert (first["title"], first["year"], first["tags"]) == ("Toy Story", 1995, ["Animation", "Children's", "Comedy"])
    assert pa.types.is_integer(users.schema.field("age").type)
    assert users.slice(0, 1).to_pylist()[0]["zip_code"] == "85711"


def test_atomic_without_ratings_are_clicks_and_brands_are_creators(tmp_path):
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\nu\ti\t10.5\n")
    (tmp_path / "x.item").write_text(
        "item_id:token\tname:token_seq\tbrand:token\tcats:token_seq\tprice:float\ni\tA B\tAcme Ltd\ta b\t2\n"
    )
    reader = detect(tmp_path)
    row = events(reader).to_pylist()[0]
    assert (row["type"], row["value"]) == ("click", None)
    assert row["time"] == datetime.fromtimestamp(10.5, UTC)
    item = reader.items().to_pylist()[0]
    assert (item["title"], item["creators"], item["tags"], item["price"]) == ("A B", ["Acme Ltd"], ["a", "b"], 2.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user_id:token\titem_id:token\nu\ti\n", "missing: timestamp"),
        ("user_id\titem_id:token\nu\ti\n", "headers like name:token"),
        (
            "user_id:token\titem_id:token\ttimestamp:float\nu\ti\tsoon\n",
            "column timestamp:float: expected a number, got 'soon'",
        ),
    ],
)
def test_bad_atomic_files_are_named(tmp_path, text, said):
    (tmp_path / "x.inter").write_text(text)
    with pytest.raises(DataError, match=said) as error:
        events(detect(tmp_path))
    assert "x.inter" in str(error.value)


@pytest.mark.data
def test_beauty_counts_and_attributes(test_data):
    reader = detect(test_data("amazon-beauty"))
    log, items = events(reader), reader.items()
    assert isinstance(reader, Sequences) and not reader.ordered
    assert len(log) == 198_502
    assert len(pc.unique(log["user_id"])) == 22_363
    assert len(pc.unique(log["item_id"])) == len(items) == 12_101
    known = {row["item_id"]: row for row in items.to_pylist()}
    assert known["83"]["tags"] == ["attr_4", "attr_5", "attr_6"]
    assert known["83"]["title"] == "item 83"


@pytest.mark.data
def test_movielens_sequences_are_found_among_lists_of_users(test_data):
    reader = detect(test_data("ml-1m-sequences"))
    assert isinstance(reader, Sequences)
    assert sum(len(batch) for batch in read_all_events(reader)) == 999_561


def test_sequences_end_together_a_day_apart(tmp_path):
    (tmp_path / "s.txt").write_text("1 a b c\n2 d\n\n3\n4 b a\n")
    log = events(detect(tmp_path)).to_pylist()
    ages = [(row["user_id"], row["item_id"], END - row["time"]) for row in log]
    day = timedelta(days=1)
    assert ages == [
        ("1", "a", 2 * day),
        ("1", "b", day),
        ("1", "c", 0 * day),
        ("2", "d", 0 * day),
        ("4", "b", day),
        ("4", "a", 0 * day),
    ]


def test_windows_of_the_sequences_config_are_the_last_positions(repository):
    split = load_config(repository / "deployments/configs/sequences.toml").split
    assert _windows(split) == [RETRIEVAL, RETRIEVAL, RETRIEVAL, RANKER, VALIDATION, TEST]


def _windows(split: SplitConfig) -> list[int]:
    """Window of each of six positions, oldest first."""
    cuts = Bounds.of(split, END_US)
    times = [END_US - k * DAY_US for k in range(5, -1, -1)]
    return [sum(t >= cut for cut in (cuts.ranker, cuts.validation, cuts.test)) for t in times]


def test_broken_attributes_are_named(tmp_path):
    (tmp_path / "s.txt").write_text("1 a b c\n")
    (tmp_path / "s_attributes.json").write_text(json.dumps(["a"]))
    with pytest.raises(DataError, match=r"s_attributes.json: expected an object"):
        detect(tmp_path).items()
    (tmp_path / "s_attributes.json").write_text("{")
    with pytest.raises(DataError, match=r"s_attributes.json is not readable JSON"):
        detect(tmp_path).items()


def test_an_unknown_folder_says_what_it_looked_for_and_what_is_there(tmp_path):
    (tmp_path / "notes.docx").write_bytes(b"\x00")
    with pytest.raises(DataError, match=r"ratings\.csv .* got: notes\.docx"):
        detect(tmp_path)
    with pytest.raises(DataError, match="expected one source"):
        for name in ("a.txt", "b.txt"):
            (tmp_path / name).write_text("1 2 3 4\n")
        detect(tmp_path)


def test_a_source_that_is_not_there(configured):
    with pytest.raises(DataError, match="expected a data source"):
        open_reader(configured('name = "x"'))
    with pytest.raises(DataError, match=r"data\.path .* does not exist"):
        open_reader(configured('name = "x"\n[data]\npath = "nowhere"'))
    with pytest.raises(DataError, match=r"expects \[data\.tables\.events\]"):
        open_reader(configured('name = "x"\n[data]\nformat = "tables"'))


def test_reading_is_bounded_by_batches(tmp_path):
    (tmp_path / "s.txt").write_text("".join(f"{u} a b c\n" for u in range(25_000)))
    assert [len(batch) for batch in read_all_events(detect(tmp_path))] == [30_000, 30_000, 15_000]
