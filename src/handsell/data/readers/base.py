"""The reader protocol, and helpers to build canonical batches and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.core.errors import DataError
from handsell.data.readers.formats.file_access import TableFile
from handsell.data.schemas import EVENTS, ITEMS, TIME, USERS

NULLABLE_EVENTS = pa.schema([field.with_nullable(True) for field in EVENTS])  # before incomplete rows are dropped
REQUIRED = ("user_id", "item_id", "type", "time")
FEW_FUTURE = 0.05  # share of the events that may lie in the future and are left out; more are an error


@dataclass(frozen=True, slots=True)
class SourcePart:
    """A part of the events that one task reads."""

    number: int  # in log order
    path: str = ""
    row_groups: tuple[int, ...] | None = None  # of a Parquet file; None: all
    first_row: int = 0  # number of rows of the file before this part


class Reader(Protocol):
    """A source of canonical events, items and users; has paths and settings, no data."""

    @property
    def ordered(self) -> bool:
        """Whether times are real; False: only the order within a user is known."""
        ...

    @property
    def source(self) -> str:
        """Name of the id space: item "7" of another source is another item."""
        ...

    def files(self) -> Sequence[TableFile]:
        """Return all files of the source; a changed size or time of one means that the data changed."""
        ...

    def parts(self) -> list[SourcePart]: ...

    def events(self, part: SourcePart) -> Iterator[pa.RecordBatch]:
        """Yield batches in NULLABLE_EVENTS in log order; DataErrors name file, column, expected and received value."""
        ...

    def items(self) -> pa.Table:
        """Read the items: schema ITEMS plus extra columns."""
        ...

    def users(self) -> pa.Table:
        """Read the users: schema USERS plus extra columns; may be empty."""
        ...


def read_all_events(reader: Reader) -> Iterator[pa.RecordBatch]:
    """Yield the events of all parts in order."""
    for part in reader.parts():
        yield from reader.events(part)


def build_event_batch(columns: dict[str, pa.Array]) -> pa.RecordBatch:
    """Build a canonical batch from the columns of the source; those that it lacks are null."""
    n = len(next(iter(columns.values())))
    arrays = [columns[f.name] if f.name in columns else pa.nulls(n, f.type) for f in NULLABLE_EVENTS]
    return pa.RecordBatch.from_arrays(arrays, schema=NULLABLE_EVENTS)


def drop_incomplete(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Drop events without user, item, type or time; the result has schema EVENTS."""
    good = np.ones(len(batch), bool)
    for name in REQUIRED:
        good &= np.asarray(pc.is_valid(batch[name]))
    kept = batch if good.all() else batch.filter(pa.array(good))
    return pa.RecordBatch.from_arrays(kept.columns, schema=EVENTS)


def drop_future(batch: pa.RecordBatch, now_us: int) -> pa.RecordBatch:
    """Drop events later than `now_us`, the start of the run, so that no wrong time decides the end of the data."""
    future = np.asarray(batch["time"].cast(pa.int64())) > now_us
    return batch.filter(pa.array(~future)) if future.any() else batch


def build_items_table(columns: dict[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
    """Build an items table: missing canonical columns are null, extra columns follow."""
    return _table(ITEMS, columns)


def build_users_table(columns: dict[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
    """Build a users table; extra columns follow."""
    return _table(USERS, columns)


def empty_users() -> pa.Table:
    return USERS.empty_table()


def _table(schema: pa.Schema, columns: dict[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
    n = len(next(iter(columns.values())))
    canonical = {f.name: columns.get(f.name, pa.nulls(n, f.type)) for f in schema}
    extra = {name: array for name, array in columns.items() if name not in canonical}
    fields = [*schema, *(pa.field(name, array.type) for name, array in extra.items())]
    return pa.table([*canonical.values(), *extra.values()], schema=pa.schema(fields))


def seconds_to_time(seconds: pa.Array) -> pa.Array:
    """Convert whole or fractional epoch seconds to TIME."""
    if pa.types.is_floating(seconds.type):
        micros = pc.cast(pc.round(pc.multiply(seconds, 1e6)), pa.int64())
    else:
        micros = pc.multiply(pc.cast(seconds, pa.int64()), 1_000_000)
    return pc.cast(micros, TIME)


def require_file(path: Path, what: str) -> Path:
    """Return the path; raise DataError if it is not a file."""
    if not path.is_file():
        raise DataError(f"{path} does not exist: expected {what}. set data.path in the TOML, or DATA, to its folder")
    return path
