"""The one fold of events into user states: for the batch job, the tail of the log and a request's session.

All sums decay to the state's own time, histories are ordered by event time and the seen map keeps the
latest time, so any partition of the events in time order gives the same states (up to rounding), and a
late event lands where it would have been. Events whose log offset a row has folded already are ignored.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from handsell.core.batches import NONE, History, Ragged, Seen
from handsell.core.offsets import offsets_from_counts
from handsell.core.units import DAY_US
from handsell.events.states import HALF_LIVES_DAYS, Events, FoldRules, ItemFacts, UserStates, Weights

HALF_LIVES_US = np.array(HALF_LIVES_DAYS) * DAY_US


def fold(states: UserStates, events: Events, items: ItemFacts, rules: FoldRules) -> UserStates:
    """States after the events; vectorized over rows, O((kept + new) log) in all.

    Events of items outside `items` count in totals but enter neither history nor affinities. Histories
    break ties in time by arrival.
    """
    events = _unfolded(states, events)
    if not len(events):
        return states
    time = states.state_time.copy()
    np.maximum.at(time, events.row, events.time)
    known = (events.item >= 0) & (events.item < len(items.creator))
    acted = events.where(known & rules.seen[events.type])
    told = events.where(known & (events.weight != 0))
    seen, new = merge_seen(states.seen, acted)
    return UserStates(
        state_time=time,
        first_time=_first_time(states.first_time, events),
        log_offset=_latest(states.log_offset, events.row, events.offset),
        counts=states.counts + _table(events.row, events.type, len(states), states.counts.shape[1]),
        signs=states.signs + _signs(events, len(states)),
        decayed=_fold_decayed(states, events, time),
        history=merge_history(states.history, acted),
        creators=_fold_creators(states, told, time, items, rules),
        tags=_fold_tags(states, told, time, items, rules),
        seen=seen,
        seen_total=states.seen_total + new,
    )


def truncated(states: UserStates, rules: FoldRules) -> UserStates:
    """The online form: the strongest creators and tags by |weight|, the latest seen items, the same totals.

    The batch job, training and serving all read this form, so that they agree on what was cut.
    """
    size, seen = rules.affinity_size, states.seen
    keep = _strongest(seen.time, rules.seen_cap)
    return replace(
        states,
        creators=_pick(states.creators, _strongest(states.creators.weight, size)),
        tags=_pick(states.tags, _strongest(states.tags.weight, size)),
        seen=seen if keep is None else Seen(seen.item.where(keep), seen.time.where(keep)),
    )


def move_last_event(states: UserStates, last: np.ndarray) -> UserStates:
    """The same pasts moved in time as a whole, so that each user's last event was at `last` (B,) µs.

    Asks what would be shown to a user who came back sooner or later than they did; users without events stay as
    they are. Sums and affinities are as of the last event, so they move with it.
    """
    known = states.first_time > 0
    by = np.where(known, last - states.state_time, 0)
    past, seen = states.history, states.seen
    return replace(
        states,
        state_time=states.state_time + by,
        first_time=states.first_time + by,
        history=replace(past, time=np.where(past.item != NONE, past.time + by[:, None], past.time)),
        seen=replace(seen, time=Ragged(seen.time.values + by[seen.time.row_of_value], seen.time.offsets)),
    )


def decay(age_us: np.ndarray, half_life_us: np.ndarray | float) -> np.ndarray:
    """2^(-age / half life); ages below 0 (clock skew) count as 0."""
    return np.exp2(-np.maximum(age_us, 0) / half_life_us)


def _unfolded(states: UserStates, events: Events) -> Events:
    """Drop what the log offset of a row says it has, and repeats of one offset within the batch."""
    logged = events.offset > 0
    if not logged.any():
        return events
    keep = ~logged | (events.offset > states.log_offset[events.row])
    _, first = np.unique(np.stack([events.row, events.offset]), axis=1, return_index=True)
    once = ~logged
    once[first] = True
    return events.where(keep & once)


def _latest(values: np.ndarray, row: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    out = values.copy()
    np.maximum.at(out, row, candidates)
    return out


def _first_time(first: np.ndarray, events: Events) -> np.ndarray:
    never = np.iinfo(np.int64).max
    out = np.where(first == 0, never, first)
    np.minimum.at(out, events.row, events.time)
    return np.where(out == never, 0, out)


def _table(row: np.ndarray, column: np.ndarray, rows: int, columns: int, weights=None) -> np.ndarray:
    """(rows, columns) float64 sums of weights (or counts) by row and column."""
    cell = row * columns + column
    return np.bincount(cell, weights=weights, minlength=rows * columns).reshape(rows, columns).astype(np.float64)


def _signs(events: Events, rows: int) -> np.ndarray:
    rated = events.where(events.weight != 0)
    return _table(rated.row, (rated.weight < 0).astype(np.int64), rows, 2)


def _fold_decayed(states: UserStates, events: Events, time: np.ndarray) -> np.ndarray:
    old = states.decayed * decay((time - states.state_time)[:, None], HALF_LIVES_US)[:, None, :]
    rated = events.where(events.weight != 0)
    fade = decay((time[rated.row] - rated.time)[:, None], HALF_LIVES_US)  # (N, 3)
    fade *= np.abs(rated.weight, dtype=np.float64)[:, None]
    sign = (rated.weight < 0).astype(np.int64)
    new = [_table(rated.row, sign, len(states), 2, fade[:, h]) for h in range(fade.shape[1])]
    return old + np.stack(new, axis=2)


def merge_history(history: History, acted: Events) -> History:
    """The T latest of both, in order of time."""
    rows, length = history.item.shape
    kept = history.item != NONE
    row = np.concatenate([np.nonzero(kept)[0], acted.row])
    time = np.concatenate([history.time[kept], acted.time])
    order = np.lexsort((time, row))  # stable: what was there first stays first
    row = row[order]
    counts = np.bincount(row, minlength=rows)
    column = length - np.cumsum(counts)[row] + np.arange(len(row))  # left padded
    fits = column >= 0
    row, column, order = row[fits], column[fits], order[fits]
    out = History.empty(rows, length)
    for name in ("item", "type", "time", "weight"):
        merged = np.concatenate([getattr(history, name)[kept], getattr(acted, name)])
        getattr(out, name)[row, column] = merged[order]
    return out


def merge_seen(seen: Seen, acted: Events) -> tuple[Seen, np.ndarray]:
    """The merged map, and (B,) how many items it had not held."""
    before = seen.item.lengths
    row = np.concatenate([seen.item.row_of_value, acted.row])
    item = np.concatenate([seen.item.values, acted.item])
    time = np.concatenate([seen.time.values, acted.time])
    order, starts = _groups(row, item)
    row, item = row[order[starts]], item[order[starts]]
    offsets = _offsets(row, len(seen.item))
    latest = np.maximum.reduceat(time[order], starts) if len(starts) else time
    return Seen(Ragged(item, offsets), Ragged(latest, offsets)), np.diff(offsets) - before


def _groups(row: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order by row and key (≥ 0), and where in it each distinct pair begins; fast on what is sorted already."""
    pair = (row.astype(np.int64) << 32) | key
    order = np.argsort(pair, kind="stable")
    pair = pair[order]
    return order, np.flatnonzero(np.concatenate([np.ones(min(len(pair), 1), bool), pair[1:] != pair[:-1]]))


