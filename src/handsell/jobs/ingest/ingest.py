"""The data job: source tables, compacted events and catalog changes → catalog → numbered interactions.

    1 read       write each new part of the input as a Parquet file of canonical events      a task per part
    2 number     add new ids to the catalog's vocabularies                                   driver, ids only
    3 split      number the events of each file and split them into partitions of users       a task per part
    4 extend     add them to their partition; a first run deduplicates, sorts and writes it   a task per partition

The driver never holds events. Parts that an earlier run has read are not read again, and the files of partitions are
linked, so that the cost of a run grows with what is new (docs/decisions/017-incremental-data.md). Everything is written
to a new folder and moved into place at the end.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.clock import Clock
from handsell.core.errors import DataError, HandsellError
from handsell.core.json_files import read_json
from handsell.core.paths import Layout, has_content
from handsell.data.interaction_parts import write_order
from handsell.jobs.cluster import open_cluster, run_tasks
from handsell.jobs.ingest.catalog import USED, CatalogCounts, forget_people, load_vocabularies, write_catalog
from handsell.jobs.ingest.catalog_changes import CatalogChanges
from handsell.jobs.ingest.checks import require_events, require_two
from handsell.jobs.ingest.event_files import ReadingWork, read_part
from handsell.jobs.ingest.inputs import JobInputs, find_inputs
from handsell.jobs.ingest.partitions import extend_partition, move_users, split_events, write_partition
from handsell.jobs.ingest.person_rules import PersonRules
from handsell.jobs.ingest.publication import READY, finish_publication, publish
from handsell.jobs.ingest.record import (
    IngestRecord,
    extend_record,
    find_rebuild_reason,
    has_waiting_due,
    list_new_parts,
    save_waiting,
)
from handsell.jobs.progress import report_update

EVENTS_PER_PARTITION = 2_000_000
CHANGES = "changes.parquet"  # folded catalog changes, in the data folder
LOCK_WAIT_S = 60.0
BYTES_PER_EVENT = 32  # of a source, more or less
MANY_EVENTS = 2**40  # of a source without files, which generates them

Progress = Callable[[str], None]


@dataclass(frozen=True)
class IngestRun:
    """What one run works with; `before` is empty when everything is read."""

    config: Config
    inputs: JobInputs
    layout: Layout
    fresh: Layout  # the new folders
    before: IngestRecord
    kept: dict[str, Vocabulary]  # vocabularies, which numbers are added to
    now_us: int
    progress: Progress

    @property
    def extends(self) -> bool:
        """Whether the files of the last run are kept and extended."""
        return self.before.run > 0


def prepare(config: Config, progress: Progress = report_update) -> dict[str, Any]:
    """Write the data, catalog and interactions folders of a deployment; return meta.json with `skipped`.

    New events and catalog changes of the event store are compacted and included. Without anything new, nothing is done.
    Raises DataError for a source that cannot be used, EventStoreError if the store does not answer.
    """
    layout, now_us = Layout(config.state), Clock().now()
    with _lock(layout):
        finish_publication(layout)
        inputs = find_inputs(config, progress)
        before, record = _read_meta(layout), IngestRecord.load(layout.items.parent)
        complete = has_content(layout.interactions, layout.catalog, layout.items.parent)
        unchanged = complete and before.get("fingerprint") == inputs.fingerprint
        if record and unchanged and not has_waiting_due(record, now_us):
            return {**before, "skipped": True}
        kept = load_vocabularies(layout) if before.get("source") == inputs.reader.source else {}
        reason = _find_reason(record, complete, inputs, layout, kept)
        if before and reason:
            progress(f"reading all events again: {reason}")
        with tempfile.TemporaryDirectory(dir=config.state, prefix=".data-", ignore_cleanup_errors=True) as raw:
            start = IngestRecord() if record is None or reason else record
            run = IngestRun(config, inputs, layout, Layout(Path(raw)), start, kept, now_us, progress)
            with open_cluster(config, _estimate_events(inputs, before)):
                meta = {"fingerprint": inputs.fingerprint, **_write(run)}
            run.fresh.data_meta.write_text(json.dumps(meta, indent=1))
            publish(run.fresh, layout)
    return {**meta, "skipped": False}


def _estimate_events(inputs: JobInputs, before: dict[str, Any]) -> int:
    """Return about how many events a run handles, from the size of the source and the events of the last run."""
    size = sum(file.stat().st_size for file in inputs.reader.files())
    return max(size // BYTES_PER_EVENT, before.get("events", 0)) if size else MANY_EVENTS


@contextmanager
def _lock(layout: Layout) -> Iterator[None]:
    """Exclude other data jobs of the deployment, and remove what interrupted ones have left."""
    layout.state.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(layout.state / ".data.lock", mode=0o600).acquire(timeout=LOCK_WAIT_S):
            for folder in layout.state.glob(".data-*"):
                if folder.name != READY:
                    shutil.rmtree(folder, ignore_errors=True)
            yield
    except Timeout:
        raise DataError(f"another data job of {layout.state} is running: wait for its end, then try again") from None


def _find_reason(
    record: IngestRecord | None, complete: bool, inputs: JobInputs, layout: Layout, kept: dict[str, Vocabulary]
) -> str:
    """Return why everything must be read again; empty if only new events are read."""
    if record is None or not complete or not kept:
        return "the files of the last run are missing, damaged or of another version or source"
    if reason := find_rebuild_reason(record, inputs, EVENTS_PER_PARTITION):
        return reason
    _, erased = inputs.rules.find_changes(PersonRules.load(layout.items.parent), kept["users"])
    return f"{len(erased):,} people whose events were read were erased" if erased else ""


def _write(run: IngestRun) -> dict[str, Any]:
    """Run the four steps in the folders of `fresh`; return the counts for meta.json."""
    config, inputs, fresh, progress = run.config, run.inputs, run.fresh, run.progress
    inputs.rules.save(fresh.state)
    parts = list_new_parts(run.before, inputs, run.layout.items.parent / "waiting", run.now_us)
    source = sum(part.source is not None for part in parts)
    progress(
        f"reading {source} part{'s' * (source != 1)} of {type(inputs.reader).__name__}"
        + (f" and {len(parts) - source} of the event store" if len(parts) > source else "")
        + (f"; {len(run.before.parts)} are unchanged" if run.extends else "")
    )
    work = ReadingWork(inputs.reader, fresh.state, run.layout.compacted, config.events.names, run.now_us)
    summaries = _run_tasks(read_part, [(part, work) for part in parts], config)
    record = extend_record(run.before, list(zip(parts, summaries, strict=True)), inputs)
    require_events(config, inputs.reader, record, summaries)
    if future := sum(one.events for one in record.waiting):
        progress(f"{future:,} event{'s' * (future > 1)} in the future left out: `handsell doctor` shows examples")
    progress(f"{sum(part.events for part in summaries):,} events read; numbering users and items")
    counts = _number(run)
    partitions = len(run.before.partitions) or max(
        config.jobs.partitions, math.ceil(record.events / EVENTS_PER_PARTITION)
    )
    progress(f"{counts.users:,} users, {counts.items:,} items; splitting events into {partitions} partitions")
    _run_tasks(split_events, [(config, part, fresh.state, partitions, record.run) for part in parts], config)
    write_order(fresh.interactions, [part.id for part in record.parts])
    if run.extends:
        gone = _move_visitors(run, partitions)
        shared = (run.layout.state, fresh.state, record.run)
        written = _run_tasks(
            extend_partition,
            [(p, *shared, old, gone.get(p, ())) for p, old in enumerate(run.before.partitions)],
            config,
        )
    else:
        written = _run_tasks(write_partition, [(p, fresh.state) for p in range(partitions)], config)
    record = replace(record, partitions=tuple(written))
    save_waiting(record, run.layout, fresh)
    record.save(fresh.items.parent)
    inputs.rules.save(fresh.items.parent)
    for folder in ("partitions", "ids", "events", "generated", "waiting"):
        shutil.rmtree(fresh.state / folder, ignore_errors=True)
    return _describe(run, record, counts)


def _move_visitors(run: IngestRun, partitions: int) -> dict[int, tuple[int, ...]]:
    """Give the events of visitors who became users to these; return the visitors' numbers by partition."""
    rules, users = run.inputs.rules, Vocabulary.load(run.fresh.catalog / "users")
    moved, _ = rules.find_changes(PersonRules.load(run.layout.items.parent), run.kept["users"])
    visitors, owners = users.number(moved).tolist(), users.number([rules.owners[one] for one in moved]).tolist()
    by_partition: dict[int, dict[int, int]] = {}
    for visitor, owner in zip(visitors, owners, strict=True):
        by_partition.setdefault(visitor % partitions, {})[visitor] = owner
    if moved:
        run.progress(f"{len(moved):,} visitors became users: {len(by_partition)} partitions are written again")
    shared = (run.config, run.layout.state, run.fresh.state, partitions)
    _run_tasks(move_users, [(p, *shared, of) for p, of in by_partition.items()], run.config)
    return {partition: tuple(of) for partition, of in by_partition.items()}


