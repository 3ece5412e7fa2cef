"""The key of an event: two events with the same key are one event, in the tables and in the event log alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from handsell.core.hashing import find_last_column, hash_rows, replace_rows

EVENT_KEY = ("user_id", "item_id", "type", "time", "event_id")
"""Lines of an order that share an `event_id` differ in the item or the time, so they are different events.

An `event_id` tells events apart that are otherwise equal; without one, equal events count once. The time is that of
the source, or the `timestamp` that was sent; an event posted without a timestamp has none in its key.
"""


def compute_event_keys(events: Mapping[str, pa.Array] | pa.RecordBatch) -> np.ndarray:
    """Return a 64-bit hash (N,) int64 of the columns EVENT_KEY; a missing value equals an empty or zero one."""
    return hash_rows(*(events[name] for name in EVENT_KEY)).view(np.int64)


def replace_users(
    keys: np.ndarray, events: Mapping[str, pa.Array] | pa.RecordBatch, users: pa.Array, ids: np.ndarray
) -> np.ndarray:
    """Return the keys (N,) that events get with other users, whatever time is in a key: that of the sender or none.

    `ids`: what `hash_column` gives for the column `event_id`.
    """
    known = ("item_id", "type")
    before, after = (hash_rows(of, *(events[name] for name in known)) for of in (events["user_id"], users))
    return replace_rows(keys.view(np.uint64), before, after, ids).view(np.int64)


def find_event_ids(keys: np.ndarray, events: Mapping[str, pa.Array]) -> np.ndarray:
    """Return what `hash_column` gives for the event ids (N,) of events, whose times are in their keys."""
    return find_last_column(keys.view(np.uint64), hash_rows(*(events[name] for name in EVENT_KEY[:-1])))
