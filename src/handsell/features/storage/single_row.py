"""The state of one user from a row of the online store: with few calls of NumPy where the row is as it was written.

`rows.read_states` reads any number of rows and is the reference: tests require equal states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from handsell.catalog.vocabulary import Numbering
from handsell.core.batches import NONE, History, Ragged, Seen
from handsell.events.states import Affinities, FoldRules


def read_cell(rows: Mapping[str, Sequence[Any]], name: str) -> Sequence[Any]:
    """Return the list in the one row of a column; null is an empty list."""
    cell = rows[name][0]
    return () if cell is None or isinstance(cell, float) else cell


def read_one_history(
    rows: Mapping[str, Sequence[Any]], item: np.ndarray, codes: Mapping[str, int], rules: FoldRules
) -> History | None:
    """Return the history (1, T) of known items (N,) of one row; None if they are not in order of time."""
    times = np.array(read_cell(rows, "history_times_us"), np.int64)
    if len(times) != len(item) or (times[1:] < times[:-1]).any():
        return None
    past = History.empty(1, rules.history_length)
    if n := min(len(item), rules.history_length):
        past.item[0, -n:], past.time[0, -n:] = item[-n:], times[-n:]
        past.type[0, -n:] = [codes.get(kind, NONE) for kind in read_cell(rows, "history_types")[-n:]]
        past.weight[0, -n:] = read_cell(rows, "history_weights")[-n:]
    return past


def read_one_seen(rows: Mapping[str, Sequence[Any]], item: np.ndarray, rules: FoldRules) -> Seen | None:
    """Return the seen items (N,) of one row, all known; None if they are too many or do not ascend."""
    times = np.array(read_cell(rows, "seen_times_us"), np.int64)
    if len(times) != len(item) or len(item) > rules.seen_cap or (item[1:] <= item[:-1]).any():
        return None
    offsets = np.array([0, len(item)])
    return Seen(Ragged(item, offsets), Ragged(times, offsets))


def read_one_affinity(
    rows: Mapping[str, Sequence[Any]], kind: str, vocabulary: Numbering, rules: FoldRules
) -> Affinities | None:
    """Return the weights of creators or tags of one row; None if they are too many, or name one twice."""
    ids = read_cell(rows, f"top_{kind}s")
    if not ids:
        return Affinities.empty(1)
    key, weight = vocabulary.number(ids), np.array(read_cell(rows, f"top_{kind}_weights"), np.float64)
    if len(weight) != len(key):
        return None
    if key.min() == NONE:
        key, weight = key[key != NONE], weight[key != NONE]
    order = np.argsort(key, kind="stable")
    key = key[order]
    if len(key) > rules.affinity_size or (key[1:] == key[:-1]).any():
        return None
    if not len(key):
        return Affinities.empty(1)
    offsets = np.array([0, len(key)])
    return Affinities(Ragged(key, offsets), Ragged(weight[order], offsets))
