"""The first step of the data job: a Ray task writes the events of one part of the input as a Parquet file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.data.event_key import compute_event_keys
from handsell.data.readers.base import Reader, SourcePart, drop_incomplete
from handsell.data.readers.world import World
from handsell.data.schemas import EVENTS, TIME
from handsell.events.compacted_files import CompactedRange, read_range
from handsell.jobs.ingest.person_rules import PersonRules

STORED = pa.schema(  # events of the event store
    [*EVENTS, pa.field("key", pa.int64()), pa.field("alias", pa.int64()), pa.field("offset", pa.int64())]
)
BATCH_ROWS = 131_072


@dataclass(frozen=True, slots=True)
class InputPart:
    """Events that one task reads: a part of the source, ranges of the event store, or events that were in the future.

    `id` is the part's number in every later run, numbering.STORE for events of the store.
    """

    number: int  # in this run
    id: int
    origin: Literal["source", "store"]
    source: SourcePart | None = None
    ranges: tuple[CompactedRange, ...] = ()
    waiting: Path | None = None  # file of events that were in the future in an earlier run


@dataclass(frozen=True, slots=True)
class ReadingWork:
    """What all tasks of a run share."""

    reader: Reader
    state: Path  # the folder of this run
    compacted: Path
    types: tuple[str, ...]  # event types of the config
    now_us: int


@dataclass(frozen=True, slots=True)
class PartSummary:
    """Counts of one part of the input."""

    events: int
    dropped: int  # rows without an id, a type or a time
    unknown: int  # events of the store whose type the config no longer has
    future: int  # events later than the start of the run, which wait for a later one
    future_first_us: int | None
    first_us: int | None
    last_us: int | None
    types: tuple[str, ...]


def event_path(state: Path, number: int) -> Path:
    return state / "events" / f"part-{number:05d}.parquet"


def waiting_path(state: Path, number: int) -> Path:
    return state / "waiting" / f"part-{number:05d}.parquet"


def read_part(part: InputPart, work: ReadingWork) -> PartSummary:
    """Write the events of a part up to `now_us`, those that are later, and the distinct ids in order of appearance."""
    rules, counts = PersonRules.load(work.state), Counter[str]()
    path, later = event_path(work.state, part.number), waiting_path(work.state, part.number)
    for folder in (path.parent, later.parent):
        folder.mkdir(parents=True, exist_ok=True)
    seen = _Seen()
    with pq.ParquetWriter(path, _schema(part)) as out, pq.ParquetWriter(later, _schema(part)) as waiting:
        for batch in _read_batches(part, work, counts):
            events = rules.apply(batch)
            future = np.asarray(events["time"].cast(pa.int64())) > work.now_us
            if (work.reader.ordered or part.origin == "store") and future.any():
                waiting.write_batch(events.filter(pa.array(future)))
                counts["future"] += int(np.count_nonzero(future))
                first = pc.min(events["time"].cast(pa.int64()).filter(pa.array(future))).as_py()
                counts["future_first_us"] = min(counts["future_first_us"] or first, first)
                events = events.filter(pa.array(~future))
            seen.add(events)
            out.write_batch(events)
    if not counts["future"]:
        later.unlink()
    seen.save(work.state, part.number)
    return PartSummary(
        seen.events, counts["dropped"], counts["unknown"], counts["future"], counts["future_first_us"] or None,
        seen.first, seen.last, tuple(sorted(seen.types)),
    )  # fmt: skip


def _schema(part: InputPart) -> pa.Schema:
    return STORED if part.origin == "store" else EVENTS


def _read_batches(part: InputPart, work: ReadingWork, counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Yield the complete events of a part in log order."""
    if part.waiting is not None:
        yield from pq.ParquetFile(part.waiting).iter_batches(BATCH_ROWS)
    elif part.source is not None:
        yield from _read_source(part.source, work, counts)
    for one in part.ranges:
        for batch in read_range(work.compacted, one).to_batches(BATCH_ROWS):
            known = pc.is_in(batch["type"], pa.array(work.types))
            counts["unknown"] += len(batch) - (pc.sum(known).as_py() or 0)
            yield _choose_keys(batch.filter(known))


def _read_source(part: SourcePart, work: ReadingWork, counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    if isinstance(work.reader, World):
        folder = work.state / "generated" / f"{part.number}"
        work.reader.write(part, folder, work.state / "truth")
        for path in sorted(folder.glob("*.parquet")):
            yield from (batch.select(EVENTS.names).cast(EVENTS) for batch in pq.ParquetFile(path).iter_batches())
            path.unlink()
        return
    for batch in work.reader.events(part):
        complete = drop_incomplete(batch)
        counts["dropped"] += len(batch) - len(complete)
        yield complete


def _choose_keys(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return events of the store as STORED: their key has a time, and an alias with the stored time where they differ.

    An event that was sent without a timestamp has none in the key of the store. A copy in the source tables has the
    stored time. The clock of a sender may be ahead: its copies have the time that was sent or, from an export of the
    store, the stored one, so the event has two keys.
    """
    timed = compute_event_keys(batch)
    no_time = pa.nulls(len(batch), TIME)
    untimed = compute_event_keys({name: no_time if name == "time" else batch[name] for name in EVENTS.names})
    stored = np.asarray(pc.fill_null(batch["key"], 0))
    own = np.where((stored == untimed) | np.asarray(pc.is_null(batch["key"])), timed, stored)
    alias = pa.array(timed, mask=own == timed)
    arrays = [*(batch[name] for name in EVENTS.names), pa.array(own), alias, batch["offset"]]
    return pa.RecordBatch.from_arrays(arrays, schema=STORED)


class _Seen:
    """Distinct ids and types, and the span of the times."""

    def __init__(self) -> None:
        self.ids: dict[str, dict[str, None]] = {"user_id": {}, "item_id": {}}
        self.types: set[str] = set()
        self.events = 0
        self.first: int | None = None
        self.last: int | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        if not len(batch):
            return
        self.events += len(batch)
        for name, ids in self.ids.items():
            ids.update(dict.fromkeys(pc.unique(batch[name]).to_pylist()))
        self.types.update(pc.unique(batch["type"]).to_pylist())
        span = pc.min_max(batch["time"].cast(pa.int64()))
        first, last = span["min"].as_py(), span["max"].as_py()
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)

    def save(self, state: Path, number: int) -> None:
        for name, ids in self.ids.items():
            folder = state / "ids" / name
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"id": pa.array(list(ids), pa.string())}), folder / f"part-{number:05d}.parquet")
