"""A temporary database of the impressions and events that an analysis needs.

Compacted files and what the event store holds beyond them are read together, in DuckDB, which keeps to MEMORY and
spills to the folder. Everything is deleted at the end.
"""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handsell.config import Config
from handsell.core.errors import DataError
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.data.schemas import TIME
from handsell.events.compacted_files import Kind, list_ranges, read_position
from handsell.events.store.interface import Columns, EventReader
from handsell.events.store.opening import open_reader

MEMORY = "1GB"
THREADS = 2
SLATES, EVENTS, IDENTITIES = 1_000, 10_000, 10_000  # per read of the store
_SLATE_TEXTS = (
    "recommendation_id", "user_id", "surface", "item_id", "arms", "stopped", "units", "interleaved", "teams",
)  # fmt: skip
_EVENT_TEXTS = ("event_id", "user_id", "item_id", "type", "recommendation_id")
SCHEMAS: dict[str, pa.Schema] = {
    "impressions": pa.schema([("time", TIME), ("position", pa.int16()), *((n, pa.string()) for n in _SLATE_TEXTS)]),
    "events": pa.schema([("time", TIME), *((name, pa.string()) for name in _EVENT_TEXTS)]),
}


@contextmanager
def open_log(config: Config, impressions_since: int = 0, events_since: int = 0) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database with the views `impressions` and `events`, whose times are µs, and the table `owners`.

    The views have `person`, the user to whom a visitor's rows belong by now. Files of days before the given times (µs)
    are left out. Raises EventStoreError if the store does not answer, DataError if a compacted file cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="handsell-analysis-") as name:
        folder = Path(name)
        files = _list_files(config, folder, {"impressions": impressions_since, "events": events_since})
        with closing(duckdb.connect()) as database:
            database.execute(
                f"SET memory_limit = '{MEMORY}'; SET threads = {THREADS}; SET preserve_insertion_order = false; "
                f"SET temp_directory = {quote(str(folder / 'spilled'))}; SET enable_progress_bar = false"
            )
            database.execute(f"CREATE TABLE owners AS FROM read_parquet({quote(str(folder / 'owners.parquet'))})")
            try:
                for view, paths in files.items():
                    database.execute(_build_view(view, paths))
                yield database
            except (duckdb.IOException, duckdb.InvalidInputException) as error:
                raise DataError(
                    f"the logged impressions and events cannot be read: {str(error).splitlines()[0]}: restore the "
                    "compacted files from a backup, or free space in the temporary folder"
                ) from error


def quote(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _build_view(view: str, paths: Sequence[str]) -> str:
    files = ", ".join(quote(glob.escape(path)) for path in paths)
    columns = ", ".join(name for name in SCHEMAS[view].names if name != "time")
    return (
        f"CREATE VIEW {view} AS SELECT {columns.replace('user_id', 'rows.user_id')}, epoch_us(time) AS time, "
        f"coalesce(owners.user_id, rows.user_id) AS person FROM read_parquet([{files}], union_by_name = true) AS rows "
        "LEFT JOIN owners ON rows.user_id = owners.visitor_id"
    )


def _list_files(config: Config, folder: Path, since: dict[str, int]) -> dict[str, list[str]]:
    """Write what the store holds beyond the compacted files, and return all files of each kind.

    The first file of each kind has every column: those of earlier versions lack some.
    """
    compacted, kinds = Layout(config.state).compacted, ("impressions", "events")
    read: dict[str, Callable[[EventReader, int], Iterator[Columns]]] = {
        "impressions": _read_impressions, "events": _read_events,
    }  # fmt: skip
    files: dict[str, list[str]] = {}
    with closing(open_reader(config)) as reader:
        for kind in kinds:
            of_kind: Kind = "impressions" if kind == "impressions" else "events"
            after = read_position(compacted, of_kind)  # before the list: a later compaction repeats nothing
            ranges = [one for one in list_ranges(compacted, of_kind) if one.through <= after]
            path = folder / f"{kind}.parquet"
            with pq.ParquetWriter(path, SCHEMAS[kind]) as out:
                for columns in read[kind](reader, after):
                    out.write_table(_build_rows(kind, columns))
            first_day = f"date={np.datetime64(max(since[kind], 0) // DAY_US, 'D')}"
            found = [file.path for one in ranges for file in one.files if file.path.split("/")[-2] >= first_day]
            files[kind] = [str(path), *(str(compacted / name) for name in found)]
        _write_owners(reader, folder / "owners.parquet")
    return files


def _build_rows(kind: str, columns: Columns) -> pa.Table:
    arrays = [
        pa.array(columns[field.name], pa.int64()).cast(TIME) if field.type == TIME
        else pa.array(columns.get(field.name) or [None] * len(columns["time"]), field.type)
        for field in SCHEMAS[kind]
    ]  # fmt: skip
    return pa.table(arrays, schema=SCHEMAS[kind])


def _read_impressions(reader: EventReader, after: int) -> Iterator[Columns]:
    while True:
        columns = reader.read_impressions(after, SLATES)
        if columns["offset"]:
            after = columns["offset"][-1]
            yield columns
        elif empty := reader.read_slates(after, SLATES):  # slates without items
            after = empty[-1][0]
        else:
            return


def _read_events(reader: EventReader, after: int) -> Iterator[Columns]:
    end = reader.last_offset()
    while after < end and (columns := reader.scan(after, EVENTS))["offset"]:
        after = columns["offset"][-1]
        yield columns


def _write_owners(reader: EventReader, path: Path) -> None:
    """Write the users of merged visitors."""
    schema, after = pa.schema([("visitor_id", pa.string()), ("user_id", pa.string())]), 0
    with pq.ParquetWriter(path, schema) as out:
        while page := reader.read_identities(after, IDENTITIES):
            after = page[-1].offset
            out.write_table(pa.table([[i.visitor_id for i in page], [i.user_id for i in page]], schema=schema))
