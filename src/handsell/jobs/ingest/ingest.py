"""The data job: source → canonical events, items and users → catalog → numbered interactions.

    1 read       write each part of the source as a Parquet file of canonical events          a task per part
    2 number     add new ids to the catalog's vocabularies                                   driver, ids only
    3 partition  number the events of each file and split them into partitions of users       a task per part
    4 merge      deduplicate and sort each partition, with strictly increasing times per user     a task per partition

The driver never holds events. Everything is written to a new folder and moved into place at the end.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.clock import Clock
from handsell.core.errors import DataError, HandsellError
from handsell.core.json_files import read_json
from handsell.core.paths import Layout, has_content
from handsell.data.numbering import (
    KEYED,
    deduplicate_and_sort,
    number_events,
    unknown_types_error,
)
from handsell.data.readers.base import FEW_FUTURE, Reader, SourcePart, drop_future, drop_incomplete
from handsell.data.readers.detect import open_reader
from handsell.data.readers.world import World
from handsell.data.schemas import EVENTS
from handsell.events.table_keys import save_table_keys
from handsell.jobs.cluster import connect, run_tasks
from handsell.jobs.ingest.catalog import load_vocabularies, write_catalog
from handsell.jobs.progress import report_update

EVENTS_PER_PARTITION = 2_000_000
VERSION = 3  # increase when the output of this job changes


@dataclass(frozen=True, slots=True)
class PartSummary:
    """Counts of one part of the source."""

    events: int
    dropped: int  # rows without an id, a type or a time
    future: int  # events later than the start of the run, left out
    first_us: int | None
    last_us: int | None
    types: tuple[str, ...]


def prepare(config: Config, progress: Callable[[str], None] = report_update) -> dict[str, Any]:
    """Write the data, catalog and interactions folders of a deployment; return meta.json with `skipped`.

    An unchanged source is skipped. Raises DataError for a source that cannot be used.
    """
    reader, layout = open_reader(config, progress), Layout(config.state)
    before, current = _read_meta(layout), compute_fingerprint(config, reader)
    if before.get("fingerprint") == current and has_content(layout.interactions, layout.catalog, layout.items.parent):
        return {**before, "skipped": True}
    config.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=config.state, prefix=".data-") as raw, connect(config.jobs.num_cpus):
        fresh = Layout(Path(raw))
        kept = load_vocabularies(layout) if before.get("source") == reader.source else {}
        meta = {"fingerprint": current, **_write(config, reader, fresh, kept, progress)}
        fresh.data_meta.write_text(json.dumps(meta, indent=1))
        _publish(fresh, layout)
    return {**meta, "skipped": False}


def compute_fingerprint(config: Config, reader: Reader) -> str:
    """Return a hash of the source files' names, sizes and times, of [data] and [events], and of the partitions."""
    stats = [(str(path), path.stat()) for path in reader.files()]
    files = [(name, s.st_size, s.st_mtime_ns) for name, s in stats]
    sections = [config.data.model_dump(), config.events.model_dump(exclude={"store"}), config.jobs.partitions]
    return hashlib.sha256(json.dumps([VERSION, reader.source, files, sections]).encode()).hexdigest()


def _write(
    config: Config, reader: Reader, fresh: Layout, kept: dict[str, Vocabulary], progress: Callable[[str], None]
) -> dict[str, Any]:
    """Run the four steps in the folders of `fresh`; return the counts for meta.json."""
    parts, now_us = reader.parts(), Clock().now()
    progress(f"reading {len(parts)} part{'s' * (len(parts) > 1)} of {type(reader).__name__}")
    summaries = _run_tasks(read_source, [(reader, part, fresh.state, now_us) for part in parts], config)
    events, future = sum(part.events for part in summaries), sum(part.future for part in summaries)
    _require_events(config, reader, summaries, events)
    if future:
        progress(f"{future:,} event{'s' * (future > 1)} in the future left out: `handsell doctor` shows examples")
    progress(f"{events:,} events; numbering users and items")
    items, users, deleted = write_catalog(config, reader, fresh, kept)
    _require_two(reader, items, users)
    if deleted:
        progress(
            f"{deleted:,} items have events but no row in the items table: they are not recommended "
            "(data.recommend_deleted_items)"
        )
    partitions = max(config.jobs.partitions, math.ceil(events / EVENTS_PER_PARTITION))
    progress(f"{users:,} users, {items:,} items; splitting events into {partitions} partitions")
    _run_tasks(partition_events, [(config, part.number, fresh.state, partitions) for part in parts], config)
    merged = _run_tasks(merge_events, [(p, fresh.state) for p in range(partitions)], config)
    written = sum(count for count, _ in merged)
    shutil.rmtree(fresh.state / "partitions")
    shutil.rmtree(fresh.state / "ids")
    return {
        "source": reader.source,
        "format": type(reader).__name__,
        "ordered": reader.ordered,
        "events": written,
        "duplicates": events - written,
        "dropped": sum(part.dropped for part in summaries),
        "future": future,
        "read_us": now_us,
        "items": items,
        "deleted_items": deleted,
        "users": users,
        "partitions": partitions,
        "first_us": min(part.first_us for part in summaries if part.first_us is not None),
        "last_us": max(last for _, last in merged),
    }


