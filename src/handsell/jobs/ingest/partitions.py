"""The partitions of the numbered log: Ray tasks split the events of a part, and add new events to a partition."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.paths import Layout
from handsell.data.event_key import find_event_ids, replace_users
from handsell.data.interaction_parts import (
    list_later_files,
    merge_part,
    read_order,
    read_users,
    write_part,
)
from handsell.data.key_runs import find_keys, list_key_files, map_keys, save_keys, should_merge
from handsell.data.numbering import KEYED, STORE, number_events, settle_events, unsettle_events
from handsell.jobs.ingest.event_files import BATCH_ROWS, InputPart, event_path
from handsell.jobs.ingest.publication import link_file

LONGEST_TIE_US = 1 << 20  # events of a user at one time are set 1 µs apart, so at most this many µs


@dataclass(frozen=True, slots=True)
class PartitionCounts:
    """Distinct events of a partition by where they are, and the last time of its settled events."""

    source: int = 0  # in the source tables
    store: int = 0  # in the event store
    both: int = 0
    last_us: int = 0

    @property
    def events(self) -> int:
        return self.source + self.store - self.both


def split_events(config: Config, part: InputPart, state: Path, partitions: int, run: int = 0) -> None:
    """Number the events of one part and write each to the partition of its user. A Ray task."""
    layout = Layout(state)
    users, items = (Vocabulary.load(layout.catalog / name) for name in ("users", "items"))
    writers: dict[int, pq.ParquetWriter] = {}
    done = 0
    try:
        for batch in pq.ParquetFile(event_path(state, part.number)).iter_batches(BATCH_ROWS):
            rows = number_events(batch, users, items, config.events, part.id, (run << 32) + done)
            done += len(batch)
            to = rows["user"].to_numpy() % partitions
            for partition in np.unique(to).tolist():
                if partition not in writers:
                    folder = _split_folder(state, partition)
                    folder.mkdir(parents=True, exist_ok=True)
                    writers[partition] = pq.ParquetWriter(folder / f"part-{part.number:05d}.parquet", KEYED)
                writers[partition].write_table(rows.filter(pa.array(to == partition)))
    finally:
        for writer in writers.values():
            writer.close()


def write_partition(partition: int, state: Path) -> PartitionCounts:
    """Write the files of a partition from all events. A Ray task."""
    layout, rows = Layout(state), _read_split(state, partition)
    settled = settle_events(rows, read_order(layout.interactions))
    write_part(_part_path(layout, partition), settled)
    counts = _count(rows, [], [])
    for folder, keys in _split_keys(layout, rows).items():
        save_keys(folder, partition, keys)
    last = int(np.max(settled["time"].to_numpy(), initial=0))
    return PartitionCounts(counts.source, counts.store, counts.both, last)


def extend_partition(
    partition: int, old: Path, state: Path, run: int, before: PartitionCounts, gone: tuple[int, ...] = ()
) -> PartitionCounts:
    """Add the new events of a run to a partition, and remove the users `gone`. A Ray task.

    The other files are linked, not read. When later files have become a large share, they are merged, so that each
    event is rewritten a few times only.
    """
    layout, earlier = Layout(state), Layout(old)
    part, rows = _part_path(layout, partition), _read_split(state, partition)
    _link_files(partition, earlier, layout)
    if gone:
        before = _remove_users(partition, layout, before, gone)
    if not len(rows):
        return before
    known = [list_key_files(folder, partition) for folder in _key_folders(layout)]
    counts = _count(rows, *map(map_keys, known))
    for (folder, keys), paths in zip(_split_keys(layout, rows).items(), known, strict=True):
        _extend_keys(folder, paths, keys, partition, run)
    later = part.parent / "new" / f"{part.stem}-{run:06d}.parquet"
    later.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, later)
    last = max(before.last_us, _find_last(part, rows, before.last_us))
    if should_merge([pq.read_metadata(path).num_rows for path in (part, *list_later_files(part))]):
        _replace_part(part, merge_part(part))
    return PartitionCounts(before.source + counts.source, before.store + counts.store, before.both + counts.both, last)


def _link_files(partition: int, earlier: Layout, layout: Layout) -> None:
    """Give the files of a partition a second name in the new folders."""
    part = _part_path(earlier, partition)
    for path in (part, *list_later_files(part)):
        link_file(path, layout.interactions / path.relative_to(earlier.interactions))
    for folder, target in zip(_key_folders(earlier), _key_folders(layout), strict=True):
        for path in list_key_files(folder, partition):
            link_file(path, target / path.name)


def _replace_part(part: Path, rows: pa.Table) -> None:
    """Write a partition anew. A linked file is unlinked first: its other name keeps the content."""
    files = list_later_files(part)
    part.unlink()
    write_part(part, rows)
    for path in files:
        path.unlink()


def _remove_users(partition: int, layout: Layout, before: PartitionCounts, gone: tuple[int, ...]) -> PartitionCounts:
    """Remove the events and keys of users from a partition."""
    part = _part_path(layout, partition)
    rows = merge_part(part)
    leaves = np.isin(rows["user"].to_numpy(), gone)
    if not leaves.any():
        return before
    removed = rows.filter(pa.array(leaves))
    in_source, in_store = _find_origins(partition, layout, removed)
    keys = np.concatenate([removed["key"].to_numpy(), removed["alias"].drop_null().to_numpy()])
    for folder in _key_folders(layout):
        paths = list_key_files(folder, partition)
        every = np.concatenate([np.zeros(0, np.int64), *map_keys(paths)])
        for path in paths:
            path.unlink()
        save_keys(folder, partition, every[~np.isin(every, keys)])
    rows = rows.filter(pa.array(~leaves))
    _replace_part(part, rows)
    counts = (in_source, in_store, in_source & in_store)
    source, store, both = (int(np.count_nonzero(mask)) for mask in counts)
    last = int(np.max(rows["time"].to_numpy(), initial=0))
    return PartitionCounts(before.source - source, before.store - store, before.both - both, last)


def _find_origins(partition: int, layout: Layout, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return which events (N,) bool the source has, and which the store."""
    alias = rows["alias"].fill_null(0).to_numpy()
    source, store = (map_keys(list_key_files(folder, partition)) for folder in _key_folders(layout))
    found = [
        find_keys(runs, rows["key"].to_numpy()) | ((alias != 0) & find_keys(runs, alias)) for runs in (source, store)
    ]
    return found[0], found[1]


