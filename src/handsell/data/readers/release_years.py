"""Release years: parsed from titles, and converted to published_at."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.data.schemas import TIME

YEAR = r"^(?P<title>.*?)\s*\((?P<year>\d{4})(?:[-–]\d{0,4})?\)\s*$"


def split_title_and_year(titles: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    """Split "Toy Story (1995)" into "Toy Story" and 1995 (int32); the year is null where a title has none."""
    titles = _flat(pc.utf8_trim_whitespace(titles))
    found = pc.extract_regex(titles, YEAR)
    title = pc.coalesce(pc.struct_field(found, "title"), titles)
    return title, pc.cast(pc.struct_field(found, "year"), pa.int32())


def estimate_published_at(item_ids: pa.Array, years: pa.Array, events: Iterable[pa.RecordBatch]) -> pa.Array:
    """Return 1 January of the release year, or of the year of the item's first event if earlier; null without a year.

    Release years in public data have errors, and an item must be available whenever it was rated.
    """
    first = find_first_times(events)
    place = pc.index_in(item_ids, first["item_id"].combine_chunks())
    earliest = pc.year(pc.take(first["time_min"].combine_chunks(), place))
    year = pc.min_element_wise(pc.cast(years, pa.int64()), earliest, skip_nulls=True)
    year = pc.if_else(pc.is_valid(years), year, None)
    known = np.asarray(pc.is_valid(year))
    numbers = np.asarray(pc.fill_null(year, 1970)).astype(np.int64) - 1970
    return pa.array(numbers.astype("datetime64[Y]").astype("datetime64[us]"), TIME, mask=~known)


def find_first_times(events: Iterable[pa.RecordBatch]) -> pa.Table:
    """Return item_id and time_min of all items with events; memory grows with items only."""
    total = pa.table({"item_id": pa.array([], pa.string()), "time_min": pa.array([], TIME)})
    for batch in events:
        found = _find_earliest(pa.table({"item_id": batch["item_id"], "time": batch["time"]}))
        total = _find_earliest(pa.concat_tables([total, found]).rename_columns(["item_id", "time"]))
    return total


def _find_earliest(table: pa.Table) -> pa.Table:
    return table.group_by("item_id", use_threads=False).aggregate([("time", "min")]).select(["item_id", "time_min"])


def _flat(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
