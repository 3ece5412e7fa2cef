"""Turn canonical events into numbered interactions: weighted, deduplicated, times strictly increasing per user."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.catalog.vocabulary import Numbering, Vocabulary
from handsell.core.errors import DataError
from handsell.core.offsets import mark_run_starts
from handsell.data.config import EventsConfig
from handsell.data.event_key import compute_event_keys
from handsell.data.interactions import NUMBERED
from handsell.data.weights import compute_event_weights

KEYED = NUMBERED.append(pa.field("key", pa.int64(), nullable=False))  # input of deduplication, key of event_key.py


def extend_vocabulary(vocabulary: Vocabulary | None, ids: Iterable[pa.Array | pa.ChunkedArray]) -> Vocabulary:
    """Return the vocabulary with unknown ids appended in order, without nulls. Memory grows with distinct ids only."""
    fresh = (i for array in ids for i in pc.unique(array.drop_null()).to_pylist())
    return Vocabulary.of(fresh) if vocabulary is None else vocabulary.extend(fresh)


def look_up(ids: pa.Array, vocabulary: Numbering) -> np.ndarray:
    """Return the numbers of ids, (N,) int32, -1 for unknown ones; each distinct id is looked up once."""
    coded = ids.dictionary_encode()
    return vocabulary.number(coded.dictionary.to_pylist())[coded.indices.to_numpy()]


def number_events(batch: pa.RecordBatch, users: Vocabulary, items: Vocabulary, events: EventsConfig) -> pa.Table:
    """Convert a batch of EVENTS to KEYED in the same order; raise DataError for an unknown event type."""
    types = type_codes(batch["type"], events)
    values = np.asarray(pc.fill_null(batch["value"], np.nan))
    columns = {
        "user": look_up(batch["user_id"], users),
        "item": look_up(batch["item_id"], items),
        "type": types,
        "time": np.asarray(batch["time"].cast(pa.int64())),
        "weight": compute_event_weights(types, values, events),
        "key": compute_event_keys(batch),
    }
    same = {name: batch[name] for name in ("position", "propensity", "surface", "recommendation_id")}
    return pa.table({**columns, **same}, schema=KEYED)


def type_codes(types: pa.Array, events: EventsConfig) -> np.ndarray:
    """Return the index of each type in Config.events.names, (N,) int8."""
    codes = pc.index_in(types, pa.array(events.names, pa.string()))
    if codes.null_count:
        raise unknown_types_error(pc.unique(types.filter(pc.is_null(codes))).to_pylist(), events)
    return codes.to_numpy().astype(np.int8)


def unknown_types_error(got: Iterable[str], events: EventsConfig) -> DataError:
    names = ", ".join(map(repr, sorted(got)))
    return DataError(
        f"event types: expected {', '.join(events.names)} ([events.types]), also got {names}; "
        "add them to [events.types] with a weight, or remove those events from the source"
    )


def deduplicate_and_sort(rows: pa.Table) -> pa.Table:
    """Convert KEYED rows in log order, with all events of each user, to NUMBERED sorted by user and time.

    Of several events with the same key, the first is kept. Events of a user at the same time keep their log order and
    are set 1 µs apart.
    """
    first = np.sort(np.unique(rows["key"].to_numpy(), return_index=True)[1])
    rows = rows.take(pa.array(first))
    user, time = rows["user"].to_numpy(), rows["time"].to_numpy()
    order = np.lexsort((time, user))  # stable: ties keep log order
    rising = make_strictly_increasing(user[order], time[order])
    rows = rows.select(NUMBERED.names).take(pa.array(order))
    return rows.set_column(rows.column_names.index("time"), NUMBERED.field("time"), pa.array(rising)).cast(NUMBERED)


def make_strictly_increasing(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return the smallest times t' ≥ t (N,) µs that increase by at least 1 µs within each user; t is sorted per user.

    t'ᵢ = i + max over j ≤ i of (tⱼ − j) within the user: a running maximum by doubling steps.
    """
    if not len(time):
        return time
    at = np.arange(len(time))
    high = time - at
    starts = np.flatnonzero(mark_run_starts(user))
    longest = int(np.diff(np.append(starts, len(user))).max())
    step = 1
    while step < longest:
        same = user[step:] == user[:-step]
        high[step:] = np.where(same, np.maximum(high[step:], high[:-step]), high[step:])
        step *= 2
    return high + at
