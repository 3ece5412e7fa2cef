"""Conversion of user states to rows of the feature views (features job) and back (request builder)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from handsell.catalog.vocabulary import Numbering, Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE, History, Seen
from handsell.core.kernels import compiled
from handsell.core.offsets import offsets_from_counts
from handsell.data.schemas import TIME
from handsell.events.fold import merge_history, merge_seen, sum_affinities, truncate
from handsell.events.states import HALF_LIVES_DAYS, Affinities, Events, FoldRules, UserStates
from handsell.features.row_columns import (
    Rows,
    concat_values,
    encode_values,
    look_up_ids,
    read_floats,
    read_integers,
    read_lists,
)
from handsell.features.storage.encoded_rows import EncodedRows
from handsell.features.storage.encoded_states import (
    read_encoded_affinities,
    read_encoded_history,
    read_encoded_seen,
)
from handsell.features.user import compute_sign_rates
from handsell.features.views import CREATED, TIMESTAMP, View, build_views, name_count_column

SIGNS = ("positive", "negative")
STATE_NUMBERS = ("state_time_us", "first_time_us", "log_offset", "seen_total")
LISTS = (
    "history_item_ids", "history_types", "history_times_us", "history_weights", "seen_item_ids", "seen_times_us",
    "top_creators", "top_creator_weights", "top_tags", "top_tag_weights",
)  # fmt: skip
STATE_SUMS = (*(f"{sign}s_total" for sign in SIGNS), *(f"{sign}_{d}d" for sign in SIGNS for d in HALF_LIVES_DAYS))


class ItemNames(Protocol):
    """The ids of items, creators and tags, such as a Snapshot."""

    @property
    def items(self) -> Numbering: ...

    @property
    def creators(self) -> Numbering: ...

    @property
    def tags(self) -> Numbering: ...


class RowNames(ItemNames, Protocol):
    """All ids in rows."""

    @property
    def users(self) -> Numbering: ...


@dataclass(frozen=True, slots=True)
class Vocabularies:
    """The external ids of catalog numbers."""

    users: Vocabulary
    items: Vocabulary
    creators: Vocabulary
    tags: Vocabulary

    @classmethod
    def load(cls, catalog: Path) -> Vocabularies:
        return cls(*(Vocabulary.load(catalog / name) for name in cls.__slots__))


def build_user_rows(states: UserStates, user: np.ndarray, names: RowNames, config: Config) -> dict[str, pa.Table]:
    """Return tables of B rows by view name, for the four views that are computed from events.

    `user` (B,) numbers. Rows hold the truncated states. A row is valid from 1 µs after the state's last event;
    `created` is the same time, so that point-in-time joins see rows that are written later (a backfill).
    """
    states = truncate(states, FoldRules.of(config))
    keys = {"user_id": decode_ids(names.users, user)}
    columns = {
        "user_activity": build_activity_columns(states, config),
        "user_history": _history(states, names, config),
        "user_seen": {
            "seen_item_ids": build_lists(decode_ids(names.items, states.seen.item.values), states.seen.item.offsets),
            "seen_times_us": build_lists(pa.array(states.seen.time.values), states.seen.time.offsets),
            "seen_total": states.seen_total,
        },
        "user_affinity": {
            **_top("creator", states.creators, names.creators, config.features.affinity_size),
            **_top("tag", states.tags, names.tags, config.features.affinity_size),
        },
    }
    every = build_views(config)
    return {
        name: build_view_table(every[name], {**keys, **values}, states.state_time + 1)
        for name, values in columns.items()
    }


def build_pair_rows(states: UserStates, user: np.ndarray, names: Vocabularies, config: Config) -> dict[str, pa.Table]:
    """Return the tables of the offline views user_creator and user_tag: one row per pair, not truncated."""
    every, found = build_views(config), {}
    for kind, weights, vocabulary in (
        ("creator", states.creators, names.creators),
        ("tag", states.tags, names.tags),
    ):
        row = weights.key.row_of_value
        columns = {
            "user_id": decode_ids(names.users, user[row]),
            f"{kind}_id": decode_ids(vocabulary, weights.key.values),
            f"user_{kind}_weight": weights.weight.values,
        }
        found[f"user_{kind}"] = build_view_table(every[f"user_{kind}"], columns, states.state_time[row] + 1)
    return found


def build_view_table(view: View, columns: dict, time: np.ndarray) -> pa.Table:
    """Return a table in the view's schema; its rows are valid from `time` (N,) µs."""
    stamp = pa.array(time, pa.int64()).cast(TIME)
    columns = {**columns, TIMESTAMP: stamp, CREATED: stamp}
    return pa.table([_as(columns[field.name], field.type) for field in view.schema], schema=view.schema)


def decode_ids(vocabulary: Numbering, numbers: np.ndarray) -> pa.Array:
    """Return the ids (N,) of numbers, null for -1. Each distinct number is decoded once."""
    distinct, inverse = np.unique(numbers, return_inverse=True)
    none = int(len(distinct) > 0 and distinct[0] == NONE)
    ids = pa.array([None] * none + vocabulary.ids(distinct[none:]), pa.string())
    return ids.take(pa.array(inverse.ravel()))


def build_activity_columns(states: UserStates, config: Config) -> dict[str, np.ndarray]:
    """Return the columns of user_activity by name; `read_states` is the inverse."""
    rates = compute_sign_rates(states.signs)
    columns: dict[str, np.ndarray] = {
        "state_time_us": states.state_time,
        "first_time_us": states.first_time,
        "log_offset": states.log_offset,
    }
    columns |= {name_count_column(name): states.counts[:, c] for c, name in enumerate(config.events.names)}
    for s, sign in enumerate(SIGNS):
        columns |= {f"{sign}_{days}d": states.decayed[:, s, h] for h, days in enumerate(HALF_LIVES_DAYS)}
        columns |= {f"{sign}s_total": states.signs[:, s], f"{sign}_rate": rates[:, s]}
    return columns


