"""User states as feature rows hold them."""

from __future__ import annotations

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE, History, Seen
from handsell.events.fold import merge_history, merge_seen, sum_affinities, truncate
from handsell.events.states import HALF_LIVES_DAYS, Affinities, Events, FoldRules, UserStates
from handsell.features.row_columns import (
    Rows,
    codes_of,
    floats_of,
    ids_to_numbers,
    joined,
    lists_of,
    numbers_of,
)
from handsell.features.rows import SIGNS
from handsell.features.views import count_column

STATE_NUMBERS = ("state_time_us", "first_time_us", "log_offset", "seen_total")
STATE_SUMS = (*(f"{sign}s_total" for sign in SIGNS), *(f"{sign}_{d}d" for sign in SIGNS for d in HALF_LIVES_DAYS))


def states_from_rows(rows: Rows, snapshot: Snapshot, config: Config) -> UserStates:
    """Read the states that B rows were written from; items, creators and tags that the snapshot lacks are left out."""
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


def _history_and_seen(rows: Rows, start: UserStates, snapshot: Snapshot, config: Config) -> tuple[History, Seen]:
    """Read both, with one look-up of all their items."""
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
    seen_events = Events.of(seen_row, item[n:], none, lists_of(rows, "seen_times_us")[0], none)
    seen, _ = merge_seen(start.seen, seen_events.where(seen_events.item != NONE))
    return merge_history(start.history, past.where(past.item != NONE)), seen


def _weights(rows: Rows, kind: str, vocabulary: Vocabulary, n: int) -> Affinities:
    ids, row = lists_of(rows, f"top_{kind}s")
    weight = np.asarray(lists_of(rows, f"top_{kind}_weights")[0], np.float64)
    key = ids_to_numbers(ids, vocabulary)
    known = key != NONE
    return sum_affinities(row[known], key[known], weight[known], n)
