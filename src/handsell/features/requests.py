"""Rows of the feature store → Requests: the same function in training (historical) and in serving (online)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.catalogue.snapshot import Snapshot
from handsell.catalogue.vocabulary import Vocabulary
from handsell.core.batches import NONE, History, Profile, Ragged, Requests, Seen
from handsell.core.config import Config
from handsell.core.errors import FeatureError
from handsell.data.numbering import numbers, type_codes
from handsell.data.weights import event_weights
from handsell.events.fold import fold, merge_history, merge_seen, summed, truncated
from handsell.events.states import HALF_LIVES_DAYS, Events, FoldRules, ItemFacts, UserStates, Weights
from handsell.features.rows import SIGNS, top
from handsell.features.user import user_features
from handsell.features.views import FLOATS, INTS, TEXTS, count_column

Rows = Mapping[str, Sequence[Any] | pa.Array]
"""Column name → B cells; None (or NaN) where the store has no row: a new user."""

JUST_NOW = np.iinfo(np.int64).max  # the time of an event that came without one


def requests_from_rows(
    rows: Rows,
    snapshot: Snapshot,
    config: Config,
    time: np.ndarray,
    surface: np.ndarray,
    exclude: Ragged | None = None,
    events: Events | None = None,
    user: np.ndarray | None = None,
) -> Requests:
    """B requests at time (B,) µs on surface codes (B,) from the user service's columns.

    `events` (see `events_from`) are folded in: the user's tail of the log beyond the row's `log_offset`,
    and events given in the request; each counts as having just happened if its time is not before the
    request's. `user` (B,) numbers replace the stored `user_number`. Raises FeatureError naming a column
    that the store did not give.
    """
    states = states_from_rows(rows, snapshot, config)
    if len(states) != len(time):
        raise FeatureError(f"expected rows for {len(time)} requests, got {len(states)}: one row a request")
    rules = FoldRules.of(config)
    if events is not None and len(events):
        states = truncated(_with_events(states, events, time, snapshot, rules), rules)
    if user is None:
        user = _numbers(rows, "user_number", missing=NONE).astype(np.int32)
    extra = [_floats(rows, name) for name in config.features.user_columns]
    columns = np.stack(extra, axis=1) if extra else np.zeros((len(time), 0))
    size = config.features.affinity_size
    (creator, creator_weight), (tag, tag_weight) = top(states.creators, size), top(states.tags, size)
    return Requests(
        user=np.asarray(user, np.int32),
        time=np.asarray(time, np.int64),
        surface=np.asarray(surface, np.int8),
        history=states.history,
        profile=Profile(user_features(states, time, columns), creator, creator_weight, tag, tag_weight),
        seen=states.seen,
        exclude=Ragged.empty(len(time)) if exclude is None else exclude,
    )


def states_from_rows(rows: Rows, snapshot: Snapshot, config: Config) -> UserStates:
    """The truncated states that the rows were written from; items, creators and tags unknown here are left out."""
    rules = FoldRules.of(config)
    state_time = _numbers(rows, "state_time_us")
    start = rules.start(len(state_time))
    history, seen = _history_and_seen(rows, start, snapshot, config)
    counts = [_floats(rows, count_column(name), 0.0) for name in config.events.names]
    decayed = [[_floats(rows, f"{sign}_{days}d", 0.0) for days in HALF_LIVES_DAYS] for sign in SIGNS]
    states = UserStates(
        state_time=state_time,
        first_time=_numbers(rows, "first_time_us"),
        log_offset=_numbers(rows, "log_offset"),
        counts=np.stack(counts, axis=1),
        signs=np.stack([_floats(rows, f"{sign}s_total", 0.0) for sign in SIGNS], axis=1),
        decayed=np.moveaxis(np.array(decayed), 2, 0),
        history=history,
        creators=_weights(rows, "creator", snapshot.creators, len(start)),
        tags=_weights(rows, "tag", snapshot.tags, len(start)),
        seen=seen,
        seen_total=_numbers(rows, "seen_total"),
    )
    return truncated(states, rules)  # a config may keep less than the one that wrote the rows


def events_from(columns: Mapping[str, Sequence[Any]], row: np.ndarray, snapshot: Snapshot, config: Config) -> Events:
    """Events to fold from columns type, item_id, time (µs; None = just now), value and, from the log, offset.

    `row` (N,) says which request each belongs to. Raises DataError on an event type that the config lacks.
    """
    types = type_codes(pa.array(columns["type"], pa.string()), config.events)
    value = [np.nan if v is None else v for v in columns.get("value", [None] * len(types))]
    return Events.of(
        row,
        numbers(pa.array(columns["item_id"], pa.string()), snapshot.items),
        types,
        np.array([JUST_NOW if t is None else t for t in columns["time"]], np.int64),
        event_weights(types, np.array(value, np.float32), config.events),
        columns.get("offset"),
    )


def _with_events(
    states: UserStates, events: Events, time: np.ndarray, snapshot: Snapshot, rules: FoldRules
) -> UserStates:
    """The log's tail first, then what the request tells and the log has not told already."""
    items = ItemFacts(snapshot.creator, snapshot.item_tags)
    before = np.minimum(events.time, np.asarray(time)[events.row] - 1)
    events = Events(events.row, events.item, events.type, before, events.weight, events.offset)
    logged = events.offset > 0
    states = fold(states, events.where(logged), items, rules)
    given = events.where(~logged)
    past = states.history
    told = (past.item[given.row] == given.item[:, None]) & (past.type[given.row] == given.type[:, None])
    told &= past.time[given.row] == given.time[:, None]
    return fold(states, given.where(~told.any(axis=1)), items, rules)


