"""How often an item was shown and what users did with it, from the event store and its compacted files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from handsell.catalog.snapshot import NEVER
from handsell.core.errors import DataError
from handsell.core.units import DAY_US
from handsell.events.compacted_files import SCHEMAS, Kind, list_ranges, read_position
from handsell.events.store.interface import Columns, EventReader

MOST_SLATES = 50_000  # newest slates and events of the store that are read
MOST_EVENTS = 500_000
AT_ONCE = 20_000  # rows of a file
IMPRESSION_COLUMNS = ("time", "surface", "position", "sources")


@dataclass(frozen=True, slots=True)
class ItemExposure:
    """D days up to now; positions count from 1. The counts are zero for an item that was never shown."""

    first_day: int  # since 1970
    shown: np.ndarray  # (D,) impressions
    position: float | None  # mean of all impressions; None without one
    surfaces: dict[str, int]  # impressions, most first
    sources: dict[str, int]  # impressions that a source has proposed, most first
    events: dict[str, np.ndarray]  # type → (D,)
    recommended: dict[str, int]  # of these, how many name a recommendation
    is_partial: bool  # the store has more slates or events than are read

    @property
    def impressions(self) -> int:
        return int(self.shown.sum())

    def count_events(self) -> dict[str, int]:
        """Return the number of events of each type, most first."""
        return dict(Counter({kind: int(counts.sum()) for kind, counts in self.events.items()}).most_common())


def read_exposure(reader: EventReader, compacted: Path, item_id: str, now: int, days: int = 28) -> ItemExposure:
    """Read the exposure of an item in the last `days` days up to now µs, today included.

    Of what is not compacted, the newest MOST_SLATES and MOST_EVENTS are read. Raises EventStoreError, and DataError
    for a compacted file that cannot be read.
    """
    first = now // DAY_US - days + 1
    tally, events = _ImpressionTally(first, days), _EventTally(first, days)
    through: dict[Kind, int] = {kind: read_position(compacted, kind) for kind in ("impressions", "events")}
    after, lacks_slates = _find_start(reader.find_slate_offset(NEVER), through["impressions"], MOST_SLATES)
    tally.add(reader.read_item_impressions(item_id, after, MOST_SLATES))
    after, lacks_events = _find_start(reader.last_offset(), through["events"], MOST_EVENTS)
    for row in reader.count_item_events(item_id, after):
        events.add(*row)
    files = _ItemFiles(compacted, item_id, first, through)  # what is compacted from now on is counted already
    for rows in files.scan("impressions", IMPRESSION_COLUMNS):
        tally.add({name: rows[name].to_pylist() for name in IMPRESSION_COLUMNS if name != "time"} | _read_times(rows))
    for rows in files.scan("events", ("time", "type", "recommendation_id")):
        columns = (rows["type"].to_pylist(), _read_times(rows)["time"], rows["recommendation_id"].to_pylist())
        for kind, time, recommendation in zip(*columns, strict=True):
            events.add(kind, time // DAY_US, 1, int(recommendation is not None))
    return tally.finish(events, lacks_slates or lacks_events)


def _find_start(last: int, compacted: int, most: int) -> tuple[int, bool]:
    """Return the offset after which the store is read, and whether something before it is left out."""
    return (last - most, True) if last - most > compacted else (compacted, False)


class _ImpressionTally:
    def __init__(self, first: int, days: int):
        self._first, self._shown = first, np.zeros(days, np.int64)
        self._positions = Counter[int]()
        self._surfaces, self._sources = Counter[str](), Counter[str]()

    def add(self, shown: Columns) -> None:
        """Count impressions; times are µs."""
        for time, surface, position, sources in zip(*(shown[name] for name in IMPRESSION_COLUMNS), strict=True):
            day = time // DAY_US - self._first
            if not 0 <= day < len(self._shown):
                continue
            self._shown[day] += 1
            self._surfaces[surface] += 1
            self._positions[position] += 1
            self._sources.update(sources or ())

    def finish(self, events: _EventTally, is_partial: bool) -> ItemExposure:
        known = {position: n for position, n in self._positions.items() if position is not None}
        mean = sum(position * n for position, n in known.items()) / sum(known.values()) if known else None
        return ItemExposure(
            self._first, self._shown, mean, dict(self._surfaces.most_common()), dict(self._sources.most_common()),
            events.counts, dict(events.recommended), is_partial,
        )  # fmt: skip


class _EventTally:
    def __init__(self, first: int, days: int):
        self._first, self._days = first, days
        self.counts: dict[str, np.ndarray] = {}
        self.recommended = Counter[str]()

    def add(self, kind: str, day: int, count: int, recommended: int) -> None:
        """Count events of a day."""
        if 0 <= day - self._first < self._days:
            self.counts.setdefault(kind, np.zeros(self._days, np.int64))[day - self._first] += count
            self.recommended[kind] += recommended


@dataclass(frozen=True, slots=True)
class _ItemFiles:
    """The compacted files of days from `first` on, of ranges up to an offset of each kind."""

    folder: Path
    item_id: str
    first: int
    through: dict[Kind, int]

    def scan(self, kind: Kind, columns: tuple[str, ...]) -> Iterator[pa.Table]:
        """Yield the item's rows; memory is that of a part of a file."""
        since = f"date={np.datetime64(self.first, 'D')}"
        for one in list_ranges(self.folder, kind):
            for file in one.files if one.through <= self.through[kind] else ():
                if file.path.split("/")[-2] < since:
                    continue
                path = self.folder / file.path
                try:
                    yield from _scan_file(path, kind, self.item_id, columns)
                except (OSError, pa.ArrowInvalid) as error:
                    raise DataError(
                        f"compacted file {path} cannot be read ({error}): restore it from a backup"
                    ) from error


def _scan_file(path: Path, kind: Kind, item_id: str, columns: tuple[str, ...]) -> Iterator[pa.Table]:
    schema = SCHEMAS[kind]
    given: Any = ds.dataset(path, schema, format="parquet")
    batches = given.to_batches(
        columns=list(columns), filter=pc.field("item_id") == item_id, batch_size=AT_ONCE, use_threads=False,
        batch_readahead=1,
    )  # fmt: skip
    for batch in batches:
        if len(batch):
            yield pa.Table.from_batches([batch])


def _read_times(rows: pa.Table) -> dict[str, list[int]]:
    return {"time": rows["time"].cast(pa.int64()).to_pylist()}
