"""Turn canonical events into numbered interactions: weighted, deduplicated, times strictly increasing per user."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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

STORE = -1  # part of all events of the event store
ERASED_USER = r"^\(erased user \d+\)$"  # pattern of `name_erased_user`

KEYED = pa.schema(  # input of deduplication; times are those of the source
    [
        *NUMBERED,
        pa.field("key", pa.int64(), nullable=False),  # of event_key.py
        pa.field("alias", pa.int64()),  # a second key of the same event
        pa.field("part", pa.int32(), nullable=False),  # of the source, or STORE
        pa.field("place", pa.int64(), nullable=False),  # rises within a part; the offset of events of the store
    ]
)
SETTLED = KEYED.append(pa.field("logged", pa.int64(), nullable=False))  # time before it was made strictly increasing


def extend_vocabulary(vocabulary: Vocabulary | None, ids: Iterable[pa.Array | pa.ChunkedArray]) -> Vocabulary:
    """Return the vocabulary with unknown ids appended in order, without nulls. Memory grows with distinct ids only."""
    fresh = (i for array in ids for i in pc.unique(array.drop_null()).to_pylist())
    return Vocabulary.of(fresh) if vocabulary is None else vocabulary.extend(fresh)


def name_erased_user(number: int) -> str:
    """Return the text that replaces the id of an erased user, whose number stays."""
    return f"(erased user {number})"


def look_up(ids: pa.Array, vocabulary: Numbering) -> np.ndarray:
    """Return the numbers of ids, (N,) int32, -1 for unknown ones; each distinct id is looked up once."""
    coded = ids.dictionary_encode()
    return vocabulary.number(coded.dictionary.to_pylist())[coded.indices.to_numpy()]


def number_events(
    batch: pa.RecordBatch,
    users: Vocabulary,
    items: Vocabulary,
    events: EventsConfig,
    part: int = 0,
    start: int | None = None,
) -> pa.Table:
    """Convert a batch of EVENTS to KEYED in the same order; raise DataError for an unknown event type.

    Columns `key`, `alias` and `offset` of the batch are kept, if it has them. `start`: place of the first row; without
    it the rows are in the log order.
    """
    keyed = "key" in batch.schema.names
    types = type_codes(batch["type"], events)
    values = np.asarray(pc.fill_null(batch["value"], np.nan))
    columns = {
        "user": look_up(batch["user_id"], users),
        "item": look_up(batch["item_id"], items),
        "type": types,
        "time": np.asarray(batch["time"].cast(pa.int64())),
        "weight": compute_event_weights(types, values, events),
        "key": batch["key"] if keyed else compute_event_keys(batch),
        "alias": batch["alias"] if keyed else pa.nulls(len(batch), pa.int64()),
        "part": np.full(len(batch), part, np.int32),
        "place": batch["offset"] if keyed else _number_places(len(batch), start),
    }
    same = {name: batch[name] for name in ("position", "propensity", "surface", "recommendation_id")}
    return pa.table({**columns, **same}, schema=KEYED)


def _number_places(n: int, start: int | None) -> np.ndarray:
    return np.zeros(n, np.int64) if start is None else np.arange(start, start + n)


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
    """Convert KEYED rows in log order, with all events of each user, to NUMBERED sorted by user and time."""
    return settle_events(rows).select(NUMBERED.names)


def settle_events(rows: pa.Table, order: Sequence[int] = ()) -> pa.Table:
    """Convert KEYED rows, with all events of each user, to SETTLED sorted by user and time.

    The log order is that of the parts in `order`, or else of their numbers, with the event store last; within a part,
    that of the places. Of several events with the same key, the first is kept. Events of a user at the same time keep
    their log order and are set 1 µs apart. So the result does not depend on the order in which parts were read.
    """
    rank, place = _rank_parts(rows["part"].to_numpy(), order), rows["place"].to_numpy()
    falls = np.diff(rank) < 0
    if (falls | ((np.diff(rank) == 0) & (np.diff(place) < 0))).any():
        rows = rows.take(pa.array(np.lexsort((place, rank))))
    rows = resolve_aliases(rows)
    rows = rows.take(pa.array(np.sort(np.unique(rows["key"].to_numpy(), return_index=True)[1])))
    user, time = rows["user"].to_numpy(), rows["time"].to_numpy()
    by_time = np.lexsort((time, user))  # stable: ties keep log order
    rows = rows.append_column(SETTLED.field("logged"), rows["time"]).take(pa.array(by_time))
    rising = make_strictly_increasing(user[by_time], time[by_time])
    return rows.set_column(rows.column_names.index("time"), NUMBERED.field("time"), pa.array(rising)).cast(SETTLED)


def unsettle_events(rows: pa.Table) -> pa.Table:
    """Convert SETTLED rows back to KEYED."""
    logged = rows["logged"]
    return rows.set_column(rows.column_names.index("time"), KEYED.field("time"), logged).select(KEYED.names)


def _rank_parts(parts: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Return the place of each row's part in the log order, (N,)."""
    last = max(int(parts.max(initial=0)), *order, 0) + 1
    rank = np.arange(last + 1)
    rank[list(order)] = np.arange(len(order))
    return np.where(parts == STORE, np.iinfo(np.int64).max, rank[parts])


def resolve_aliases(rows: pa.Table) -> pa.Table:
    """Give the copies of an event with two keys, which have one of them, both keys."""
    if rows["alias"].null_count == len(rows):
        return rows
    keys = rows["key"].to_numpy()
    given = rows.filter(pc.is_valid(rows["alias"]))
    first, second = given["key"].to_numpy(), given["alias"].to_numpy()
    keys = _look_up(keys, second, first, keys)
    alias = _look_up(keys, first, second, np.zeros(len(keys), np.int64))
    names = rows.column_names
    rows = rows.set_column(names.index("key"), KEYED.field("key"), pa.array(keys))
    return rows.set_column(names.index("alias"), KEYED.field("alias"), pa.array(alias, mask=alias == 0))


def _look_up(wanted: np.ndarray, keys: np.ndarray, values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return the value of each wanted key (N,), or what `missing` (N,) has."""
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], missing)


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
