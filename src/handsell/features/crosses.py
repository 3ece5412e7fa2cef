"""Pairs of requests and candidates, and the cross features of them.

Sizes: B requests, T history, A affinities, K candidates, M tags of all candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from handsell.catalog.snapshot import ALWAYS
from handsell.core.batches import NONE, Ragged, Requests
from handsell.core.kernels import compiled
from handsell.core.offsets import offsets_from_counts
from handsell.events.states import MAX_AWAY_DAYS
from handsell.features.registry import find_features

DENSE = 1_000_000  # most cells of a look-up table
COMPILED = (
    "creator_affinity", "tag_affinity", "times_in_history", "hours_since_item", "history_place", "hours_since_creator",
    "creator_share", "last_item_similarity", "item_age_days",
)  # fmt: skip
"""Features that one kernel computes, in its order; features/definitions/cross.py defines them."""


class ItemCatalog(Protocol):
    """The attributes of I items that cross features read; a Snapshot has them."""

    @property
    def creator(self) -> np.ndarray: ...  # (I,) int32, -1 none
    @property
    def item_tags(self) -> Ragged: ...  # (I, *) int32
    @property
    def published(self) -> np.ndarray: ...  # (I,) int64 µs, ALWAYS where unknown


@dataclass(frozen=True, slots=True)
class Occurrences:
    """Count and latest time of each candidate's occurrences in the history."""

    count: np.ndarray  # (B, K) int64
    latest: np.ndarray  # (B, K) int64 µs, 0 where there is none