def _number(run: IngestRun) -> CatalogCounts:
    """Write the catalog with the changes that came over HTTP."""
    data, inputs, kept = run.layout.items.parent, run.inputs, dict(run.kept)
    changes = CatalogChanges.load(data / CHANGES) if run.extends else CatalogChanges({})
    changes.fold(run.layout.compacted, [one for one in inputs.changes if one.through > run.before.changes_through])
    changes.forget_users(inputs.rules.is_erased)
    used = np.load(data / USED) if run.extends else np.zeros(0, bool)
    if "users" in kept:
        moved, erased = inputs.rules.find_changes(PersonRules.load(data), kept["users"])
        kept["users"] = forget_people(kept["users"], erased).extend(inputs.rules.owners[one] for one in moved)
    run.fresh.items.parent.mkdir(parents=True, exist_ok=True)
    counts = write_catalog(run.config, inputs.reader, run.fresh, kept, changes, inputs.rules, used)
    changes.save(run.fresh.items.parent / CHANGES)
    require_two(inputs.reader, counts.items, counts.users)
    if counts.deleted:
        run.progress(
            f"{counts.deleted:,} items have events but no row in the items table: they are not recommended "
            "(data.recommend_deleted_items)"
        )
    return counts


def _describe(run: IngestRun, record: IngestRecord, counts: CatalogCounts) -> dict[str, Any]:
    """Return the content of meta.json, and report the events by origin."""
    source, store, both = (sum(getattr(one, name) for one in record.partitions) for name in ("source", "store", "both"))
    events = source + store - both
    firsts = [record.stored_first_us, *(part.first_us for part in record.parts)]
    if store:
        run.progress(
            f"{events:,} events: {source:,} in the source, {store:,} in the event store, {both:,} of them in both"
        )
    return {
        "source": run.inputs.reader.source,
        "format": type(run.inputs.reader).__name__,
        "ordered": run.inputs.reader.ordered,
        "events": events,
        "origins": {"source": source, "event_store": store, "both": both},
        "duplicates": record.events - events,
        "dropped": sum(part.dropped for part in record.parts),
        "unknown_types": record.unknown,
        "future": sum(one.events for one in record.waiting),
        "read_us": run.now_us,
        "items": counts.items,
        "deleted_items": counts.deleted,
        "users": counts.users,
        "partitions": len(record.partitions),
        "first_us": min(first for first in firsts if first is not None),
        "last_us": max(one.last_us for one in record.partitions),
        "events_through": record.events_through,
        "changes_through": record.changes_through,
    }


def _run_tasks(function: Callable, arguments: Sequence[tuple], config: Config) -> list[Any]:
    """Run Ray tasks; raise their errors as they were raised there."""
    try:
        return run_tasks(function, arguments, wait_s=config.jobs.wait_for_resources_s)
    except Exception as error:
        cause = getattr(error, "cause", None)  # of Ray's error for a task
        if isinstance(cause, HandsellError):
            raise cause from None
        raise


def _read_meta(layout: Layout) -> dict[str, Any]:
    """Return what the last run has recorded; empty if there is none, or if the file is damaged."""
    try:
        return read_json(layout.data_meta, "")
    except HandsellError:
        return {}