def read_source(reader: Reader, part: SourcePart, state: Path, now_us: int) -> PartSummary:
    """Write the canonical events of a part up to `now_us`, and its distinct ids in order of appearance. A Ray task."""
    layout = Layout(state)
    layout.events.mkdir(parents=True, exist_ok=True)
    path, dropped, future = _part_path(layout.events, part.number), 0, 0
    if isinstance(reader, World):
        reader.write(part, layout.events, layout.truth)
    else:
        with pq.ParquetWriter(path, EVENTS) as out:
            for batch in reader.events(part):
                complete = drop_incomplete(batch)
                kept = drop_future(complete, now_us) if reader.ordered else complete
                dropped, future = dropped + len(batch) - len(complete), future + len(complete) - len(kept)
                out.write_batch(kept)
    ids: dict[str, dict[str, None]] = {"user_id": {}, "item_id": {}}
    types: set[str] = set()
    events, times = 0, []
    for batch in _read_batches(path):
        events += len(batch)
        for name, seen in ids.items():
            seen.update(dict.fromkeys(pc.unique(batch[name]).to_pylist()))
        types.update(pc.unique(batch["type"]).to_pylist())
        times += [t for t in pc.min_max(batch["time"].cast(pa.int64())).as_py().values() if t is not None]
    for name, seen in ids.items():
        (state / "ids" / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": pa.array(seen, pa.string())}), _part_path(state / "ids" / name, part.number))
    first, last = (min(times), max(times)) if times else (None, None)
    return PartSummary(events, dropped, future, first, last, tuple(sorted(types)))


def partition_events(config: Config, part: int, state: Path, partitions: int) -> None:
    """Number the events of one part and write each to the partition of its user. A Ray task."""
    layout = Layout(state)
    users, items = (Vocabulary.load(layout.catalog / name) for name in ("users", "items"))
    writers: dict[int, pq.ParquetWriter] = {}
    try:
        for batch in _read_batches(_part_path(layout.events, part)):
            rows = number_events(batch, users, items, config.events)
            to = rows["user"].to_numpy() % partitions
            for partition in np.unique(to).tolist():
                if partition not in writers:
                    folder = state / "partitions" / f"{partition:05d}"
                    folder.mkdir(parents=True, exist_ok=True)
                    writers[partition] = pq.ParquetWriter(_part_path(folder, part), KEYED)
                writers[partition].write_table(rows.filter(pa.array(to == partition)))
    finally:
        for writer in writers.values():
            writer.close()


def merge_events(partition: int, state: Path) -> tuple[int, int]:
    """Merge the events of a partition into its file of interactions; return how many, and the last time. A Ray task."""
    folder, layout = state / "partitions" / f"{partition:05d}", Layout(state)
    tables = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))] if folder.is_dir() else []
    rows = pa.concat_tables([KEYED.empty_table(), *tables])
    save_table_keys(layout.event_keys, partition, rows["key"].to_numpy())
    merged = deduplicate_and_sort(rows)
    layout.interactions.mkdir(parents=True, exist_ok=True)
    pq.write_table(merged, _part_path(layout.interactions, partition))
    return len(merged), pc.max(merged["time"]).as_py() or 0


def _require_events(config: Config, reader: Reader, summaries: Sequence[PartSummary], events: int) -> None:
    """Raise DataError without events, for types without a weight, and for times that are equal or in the future."""
    future = sum(part.future for part in summaries)
    if future > FEW_FUTURE * (events + future):
        raise DataError(
            f"{future:,} of {events + future:,} events are in the future: expected at most {FEW_FUTURE:.0%}; correct "
            "the unit or the time zone of the times, `handsell doctor` shows examples"
        )
    if not events:
        files = ", ".join(map(str, reader.files()[:3]))
        dropped = sum(part.dropped for part in summaries)
        raise DataError(
            f"no usable events in {files}: expected rows with user, item, type and time, got {dropped} rows that lack "
            "one of them; run `handsell doctor` to see examples"
        )
    unknown = {name for part in summaries for name in part.types} - set(config.events.names)
    if unknown:
        raise unknown_types_error(unknown, config.events)
    first = min(part.first_us for part in summaries if part.first_us is not None)
    last = max(part.last_us for part in summaries if part.last_us is not None)
    if reader.ordered and events > 1 and first == last:
        raise DataError(
            f"all {events:,} events have the same time: expected different times; map the column with the real time"
        )


def _require_two(reader: Reader, items: int, users: int) -> None:
    """Raise DataError with fewer than two items or users."""
    for name, got, why in (("item", items, "nothing to rank"), ("user", users, "no other user to learn from")):
        if got < 2:
            raise DataError(
                f"{reader.source.partition(':{')[0]}: expected at least two {name}s, got {got}: there is {why}; "
                "check the column mapping, or use rules instead of a trained recommender"
            )


def _run_tasks(function: Callable, arguments: list[tuple], config: Config) -> list[Any]:
    """Run Ray tasks; raise their errors as they were raised there."""
    try:
        return run_tasks(function, arguments, wait_s=config.jobs.wait_for_resources_s)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HandsellError):
            raise error.cause from None
        raise


def _publish(fresh: Layout, layout: Layout) -> None:
    """Move the new folders into place; meta.json, which marks complete data, is removed first and written last."""
    layout.data_meta.unlink(missing_ok=True)
    replaced = fresh.state / "replaced"
    replaced.mkdir()
    for new, old in (
        (fresh.catalog, layout.catalog),
        (fresh.interactions, layout.interactions),
        (fresh.truth, layout.truth),
        (fresh.items.parent, layout.items.parent),
    ):
        if old.exists():
            old.rename(replaced / old.name)
        if new.exists():
            new.rename(old)


def _read_meta(layout: Layout) -> dict[str, Any]:
    """Return what the last run has recorded; empty if there is none, or if the file is damaged."""
    try:
        return read_json(layout.data_meta, "")
    except HandsellError:
        return {}


def _part_path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


def _read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    yield from pq.ParquetFile(path).iter_batches(batch_size=131_072, columns=EVENTS.names)