def _history_and_seen(rows: Rows, start: UserStates, snapshot: Snapshot, config: Config) -> tuple[History, Seen]:
    """Both from one look-up of all their items."""
    history_ids, history_row = _flat(rows, "history_item_ids", TEXTS)
    seen_ids, seen_row = _flat(rows, "seen_item_ids", TEXTS)
    item = _known(pa.concat_arrays([history_ids, seen_ids]), snapshot.items)
    kinds = pc.index_in(_flat(rows, "history_types", TEXTS)[0], pa.array(config.events.names, pa.string()))
    n = len(history_row)
    past = Events.of(
        history_row,
        item[:n],
        pc.fill_null(kinds, NONE).to_numpy(),
        _flat(rows, "history_times_us", INTS)[0].to_numpy(),
        _flat(rows, "history_weights", FLOATS)[0].to_numpy(),
    )
    seen_time = _flat(rows, "seen_times_us", INTS)[0].to_numpy()
    none = np.zeros(len(seen_row))
    met = Events.of(seen_row, item[n:], none, seen_time, none)
    seen, _ = merge_seen(start.seen, met.where(met.item != NONE))
    return merge_history(start.history, past.where(past.item != NONE)), seen


def _weights(rows: Rows, kind: str, vocabulary: Vocabulary, n: int) -> Weights:
    ids, row = _flat(rows, f"top_{kind}s", TEXTS)
    weight = _flat(rows, f"top_{kind}_weights", FLOATS)[0].to_numpy().astype(np.float64)
    key = _known(ids, vocabulary)
    there = key != NONE
    return summed(row[there], key[there], weight[there], n)


def _known(ids: pa.Array, vocabulary: Vocabulary) -> np.ndarray:
    return numbers(ids, vocabulary) if len(ids) else np.zeros(0, np.int32)


def _flat(rows: Rows, name: str, kind: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """All values of a list column end to end, and (N,) the row of each; null lists are empty."""
    column = _column(rows, name)
    if not isinstance(column, pa.Array):
        column = pa.array(column, kind, from_pandas=True)
    lengths = pc.fill_null(column.value_lengths(), 0).to_numpy()
    return column.flatten(), np.repeat(np.arange(len(lengths)), lengths)


def _floats(rows: Rows, name: str, missing: float = np.nan) -> np.ndarray:
    column = _column(rows, name)
    if isinstance(column, pa.Array):
        values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    else:
        values = np.array([np.nan if v is None else v for v in column], np.float64)
    return values if np.isnan(missing) else np.nan_to_num(values, nan=missing)


def _numbers(rows: Rows, name: str, missing: int = 0) -> np.ndarray:
    """Whole numbers below 2^53, as µs since the epoch are until the year 2255."""
    return _floats(rows, name, float(missing)).astype(np.int64)


def _column(rows: Rows, name: str) -> Sequence[Any] | pa.Array:
    try:
        return rows[name]
    except KeyError:
        raise FeatureError(
            f"column {name} is expected in the user's row, the feature store gave {', '.join(sorted(rows))}: "
            "restore it in its view and run feast apply, or train a bundle without it"
        ) from None
