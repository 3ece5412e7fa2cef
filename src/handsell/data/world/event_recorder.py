"""Collect simulated events as columns, and convert them to canonical events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from handsell.data.schemas import EVENTS, TIME
from handsell.data.world.tables import format_item_ids, format_user_ids

TYPES = ("impression", "listen", "skip", "like", "save", "share")
IMPRESSION, LISTEN, SKIP, LIKE, SAVE, SHARE = range(6)
SURFACES = ("home", "search", "library")
HOME, SEARCH, LIBRARY = range(3)

_COLUMNS = {
    "user": np.int64, "item": np.int32, "type": np.int8, "time": np.int64, "value": np.float32, "surface": np.int8,
    "slate": np.int64, "position": np.int16, "propensity": np.float32,
}  # fmt: skip
_NONE = {"value": np.nan, "slate": -1, "position": -1, "propensity": np.nan}


class EventRecorder:
    """Blocks of events in the order of recording."""

    def __init__(self) -> None:
        self._blocks: dict[str, list[np.ndarray]] = defaultdict(list)

    def record(self, **columns: np.ndarray | int) -> None:
        """Append a block of events; scalars apply to all of them, missing columns are null."""
        size = len(columns["user"])  # type: ignore[arg-type]
        if size:
            for name, dtype in _COLUMNS.items():
                value = np.asarray(columns.get(name, _NONE.get(name)), dtype)
                self._blocks[name].append(np.broadcast_to(value, (size,)))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all events, sorted by time, then user."""
        arrays = {n: np.concatenate([np.zeros(0, t), *self._blocks[n]]).astype(t) for n, t in _COLUMNS.items()}
        order = np.lexsort((arrays["user"], arrays["time"]))
        return {name: a[order] for name, a in arrays.items()}


def build_events_table(arrays: dict[str, np.ndarray], partition: int) -> pa.Table:
    """Build the canonical EVENTS of a partition."""
    n = len(arrays["user"])
    users, user = np.unique(arrays["user"], return_inverse=True)
    slates, slate = np.unique(arrays["slate"], return_inverse=True)
    names = [None if s < 0 else f"r{partition:05d}-{s:07d}" for s in slates.tolist()]
    items, item = np.unique(arrays["item"], return_inverse=True)
    columns = {
        "event_id": pa.array([f"e{partition:05d}-{k:08d}" for k in range(n)], pa.string()),
        "user_id": _take(format_user_ids(users), user),
        "item_id": _take(format_item_ids(items), item),
        "type": _take(TYPES, arrays["type"]),
        "time": pa.array(arrays["time"], TIME),
        "value": pa.array(arrays["value"], mask=np.isnan(arrays["value"])),
        "surface": _take(SURFACES, arrays["surface"]),
        "recommendation_id": _take(names, slate),
        "position": pa.array(arrays["position"], mask=arrays["position"] < 0),
        "propensity": pa.array(arrays["propensity"], mask=np.isnan(arrays["propensity"])),
    }
    return pa.table(columns, schema=EVENTS)


def _take(names: Iterable[str | None], index: np.ndarray) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(index))
