"""Values of changed items in columns of every type: the same in the live catalog and at the next training."""

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from handsell.catalog.metadata_values import build_array, build_column
from handsell.core.errors import DataError
from handsell.data.catalog_fields import convert_value
from handsell.jobs.ingest.catalog_changes import CatalogChanges, ChangedRow

DAY = dt.date(2026, 5, 1)
MAP = pa.map_(pa.string(), pa.int64())
STORED = [
    (pa.decimal128(10, 2), 12.5, Decimal("12.50")),
    (pa.decimal128(10, 2), "12.50", Decimal("12.50")),
    (pa.decimal128(10, 2), 0.1 + 0.2, Decimal("0.30")),
    (pa.float32(), 20_000_001, 20_000_000.0),
    (pa.float64(), 2**63, 2.0**63),
    (pa.int64(), 3.0, 3),
    (pa.int64(), True, 1),
    (pa.date32(), "2026-05-01", DAY),
    (pa.date32(), "2026-05-01T12:00:00Z", DAY),
    (pa.timestamp("ms"), "2026-05-01T12:00:00Z", dt.datetime(2026, 5, 1, 12)),
    (pa.timestamp("s", "UTC"), "2026-05-01", dt.datetime(2026, 5, 1, tzinfo=dt.UTC)),
    (pa.timestamp("ms"), 1_777_636_800, dt.datetime(2026, 5, 1, 12)),
    (pa.time32("s"), "12:00:00", dt.time(12)),
    (pa.duration("s"), 90, dt.timedelta(seconds=90)),
    (pa.dictionary(pa.int8(), pa.string()), "red", "red"),
    (MAP, {"a": 1}, [("a", 1)]),
    (pa.list_(MAP), [{"a": 1}, None], [[("a", 1)], None]),
    (pa.struct([("price", pa.decimal128(6, 2))]), {"price": 1.5, "other": 2}, {"price": Decimal("1.50")}),
]
REFUSED = [
    (MAP, [None]),
    (MAP, [["a", 1]]),
    (pa.list_(MAP), [[None]]),
    (pa.struct([("sizes", MAP)]), {"sizes": [None]}),
    (pa.duration("s"), "2026-05-01"),
    (pa.time32("s"), "2026-05-01"),
    (pa.list_(pa.list_(pa.string())), "a"),
]


@pytest.mark.parametrize(("kind", "given", "expected"), STORED)
def test_a_value_of_a_change_is_stored_in_the_type_of_its_column(kind, given, expected):
    value = convert_value("extra", given, kind)
    old = pa.chunked_array([pa.nulls(2, kind)])
    live = build_column(old, kind, np.array([False, True, True]), [None, value, value])
    assert live.to_pylist() == [None, expected, expected]
    trained = train([{"extra": value}], kind)
    assert trained.type == kind and trained.to_pylist() == [None, expected]


@pytest.mark.parametrize(("kind", "given"), REFUSED)
def test_a_value_of_another_shape_is_refused_and_null_if_it_was_stored_before(kind, given):
    with pytest.raises(DataError, match="expected a value of type"):
        convert_value("extra", given, kind)
    assert build_array([given, None], kind).to_pylist() == [None, None]


def test_whole_numbers_become_doubles_at_the_training_after_a_fraction():
    assert train([{"extra": 12.5}], pa.int64()).to_pylist() == [None, 12.5]
    assert build_array([12.5], pa.int64()).to_pylist() == [None]  # in the bundle's column of whole numbers


@pytest.mark.parametrize("empty", [{}, [], [{}], [None], {"a": {}}, {"a": [None]}])
def test_a_new_column_without_any_content_is_left_out(empty, tmp_path):
    table = apply_changes(pa.table({"item_id": ["old"]}), [{"extra": empty, "other": [1]}])
    pq.write_table(table, tmp_path / "items.parquet")
    assert table.column_names == ["item_id", "other"]
    filled = apply_changes(pa.table({"item_id": ["old"]}), [{"extra": {"empty": empty, "b": 1}}, {"extra": {"b": 2}}])
    pq.write_table(filled, tmp_path / "items.parquet")
    assert filled["extra"].to_pylist() == [None, {"b": 1}, {"b": 2}]


def train(rows, kind):
    """Return a column with one null after the changes of one item more each."""
    return apply_changes(pa.table({"item_id": ["old"], "extra": pa.nulls(1, kind)}), rows)["extra"].combine_chunks()


def apply_changes(table, rows):
    changes = {("item", f"i{n}"): ChangedRow(True, False, row, 0) for n, row in enumerate(rows)}
    return CatalogChanges(changes).apply(table, "item", "item_id")
