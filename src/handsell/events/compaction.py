"""Compaction: copy closed offset ranges of the event store to Parquet files by date, each offset exactly once.

The position is the last offset of the written ranges, so a run that was killed at any point is continued by the next
one. Memory is bounded by RANGE_ROWS, whatever the store holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from handsell.config import Config
from handsell.core.errors import DataError
from handsell.core.paths import Layout
from handsell.events.compacted_files import (
    SCHEMAS,
    Kind,
    build_table,
    lock_compacted,
    read_position,
    remove_unlisted,
    write_range,
)
from handsell.events.store.interface import Columns, EventReader
from handsell.events.store.opening import open_reader

RANGE_ROWS = 200_000  # rows of a range, which are in memory at once
BATCH_EVENTS, BATCH_SLATES, BATCH_CHANGES = 10_000, 1_000, 10_000

Batch = tuple[int, pa.Table]  # the offset through which it reads, and the rows


@dataclass(frozen=True, slots=True)
class CompactionSummary:
    """Rows that a run copied, and the offsets through which everything is copied now."""

    events: int
    impressions: int  # shown items
    changes: int
    events_through: int
    slates_through: int
    changes_through: int

    def to_text(self) -> str:
        return (
            f"{self.events:,} events, {self.impressions:,} impressions and {self.changes:,} catalog changes copied "
            f"from the event store; events through offset {self.events_through:,}"
        )


def compact(config: Config, progress: Callable[[str], None]) -> CompactionSummary:
    """Copy everything that the store has committed by now and that is not copied yet.

    Raises EventStoreError if the store does not answer, DataError if earlier ranges are damaged or another process
    keeps compacting.
    """
    folder, rows = Layout(config.state).compacted, dict.fromkeys(READERS, 0)
    with closing(open_reader(config)) as reader:
        _require_newer(reader, folder)
        if any(True for kind, read in READERS.items() for _ in read(reader, read_position(folder, kind))):
            with lock_compacted(folder):
                for kind, read in READERS.items():
                    remove_unlisted(folder, kind)
                    rows[kind] = _copy(folder, kind, reader, read, progress)
    return CompactionSummary(*rows.values(), *(read_position(folder, kind) for kind in READERS))


def _require_newer(reader: EventReader, folder: Path) -> None:
    """Raise DataError for a store that ends before the copied events: its offsets would be taken for copied ones."""
    last, copied = reader.last_offset(), read_position(folder, "events")
    if last < copied:
        raise DataError(
            f"the event store ends at offset {last:,}, but events through offset {copied:,} were copied from it to "
            f"{folder}: it is another or an older store; restore both from the same backup"
        )


def _copy(folder: Path, kind: Kind, reader: EventReader, read: Callable, progress: Callable[[str], None]) -> int:
    """Copy the new rows of a kind in ranges of about RANGE_ROWS; return their number."""
    first, copied, waiting = read_position(folder, kind) + 1, 0, list[pa.Table]()
    last = first - 1
    for last, batch in read(reader, first - 1):
        waiting.append(batch)
        if sum(map(len, waiting)) >= RANGE_ROWS:
            copied += _write(folder, kind, first, last, waiting)
            progress(f"{copied:,} {kind} copied from the event store")
            first, waiting = last + 1, []
    return copied + (_write(folder, kind, first, last, waiting) if waiting else 0)


def _write(folder: Path, kind: Kind, first: int, through: int, batches: list[pa.Table]) -> int:
    rows = pa.concat_tables(batches)
    write_range(folder, kind, first, through, rows)
    return len(rows)


def _read_events(reader: EventReader, after: int) -> Iterator[Batch]:
    """Yield the events that are committed at the start, in order of offsets."""
    end = reader.last_offset()
    while after < end and (columns := reader.scan(after, BATCH_EVENTS))["offset"]:
        after = columns["offset"][-1]
        without_keys = {"key": [None] * len(columns["offset"])}  # a log that its writer has not upgraded yet
        yield after, build_table("events", without_keys | columns)


def _read_impressions(reader: EventReader, after: int) -> Iterator[Batch]:
    """Yield the items of slates. A batch has whole slates; after one with a few, the rest waits for the next run."""
    slates = BATCH_SLATES
    while slates > BATCH_SLATES // 2:
        columns = reader.read_impressions(after, BATCH_SLATES)
        if columns["offset"]:
            slates, after = len(set(columns["offset"])), columns["offset"][-1]
        else:  # none, or slates without items
            empty = reader.read_slates(after, BATCH_SLATES)
            slates, after = len(empty), empty[-1][0] if empty else after
        if slates:
            yield after, build_table("impressions", _name_rules(columns))


def _name_rules(columns: Columns) -> Columns:
    return {**columns, "rules": [None if version is None else str(version) for version in columns["rules"]]}


def _read_changes(reader: EventReader, after: int) -> Iterator[Batch]:
    end = reader.last_change_offset()
    while after < end and (found := reader.read_changes(after, BATCH_CHANGES)):
        after = found[-1].offset
        rows = [(c.kind, c.id, c.action, json.dumps(c.fields, ensure_ascii=False), c.time, c.offset) for c in found]
        columns = map(list, zip(*rows, strict=True))
        yield after, build_table("changes", dict(zip(SCHEMAS["changes"].names, columns, strict=True)))


READERS: dict[Kind, Callable[[EventReader, int], Iterator[Batch]]] = {
    "events": _read_events,
    "impressions": _read_impressions,
    "changes": _read_changes,
}
