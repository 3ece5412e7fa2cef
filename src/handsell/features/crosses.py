"""Cross features: what one user's past says about one candidate, at the request's time.

Sizes: B requests, T history, A affinities, K candidates. All functions take and give (B, K); N loose
pairs of a user and an item are B = N, K = 1 (`pair_crosses`, which the on-demand view calls on strings).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from handsell.catalog.snapshot import ALWAYS
from handsell.core.batches import NONE, Ragged, Requests
from handsell.core.offsets import offsets_from_counts
from handsell.core.units import DAY_US, HOUR_US
from handsell.events.states import MAX_AWAY_DAYS

DENSE = 1_000_000  # cells of a look-up table

CROSSES = (
    "creator_affinity",
    "tag_affinity",
    "times_in_history",
    "hours_since_item",
    "hours_since_creator",
    "creator_share",
    "last_item_similarity",
    "item_age_days",
)


def crosses(requests: Requests, items: np.ndarray, catalog) -> np.ndarray:
    """(B, K, 8) float32 in the order of CROSSES for candidates (B, K); NaN where a candidate is -1.

    `catalog` is a Snapshot (or anything with its creator, item_tags and published).
    """
    history, profile = requests.history, requests.profile
    at = np.maximum(items, 0)
    creator = np.where(items == NONE, NONE, catalog.creator[at])
    listened = np.where(history.item == NONE, NONE, catalog.creator[np.maximum(history.item, 0)])
    place, pair = catalog.item_tags.positions(at.ravel())
    tags, pairs = catalog.item_tags.values[place], (pair, items.shape)
    same_item = occurrences(history.item, history.time, items)
    same_creator = occurrences(listened, history.time, creator)
    events = np.maximum((history.item != NONE).sum(axis=1), 1)[:, None]
    columns = (
        affinity(profile.creator, profile.creator_weight, creator),
        tag_affinity(profile.tag, profile.tag_weight, tags, pairs),
        same_item[0],
        hours_since(*same_item, requests.time),
        hours_since(*same_creator, requests.time),
        same_creator[0] / events,
        last_similarity(history.item[:, -1], catalog.item_tags, tags, pairs),
        age_days(catalog.published[at], requests.time),
    )
    out = np.empty((*items.shape, len(CROSSES)), np.float32)
    for f, column in enumerate(columns):
        out[:, :, f] = column
    out[items == NONE] = np.nan
    return out


def occurrences(past: np.ndarray, past_time: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often wanted (B, K) is among past (B, T), oldest first, and the time of the last: (B, K) int64 both.

    -1 matches nothing; the time is 0 where there is none. The past is short and most candidates are not in it:
    they are looked up among its distinct values, not compared with each event.
    """
    row = np.arange(len(past), dtype=np.int64)[:, None] << 32
    valid = past != NONE
    keys = (row + past)[valid]
    if not len(keys):
        return np.zeros(wanted.shape, np.int64), np.zeros(wanted.shape, np.int64)
    order = np.argsort(keys, kind="stable")
    keys, times = keys[order], past_time[valid][order]
    ends = np.flatnonzero(np.append(keys[1:] != keys[:-1], True))
    distinct, counts = keys[ends], np.diff(ends, prepend=-1)
    sought = row + wanted
    place = np.minimum(np.searchsorted(distinct, sought), len(distinct) - 1)
    found = (distinct[place] == sought) & (wanted != NONE)
    return np.where(found, counts[place], 0), np.where(found, times[ends][place], 0)


