"""The data job: source → canonical events, items and users → catalog → numbered interactions.

    1 land      each part of the source becomes a Parquet file of canonical events          one task a part
    2 number    distinct ids extend the catalog's vocabularies                            driver, ids only
    3 scatter   each file is numbered and dealt out to partitions by user                   one task a part
    4 settle    each partition is deduplicated, sorted, its times made to rise              one task a partition

The driver never holds events. All is written beside the old state and moved into place at the end.
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
from handsell.core.errors import DataError, HandsellError
from handsell.core.paths import Layout
from handsell.data.alignment import align_rows, mark_unavailable
from handsell.data.interactions import NUMBERED
from handsell.data.numbering import (
    NUMBERED_WITH_ID,
    deduplicate_and_sort,
    extend_vocabulary,
    number_events,
    unknown_types_error,
)
from handsell.data.readers.base import Reader, SourcePart, complete
from handsell.data.readers.detect import open_reader
from handsell.data.readers.world import World
from handsell.data.schemas import EVENTS
from handsell.jobs.cluster import connected, spread
from handsell.jobs.progress import report_update

EVENTS_PER_PARTITION = 2_000_000
VERSION = 1  # raise when what this job writes changes


@dataclass(frozen=True, slots=True)
class Landed:
    """What landing one part found."""

    events: int
    dropped: int  # rows without an id, a type or a time
    first_us: int | None
    last_us: int | None
    types: tuple[str, ...]


def prepare(config: Config, progress: Callable[[str], None] = report_update) -> dict[str, Any]:
    """Write the data, catalog and interactions folders of the deployment; returns meta.json plus `skipped`.

    Raises DataError where the source cannot be used, naming what was expected, what was received and what to do.
    """
    reader, layout = open_reader(config, progress), Layout(config.state)
    before, mark = _meta(layout), fingerprint(config, reader)
    if before.get("fingerprint") == mark and layout.interactions.is_dir() and layout.catalog.is_dir():
        return {**before, "skipped": True}
    config.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=config.state, prefix=".data-") as raw, connected(config.jobs.num_cpus):
        fresh = Layout(Path(raw))
        kept = _vocabularies(layout) if before.get("source") == reader.source else {}
        meta = {"fingerprint": mark, **_write(config, reader, fresh, kept, progress)}
        fresh.data_meta.write_text(json.dumps(meta, indent=1))
        _publish(fresh, layout)
    return {**meta, "skipped": False}


def fingerprint(config: Config, reader: Reader) -> str:
    """Changes when a source file, the [data] or [events] section, or the number of partitions does."""
    stats = [(str(path), path.stat()) for path in reader.files()]
    files = [(name, s.st_size, s.st_mtime_ns) for name, s in stats]
    sections = [config.data.model_dump(), config.events.model_dump(), config.jobs.partitions]
    return hashlib.sha256(json.dumps([VERSION, reader.source, files, sections]).encode()).hexdigest()


def _write(
    config: Config, reader: Reader, fresh: Layout, kept: dict[str, Vocabulary], progress: Callable[[str], None]
) -> dict[str, Any]:
    """All four steps into the folders of `fresh`; returns the counts for meta.json."""
    parts = reader.parts()
    progress(f"reading {len(parts)} part{'s' * (len(parts) > 1)} of {type(reader).__name__}")
    landed = _tasks(land, [(reader, part, fresh.state) for part in parts], config)
    events = sum(part.events for part in landed)
    _refuse(config, reader, landed, events)
    progress(f"{events:,} events; numbering users and items")
    items, users = _catalog(reader, fresh, kept)
    _refuse_alone(reader, items, users)
    partitions = max(config.jobs.partitions, math.ceil(events / EVENTS_PER_PARTITION))
    progress(f"{users:,} users, {items:,} items; dealing events out to {partitions} partitions")
    _tasks(scatter, [(config, part.number, fresh.state, partitions) for part in parts], config)
    written = sum(_tasks(settle_partition, [(p, fresh.state) for p in range(partitions)], config))
    shutil.rmtree(fresh.state / "scatter")
    shutil.rmtree(fresh.state / "ids")
    return {
        "source": reader.source,
        "format": type(reader).__name__,
        "ordered": reader.ordered,
        "events": written,
        "duplicates": events - written,
        "dropped": sum(part.dropped for part in landed),
        "items": items,
        "users": users,
        "partitions": partitions,
        "first_us": min(part.first_us for part in landed if part.first_us is not None),
        "last_us": max(part.last_us for part in landed if part.last_us is not None),
    }


def land(reader: Reader, part: SourcePart, state: Path) -> Landed:
    """Task: canonical events of one part, and its distinct user and item ids in order of appearance."""
    layout = Layout(state)
    layout.events.mkdir(parents=True, exist_ok=True)
    path, found = _part(layout.events, part.number), 0
    if isinstance(reader, World):
        reader.write(part, layout.events, layout.truth)
    else:
        with pq.ParquetWriter(path, EVENTS) as out:
            for batch in reader.events(part):
                found += len(batch)
                out.write_batch(complete(batch))
    ids: dict[str, dict[str, None]] = {"user_id": {}, "item_id": {}}
    types: set[str] = set()
    events, times = 0, []
    for batch in _batches(path):
        events += len(batch)
        for name, seen in ids.items():
            seen.update(dict.fromkeys(pc.unique(batch[name]).to_pylist()))
        types.update(pc.unique(batch["type"]).to_pylist())
        times += [t for t in pc.min_max(batch["time"].cast(pa.int64())).as_py().values() if t is not None]
    for name, seen in ids.items():
        (state / "ids" / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": pa.array(seen, pa.string())}), _part(state / "ids" / name, part.number))
    first, last = (min(times), max(times)) if times else (None, None)
    return Landed(events, max(found - events, 0), first, last, tuple(sorted(types)))


def scatter(config: Config, part: int, state: Path, partitions: int) -> None:
    """Task: number one part's events and append each to the file of its user's partition."""
    layout = Layout(state)
    users, items = (Vocabulary.load(layout.catalog / name) for name in ("users", "items"))
    writers: dict[int, pq.ParquetWriter] = {}
    try:
        for batch in _batches(_part(layout.events, part)):
            rows = number_events(batch, users, items, config.events)
            to = rows["user"].to_numpy() % partitions
            for partition in np.unique(to).tolist():
                if partition not in writers:
                    folder = state / "scatter" / f"{partition:05d}"
                    folder.mkdir(parents=True, exist_ok=True)
                    writers[partition] = pq.ParquetWriter(_part(folder, part), NUMBERED_WITH_ID)
                writers[partition].write_table(rows.filter(pa.array(to == partition)))
    finally:
        for writer in writers.values():
            writer.close()


def settle_partition(partition: int, state: Path) -> int:
    """Task: merge what was dealt out to a partition into its file of interactions; returns how many."""
    folder, layout = state / "scatter" / f"{partition:05d}", Layout(state)
    tables = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))] if folder.is_dir() else []
    settled = deduplicate_and_sort(pa.concat_tables(tables)) if tables else NUMBERED.empty_table()
    layout.interactions.mkdir(parents=True, exist_ok=True)
    pq.write_table(settled, _part(layout.interactions, partition))
    return len(settled)


def _catalog(reader: Reader, fresh: Layout, kept: dict[str, Vocabulary]) -> tuple[int, int]:
    """Extend and save the vocabularies, write items and users in their order; returns how many of each."""
    tables, counts = {"items": reader.items(), "users": reader.users()}, {}
    for name, key, path in (("items", "item_id", fresh.items), ("users", "user_id", fresh.users)):
        known = tables[name].filter(pc.is_valid(tables[name][key]))
        seen = fresh.state / "ids" / key
        vocabulary = extend_vocabulary(kept.get(name), (ids for ids in [known[key], *_ids(seen)]))
        vocabulary.save(fresh.catalog / name)
        counts[name] = len(vocabulary)
        table = align_rows(known, key, vocabulary)
        if name == "items":
            alive = np.zeros(len(vocabulary), bool)
            for ids in [known[key], *_ids(seen)]:
                alive[vocabulary.number(ids.to_pylist())] = True
            table = mark_unavailable(table, alive)
        pq.write_table(table, path)
    for name in ("creators", "tags"):
        lists = tables["items"][name].combine_chunks()
        extend_vocabulary(kept.get(name), [pc.list_flatten(lists)]).save(fresh.catalog / name)
    return counts["items"], counts["users"]


def _ids(folder: Path) -> Iterator[pa.ChunkedArray]:
    for path in sorted(folder.glob("part-*.parquet")):
        yield pq.read_table(path)["id"]


def _refuse(config: Config, reader: Reader, landed: Sequence[Landed], events: int) -> None:
    """Raise DataError where there is nothing to work with, or an event type that nobody has given a weight."""
    if not events:
        files = ", ".join(map(str, reader.files()[:3]))
        dropped = sum(part.dropped for part in landed)
        raise DataError(
            f"no usable events in {files}: expected rows with user, item, type and time, got {dropped} without one "
            "of them; run `handsell doctor` to see examples"
        )
    unknown = {name for part in landed for name in part.types} - set(config.events.names)
    if unknown:
        raise unknown_types_error(unknown, config.events)
    first = min(part.first_us for part in landed if part.first_us is not None)
    last = max(part.last_us for part in landed if part.last_us is not None)
    if reader.ordered and events > 1 and first == last:
        raise DataError(
            f"all {events:,} events carry the same time: expected times at which one comes before another, got "
            "one moment; map the column that holds the real time"
        )


def _refuse_alone(reader: Reader, items: int, users: int) -> None:
    """Raise DataError where there is nothing to choose, or nobody to learn from."""
    for name, got, why in (("item", items, "nothing to choose"), ("user", users, "nobody to compare with")):
        if got < 2:
            raise DataError(
                f"{reader.source.partition(':{')[0]}: expected at least two {name}s, got {got}: there is {why}; "
                "check the column mapping, or write rules instead of training a recommender"
            )


def _tasks(function: Callable, arguments: list[tuple], config: Config) -> list[Any]:
    """Ray tasks whose own complaints reach the user as they were raised."""
    try:
        return spread(function, arguments, wait_s=config.jobs.wait_for_resources_s)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HandsellError):
            raise error.cause from None
        raise


def _publish(fresh: Layout, layout: Layout) -> None:
    """Move the new folders into place; meta.json, without which nothing counts, goes first and comes last."""
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


def _vocabularies(layout: Layout) -> dict[str, Vocabulary]:
    names = ("items", "users", "creators", "tags")
    return {n: Vocabulary.load(layout.catalog / n) for n in names if (layout.catalog / n).is_dir()}


def _meta(layout: Layout) -> dict[str, Any]:
    return json.loads(layout.data_meta.read_text()) if layout.data_meta.exists() else {}


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    yield from pq.ParquetFile(path).iter_batches(batch_size=131_072, columns=EVENTS.names)
