"""Rows of a key change at few times; between two of them, a point-in-time join gives the same row."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from handsell.features.storage.changes import find_changes
from handsell.features.views import CREATED, TIMESTAMP

HOUR = 3_600_000_000


@pytest.fixture
def files(tmp_path, rng):
    """Two files with rows of six items, some of which are written after their timestamp."""
    paths = []
    for part in range(2):
        stamp = rng.integers(10, 90, 20) * HOUR
        columns = {
            "item_id": [f"i{i}" for i in rng.integers(0, 6, 20)],
            TIMESTAMP: pa.array(stamp, pa.timestamp("us", tz="UTC")),
            CREATED: pa.array(stamp + rng.integers(0, 3, 20) * HOUR, pa.timestamp("us", tz="UTC")),
        }
        paths.append(tmp_path / f"{part}.parquet")
        pq.write_table(pa.table(columns), paths[-1])
    return paths


def visible(files, item, time):
    """Return the rows of an item that a join sees at a time."""
    rows = pa.concat_tables([pq.read_table(file) for file in files]).to_pylist()
    at = np.datetime64(int(time), "us").item()
    return [
        n
        for n, row in enumerate(rows)
        if row["item_id"] == item and max(row[TIMESTAMP], row[CREATED]).replace(tzinfo=None) <= at
    ]


def test_the_same_rows_are_visible_at_the_last_change(files, rng):
    ids = [f"i{i}" for i in rng.integers(0, 7, 200)]  # one of which has no row
    times = rng.integers(0, 100, 200) * HOUR
    found = find_changes(files, "item_id", ids, times)
    assert (found <= times).all()
    for item, time, change in zip(ids, times, found, strict=True):
        assert visible(files, item, change) == visible(files, item, time), (item, time, change)


def test_times_between_two_changes_become_one(files):
    ids, times = ["i0"] * 10_000, np.arange(10_000) * HOUR // 100
    rows = len(visible(files, "i0", 100 * HOUR))
    assert len(np.unique(find_changes(files, "item_id", ids, times))) <= rows + 1


def test_items_without_rows_and_no_items(files):
    assert find_changes(files, "item_id", ["none", "none"], np.array([5, 3]) * HOUR).tolist() == [3 * HOUR] * 2
    assert not len(find_changes(files, "item_id", [], np.zeros(0, np.int64)))
