"""What every reader of source data offers, and the batches that it hands out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.core.errors import DataError
from handsell.data.schemas import EVENTS, ITEMS, TIME, USERS

AS_FOUND = pa.schema([field.with_nullable(True) for field in EVENTS])  # EVENTS with the holes of the source
REQUIRED = ("user_id", "item_id", "type", "time")


@dataclass(frozen=True, slots=True)
class SourcePart:
    """A stretch of the events that is read on its own, by one task."""

    number: int  # parts are numbered in log order
    path: str = ""
    row_groups: tuple[int, ...] | None = None  # of a Parquet file; None reads all of it


class Reader(Protocol):
    """A source of canonical events, items and users; holds paths and settings, never data."""

    @property
    def ordered(self) -> bool:
        """Whether times are real (False: only the order within a user is known)."""
        ...

    @property
    def source(self) -> str:
        """Names the id space: item "7" of another source is another item."""
        ...

    def files(self) -> list[Path]:
        """Every file that is read; a change of size or time of any means that the data has changed."""
        ...

    def parts(self) -> list[SourcePart]: ...

    def events(self, part: SourcePart) -> Iterator[pa.RecordBatch]:
        """Batches in AS_FOUND, in log order; raises DataError naming file, column, expected and received."""
        ...

    def items(self) -> pa.Table:
        """Schema ITEMS plus extra columns, one row per item that is described."""
        ...

    def users(self) -> pa.Table:
        """Schema USERS plus extra columns; empty where the source describes no users."""
        ...


def all_events(reader: Reader) -> Iterator[pa.RecordBatch]:
    """Every part, one after another."""
    for part in reader.parts():
        yield from reader.events(part)


def event_batch(part: int, start: int, columns: dict[str, pa.Array]) -> pa.RecordBatch:
    """Canonical batch of the columns that a source has; `start` is the row number of the first event.

    Without an event_id of its own an event is named by its place in the log, so none is ever taken for a
    duplicate of another.
    """
    n = len(next(iter(columns.values())))
    if "event_id" not in columns:
        rows = pc.cast(pa.array(np.arange(start, start + n)), pa.string())
        columns = {**columns, "event_id": pc.binary_join_element_wise(f"{part}", rows, "-")}
    arrays = [columns[f.name] if f.name in columns else pa.nulls(n, f.type) for f in AS_FOUND]
    return pa.RecordBatch.from_arrays(arrays, schema=AS_FOUND)


def complete(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The events that can be used, in EVENTS: without those that lack an id, a type or a time."""
    good = np.ones(len(batch), bool)
    for name in ("event_id", *REQUIRED):
        good &= np.asarray(pc.is_valid(batch[name]))
    kept = batch if good.all() else batch.filter(pa.array(good))
    return pa.RecordBatch.from_arrays(kept.columns, schema=EVENTS)


def items_table(columns: dict[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
    """ITEMS with nulls for what the source does not say; other columns follow."""
    return _table(ITEMS, columns)


def users_table(columns: dict[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
    return _table(USERS, columns)


def no_users() -> pa.Table:
    return USERS.empty_table()


def _table(schema: pa.Schema, columns: dict[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
    n = len(next(iter(columns.values())))
    canonical = {f.name: columns.get(f.name, pa.nulls(n, f.type)) for f in schema}
    extra = {name: array for name, array in columns.items() if name not in canonical}
    fields = [*schema, *(pa.field(name, array.type) for name, array in extra.items())]
    return pa.table([*canonical.values(), *extra.values()], schema=pa.schema(fields))


def seconds_to_time(seconds: pa.Array) -> pa.Array:
    """Whole or fractional seconds since the epoch → TIME."""
    if pa.types.is_floating(seconds.type):
        micros = pc.cast(pc.round(pc.multiply(seconds, 1e6)), pa.int64())
    else:
        micros = pc.multiply(pc.cast(seconds, pa.int64()), 1_000_000)
    return pc.cast(micros, TIME)


def need_file(path: Path, what: str) -> Path:
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: expected {what}. Set data.path in the TOML, or DATA, to the folder that holds it"
        )
    return path
