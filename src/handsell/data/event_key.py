"""The key of an event: two events with the same key are one event, in the tables and in the event log alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from handsell.core.hashing import hash_rows, replace_rows

EVENT_KEY = ("user_id", "item_id", "type", "time", "event_id")
"""Lines of an order that share an `event_id` differ in the item or the time, so they are different events.

An `event_id` tells events apart that are otherwise equal; without one, equal events count once. The time is that of
the source, or the `timestamp` that was sent; an event posted without a timestamp has none in its key.
"""


def compute_event_keys(events: Mapping[str, pa.Array] | pa.RecordBatch) -> np.ndarray:
    """Return a 64-bit hash (N,) int64 of the columns EVENT_KEY; a missing value equals an empty or zero one."""
    return hash_rows(*(events[name] for name in EVENT_KEY)).view(np.int64)


def replace_users(keys: np.ndarray, events: Mapping[str, pa.Array], users: pa.Array) -> np.ndarray:
    """Return the keys (N,) that events get with other users; `events` needs no `event_id`."""
    known = EVENT_KEY[:-1]
    before = hash_rows(*(events[name] for name in known))
    after = hash_rows(users, *(events[name] for name in known[1:]))
    return replace_rows(keys.view(np.uint64), before, after).view(np.int64)