@dataclass(frozen=True, eq=False)
class Pairs:
    """B requests with K candidates each: the input of cross features. Shared intermediate values are cached."""

    requests: Requests
    item: np.ndarray  # (B, K) int32, -1 pads
    catalog: ItemCatalog

    def write_compiled(self, out: np.ndarray, column: int) -> None:
        """Write the features named in `COMPILED` to columns of `out` (B, K, F), from `column` on; NaN for item -1."""
        past, profile, catalog = self.requests.history, self.requests.profile, self.catalog
        compiled.write_crosses(
            np.ascontiguousarray(self.item, np.int32), np.ascontiguousarray(past.item, np.int32),
            np.ascontiguousarray(past.time, np.int64), np.ascontiguousarray(self.requests.time, np.int64),
            np.ascontiguousarray(profile.creator, np.int32), np.ascontiguousarray(profile.creator_weight, np.float32),
            np.ascontiguousarray(profile.tag, np.int32), np.ascontiguousarray(profile.tag_weight, np.float32),
            np.ascontiguousarray(catalog.creator, np.int32), np.ascontiguousarray(catalog.item_tags.offsets, np.int64),
            np.ascontiguousarray(catalog.item_tags.values, np.int32),
            np.ascontiguousarray(catalog.published, np.int64), out, column, 24.0 * MAX_AWAY_DAYS, int(ALWAYS),
        )  # fmt: skip

    @cached_property
    def place(self) -> np.ndarray:
        """(B, K) rows of the catalog: the item, or 0 for padding, whose values `compute_crosses` blanks."""
        return np.maximum(self.item, 0)

    @cached_property
    def creator(self) -> np.ndarray:
        """(B, K) int32, -1 none."""
        return np.where(self.item == NONE, NONE, self.catalog.creator[self.place])

    @cached_property
    def published(self) -> np.ndarray:
        """(B, K) int64 µs, ALWAYS where unknown."""
        return self.catalog.published[self.place]

    @cached_property
    def history_creator(self) -> np.ndarray:
        """(B, T) int32 creators of the history's items, -1 none."""
        item = self.requests.history.item
        return np.where(item == NONE, NONE, self.catalog.creator[np.maximum(item, 0)])

    @cached_property
    def same_item(self) -> Occurrences:
        """Occurrences of the candidate in the history."""
        history = self.requests.history
        return find_occurrences(history.item, history.time, self.item)

    @cached_property
    def history_place(self) -> np.ndarray:
        """(B, K) float64 distinct items that came after the candidate's last occurrence in the history; NaN without."""
        item = self.requests.history.item[:, ::-1]  # the latest first
        row, known = np.arange(len(item), dtype=np.int64)[:, None], np.flatnonzero(item != NONE)
        _, first = np.unique(((row << 32) + item).ravel()[known], return_index=True)
        latest = np.zeros(item.shape, bool)
        latest.flat[known[first]] = True
        place = lookup(np.where(latest, item, NONE), latest.cumsum(axis=1) * latest, row, self.item)
        return np.where(place > 0, place - 1, np.nan)

    @cached_property
    def same_creator(self) -> Occurrences:
        """Occurrences of items by the candidate's creator in the history."""
        return find_occurrences(self.history_creator, self.requests.history.time, self.creator)

    @cached_property
    def _tags(self) -> tuple[np.ndarray, np.ndarray]:
        place, pair = self.catalog.item_tags.positions(self.place.ravel())
        return self.catalog.item_tags.values[place], pair

    @property
    def tag(self) -> np.ndarray:
        """(M,) int32 tags of all candidates, concatenated."""
        return self._tags[0]

    @cached_property
    def tag_row(self) -> np.ndarray:
        """(M,) the request of each tag."""
        return self._tags[1] // max(self.item.shape[1], 1)

    @cached_property
    def tag_count(self) -> np.ndarray:
        """(B, K) number of tags."""
        begin = self.catalog.item_tags.offsets
        return begin[self.place + 1] - begin[self.place]

    def sum_tags(self, values: np.ndarray) -> np.ndarray:
        """(B, K) float64 sums of values (M,), one for each tag, by candidate."""
        return np.bincount(self._tags[1], weights=values, minlength=self.item.size).reshape(self.item.shape)

    def sum_tag_weights(self, keys: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(B, K) float64 sums over a candidate's tags of their weights in its request; keys and weights (B, A).

        A key occurs once in a row; -1 pads. Tags that are no key have weight 0.
        """
        if compiled is None:
            return self.sum_tags(lookup(keys, weights, self.tag_row, self.tag))
        tags, out = self.catalog.item_tags, np.empty(self.item.shape)
        compiled.sum_weights(
            np.ascontiguousarray(keys, np.int32), np.ascontiguousarray(weights, np.float64),
            np.ascontiguousarray(tags.offsets, np.int64), np.ascontiguousarray(tags.values, np.int32),
            np.ascontiguousarray(self.place, np.int32), out, len(out),
        )  # fmt: skip
        return out

    def compare_tags(self, other: np.ndarray) -> np.ndarray:
        """(B, K) float64 cosines between the tags of the candidates and of one item of their request, other (B,)."""
        tags, out = self.catalog.item_tags, np.empty(self.item.shape)
        if compiled is None:
            place, row = tags.positions(np.maximum(other, 0))
            known = other[row] != NONE
            count = np.bincount(row[known], minlength=len(other))
            keys = pad_left(Ragged(tags.values[place[known]], offsets_from_counts(count)))
            common = self.sum_tag_weights(keys, np.ones(keys.shape))
            return common / np.sqrt(np.maximum(self.tag_count * count[:, None], 1))
        compiled.compare_tags(
            np.ascontiguousarray(other, np.int32), np.ascontiguousarray(tags.offsets, np.int64),
            np.ascontiguousarray(tags.values, np.int32), np.ascontiguousarray(self.place, np.int32), out,
        )  # fmt: skip
        return out

    def look_up_creators(self, keys: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(B, K) float64 weights of the candidates' creators in their request; keys and weights (B, A) as above."""
        if compiled is None:
            return lookup(keys, weights, np.arange(len(self.item))[:, None], self.creator)
        out = np.empty(self.item.shape)
        compiled.look_up(
            np.ascontiguousarray(keys, np.int32), np.ascontiguousarray(weights, np.float64),
            np.ascontiguousarray(self.creator, np.int32), out, len(out),
        )  # fmt: skip
        return out


def compute_crosses(requests: Requests, items: np.ndarray, catalog: ItemCatalog) -> np.ndarray:
    """(B, K, number of cross features) float32 of candidates (B, K); NaN for item -1."""
    features = find_features("cross").values()
    out = np.empty((*items.shape, len(features)), np.float32)
    write_crosses(requests, items, catalog, out)
    return out


def write_crosses(
    requests: Requests, items: np.ndarray, catalog: ItemCatalog, out: np.ndarray, column: int = 0
) -> None:
    """Write the cross features of candidates (B, K) to `out` (B, K, F), from a column on; NaN for item -1."""
    features = find_features("cross")
    pairs, done = Pairs(requests, items, catalog), 0
    if compiled is not None and items.size and tuple(features)[: len(COMPILED)] == COMPILED:
        pairs.write_compiled(out, column)
        done = len(COMPILED)
    others = list(features.values())[done:]
    for f, found in enumerate(others, start=column + done):
        out[:, :, f] = found.value(pairs)
    if others:
        out[items == NONE, column + done : column + len(features)] = np.nan


def find_occurrences(past: np.ndarray, past_time: np.ndarray, wanted: np.ndarray) -> Occurrences:
    """Count wanted (B, K) in past (B, T), oldest first, and find the latest time; -1 matches nothing.

    Candidates are looked up among the distinct values of the past, which is faster than a comparison with each event.
    """
    if compiled is not None:
        count, latest = np.empty(wanted.shape, np.int64), np.empty(wanted.shape, np.int64)
        compiled.count_occurrences(
            np.ascontiguousarray(past, np.int32), np.ascontiguousarray(past_time, np.int64),
            np.ascontiguousarray(wanted, np.int32), count, latest, len(past),
        )  # fmt: skip
        return Occurrences(count, latest)
    row = np.arange(len(past), dtype=np.int64)[:, None] << 32
    valid = past != NONE
    keys = (row + past)[valid]
    if not len(keys):
        return Occurrences(np.zeros(wanted.shape, np.int64), np.zeros(wanted.shape, np.int64))
    order = np.argsort(keys, kind="stable")
    keys, times = keys[order], past_time[valid][order]
    ends = np.flatnonzero(np.append(keys[1:] != keys[:-1], True))
    distinct, counts = keys[ends], np.diff(ends, prepend=-1)
    sought = row + wanted
    place = np.minimum(np.searchsorted(distinct, sought), len(distinct) - 1)
    found = (distinct[place] == sought) & (wanted != NONE)
    return Occurrences(np.where(found, counts[place], 0), np.where(found, times[ends][place], 0))


def lookup(keys: np.ndarray, weights: np.ndarray, row: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weight of `wanted` (any shape) among the distinct keys (B, A) of its row (same shape); 0 where absent or -1.

    A dense table where it is small, else a binary search in the sorted (row, key) pairs.
    """
    width = int(max(keys.max(initial=0), wanted.max(initial=0))) + 2
    if len(keys) * width <= DENSE:
        table = np.zeros((len(keys), width))
        np.put_along_axis(table, keys, weights, axis=1)
        table[:, -1] = 0  # where the key -1 points
        return table[row, wanted]
    pairs = np.where(keys == NONE, NONE, (np.arange(len(keys), dtype=np.int64) << 32)[:, None] + keys).ravel()
    order = np.argsort(pairs)
    pairs, sorted_weights = pairs[order], weights.ravel()[order]
    sought = (row.astype(np.int64) << 32) + wanted
    place = np.minimum(np.searchsorted(pairs, sought), len(pairs) - 1)
    return np.where((pairs[place] == sought) & (wanted != NONE), sorted_weights[place], 0.0)


def pad_left(ragged: Ragged, fill: int = NONE) -> np.ndarray:
    """(B, longest row) left padded, as histories are."""
    width = max(int(ragged.lengths.max(initial=0)), 1)
    out = np.full((len(ragged), width), fill, ragged.values.dtype)
    column = width - ragged.offsets[1:][ragged.row_of_value] + np.arange(len(ragged.values))
    out[ragged.row_of_value, column] = ragged.values
    return out
