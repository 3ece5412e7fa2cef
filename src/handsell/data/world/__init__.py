"""A deterministic synthetic music service; the same seed and sizes give the same bytes.

Its parts, in the order of what happens: `catalog` (artists, tracks), `listeners` (users, drifting tastes,
session times), `preference` (the true utility), `draws` and `policy` (the logging policy's slates),
`listening` (sessions), `diary` (events), `truth` and `oracle` (what only evaluation may read).
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from handsell.data.config import WorldConfig
from handsell.data.world import truth
from handsell.data.world.catalog import catalog
from handsell.data.world.diary import TYPES, events_table
from handsell.data.world.listeners import listeners, n_partitions
from handsell.data.world.listening import live
from handsell.data.world.tables import build_items_table, build_users_table


def write_partition(world: WorldConfig, partition: int, events_dir: Path, truth_dir: Path) -> dict[str, int | str]:
    """Write one partition's events (Parquet, EVENTS, sorted by time) and its users' truth.

    Partitions do not depend on each other; partition 0 also writes the truth of the catalog.
    Returns the file's name, the number of events and users, and the time span in µs (0 where there are no events).
    """
    people = listeners(world, partition)
    arrays = live(world, partition, people).arrays()
    truth.write_listeners(people, truth_dir, partition)
    if partition == 0:
        truth.write_catalog(world, catalog(world), truth_dir)
    events_dir.mkdir(parents=True, exist_ok=True)
    path = events_dir / f"part-{partition:05d}.parquet"
    beside = path.with_suffix(".tmp")
    pq.write_table(events_table(arrays, partition), beside, compression="zstd", row_group_size=1 << 17)
    beside.rename(path)
    time = arrays["time"]
    return {
        "file": path.name,
        "events": len(time),
        "users": len(people),
        "first_us": int(time[0]) if len(time) else 0,
        "last_us": int(time[-1]) if len(time) else 0,
    }


__all__ = ["TYPES", "build_items_table", "build_users_table", "n_partitions", "write_partition"]
