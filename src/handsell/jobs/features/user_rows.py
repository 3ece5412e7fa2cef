"""A Ray task that writes the rows of the user views, and item counts by day, from one part of the numbered log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handsell.config import Config
from handsell.core.batches import Ragged
from handsell.core.paths import Layout
from handsell.data.interaction_parts import read_part
from handsell.data.interactions import Interactions
from handsell.events.states import FoldRules, ItemAttributes
from handsell.features.feature_times import find_last_events, fold_at
from handsell.features.item import ItemDays, count_days
from handsell.features.rows import Vocabularies, build_pair_rows, build_user_rows
from handsell.features.views import build_views

CHUNK_EVENTS = 400_000  # events of whole users folded at once: bounds a task's memory
BEYOND_CAP = "beyond seen_cap"  # counts users who have seen more items than are kept of them
CHUNK_ROWS = 4_000  # user rows turned into tables at once

DAYS = pa.schema([("item", pa.int32()), ("day", pa.int64()), ("positives", pa.float64()), ("events", pa.float64())])


@dataclass(frozen=True, slots=True)
class FeatureWork:
    """Paths and sizes that all tasks of one run share; no data."""

    config: Config
    meta: dict
    out: Path  # new view folders, not yet published
    scratch: Path  # item attributes, and day counts from parts to buckets
    requested: Path | None  # Parquet with user, time: rows that training needs
    buckets: int

    def days(self, part: str, bucket: int) -> Path:
        return self.scratch / f"days-{bucket:05d}" / f"{part}.parquet"


def save_attributes(facts: ItemAttributes, scratch: Path) -> None:
    """Save item attributes for tasks, which memory-map them."""
    for name, array in (
        ("creator", facts.creator),
        ("tags", facts.tags.values),
        ("tag_offsets", facts.tags.offsets),
    ):
        np.save(scratch / f"{name}.npy", array)


def load_attributes(scratch: Path) -> ItemAttributes:
    creator, tags, offsets = (np.load(scratch / f"{n}.npy", mmap_mode="r") for n in ("creator", "tags", "tag_offsets"))
    return ItemAttributes(creator, Ragged(tags, offsets))


def write_part(part: Path, work: FeatureWork) -> dict[str, int]:
    """Write a part's rows of every user view and its day counts by item bucket; returns the number of rows by view."""
    facts, names = load_attributes(work.scratch), Vocabularies.load(Layout(work.config.state).catalog)
    events = _read_events(part, names)
    rules = FoldRules.of(work.config)
    _write_days(count_days(events.item, events.time, events.weight, rules.seen[events.type]), part.stem, work)
    writers, beyond_cap = _Writers(work, part.name), 0
    through = work.meta.get("events_through", 0)  # requests read the store after this offset
    for chunk in _chunks(events):
        at = find_last_events(chunk, work.config, work.meta, _read_requested(work.requested, chunk))
        for users, states, latest in fold_at(chunk, at, facts, rules):
            beyond_cap += int((states.seen_total[latest] > rules.seen_cap).sum())
            for begin in range(0, len(users), CHUNK_ROWS):
                rows = slice(begin, begin + CHUNK_ROWS)
                some = states.take(rows)
                some = replace(some, log_offset=np.full(len(some), through, np.int64))
                writers.write(build_user_rows(some, users[rows], names, work.config))
                last = latest[rows]
                writers.write(build_pair_rows(some.take(last), users[rows][last], names, work.config))
    writers.close()
    return {"events": len(events), BEYOND_CAP: beyond_cap, **writers.rows}


def _read_events(part: Path, names: Vocabularies) -> Interactions:
    rows = read_part(part, ("user", "item", "type", "time", "weight"))
    return Interactions.from_table(rows, len(names.users), len(names.items))


class _Writers:
    """One open Parquet file per view, in the view's schema; it is written even without rows."""

    def __init__(self, work: FeatureWork, name: str):
        every = build_views(work.config)
        self.rows = dict.fromkeys(
            ("user_activity", "user_history", "user_seen", "user_affinity", "user_creator", "user_tag"), 0
        )
        self.files = {view: pq.ParquetWriter(work.out / view / name, every[view].schema) for view in self.rows}

    def write(self, tables: dict[str, pa.Table]) -> None:
        for view, table in tables.items():
            self.files[view].write_table(table)
            self.rows[view] += len(table)

    def close(self) -> None:
        for file in self.files.values():
            file.close()


def _chunks(events: Interactions) -> Iterator[Interactions]:
    """Yield the events of whole users, about CHUNK_EVENTS at a time."""
    ends = events.user_offsets[1:]
    begin = 0
    while begin < len(events):
        enough = np.searchsorted(ends, begin + CHUNK_EVENTS, side="right") - 1
        end = int(ends[enough]) if enough >= 0 and ends[enough] > begin else _end_of_user(ends, begin)
        yield events.where(slice(begin, end))
        begin = end


def _end_of_user(ends: np.ndarray, begin: int) -> int:
    return int(ends[np.searchsorted(ends, begin, side="right")])


def _read_requested(path: Path | None, events: Interactions) -> tuple[np.ndarray, np.ndarray] | None:
    """Read the requested (users, times) of the users of this chunk."""
    if path is None:
        return None
    lowest, highest = int(events.user[0]), int(events.user[-1])
    table = pq.read_table(path, columns=["user", "time"], filters=[("user", ">=", lowest), ("user", "<=", highest)])
    return table["user"].to_numpy(), table["time"].to_numpy()


def _write_days(counts: ItemDays, part: str, work: FeatureWork) -> None:
    home = counts.item % work.buckets
    for bucket in range(work.buckets):
        mine = home == bucket
        columns = (counts.item[mine], counts.day[mine], counts.values[mine, 0], counts.values[mine, 1])
        path = work.days(part, bucket)
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(dict(zip(DAYS.names, columns, strict=True)), schema=DAYS), path)
