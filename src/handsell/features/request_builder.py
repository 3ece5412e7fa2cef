"""Rows of the feature store → Requests: the same function in training (historical) and in serving (online)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE, History, Profile, Ragged, Requests, Seen, to_object_array
from handsell.core.errors import FeatureError
from handsell.data.numbering import look_up, type_codes
from handsell.data.weights import compute_event_weights
from handsell.events.fold import fold, merge_history, merge_seen, move_last_event, sum_affinities, truncate
from handsell.events.states import HALF_LIVES_DAYS, Affinities, Events, FoldRules, ItemAttributes, UserStates
from handsell.features.row_columns import (
    Rows,
    codes_of,
    column_of,
    floats_of,
    ids_to_numbers,
    joined,
    lists_of,
    numbers_of,
)
from handsell.features.rows import SIGNS, top
from handsell.features.user import compute_user_features
from handsell.features.views import count_column

STATE_NUMBERS = ("state_time_us", "first_time_us", "log_offset", "seen_total")
STATE_SUMS = (*(f"{sign}s_total" for sign in SIGNS), *(f"{sign}_{d}d" for sign in SIGNS for d in HALF_LIVES_DAYS))
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
    away: np.ndarray | None = None,
) -> Requests:
    """B requests at time (B,) µs on surface codes (B,) from the user service's columns.

    `events` (see `events_from`) are folded in: the user's tail of the log beyond the row's `log_offset`,
    and events given in the request; each counts as having just happened if its time is not before the
    request's. `user` (B,) numbers replace the stored `user_number`. `away` (B,) µs asks each request that long after
    its user's last event (see `move_last_event`). Raises FeatureError naming a column that the store did not give.
    """
    states = states_from_rows(rows, snapshot, config)
    if len(states) != len(time):
        raise FeatureError(f"expected rows for {len(time)} requests, got {len(states)}: one row a request")
    rules = FoldRules.of(config)
    if events is not None and len(events):
        states = truncate(_with_events(states, events, time, snapshot, rules), rules)
    if away is not None:
        states = move_last_event(states, np.where(away >= 0, np.asarray(time) - away, states.state_time))
    if user is None:
        user = numbers_of(rows, ("user_number",), missing=NONE)[:, 0]
    columns = floats_of(rows, config.features.user_columns) if config.features.user_columns else None
    size = config.features.affinity_size
    (creator, creator_weight), (tag, tag_weight) = top(states.creators, size), top(states.tags, size)
    return Requests(
        user=np.asarray(user, np.int32),
        time=np.asarray(time, np.int64),
        surface=np.asarray(surface, np.int8),
        history=states.history,
        profile=Profile(compute_user_features(states, time, columns), creator, creator_weight, tag, tag_weight),
        seen=states.seen,
        exclude=Ragged.empty(len(time)) if exclude is None else exclude,
        attributes=attributes_of(rows, config),
    )


def attributes_of(rows: Rows, config: Config) -> np.ndarray | None:
    """(B, A) object cells that filters may read, lists as tuples, None where not known; None where A is 0."""
    names = tuple(config.features.filter_attributes)
    if not names:
        return None
    columns = [column_of(rows, name) for name in names]
    cells = [column.to_pylist() if isinstance(column, pa.Array) else column for column in columns]
    return to_object_array([[_cell(value) for value in row] for row in zip(*cells, strict=True)], len(names))


def _cell(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None
    return tuple(value) if isinstance(value, list) else value


def states_from_rows(rows: Rows, snapshot: Snapshot, config: Config) -> UserStates:
    """The truncated states that the rows were written from; items, creators and tags unknown here are left out."""
    rules, n_types = FoldRules.of(config), len(config.events.names)
    state_time, first_time, log_offset, seen_total = numbers_of(rows, STATE_NUMBERS).T
    sums = floats_of(rows, (*map(count_column, config.events.names), *STATE_SUMS), missing=0.0)
    start = rules.empty_states(len(state_time))
    history, seen = _history_and_seen(rows, start, snapshot, config)
    states = UserStates(
        state_time=state_time,
        first_time=first_time,
        log_offset=log_offset,
        counts=sums[:, :n_types],
        signs=sums[:, n_types : n_types + 2],
        decayed=sums[:, n_types + 2 :].reshape(-1, 2, len(HALF_LIVES_DAYS)),
        history=history,
        creators=_weights(rows, "creator", snapshot.creators, len(start)),
        tags=_weights(rows, "tag", snapshot.tags, len(start)),
        seen=seen,
        seen_total=seen_total,
    )
    return truncate(states, rules)  # a config may keep less than the one that wrote the rows


def events_from(columns: Mapping[str, Sequence[Any]], row: np.ndarray, snapshot: Snapshot, config: Config) -> Events:
    """Events to fold from columns type, item_id, time (µs; None = just now), value and, from the log, offset.

    `row` (N,) says which request each belongs to. Raises DataError on an event type that the config lacks.
    """
    types = type_codes(pa.array(columns["type"], pa.string()), config.events)
    value = [np.nan if v is None else v for v in columns.get("value", [None] * len(types))]
    return Events.of(
        row,
        look_up(pa.array(columns["item_id"], pa.string()), snapshot.items),
        types,
        np.array([JUST_NOW if t is None else t for t in columns["time"]], np.int64),
        compute_event_weights(types, np.array(value, np.float32), config.events),
        columns.get("offset"),
    )


def _with_events(
    states: UserStates, events: Events, time: np.ndarray, snapshot: Snapshot, rules: FoldRules
) -> UserStates:
    """The log's tail first, then what the request tells and the log has not told already."""
    items = ItemAttributes(snapshot.creator, snapshot.item_tags)
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
    history_ids, history_row = lists_of(rows, "history_item_ids")
    seen_ids, seen_row = lists_of(rows, "seen_item_ids")
    item = ids_to_numbers(joined(history_ids, seen_ids), snapshot.items)
    n = len(history_row)
    past = Events.of(
        history_row,
        item[:n],
        codes_of(lists_of(rows, "history_types")[0], config.events.names),
        lists_of(rows, "history_times_us")[0],
        lists_of(rows, "history_weights")[0],
    )
    none = np.zeros(len(seen_row))
    met = Events.of(seen_row, item[n:], none, lists_of(rows, "seen_times_us")[0], none)
    seen, _ = merge_seen(start.seen, met.where(met.item != NONE))
    return merge_history(start.history, past.where(past.item != NONE)), seen


def _weights(rows: Rows, kind: str, vocabulary: Vocabulary, n: int) -> Affinities:
    ids, row = lists_of(rows, f"top_{kind}s")
    weight = np.asarray(lists_of(rows, f"top_{kind}_weights")[0], np.float64)
    key = ids_to_numbers(ids, vocabulary)
    there = key != NONE
    return sum_affinities(row[there], key[there], weight[there], n)