def _fold_creators(states: UserStates, told: Events, time: np.ndarray, items: ItemFacts, rules: FoldRules) -> Weights:
    creator = items.creator[told.item]
    some = creator != NONE
    fade = decay(time[told.row] - told.time, rules.affinity_half_life_us) * told.weight
    return _fold_weights(states.creators, states, time, (told.row[some], creator[some], fade[some]), rules)


def _fold_tags(states: UserStates, told: Events, time: np.ndarray, items: ItemFacts, rules: FoldRules) -> Weights:
    at, which = items.tags.positions(told.item)
    fade = decay(time[told.row] - told.time, rules.affinity_half_life_us) * told.weight
    return _fold_weights(states.tags, states, time, (told.row[which], items.tags.values[at], fade[which]), rules)


def _fold_weights(
    old: Weights,
    states: UserStates,
    time: np.ndarray,
    added: tuple[np.ndarray, np.ndarray, np.ndarray],
    rules: FoldRules,
) -> Weights:
    """Decay what there is to the new time and add (row, key, weight)."""
    of = old.key.row_of_value
    aged = old.weight.values * decay(time - states.state_time, rules.affinity_half_life_us)[of]
    row, key, weight = (np.concatenate(pair) for pair in zip((of, old.key.values, aged), added, strict=True))
    return summed(row, key, weight, len(old.key))


def summed(row: np.ndarray, key: np.ndarray, weight: np.ndarray, rows: int) -> Weights:
    """Weights from loose (row, key, weight); those of one row and key are added."""
    if not len(row):
        return Weights.empty(rows)
    order, starts = _groups(row, key)
    first = order[starts]
    offsets = _offsets(row[first], rows)
    total = np.add.reduceat(weight[order], starts)
    return Weights(Ragged(key[first].astype(np.int32), offsets), Ragged(total, offsets))


def _offsets(row: np.ndarray, rows: int) -> np.ndarray:
    return offsets_from_counts(np.bincount(row, minlength=rows))


def _strongest(values: Ragged, size: int) -> np.ndarray | None:
    """(N,) bool: the `size` largest of each row by absolute value, the first of equal ones; None = all."""
    if (values.lengths <= size).all():
        return None
    row = values.row_of_value
    order = np.lexsort((-np.abs(values.values), row))
    keep = np.zeros(len(row), bool)
    keep[order] = np.arange(len(row)) - values.offsets[row] < size
    return keep


def _pick(weights: Weights, keep: np.ndarray | None) -> Weights:
    return weights if keep is None else Weights(weights.key.where(keep), weights.weight.where(keep))