def affinity(keys: np.ndarray, weights: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(B, K) the weight of wanted (B, K) among keys (B, A), 0 where it is not there."""
    return _lookup(keys, weights, np.arange(len(keys))[:, None], wanted)


def tag_affinity(
    keys: np.ndarray, weights: np.ndarray, tags: np.ndarray, pairs: tuple[np.ndarray, tuple[int, ...]]
) -> np.ndarray:
    """(B, K) mean weight of a candidate's tags among keys (B, A); 0 without tags.

    `tags` (M,) of all candidates in a row, `pairs` = (which flat candidate each is of (M,), (B, K)).
    """
    pair, shape = pairs
    found = _lookup(keys, weights, pair // shape[1], tags)
    size = shape[0] * shape[1]
    total = np.bincount(pair, weights=found, minlength=size)
    return (total / np.maximum(np.bincount(pair, minlength=size), 1)).reshape(shape)


def hours_since(count: np.ndarray, latest: np.ndarray, time: np.ndarray) -> np.ndarray:
    """(B, K) hours from the latest occurrence (B, K) to time (B,), at most MAX_AWAY_DAYS; NaN without one."""
    return np.where(count > 0, np.minimum((time[:, None] - latest) / HOUR_US, 24 * MAX_AWAY_DAYS), np.nan)


def last_similarity(
    last: np.ndarray, item_tags: Ragged, tags: np.ndarray, pairs: tuple[np.ndarray, tuple[int, ...]]
) -> np.ndarray:
    """(B, K) cosine between the tags of the latest history item (B,) and of the candidate; 0 without tags."""
    pair, shape = pairs
    place, b = item_tags.positions(np.maximum(last, 0))
    own = last[b] != NONE
    offsets = offsets_from_counts(np.bincount(b[own], minlength=len(last)))
    key = _padded(Ragged(item_tags.values[place[own]], offsets))
    found = _lookup(key, np.ones(key.shape), pair // shape[1], tags)
    size = shape[0] * shape[1]
    common = np.bincount(pair, weights=found, minlength=size).reshape(shape)
    theirs = np.bincount(pair, minlength=size).reshape(shape)
    mine = np.diff(offsets)[:, None]
    return common / np.sqrt(np.maximum(theirs * mine, 1))


def age_days(published: np.ndarray, time: np.ndarray) -> np.ndarray:
    """(B, K) days from publication (B, K) to time (B,); NaN where unknown, below 0 before it."""
    known = published != ALWAYS
    return np.where(known, (time[:, None] - np.where(known, published, 0)) / DAY_US, np.nan)


def pair_crosses(columns: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
    """Crosses of N (user, item) pairs from Feast's string columns; each (N,) float32.

    Needs those of user_history, user_affinity and item_profile, and request_time_us. A missing user or
    item (None) is one without a past. Numbers are given to strings for the length of the call.
    """
    n = len(columns["request_time_us"])
    item, history = _numbered(_ones(columns["item"]), _lists(columns["history_item_ids"], n))
    creator, top_creator = _numbered(_ones(columns["creator"]), _lists(columns["top_creators"], n))
    tags, top_tag = _numbered(_lists(columns["tags"], n), _lists(columns["top_tags"], n))
    time = np.array([int(t) for t in columns["request_time_us"]], np.int64)
    published = np.array([ALWAYS if _none(p) else int(p) for p in columns["published_us"]], np.int64)
    past = _padded(Ragged.from_rows(_lists(columns["history_times_us"], n), np.int64), 0)
    same = occurrences(_padded(history), past, item.values[:, None])
    weights = {
        key: _padded(Ragged.from_rows(_lists(columns[key], n), np.float64), 0)
        for key in ("top_creator_weights", "top_tag_weights")
    }
    pairs = (tags.row_of_value, (n, 1))
    found = {
        "creator_affinity": affinity(_padded(top_creator), weights["top_creator_weights"], creator.values[:, None]),
        "tag_affinity": tag_affinity(_padded(top_tag), weights["top_tag_weights"], tags.values, pairs),
        "times_in_history": same[0],
        "hours_since_item": hours_since(*same, time),
        "item_age_days": age_days(published[:, None], time),
    }
    return {name: column[:, 0].astype(np.float32) for name, column in found.items()}


def _lookup(keys: np.ndarray, weights: np.ndarray, b: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weight of `wanted` (any shape) among the distinct keys (B, A) of row b (same shape); 0 where absent or -1.

    A dense table where it is small, else a binary search in the sorted (row, key) pairs.
    """
    width = int(max(keys.max(initial=0), wanted.max(initial=0))) + 2
    if len(keys) * width <= DENSE:
        table = np.zeros((len(keys), width))
        np.put_along_axis(table, keys, weights, axis=1)
        table[:, -1] = 0  # where the key -1 points
        return table[b, wanted]
    pairs = np.where(keys == NONE, NONE, (np.arange(len(keys), dtype=np.int64) << 32)[:, None] + keys).ravel()
    order = np.argsort(pairs)
    pairs, worth = pairs[order], weights.ravel()[order]
    sought = (b.astype(np.int64) << 32) + wanted
    place = np.minimum(np.searchsorted(pairs, sought), len(pairs) - 1)
    return np.where((pairs[place] == sought) & (wanted != NONE), worth[place], 0.0)


def _none(value: Any) -> bool:
    return value is None or value != value  # NaN differs from itself


def _ones(column: Sequence[Any]) -> list[list[str | None]]:
    return [[None if _none(value) else value] for value in column]


def _lists(column: Sequence[Any], n: int) -> list[Sequence[Any]]:
    """Cells as sequences; None and NaN are empty."""
    rows = [() if cell is None or np.isscalar(cell) else cell for cell in column]
    assert len(rows) == n, f"expected {n} rows, got {len(rows)}"
    return rows


def _numbered(*tables: Sequence[Sequence[Any]]) -> tuple[Ragged, ...]:
    """String rows → number rows with one numbering for all tables; None is -1."""
    number: dict[Any, int] = {value: n for n, value in enumerate(dict.fromkeys(chain(*chain(*tables))))}
    number[None] = NONE
    return tuple(Ragged.from_rows([[number[value] for value in row] for row in rows]) for rows in tables)


def _padded(ragged: Ragged, fill: int = NONE) -> np.ndarray:
    """(B, widest) left padded, as histories are."""
    width = max(int(ragged.lengths.max(initial=0)), 1)
    out = np.full((len(ragged), width), fill, ragged.values.dtype)
    column = width - ragged.offsets[1:][ragged.row_of_value] + np.arange(len(ragged.values))
    out[ragged.row_of_value, column] = ragged.values
    return out
