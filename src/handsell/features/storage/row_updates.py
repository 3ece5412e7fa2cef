"""Fold logged events into the stored rows of their users, with the fold of the batch job and of requests.

Rows hold string ids. Ids of a row that the current catalog lacks stay in it: they may be those of a newer one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Any

import numpy as np
import pyarrow as pa

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Ragged
from handsell.core.paths import Layout
from handsell.events.fold import fold
from handsell.events.states import Events, FoldRules, ItemAttributes
from handsell.events.store.interface import Columns
from handsell.features.request_builder import build_events, get_table_keys
from handsell.features.row_columns import Rows, read_integers
from handsell.features.rows import build_user_rows, read_states


class LocalIds:
    """Numbers of the ids of one batch, in the order given; has the look-ups of a Vocabulary."""

    def __init__(self, ids: Iterable[str]):
        self._ids = list(dict.fromkeys(ids))
        self._numbers = {text: number for number, text in enumerate(self._ids)}

    def __len__(self) -> int:
        return len(self._ids)

    def number(self, ids: Sequence[str]) -> np.ndarray:
        """(M,) int32 numbers, -1 for unknown ids."""
        return np.fromiter(map(self._numbers.get, ids, repeat(NONE)), np.int32, len(ids))

    def ids(self, numbers: np.ndarray) -> list[str]:
        return [self._ids[number] for number in numbers]


@dataclass(frozen=True, slots=True)
class BatchNames:
    """The ids that occur in a batch of rows and events."""

    users: LocalIds
    items: LocalIds
    creators: LocalIds
    tags: LocalIds


def fold_into_rows(
    rows: Rows, user_ids: Sequence[str], events: Columns, snapshot: Snapshot, config: Config
) -> dict[str, pa.Table]:
    """Return the rows of B users by view name after events (N,) of the log, in order of offsets; `row` is their user.

    `rows` are the stored rows. Events up to a row's `log_offset` change nothing. Events that the tables have, and types
    that the config lacks, are left out as in requests. The new `log_offset` is that of the user's last event.
    """
    row, offset = np.asarray(events["row"], np.int64), np.asarray(events["offset"], np.int64)
    kept = np.flatnonzero(_find_uncounted(rows, row, events, config))
    fresh = {name: [events[name][i] for i in kept] for name in ("type", "item_id", "time", "value", "offset")}
    names, items = _name_batch(rows, user_ids, fresh["item_id"], snapshot)
    states = read_states(rows, names, config)
    folded: Events = build_events(fresh, row[kept], names, config)
    states = fold(states, folded, items, FoldRules.of(config))
    through = states.log_offset.copy()
    np.maximum.at(through, row, offset)
    return build_user_rows(replace(states, log_offset=through), np.arange(len(user_ids)), names, config)


def _find_uncounted(rows: Rows, row: np.ndarray, events: Columns, config: Config) -> np.ndarray:
    """(N,) bool: the type is known and the row does not count the event as one of the tables."""
    known_type = np.fromiter((name in config.events.types for name in events["type"]), bool, len(row))
    in_tables, keys = get_table_keys(Layout(config.state).event_keys), events.get("key")
    if keys is None or not len(row):
        return known_type
    user = read_integers(rows, ("user_number",), missing=NONE)[:, 0]
    state_time = read_integers(rows, ("state_time_us",))[:, 0]
    time = np.asarray(events["time"], np.int64)
    counted = np.zeros(len(row), bool)
    order = np.argsort(row, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(row[order])) + 1):
        counted[own] = in_tables.contain(int(user[row[own[0]]]), [keys[i] for i in own])
    return known_type & ~(counted & (time <= state_time[row]))  # an older row lacks newer events of the tables


def _name_batch(
    rows: Rows, user_ids: Sequence[str], item_ids: Sequence[str], snapshot: Snapshot
) -> tuple[BatchNames, ItemAttributes]:
    """Number the ids of rows and events; return them with the attributes of the events' items."""
    acted = list(dict.fromkeys(item_ids))
    number = snapshot.items.number(acted)
    known = np.flatnonzero(number != NONE)
    creator = np.asarray(snapshot.creator)[number[known]]
    has_creator = creator != NONE
    creators = snapshot.creators.ids(creator[has_creator])
    place, of = snapshot.item_tags.positions(number[known])
    tags = snapshot.tags.ids(np.asarray(snapshot.item_tags.values)[place])
    names = BatchNames(
        users=LocalIds(user_ids),
        items=LocalIds(chain(acted, _read_ids(rows, "history_item_ids"), _read_ids(rows, "seen_item_ids"))),
        creators=LocalIds(chain(creators, _read_ids(rows, "top_creators"))),
        tags=LocalIds(chain(tags, _read_ids(rows, "top_tags"))),
    )
    of_item = np.full(len(names.items), NONE, np.int32)  # the events' items come first
    of_item[known[has_creator]] = names.creators.number(creators)
    counts = np.bincount(known[of], minlength=len(names.items))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return names, ItemAttributes(of_item, Ragged(names.tags.number(tags), offsets))


def _read_ids(rows: Rows, name: str) -> Iterable[Any]:
    """Return the ids in a list column of all rows."""
    column = rows[name]
    cells = column.to_pylist() if isinstance(column, pa.Array) else column
    return chain.from_iterable(cell for cell in cells if isinstance(cell, list | tuple))
