"""Compare the online rows of users with a replay: the rows of the batch job, and one fold of all stored events.

Batches round affinities to 32 bits, and what a row cuts off is gone: an affinity beyond features.affinity_size, a seen
item beyond features.seen_cap. So affinities of users with that many are left out of the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handsell.config import Config
from handsell.core.clock import Clock
from handsell.core.errors import FeatureError
from handsell.events.store.interface import Columns, EventReader
from handsell.events.store.opening import open_reader
from handsell.features.storage.row_updates import fold_into_rows
from handsell.features.store import FeatureStore, open_store
from handsell.features.views import USER_VIEWS
from handsell.serving.stream.processor import POSITION
from handsell.serving.stream.snapshots import ServedCatalog

USERS = 500  # compared at once
PAGE = 10_000  # events read at once
ALL = 1_000_000_000
RELATIVE, ABSOLUTE = 1e-4, 1e-6
PAIRS = {"seen_item_ids": "seen_times_us", "top_creators": "top_creator_weights", "top_tags": "top_tag_weights"}
UNCOMPARED = ("log_offset",)  # of a row, it may be that of an event before the user's last one in the batch rows


@dataclass(frozen=True, slots=True)
class ReplayComparison:
    """The result of comparing online rows with a replay."""

    users: int  # with stored events
    events: int  # stored
    unread: int  # events that the processor has not folded yet: compare again when there are none
    differing: tuple[str, ...]  # users, each with the columns that differ

    @property
    def equal(self) -> bool:
        return not self.unread and not self.differing


def compare_online_with_replay(config: Config) -> ReplayComparison:
    """Compare the online row of every user with stored events with a replay of them."""
    reader, store, snapshot = open_reader(config), open_store(config), ServedCatalog(config).snapshot()
    try:
        unread = len(reader.scan(reader.read_position(POSITION), PAGE)["offset"])
        users, events = _count_users(reader)
        differing: list[str] = []
        for begin in range(0, len(users), USERS):
            some = users[begin : begin + USERS]
            tails = reader.read_tails(some, [0] * len(some), ALL)
            expected: dict[str, Any] = {}
            for table in fold_into_rows(_read_batch_rows(store, some), some, tails, snapshot, config).values():
                expected |= {name: table[name].to_pylist() for name in table.column_names}
            differing += find_differences(some, store.online_users(some), expected, config)
        return ReplayComparison(len(users), events, unread, tuple(differing))
    finally:
        reader.close()


def find_differences(
    user_ids: Sequence[str], rows: Mapping[str, Sequence[Any]], expected: Mapping[str, Sequence[Any]], config: Config
) -> list[str]:
    """Return a line for each user whose row differs from the expected one, with the columns and both values."""
    lines = []
    names = [name for name in expected if name in rows and name not in (*UNCOMPARED, *PAIRS.values())]
    for place, user_id in enumerate(user_ids):
        one = {name: _read_cell(rows, name, place) for name in names}
        other = {name: _read_cell(expected, name, place) for name in names}
        found = [
            f"{name}: expected {other[name]!r:.60}, got {one[name]!r:.60}"
            for name in names
            if not _is_cut(name, other[name], config) and not _is_close(one[name], other[name])
        ]
        if found:
            lines.append(f"{user_id}: {'; '.join(found)}")
    return lines


def _count_users(reader: EventReader) -> tuple[list[str], int]:
    """Return the users with stored events in order of their first, and the number of events."""
    users: dict[str, None] = {}
    events, after = 0, 0
    while (page := reader.scan(after, PAGE))["offset"]:
        users |= dict.fromkeys(page["user_id"])
        events, after = events + len(page["offset"]), page["offset"][-1]
    return list(users), events


def _read_batch_rows(store: FeatureStore, user_ids: Sequence[str]) -> Columns:
    """Return the newest batch rows; empty ones before the first run of the features job."""
    try:
        rows = store.historical_users(user_ids, np.full(len(user_ids), Clock().now()))
    except FeatureError:
        return {name: [None] * len(user_ids) for view in USER_VIEWS for name in store.views[view].names}
    return {name: column.to_pylist() for name, column in rows.items()}


def _read_cell(rows: Mapping[str, Sequence[Any]], name: str, place: int) -> Any:
    """Return a cell; of two parallel lists whose order has no meaning, a dictionary."""
    cell = rows[name][place]
    if name not in PAIRS:
        return cell
    return dict(zip(cell or (), rows[PAIRS[name]][place] or (), strict=True))


def _is_cut(name: str, cell: Any, config: Config) -> bool:
    """Whether a row may have lost a part of this column, which a later event would have needed."""
    features = config.features
    return name in PAIRS and len(cell) >= (features.seen_cap if name == "seen_item_ids" else features.affinity_size)


def _is_close(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return one == other
