"""A deterministic synthetic music service; equal settings give equal bytes.

Modules in order of the simulation: `catalog` (artists, tracks), `listeners` (users, drifting tastes, session times),
`preference` (the true utility), `mixture` and `policy` (slates of the logging policy), `session_simulation`,
`event_recorder`, and `truth` and `oracle`, which only evaluation may read.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from handsell.data.config import WorldConfig
from handsell.data.world import truth
from handsell.data.world.catalog import build_catalog
from handsell.data.world.event_recorder import TYPES, build_events_table
from handsell.data.world.listeners import build_listeners, n_partitions
from handsell.data.world.session_simulation import simulate_sessions
from handsell.data.world.tables import build_items_table, build_users_table


def write_partition(world: WorldConfig, partition: int, events_dir: Path, truth_dir: Path) -> dict[str, int | str]:
    """Write the events of a partition (Parquet, EVENTS, sorted by time) and the truth of its users.

    Partitions are independent; partition 0 also writes the truth of the catalog. Returns the file name, the numbers of
    events and users, and the time span in µs (0 without events).
    """
    people = build_listeners(world, partition)
    arrays = simulate_sessions(world, partition, people).arrays()
    truth.write_listeners(people, truth_dir, partition)
    if partition == 0:
        truth.write_catalog(world, build_catalog(world), truth_dir)
    events_dir.mkdir(parents=True, exist_ok=True)
    path = events_dir / f"part-{partition:05d}.parquet"
    temporary = path.with_suffix(".tmp")
    pq.write_table(build_events_table(arrays, partition), temporary, compression="zstd", row_group_size=1 << 17)
    temporary.rename(path)
    time = arrays["time"]
    return {
        "file": path.name,
        "events": len(time),
        "users": len(people),
        "first_us": int(time[0]) if len(time) else 0,
        "last_us": int(time[-1]) if len(time) else 0,
    }


__all__ = ["TYPES", "build_items_table", "build_users_table", "n_partitions", "write_partition"]