def move_users(partition: int, config: Config, old: Path, state: Path, partitions: int, owners: dict[int, int]) -> None:
    """Write the events of visitors, by number, to the partitions of the users that they became. A Ray task."""
    layout, vocabularies = Layout(old), Layout(state).catalog
    settled = read_users(_part_path(layout, partition), np.array(list(owners)))
    if not len(settled):
        return
    in_store = _find_origins(partition, layout, settled)[1]
    rows = _rename_users(unsettle_events(settled), vocabularies, config, owners)
    is_source = rows["part"].to_numpy() != STORE
    stored = rows.filter(pa.array(in_store & is_source))  # the copies in the store of events that the source has
    stored = stored.set_column(
        stored.column_names.index("part"), KEYED.field("part"), pa.array(np.full(len(stored), STORE, np.int32))
    )
    rows = pa.concat_tables([rows, stored])
    to = rows["user"].to_numpy() % partitions
    for target in np.unique(to).tolist():
        folder = _split_folder(state, target)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows.filter(pa.array(to == target)), folder / f"part-moved-{partition:05d}.parquet")


def _rename_users(rows: pa.Table, catalog: Path, config: Config, owners: dict[int, int]) -> pa.Table:
    """Replace the users of KEYED rows, and their keys."""
    users, items = (Vocabulary.load(catalog / name) for name in ("users", "items"))
    before = rows["user"].to_numpy()
    numbers = np.array(sorted(owners))
    after = np.array([owners[number] for number in numbers], np.int32)[np.searchsorted(numbers, before)]
    events = {
        "user_id": pa.array(users.ids(before), pa.string()),
        "item_id": pa.array(items.ids(rows["item"].to_numpy()), pa.string()),
        "type": pa.array(config.events.names, pa.string()).take(rows["type"].combine_chunks()),
        "time": rows["time"].combine_chunks(),
    }
    ids = find_event_ids(pc.coalesce(rows["alias"], rows["key"]).to_numpy(), events)
    key, alias = (
        replace_users(rows[name].fill_null(0).to_numpy(), events, pa.array(users.ids(after), pa.string()), ids)
        for name in ("key", "alias")
    )
    none = rows["alias"].is_null().to_numpy()
    changed = {"user": pa.array(after), "key": pa.array(key), "alias": pa.array(alias, mask=none)}
    return pa.table([changed.get(name, rows[name]) for name in KEYED.names], schema=KEYED)


