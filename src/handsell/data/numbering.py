"""Canonical events → numbered interactions: weights, no duplicates, times strictly rising for each user."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.catalog.vocabulary import Vocabulary
from handsell.core.errors import DataError
from handsell.data.config import EventsConfig
from handsell.data.interactions import NUMBERED
from handsell.data.weights import event_weights

SCATTERED = NUMBERED.append(pa.field("event_id", pa.string(), nullable=False))  # what travels to a partition


def extended(vocabulary: Vocabulary | None, ids: Iterable[pa.Array | pa.ChunkedArray]) -> Vocabulary:
    """The vocabulary with unknown ids appended, in order; nulls are left out. Holds distinct ids only."""
    fresh = (i for array in ids for i in pc.unique(array.drop_null()).to_pylist())
    return Vocabulary.of(fresh) if vocabulary is None else vocabulary.extend(fresh)


def numbers(ids: pa.Array, vocabulary: Vocabulary) -> np.ndarray:
    """(N,) int32; looks each distinct id up once."""
    coded = ids.dictionary_encode()
    return vocabulary.number(coded.dictionary.to_pylist())[coded.indices.to_numpy()]


def number(batch: pa.RecordBatch, users: Vocabulary, items: Vocabulary, events: EventsConfig) -> pa.Table:
    """A batch of EVENTS as SCATTERED rows, in the same order; raises DataError on an unknown event type."""
    types = type_codes(batch["type"], events)
    values = np.asarray(pc.fill_null(batch["value"], np.nan))
    columns = {
        "user": numbers(batch["user_id"], users),
        "item": numbers(batch["item_id"], items),
        "type": types,
        "time": np.asarray(batch["time"].cast(pa.int64())),
        "weight": event_weights(types, values, events),
    }
    same = {name: batch[name] for name in ("position", "propensity", "surface", "recommendation_id", "event_id")}
    return pa.table({**columns, **same}, schema=SCATTERED)


def type_codes(types: pa.Array, events: EventsConfig) -> np.ndarray:
    """(N,) int8 index into Config.events.names."""
    codes = pc.index_in(types, pa.array(events.names, pa.string()))
    if codes.null_count:
        raise unknown_types(pc.unique(types.filter(pc.is_null(codes))).to_pylist(), events)
    return codes.to_numpy().astype(np.int8)


def unknown_types(got: Iterable[str], events: EventsConfig) -> DataError:
    names = ", ".join(map(repr, sorted(got)))
    return DataError(
        f"event types: expected {', '.join(events.names)} ([events.types]), got also {names}; "
        "add them with a weight, or leave those events out of the source"
    )


def settle(rows: pa.Table) -> pa.Table:
    """SCATTERED rows of whole users in log order → NUMBERED, sorted by user and time.

    A duplicate is a second event of one user with the same event_id: the first in the log stays. Events of
    one user at the same time keep their log order, 1 µs apart.
    """
    rows = rows.take(pa.array(first_of_each(rows)))
    user, time = rows["user"].to_numpy(), rows["time"].to_numpy()
    order = np.lexsort((time, user))  # stable: ties keep log order
    rising = strictly_rising(user[order], time[order])
    rows = rows.select(NUMBERED.names).take(pa.array(order))
    return rows.set_column(rows.column_names.index("time"), NUMBERED.field("time"), pa.array(rising)).cast(NUMBERED)


def first_of_each(rows: pa.Table) -> np.ndarray:
    """Row numbers, rising, of the first event of each (user, event_id)."""
    codes = rows["event_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    key = rows["user"].to_numpy().astype(np.int64) << 32 | codes
    return np.sort(np.unique(key, return_index=True)[1])


def strictly_rising(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Times (N,) µs, sorted within each user → the least ones ≥ them that rise by 1 µs or more within a user.

    t'ᵢ = i + max over j ≤ i of (tⱼ − j) within the user: a running maximum by doubling steps.
    """
    if not len(time):
        return time
    at = np.arange(len(time))
    high = time - at
    starts = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]]))
    longest = int(np.diff(np.append(starts, len(user))).max())
    step = 1
    while step < longest:
        same = user[step:] == user[:-step]
        high[step:] = np.where(same, np.maximum(high[step:], high[:-step]), high[step:])
        step *= 2
    return high + at
