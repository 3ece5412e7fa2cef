"""What the listeners of a world listened to before the simulation: the log is drawn again from its seed."""

from __future__ import annotations

import numpy as np

from handsell.data.config import WorldConfig
from handsell.data.world.event_recorder import LISTEN
from handsell.data.world.listeners import build_listeners, n_partitions
from handsell.data.world.session_simulation import simulate_sessions


def draw_log_listens(world: WorldConfig, users: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return users (N,), tracks (N,) and times (N,) µs of the listens of the first listeners, in order of time."""
    parts = []
    for partition in range(n_partitions(world)):
        if partition * world.users_per_partition >= users:
            break
        events = simulate_sessions(world, partition, build_listeners(world, partition)).arrays()
        kept = (events["type"] == LISTEN) & (events["user"] < users)
        parts.append([events[name][kept] for name in ("user", "item", "time")])
    user, item, time = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(time, kind="stable")
    return user[order], item[order], time[order]
