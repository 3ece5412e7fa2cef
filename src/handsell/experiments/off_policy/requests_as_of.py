"""Requests of logged slates, rebuilt as of their time from the numbered log and the event store.

User states are folded from the events before each slate, written as feature rows and read by the function that serving
calls. What a request carried besides (filters, session events, excluded items) is not logged: a slate that depended on
it is not reproduced, which `evaluation` counts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Requests
from handsell.core.failures import Failures
from handsell.core.paths import Layout
from handsell.data.interaction_parts import list_parts, read_users
from handsell.data.interactions import Interactions
from handsell.events.states import FoldRules, ItemAttributes
from handsell.events.store.interface import EventReader
from handsell.experiments.assignment import hash_units
from handsell.experiments.off_policy.logged_impressions import LoggedSlates, read_events_through
from handsell.features.feature_times import find_last_before, fold_at
from handsell.features.request_builder import QueryBatch, build_requests
from handsell.features.row_columns import Rows
from handsell.features.rows import Vocabularies, build_user_rows
from handsell.features.views import USER_VIEWS, build_views

READ_BY_CELL = ("user_number", "log_offset", "state_time_us")  # columns that the request builder reads as Python values


def build_requests_as_of(
    slates: LoggedSlates, seed: np.ndarray, snapshot: Snapshot, config: Config, reader: EventReader
) -> Requests:
    """Build the request of each slate with a seed (N,) uint64; `snapshot` is that of the bundle that answers them."""
    names = Vocabularies.load(Layout(config.state).catalog)
    user_id: list[str | None] = slates.user_id.tolist()
    user = names.users.number(["" if one is None else one for one in user_id])
    columns = _build_rows(user, slates.time, names, snapshot, config)
    rows: Rows = {**columns, **{name: columns[name].to_pylist() for name in READ_BY_CELL}}
    queries = replace(QueryBatch.of(user_id, slates.time, slates.surface), seed=seed)
    strict = Failures(strict=True)
    built = build_requests(queries, rows, reader, snapshot, config, strict, without_later_events=True)
    unit = hash_units(user_id)
    return replace(built.requests, unit=unit)


def _build_rows(
    user: np.ndarray, time: np.ndarray, names: Vocabularies, snapshot: Snapshot, config: Config
) -> dict[str, pa.Array]:
    """Return the columns of the feature row of each user (N,) as of a time (N,); null without events before it."""
    events = _read_events(np.unique(user[user != NONE]), names, config)
    last = find_last_before(events, user, time)
    last[user == NONE] = NONE
    wanted = np.unique(last[last != NONE])
    items = ItemAttributes(snapshot.creator, snapshot.item_tags)
    through, every = read_events_through(config), build_views(config)
    tables: dict[str, list[pa.Table]] = {view: [every[view].schema.empty_table()] for view in USER_VIEWS}
    for folded, states, _ in fold_at(events, wanted, items, FoldRules.of(config)):
        states = replace(states, log_offset=np.full(len(states), through, np.int64))
        for view, table in build_user_rows(states, folded, names, config).items():
            tables[view].append(table)
    of_user = events.user[wanted]
    turn = np.arange(len(wanted)) - np.searchsorted(of_user, of_user)  # `fold_at` yields each user's r-th time together
    place = np.argsort(np.argsort(turn, kind="stable"), kind="stable")
    row = place[np.minimum(np.searchsorted(wanted, last), max(len(wanted) - 1, 0))] if len(wanted) else last
    at = pa.array(row, mask=last == NONE)
    columns: dict[str, pa.Array] = {}
    for view in USER_VIEWS[1:]:
        whole = pa.concat_tables(tables[view]).combine_chunks()
        columns |= {name: whole[name].combine_chunks().take(at) for name in every[view].names}
    return columns | _read_profiles(user, config)


def _read_events(users: np.ndarray, names: Vocabularies, config: Config) -> Interactions:
    """Read the events of some users (sorted numbers)."""
    parts = list_parts(Layout(config.state).interactions)
    tables = [
        read_users(part, mine) for p, part in enumerate(parts) if len(mine := users[users % len(parts) == p])
    ] or [read_users(part, users[:0]) for part in parts[:1]]
    return Interactions.from_table(pa.concat_tables(tables), len(names.users), len(names.items))


def _read_profiles(user: np.ndarray, config: Config) -> dict[str, pa.Array]:
    """Return the columns of user_profile of each user (N,), as of now: attributes have no history."""
    view = build_views(config)["user_profile"]
    table = pq.read_table(Layout(config.state).features / view.name, columns=list(view.names))
    number = table["user_number"].combine_chunks()
    at = pc.index_in(pa.array(user.astype(np.int64)), number)
    return {name: table[name].combine_chunks().take(at) for name in view.names}
