"""Tables of the event store as Parquet files, the same for both engines: one file for each table.

A snapshot reads all tables as of one moment, while others write. Column types are those of Parquet: text, int64, double
and binary; each engine converts them to its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.core.errors import HandsellError
from handsell.events.store.transaction import TABLES as WITH_OFFSETS

TABLES = (
    "events", "slates", "catalog_changes", "identities", "erasures", "blocks", "positions", "trimmed_keys",
    "removed_slates", "api_keys", "key_usage", "audit", "offsets",
)  # fmt: skip
"""Every table that the store has; a test compares them with the tables of a new store."""

ROWS = 20_000  # read and written at once
TYPES = {"int": pa.int64(), "float": pa.float64(), "text": pa.string(), "bytes": pa.binary()}

ColumnKind = Literal["int", "float", "text", "bytes"]


@dataclass(frozen=True, slots=True)
class StoreColumn:
    name: str
    kind: ColumnKind


class StoreSnapshot(Protocol):
    """All tables of a store as of one moment; a context manager."""

    engine: str

    def check(self) -> None:
        """Raise EventStoreError if the store is damaged, as far as its engine can tell."""
        ...

    def read_revision(self) -> str:
        """Return the revision of the tables."""
        ...

    def list_columns(self, table: str) -> list[StoreColumn]:
        """Return the columns of a table; none if the store lacks it."""
        ...

    def read_rows(self, table: str, columns: Sequence[StoreColumn]) -> Iterator[list[tuple]]:
        """Yield all rows of a table, ROWS at a time, in any order."""
        ...

    def close(self) -> None: ...


class StoreLoader(Protocol):
    """Fills the empty tables of a new store, in one transaction; a failure leaves them empty."""

    def list_columns(self, table: str) -> list[StoreColumn]: ...

    def insert(self, table: str, columns: Sequence[StoreColumn], rows: list[tuple]) -> None: ...

    def raise_offset(self, table: str, last: int) -> None:
        """Let the offsets of a table continue after `last`, at least."""
        ...

    def commit(self) -> None: ...

    def close(self) -> None: ...


def write_tables(snapshot: StoreSnapshot, folder: Path) -> dict[str, int]:
    """Write every table to `<folder>/<table>.parquet`; return the number of rows of each."""
    folder.mkdir(parents=True)
    counts = {}
    for table in TABLES:
        if columns := snapshot.list_columns(table):
            counts[table] = _write_table(snapshot, table, columns, folder / f"{table}.parquet")
    return counts


def load_tables(folder: Path, counts: dict[str, int], last_offsets: dict[str, int], loader: StoreLoader) -> None:
    """Insert the rows of all files, and let the offsets of each table continue after `last_offsets`.

    Raises HandsellError if a table has columns that the store lacks.
    """
    highest = dict.fromkeys(WITH_OFFSETS, 0)
    for table, expected in counts.items():
        loaded, highest[table] = _load_table(folder / f"{table}.parquet", table, loader)
        if loaded != expected:
            raise HandsellError(f"table {table} of the backup: expected {expected:,} rows, got {loaded:,}")
    for table in WITH_OFFSETS:
        loader.raise_offset(table, max(highest[table], last_offsets.get(table, 0)))


def read_last_offsets(snapshot: StoreSnapshot) -> dict[str, int]:
    """Return the highest offset that each table has given out, by name of the table."""
    columns = {column.name: column for column in snapshot.list_columns("offsets")}
    if not columns:
        return {}
    order = [columns["name"], columns["last"]]
    return {name: last for rows in snapshot.read_rows("offsets", order) for name, last in rows}


def _write_table(snapshot: StoreSnapshot, table: str, columns: list[StoreColumn], path: Path) -> int:
    schema, count = pa.schema([(column.name, TYPES[column.kind]) for column in columns]), 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in snapshot.read_rows(table, columns):
            arrays = [
                pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            count += len(rows)
    return count


def _load_table(path: Path, table: str, loader: StoreLoader) -> tuple[int, int]:
    """Insert the rows of a file; return their number and their highest offset.

    Rows of a table that had no offsets in the version of the backup are numbered.
    """
    there = {column.name: column for column in loader.list_columns(table)}
    count = last = 0
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if missing := [name for name in names if name not in there]:
            raise HandsellError(
                f"table {table} of the backup has columns {', '.join(missing)}, which this version of the event store "
                "lacks: restore with the handsell that wrote the backup"
            )
        numbered = "offset" in there and "offset" not in names
        columns = [there[name] for name in (*names, *(["offset"] if numbered else []))]
        for batch in file.iter_batches(ROWS):
            values: list[Sequence[Any]] = [column.to_pylist() for column in batch.columns]
            if numbered:
                last = count + len(batch)
                values.append(range(count + 1, last + 1))
            loader.insert(table, columns, list(zip(*values, strict=True)))
            count += len(batch)
            if "offset" in names:
                last = max(last, pc.max(batch["offset"]).as_py() or 0)
    return count, last
