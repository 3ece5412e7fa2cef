"""Cross features of single (user, item) pairs from Feast's string columns, for the on-demand view.

A cross feature may be `on_demand` if it reads the candidate's creator, tags and publication time, the history's items,
times and weights, and the affinities. Feast's rows hold only the ids of the history's items, not their attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handsell.catalog.snapshot import ALWAYS
from handsell.core.batches import NONE, History, Profile, Ragged, Requests, Seen
from handsell.features.crosses import Pairs, pad_left
from handsell.features.registry import find_features


@dataclass(frozen=True)
class PairCatalog:
    """Items of N pairs: item n is the candidate of pair n, later ones are of the history only."""

    creator: np.ndarray
    item_tags: Ragged
    published: np.ndarray


def compute_pair_crosses(columns: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
    """The `on_demand` cross features of N (user, item) pairs by name; each (N,) float32.

    Needs the columns of user_history, user_affinity and item_profile, and request_time_us. A missing user or item
    (None) counts as one without data.
    """
    pairs = _read_pairs(columns)
    features = find_features("cross").values()
    return {f.name: f.value(pairs)[:, 0].astype(np.float32) for f in features if f.on_demand}


def _read_pairs(columns: Mapping[str, Sequence[Any]]) -> Pairs:
    """N requests with one candidate each."""
    time = np.array([int(t) for t in columns["request_time_us"]], np.int64)
    n = len(time)
    item = [None if _is_missing(value) else value for value in columns["item"]]
    others: dict[Any, int] = {}
    history = [
        [b if value == item[b] else n + others.setdefault(value, len(others)) for value in row]
        for b, row in enumerate(_read_lists(columns["history_item_ids"]))
    ]
    creator, top_creator = _number([[c] for c in columns["creator"]], _read_lists(columns["top_creators"]))
    tags, top_tag = _number(_read_lists(columns["tags"]), _read_lists(columns["top_tags"]))

    def pad(name: str, dtype: type) -> np.ndarray:
        return pad_left(Ragged.from_rows(_read_lists(columns[name]), dtype), 0)

    past = pad_left(Ragged.from_rows(history))
    types = np.full(past.shape, NONE, np.int8)
    requests = Requests(
        user=np.full(n, NONE, np.int32),
        time=time,
        surface=np.zeros(n, np.int8),
        history=History(past, types, pad("history_times_us", np.int64), pad("history_weights", np.float32)),
        profile=Profile(
            np.zeros((n, 0), np.float32),
            pad_left(top_creator),
            pad("top_creator_weights", np.float64),
            pad_left(top_tag),
            pad("top_tag_weights", np.float64),
        ),
        seen=Seen(Ragged.empty(n), Ragged.empty(n, np.int64)),
        exclude=Ragged.empty(n),
    )
    unknown = len(others)  # items of which only the id is known
    catalog = PairCatalog(
        creator=np.concatenate([creator.values, np.full(unknown, NONE, np.int32)]),
        item_tags=Ragged(tags.values, np.concatenate([tags.offsets, np.full(unknown, tags.offsets[-1])])),
        published=np.array(
            [*(ALWAYS if _is_missing(p) else int(p) for p in columns["published_us"]), *[ALWAYS] * unknown], np.int64
        ),
    )
    return Pairs(requests, np.arange(n, dtype=np.int32)[:, None], catalog)


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # NaN differs from itself


def _read_lists(column: Sequence[Any]) -> list[Sequence[Any]]:
    """Cells as sequences; None and NaN are empty."""
    return [() if cell is None or np.isscalar(cell) else cell for cell in column]


def _number(*tables: Sequence[Sequence[Any]]) -> tuple[Ragged, ...]:
    """String rows as number rows with one numbering for all tables; missing values are -1."""
    number: dict[Any, int] = {}
    return tuple(
        Ragged.from_rows([[NONE if _is_missing(v) else number.setdefault(v, len(number)) for v in row] for row in rows])
        for rows in tables
    )