def rank_affinities(weights: Affinities, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return keys (B, size) int32 by descending weight, -1 padded, and weights float32; rows hold at most `size`."""
    if compiled is not None:
        key, weight = np.empty((len(weights.key), size), np.int32), np.empty((len(weights.key), size), np.float32)
        if compiled.rank_weights(weights.key.values, weights.weight.values, weights.key.offsets, key, weight):
            return key, weight
    row, offsets = weights.key.row_of_value, weights.key.offsets
    order = np.lexsort((weights.key.values, -weights.weight.values, row))
    column = np.arange(len(row)) - offsets[row]
    key = np.full((len(weights.key), size), NONE, np.int32)
    weight = np.zeros(key.shape, np.float32)
    key[row, column] = weights.key.values[order]
    weight[row, column] = weights.weight.values[order]
    return key, weight


def _top(kind: str, weights: Affinities, vocabulary: Numbering, size: int) -> dict[str, pa.Array]:
    key, weight = rank_affinities(weights, size)
    offsets, known = weights.key.offsets, key != NONE
    return {
        f"top_{kind}s": build_lists(decode_ids(vocabulary, key[known]), offsets),
        f"top_{kind}_weights": build_lists(pa.array(weight[known]), offsets),
    }


def _history(states: UserStates, names: RowNames, config: Config) -> dict[str, pa.Array]:
    history = states.history
    known = history.item != NONE
    offsets = offsets_from_counts(known.sum(axis=1))
    types = pa.array(config.events.names, pa.string()).take(pa.array(history.type[known]))
    return {
        "history_item_ids": build_lists(decode_ids(names.items, history.item[known]), offsets),
        "history_types": build_lists(types, offsets),
        "history_times_us": build_lists(pa.array(history.time[known]), offsets),
        "history_weights": build_lists(pa.array(history.weight[known]), offsets),
    }


def build_lists(values: pa.Array, offsets: np.ndarray) -> pa.Array:
    """Return a list column from the values and offsets of a Ragged."""
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)


def _as(column, kind: pa.DataType) -> pa.Array:
    if isinstance(column, pa.Array):
        return column if column.type == kind else column.cast(kind)
    return pa.array(column, kind)


def read_states(rows: Rows, names: ItemNames, config: Config, rules: FoldRules | None = None) -> UserStates:
    """Read the states that B rows were written from; items, creators and tags that `names` lacks are left out.

    `rules` are those of the config, where they are known.
    """
    rules, n_types = rules or FoldRules.of(config), len(config.events.names)
    state_time, first_time, log_offset, seen_total = read_integers(rows, STATE_NUMBERS).T
    sums = read_floats(rows, (*map(name_count_column, config.events.names), *STATE_SUMS), missing=0.0)
    n = len(state_time)
    history, seen, creators, tags = _read_encoded(rows, names, config, rules)
    if history is None or seen is None:
        history, seen = _history_and_seen(rows, rules.empty_states(n), names, config)
    states = UserStates(
        state_time=state_time,
        first_time=first_time,
        log_offset=log_offset,
        counts=sums[:, :n_types],
        signs=sums[:, n_types : n_types + 2],
        decayed=sums[:, n_types + 2 :].reshape(-1, 2, len(HALF_LIVES_DAYS)),
        history=history,
        creators=_weights(rows, "creator", names.creators, n) if creators is None else creators,
        tags=_weights(rows, "tag", names.tags, n) if tags is None else tags,
        seen=seen,
        seen_total=seen_total,
    )
    return truncate(states, rules)  # a config may keep less than the one that wrote the rows


def _read_encoded(
    rows: Rows, names: ItemNames, config: Config, rules: FoldRules
) -> tuple[History | None, Seen | None, Affinities | None, Affinities | None]:
    """Read what states have besides numbers from bytes; None for what is not encoded, or not as it was written."""
    if not isinstance(rows, EncodedRows) or compiled is None:
        return None, None, None, None
    return (
        read_encoded_history(rows, names.items, config.events.names, rules),
        read_encoded_seen(rows, names.items),
        read_encoded_affinities(rows, "creator", names.creators),
        read_encoded_affinities(rows, "tag", names.tags),
    )


def _history_and_seen(rows: Rows, start: UserStates, names: ItemNames, config: Config) -> tuple[History, Seen]:
    """Read both, with one look-up of all their items."""
    history_ids, history_row = read_lists(rows, "history_item_ids")
    seen_ids, seen_row = read_lists(rows, "seen_item_ids")
    item = look_up_ids(concat_values(history_ids, seen_ids), names.items)
    n = len(history_row)
    past = Events.of(
        history_row,
        item[:n],
        encode_values(read_lists(rows, "history_types")[0], config.events.names),
        read_lists(rows, "history_times_us")[0],
        read_lists(rows, "history_weights")[0],
    )
    none = np.zeros(len(seen_row))
    seen_events = Events.of(seen_row, item[n:], none, read_lists(rows, "seen_times_us")[0], none)
    seen, _ = merge_seen(start.seen, seen_events.where(seen_events.item != NONE))
    return merge_history(start.history, past.where(past.item != NONE)), seen


def _weights(rows: Rows, kind: str, vocabulary: Numbering, n: int) -> Affinities:
    ids, row = read_lists(rows, f"top_{kind}s")
    weight = np.asarray(read_lists(rows, f"top_{kind}_weights")[0], np.float64)
    key = look_up_ids(ids, vocabulary)
    known = key != NONE
    return sum_affinities(row[known], key[known], weight[known], n)