def _count(rows: pa.Table, source: list[np.ndarray], store: list[np.ndarray]) -> PartitionCounts:
    """Count the rows that are new in the source, new in the store, and found in the other one, too."""
    is_stored, keys = rows["part"].to_numpy() == STORE, rows["key"].to_numpy()
    new_source = np.unique(keys[~is_stored])
    new_source = new_source[~find_keys(source, new_source)]
    stored, first = np.unique(keys[is_stored], return_index=True)
    alias = rows["alias"].filter(pa.array(is_stored)).fill_null(0).to_numpy()[first]
    is_new, tables = ~find_keys(store, stored), [*source, new_source]
    in_source = find_keys(tables, stored) | ((alias != 0) & find_keys(tables, alias))
    both = np.count_nonzero(in_source & is_new) + np.count_nonzero(find_keys(store, new_source))
    return PartitionCounts(len(new_source), int(np.count_nonzero(is_new)), int(both))


def _key_folders(layout: Layout) -> tuple[Path, Path]:
    """Return the folders of the keys of the source, and of the store with the second keys of its events."""
    return layout.event_keys, layout.event_keys.with_name("store_keys")


def _split_keys(layout: Layout, rows: pa.Table) -> dict[Path, np.ndarray]:
    """Return the distinct keys of the rows by folder."""
    is_stored, keys = rows["part"].to_numpy() == STORE, rows["key"].to_numpy()
    both = np.concatenate([keys[is_stored], rows["alias"].filter(pa.array(is_stored)).drop_null().to_numpy()])
    return dict(zip(_key_folders(layout), (np.unique(keys[~is_stored]), np.unique(both)), strict=True))


def _extend_keys(folder: Path, paths: list[Path], keys: np.ndarray, partition: int, run: int) -> None:
    """Add keys to those of the files, which are merged into one when they are many."""
    runs = map_keys(paths)
    fresh = keys[~find_keys(runs, keys)]
    if should_merge([*map(len, runs), len(fresh)]):
        for path in paths:
            path.unlink()
        save_keys(folder, partition, np.concatenate([*runs, fresh]))
    elif len(fresh):
        save_keys(folder, partition, fresh, run)


def _find_last(part: Path, rows: pa.Table, before: int) -> int:
    """Return the last settled time among the users of new rows, if it may be later than `before`."""
    user, time = rows["user"].to_numpy(), rows["time"].to_numpy()
    late = time >= max(before, int(time.max())) - LONGEST_TIE_US
    if not late.any():
        return before
    return int(np.max(read_users(part, np.unique(user[late]))["time"].to_numpy()))


def _read_split(state: Path, partition: int) -> pa.Table:
    folder = _split_folder(state, partition)
    tables = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))] if folder.is_dir() else []
    return pa.concat_tables([KEYED.empty_table(), *tables])


def _split_folder(state: Path, partition: int) -> Path:
    return state / "partitions" / f"{partition:05d}"


def _part_path(layout: Layout, partition: int) -> Path:
    return layout.interactions / f"part-{partition:05d}.parquet"
