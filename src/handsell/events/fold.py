"""Fold events into user states: used for the batch job, the tail of the log and the session events of a request.

Any split of the events gives the same states up to rounding, also with late events: sums decay to the time of the
state, histories are sorted by event time, and the seen map keeps the latest time. Events up to the log offset of a
state are ignored.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from handsell.core.batches import NONE, History, Ragged, Seen
from handsell.core.offsets import mark_run_starts, offsets_from_counts
from handsell.core.units import DAY_US
from handsell.events.states import HALF_LIVES_DAYS, Affinities, Events, FoldRules, ItemAttributes, UserStates

HALF_LIVES_US = np.array(HALF_LIVES_DAYS) * DAY_US


def fold(states: UserStates, events: Events, items: ItemAttributes, rules: FoldRules) -> UserStates:
    """Return the states after the events.

    Events of unknown items count in totals only, not in history or affinities. Events of the same time keep their
    order.
    """
    events = _drop_folded(states, events)
    if not len(events):
        return states
    time = states.state_time.copy()
    np.maximum.at(time, events.row, events.time)
    known = (events.item >= 0) & (events.item < len(items.creator))
    acted = events.where(known & rules.seen[events.type])
    rated = events.where(known & (events.weight != 0))
    creators, tags = _fold_affinities(states, rated, time, items, rules)
    seen, new = merge_seen(states.seen, acted)
    return UserStates(
        state_time=time,
        first_time=_find_first_time(states.first_time, events),
        log_offset=_max_by_row(states.log_offset, events.row, events.offset),
        counts=states.counts + _sum_by_cell(events.row, events.type, len(states), states.counts.shape[1]),
        signs=states.signs + _count_signs(events, len(states)),
        decayed=_fold_decayed(states, events, time),
        history=merge_history(states.history, acted),
        creators=creators,
        tags=tags,
        seen=seen,
        seen_total=states.seen_total + new,
    )


def truncate(states: UserStates, rules: FoldRules) -> UserStates:
    """Keep the creators and tags of largest |weight|, and the latest seen items; totals stay.

    The batch job, training and serving all use the truncated form.
    """
    size, seen = rules.affinity_size, states.seen
    latest = _find_strongest(seen.time, rules.seen_cap)
    creators, tags = (_find_strongest(weights.weight, size) for weights in (states.creators, states.tags))
    if latest is None and creators is None and tags is None:
        return states
    return replace(
        states,
        creators=_keep(states.creators, creators),
        tags=_keep(states.tags, tags),
        seen=seen if latest is None else Seen(seen.item.where(latest), seen.time.where(latest)),
    )


def move_last_event(states: UserStates, last: np.ndarray) -> UserStates:
    """Shift each user's whole past in time, so that their last event is at `last` (B,) µs.

    Training and evaluation simulate a shorter or longer absence with it. Users without events stay as they are. Sums
    and affinities are as of the last event and need no change.
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
    """Return 2^(-age / half life); negative ages (clock skew) count as 0."""
    return np.exp2(-np.maximum(age_us, 0) / half_life_us)


def _drop_folded(states: UserStates, events: Events) -> Events:
    """Drop events up to the log offset of their row, and repeated offsets within the batch."""
    logged = events.offset > 0
    if not logged.any():
        return events
    keep = ~logged | (events.offset > states.log_offset[events.row])
    _, first = np.unique(np.stack([events.row, events.offset]), axis=1, return_index=True)
    once = ~logged
    once[first] = True
    return events.where(keep & once)


