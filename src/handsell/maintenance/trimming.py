"""Trim the event store: delete the rows that `[retention]` does not keep and nobody needs any more."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from handsell.bundles.manifest import Manifest
from handsell.bundles.opening import open_bundles
from handsell.bundles.store import BundleStore
from handsell.config import Config
from handsell.core.clock import Clock
from handsell.core.errors import BundleError, HandsellError
from handsell.core.json_files import read_json
from handsell.core.paths import Layout
from handsell.core.units import MINUTE_US, SECOND_US
from handsell.events.compacted_files import list_ranges, read_position
from handsell.events.store.interface import AppendResult, EventReader
from handsell.events.store.opening import open_reader
from handsell.features.storage.row_writers import read_batch_write
from handsell.maintenance.files import DAY_S
from handsell.maintenance.retention import (
    COUNTED_EVENTS,
    NEVER,
    Included,
    Positions,
    TrimLimits,
    compute_impressions_window_us,
    compute_limits,
)

PROCESSOR = "processor"  # name of the stream processor's position
OFFSETS = 50_000  # trimmed in one call
DISORDER_US = MINUTE_US  # slates are in order of time up to a second

Write = Callable[..., AppendResult]


@dataclass(frozen=True, slots=True)
class TrimmedRows:
    """Rows deleted from each table of the store."""

    events: int
    slates: int
    catalog_changes: int
    trimmed_keys: int
    audit: int = 0


def trim_store(config: Config, write: Write) -> TrimmedRows:
    """Delete the rows that nobody needs; `write(method, *arguments)` calls a method of the store's writer.

    The writer deletes some hundred rows in a transaction, so appends wait for tens of milliseconds, and an interrupted
    run is continued by the next one.
    """
    with closing(open_reader(config)) as reader:
        limits, first = compute_limits(read_positions(config, reader)), find_first_offsets(reader)
        measured = reader.measure()
        keys, old_audit = measured["trimmed_keys"], find_old_audit(config, reader) if measured["audit"] else 0
    return TrimmedRows(
        events=trim_table(write, "events", first.events, limits.events),
        slates=trim_table(write, "slates", first.slates, limits.slates),
        catalog_changes=trim_table(write, "catalog_changes", first.catalog_changes, limits.catalog_changes),
        trimmed_keys=trim_table(write, "trimmed_keys", max(limits.events - keys, 1), limits.trimmed_keys),
        audit=trim_table(write, "audit", old_audit, old_audit) if old_audit else 0,
    )


def find_old_audit(config: Config, reader: EventReader) -> int:
    """Return the last offset of the audit log that `retention.audit_days` does not keep, 0 without any."""
    return reader.find_audit_offset(round((time.time() - config.retention.audit_days * DAY_S) * SECOND_US))


def find_limits(config: Config) -> TrimLimits:
    """Read the positions of everything that reads the store, and return through where it may be trimmed."""
    with closing(open_reader(config)) as reader:
        return compute_limits(read_positions(config, reader))


def read_positions(config: Config, reader: EventReader) -> Positions:
    layout, store = Layout(config.state), open_bundles(config)
    pointer = store.pointer()
    kept = {bundle: manifest for bundle in store.list() if (manifest := _show(store, bundle)) is not None}
    served = [bundle for bundle in (pointer.live, *pointer.previous[-1:]) if bundle in kept]
    included = {bundle: Included(about.events_through, about.changes_through) for bundle, about in kept.items()}
    return Positions(
        compacted_events=read_position(layout.compacted, "events"),
        compacted_slates=read_position(layout.compacted, "impressions"),
        compacted_changes=read_position(layout.compacted, "changes"),
        processor=min(reader.read_position(PROCESSOR), read_batch_write(config, reader).log_offset),
        data=_read_data(layout),
        served=[included[bundle] for bundle in served],
        bundles=list(included.values()),
        uncounted=reader.last_offset() - COUNTED_EVENTS,
        old_events=_find_old_events(layout.compacted, config.retention.events_days),
        old_keys=_find_old_events(layout.compacted, config.retention.keys_days),
        old_slates=_find_old_slates(config, reader, kept.get(pointer.live or "")),
    )


def trim_table(write: Write, table: str, first: int, through: int) -> int:
    """Delete the rows in [first, through], OFFSETS in a call, so that it is answered soon; return their number."""
    ends = [*range(first + OFFSETS, through, OFFSETS), through] if first <= through else []
    return sum(write("trim", table, end).accepted for end in ends)


def find_first_offsets(reader: EventReader) -> TrimLimits:
    """Return the lowest offset of each table; that of an empty table is above every other."""
    slates, changes = reader.read_slates(0, 1), reader.read_changes(0, 1)
    return TrimLimits(
        events=next(iter(reader.scan(0, 1)["offset"]), NEVER),
        slates=slates[0][0] if slates else NEVER,
        catalog_changes=changes[0].offset if changes else NEVER,
        trimmed_keys=1,
    )


def _show(store: BundleStore, bundle: str) -> Manifest | None:
    try:
        return store.show(bundle)
    except BundleError:  # of another version: it cannot be served
        return None


def _read_data(layout: Layout) -> Included:
    """Return what the tables of the data job include; nothing without them."""
    if not layout.data_meta.exists():
        return Included(0, 0)
    try:
        meta = read_json(layout.data_meta, "run `handsell data` again")
    except HandsellError:
        return Included(0, 0)
    return Included(meta.get("events_through", 0), meta.get("changes_through", 0))


def _find_old_events(compacted: Path, days: float) -> int:
    """Return the end of the last range of events that was compacted `days` ago or earlier.

    The times of events are their senders' and not in order; when a range was compacted is known.
    """
    before, through = time.time() - days * DAY_S, 0
    for one in list_ranges(compacted, "events"):
        if (compacted / "ranges" / "events" / f"{one.name}.json").stat().st_mtime > before:
            break
        through = one.through
    return through


def _find_old_slates(config: Config, reader: EventReader, live: Manifest | None) -> int:
    """Return the last offset of slates that no cap counts any more, by the service's clock."""
    if live is None:
        return 0
    now = Clock.of(config.serving.clock, live).now()
    return reader.find_slate_offset(now - compute_impressions_window_us(config) - DISORDER_US)