def _max_by_row(values: np.ndarray, row: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    out = values.copy()
    np.maximum.at(out, row, candidates)
    return out


def _find_first_time(first: np.ndarray, events: Events) -> np.ndarray:
    never = np.iinfo(np.int64).max
    out = np.where(first == 0, never, first)
    np.minimum.at(out, events.row, events.time)
    return np.where(out == never, 0, out)


def _sum_by_cell(row: np.ndarray, column: np.ndarray, rows: int, columns: int, weights=None) -> np.ndarray:
    """Sum weights (or count events) by row and column: (rows, columns) float64."""
    cell = row * columns + column
    return np.bincount(cell, weights=weights, minlength=rows * columns).reshape(rows, columns).astype(np.float64)


def _count_signs(events: Events, rows: int) -> np.ndarray:
    rated = events.where(events.weight != 0)
    return _sum_by_cell(rated.row, (rated.weight < 0).astype(np.int64), rows, 2)


def _fold_decayed(states: UserStates, events: Events, time: np.ndarray) -> np.ndarray:
    old = states.decayed * decay((time - states.state_time)[:, None], HALF_LIVES_US)[:, None, :]
    rated = events.where(events.weight != 0)
    fade = decay((time[rated.row] - rated.time)[:, None], HALF_LIVES_US)  # (N, 3)
    fade *= np.abs(rated.weight, dtype=np.float64)[:, None]
    sign = (rated.weight < 0).astype(np.int64)
    new = [_sum_by_cell(rated.row, sign, len(states), 2, fade[:, h]) for h in range(fade.shape[1])]
    return old + np.stack(new, axis=2)


def merge_history(history: History, acted: Events) -> History:
    """Merge events into histories, keeping the T latest in order of time."""
    rows, length = history.item.shape
    kept = history.item != NONE
    row = np.concatenate([np.nonzero(kept)[0], acted.row])
    time = np.concatenate([history.time[kept], acted.time])
    order = np.lexsort((time, row))  # stable: ties keep their order
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
    """Return the merged map and (B,) the number of new items."""
    before = seen.item.lengths
    if not len(seen.item.values) and _is_ascending(acted.row, acted.item):  # as rows store it
        offsets = offsets_from_counts(np.bincount(acted.row, minlength=len(seen.item)))
        return Seen(Ragged(acted.item, offsets), Ragged(acted.time, offsets)), offsets[1:] - offsets[:-1]
    row = np.concatenate([seen.item.row_of_value, acted.row])
    item = np.concatenate([seen.item.values, acted.item])
    time = np.concatenate([seen.time.values, acted.time])
    order, starts = _group(row, item)
    row, item = row[order[starts]], item[order[starts]]
    offsets = offsets_from_counts(np.bincount(row, minlength=len(seen.item)))
    latest = np.maximum.reduceat(time[order], starts) if len(starts) else time
    return Seen(Ragged(item, offsets), Ragged(latest, offsets)), np.diff(offsets) - before


def _is_ascending(row: np.ndarray, key: np.ndarray) -> bool:
    """Return whether pairs of row and key (≥ 0) ascend, without an equal one."""
    pair = (row.astype(np.int64) << 32) | key
    return bool((pair[1:] > pair[:-1]).all())


def _group(row: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort by row and key (≥ 0): the order (N,), and where in it each distinct pair begins. Fast on sorted input."""
    pair = (row.astype(np.int64) << 32) | key
    order = np.argsort(pair, kind="stable")
    pair = pair[order]
    return order, np.flatnonzero(mark_run_starts(pair))


def _fold_affinities(
    states: UserStates, rated: Events, time: np.ndarray, items: ItemAttributes, rules: FoldRules
) -> tuple[Affinities, Affinities]:
    """Affinities for creators and for tags as of `time`."""
    added = decay(time[rated.row] - rated.time, rules.affinity_half_life_us) * rated.weight
    aged = decay(time - states.state_time, rules.affinity_half_life_us)
    creator = items.creator[rated.item]
    some = creator != NONE
    at, event = items.tags.positions(rated.item)
    return (
        _add_affinities(states.creators, aged, rated.row[some], creator[some], added[some]),
        _add_affinities(states.tags, aged, rated.row[event], items.tags.values[at], added[event]),
    )


def _add_affinities(
    old: Affinities, aged: np.ndarray, row: np.ndarray, key: np.ndarray, weight: np.ndarray
) -> Affinities:
    """Multiply old weights by `aged` (B,) and add weights (N,) by row and key."""
    of = old.key.row_of_value
    weights = np.concatenate([old.weight.values * aged[of], weight])
    return sum_affinities(np.concatenate([of, row]), np.concatenate([old.key.values, key]), weights, len(old.key))


def sum_affinities(row: np.ndarray, key: np.ndarray, weight: np.ndarray, rows: int) -> Affinities:
    """Sum weights (N,) by row and key."""
    if not len(row):
        return Affinities.empty(rows)
    order, starts = _group(row, key)
    first = order[starts]
    offsets = offsets_from_counts(np.bincount(row[first], minlength=rows))
    total = np.add.reduceat(weight[order], starts)
    return Affinities(Ragged(key[first].astype(np.int32), offsets), Ragged(total, offsets))


def _find_strongest(values: Ragged, size: int) -> np.ndarray | None:
    """(N,) bool: the `size` values of largest |value| in each row, ties by position; None: all values."""
    if len(values.values) <= size or (values.lengths <= size).all():
        return None
    row = values.row_of_value
    order = np.lexsort((-np.abs(values.values), row))
    keep = np.zeros(len(row), bool)
    keep[order] = np.arange(len(row)) - values.offsets[row] < size
    return keep


def _keep(weights: Affinities, keep: np.ndarray | None) -> Affinities:
    return weights if keep is None else Affinities(weights.key.where(keep), weights.weight.where(keep))
