"""Build requests from the feature rows, logged events and exclusions of their users.

`build_requests_from_rows` converts feature rows to requests: point-in-time rows in training and skew checks, online
rows in serving. `build_requests` calls it for online rows and adds the events logged since a row was written, the
session events of the query, and the exclusions by user. Serving, batch slates and rule previews call `build_requests`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Profile, Ragged, Requests, Seen, UserExclusions
from handsell.core.errors import FeatureError
from handsell.core.failures import Failures
from handsell.core.paths import Layout
from handsell.data.numbering import look_up, type_codes
from handsell.data.weights import compute_event_weights
from handsell.events.exclusions import apply_known_blocks, count_ignored, load_exclusions
from handsell.events.fold import fold, move_last_event, truncate
from handsell.events.known_blocks import KnownBlocks
from handsell.events.states import Events, FoldRules, ItemAttributes, UserStates
from handsell.events.store.interface import EventReader
from handsell.events.table_keys import TableKeys
from handsell.features.row_columns import Rows, read_attributes, read_floats, read_integers
from handsell.features.rows import ItemNames, rank_affinities, read_states
from handsell.features.user import compute_user_features

JUST_NOW = np.iinfo(np.int64).max  # placeholder time of an event without a timestamp


@dataclass(frozen=True, slots=True)
class QueryBatch:
    """B queries before their users are looked up: user, time, surface, and the caller's own options."""

    user_id: Sequence[str | None]  # as in the event log and the feature store; None for a visitor without an id
    time: np.ndarray  # (B,) int64 µs, as of
    surface: np.ndarray  # (B,) int8
    session: Events  # session events of the queries, by row
    exclude: Ragged  # (B, *) int32 items
    creators: Ragged  # (B, *) int32 that the caller excludes
    tags: Ragged  # (B, *) int32 likewise
    filter: Sequence[str | None]
    seed: np.ndarray | None = None  # (B,) uint64

    @classmethod
    def of(cls, user_id: Sequence[str | None], time: np.ndarray, surface: np.ndarray) -> QueryBatch:
        """Build queries without session events, exclusions and filters."""
        none = Ragged.empty(len(user_id))
        return cls(user_id, time, surface, Events.none(), none, none, none, [None] * len(user_id))

    def __len__(self) -> int:
        return len(self.user_id)

    def take(self, places: np.ndarray) -> QueryBatch:
        """Return the queries at places (P,)."""
        return QueryBatch(
            [self.user_id[b] for b in places], self.time[places], self.surface[places], self.session.take(places),
            self.exclude.take(places), self.creators.take(places), self.tags.take(places),
            [self.filter[b] for b in places], None if self.seed is None else self.seed[places],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class BuiltRequests:
    """Requests, and how much data their users have."""

    requests: Requests
    cold: np.ndarray  # (B,) bool, the user has no earlier events


@dataclass(frozen=True, slots=True)
class Logged:
    """What the event store knows of the users of B queries."""

    tail: Events  # since their feature rows were written
    exclusions: UserExclusions | None
    impressions: Seen | None = None  # those by which items may be ignored

    def take(self, places: np.ndarray) -> Logged:
        """Return what is known of the users at places (P,)."""
        exclusions, impressions = self.exclusions, self.impressions
        return Logged(
            self.tail.take(places),
            None if exclusions is None else exclusions.take(places),
            None if impressions is None else impressions.take(places),
        )

    @classmethod
    def unread(cls, queries: QueryBatch, blocks: KnownBlocks | None, snapshot: Snapshot) -> Logged:
        """Return what is known while the store cannot be read; users whose blocks are unknown are shown nothing."""
        known = apply_known_blocks(blocks, queries.user_id, snapshot)
        return cls(Events.none(), _exclude_named(queries, known))


def build_requests(
    queries: QueryBatch,
    rows: Rows,
    reader: EventReader,
    snapshot: Snapshot,
    config: Config,
    failures: Failures,
    *,
    without_later_events: bool = False,
    away: np.ndarray | None = None,
) -> BuiltRequests:
    """Build requests from online rows, the event log and the queries.

    Where the log cannot be read, `failures` names "event_log" or "shown_and_blocked", and users whose blocks are
    unknown are shown nothing. Where rows are unusable, it names "features" and the rows count as empty. With strict
    `failures`, the error is raised instead. Logged events at or after the query's time count as having just happened,
    unless `without_later_events` leaves them out. `away` as in `build_requests_from_rows`.
    """
    logged = read_logged(queries, rows, reader, snapshot, config, failures, without_later_events)
    return complete_requests(queries, rows, logged, snapshot, config, failures, away)


def read_logged(
    queries: QueryBatch,
    rows: Rows,
    reader: EventReader,
    snapshot: Snapshot,
    config: Config,
    failures: Failures,
    without_later_events: bool = False,
    blocks: KnownBlocks | None = None,
) -> Logged:
    """Read what the event store knows of the users; see `build_requests`. A gateway calls it in a thread: it waits.

    `blocks` are applied where those in the store cannot be read.
    """
    tail = Events.none()
    with failures.tolerate("event_log"):
        tail = read_tail(queries, rows, reader, snapshot, config, without_later_events)
    with failures.tolerate("shown_and_blocked"):
        return Logged(tail, *_read_exclusions(queries, reader, snapshot, config))
    return replace(Logged.unread(queries, blocks, snapshot), tail=tail)


def complete_requests(
    queries: QueryBatch,
    rows: Rows,
    logged: Logged,
    snapshot: Snapshot,
    config: Config,
    failures: Failures,
    away: np.ndarray | None = None,
) -> BuiltRequests:
    """Build requests from online rows, what was read from the event store, and the queries."""

    def build(rows: Rows) -> Requests:
        requests = build_requests_from_rows(
            rows, snapshot, config, queries.time, queries.surface, exclude=queries.exclude,
            events=Events.concatenate([logged.tail, queries.session]), away=away,
        )  # fmt: skip
        exclusions = logged.exclusions
        if exclusions is not None and logged.impressions is not None:
            exclusions = count_ignored(exclusions, logged.impressions, requests.seen)
        return requests.with_filters(queries.filter, exclusions=exclusions, seed=queries.seed)

    requests = None
    with failures.tolerate("features"):
        requests = build(rows)
    if requests is None:
        rows = {name: [None] * len(queries) for name in rows}
        requests = build(rows)
    state_time = [t or 0 for t in rows["state_time_us"]]
    cold = np.array([t == 0 for t in state_time], bool)
    cold[logged.tail.row] = False
    return BuiltRequests(requests, cold)


def read_tail(
    queries: QueryBatch, rows: Rows, reader: EventReader, snapshot: Snapshot, config: Config, without_later: bool
) -> Events:
    """Read the users' events after the log offset of their row.

    Types that the config lacks are left out, and events that the tables have, too: the row counts them.
    """
    after: dict[str, int] = {}
    for user_id, offset in zip(queries.user_id, rows["log_offset"], strict=True):
        if user_id is not None:
            after[user_id] = min(int(offset or 0), after.get(user_id, JUST_NOW))
    tails = reader.read_tails(list(after), list(after.values()))
    if not tails["time"]:
        return Events.none()
    in_tables = get_table_keys(Layout(config.state).event_keys)
    begin = np.searchsorted(tails.pop("row"), np.arange(len(after) + 1))
    places = dict(zip(after, zip(begin[:-1].tolist(), begin[1:].tolist(), strict=True), strict=True))
    row: list[int] = []
    kept: list[int] = []
    for b, (user_id, time) in enumerate(zip(queries.user_id, queries.time.tolist(), strict=True)):
        first, last = places[user_id] if user_id is not None else (0, 0)
        if first == last:
            continue
        sent = tails["time"][first:last]
        known = in_tables.contain(_read_cell(rows, "user_number", b, NONE), tails["key"][first:last])
        known &= np.array(sent) <= _read_cell(rows, "state_time_us", b, 0)  # an older row lacks newer events
        mine = [
            first + i for i, at in enumerate(sent)
            if tails["type"][first + i] in config.events.types and not known[i] and not (without_later and at >= time)
        ]  # fmt: skip
        row += [b] * len(mine)
        kept += mine
    columns = {name: [cells[i] for i in kept] for name, cells in tails.items()}
    return build_events(columns, np.array(row, np.int64), snapshot, config) if row else Events.none()


@cache
def get_table_keys(folder: Path) -> TableKeys:
    """Return the keys in a folder; all requests of a process share them."""
    return TableKeys(folder)


def _read_cell(rows: Rows, name: str, row: int, missing: int) -> int:
    cell = rows[name][row] if name in rows else None
    return missing if cell is None else int(cell)


def _read_exclusions(
    queries: QueryBatch, reader: EventReader, snapshot: Snapshot, config: Config
) -> tuple[UserExclusions | None, Seen | None]:
    """Read the exclusions of each user, and add the creators and tags that the caller excludes; see load_exclusions."""
    loaded = load_exclusions(reader, queries.user_id, queries.time, queries.surface, snapshot, config)
    found, impressions = (None, None) if loaded is None else loaded
    if found is None and not len(queries.creators.values) and not len(queries.tags.values):
        return None, impressions
    return _exclude_named(queries, found or UserExclusions.empty(len(queries))), impressions


def _exclude_named(queries: QueryBatch, found: UserExclusions) -> UserExclusions:
    """Add the creators and tags that the caller excludes."""
    if not len(queries.creators.values) and not len(queries.tags.values):
        return found
    creators = [np.union1d(queries.creators.row(b), found.creator.row(b)) for b in range(len(queries))]
    tags = [np.union1d(queries.tags.row(b), found.tag.row(b)) for b in range(len(queries))]
    return replace(found, creator=Ragged.from_rows(creators), tag=Ragged.from_rows(tags))


def build_requests_from_rows(
    rows: Rows,
    snapshot: Snapshot,
    config: Config,
    time: np.ndarray,
    surface: np.ndarray,
    *,
    exclude: Ragged | None = None,
    events: Events | None = None,
    user: np.ndarray | None = None,
    away: np.ndarray | None = None,
) -> Requests:
    """Build B requests as of time (B,) µs on surfaces (B,) from the user service's columns.

    `events` (see `build_events`) are folded in: those logged after a row's `log_offset`, and those of the query. An
    event that is not before its request counts as having just happened. `user` (B,) replaces the stored `user_number`.
    `away` (B,) µs moves a user's past so that the last event lies that long before the request (see `move_last_event`);
    a negative value leaves it. Raises FeatureError naming a column that `rows` lacks.
    """
    rules = FoldRules.of(config)
    states = read_states(rows, snapshot, config, rules)
    if len(states) != len(time):
        raise FeatureError(f"expected rows for {len(time)} requests, got {len(states)}: one row per request")
    if events is not None and len(events):
        states = truncate(_fold_events(states, events, time, snapshot, rules), rules)
    if away is not None:
        states = move_last_event(states, np.where(away >= 0, np.asarray(time) - away, states.state_time))
    if user is None:
        user = read_integers(rows, ("user_number",), missing=NONE)[:, 0]
    columns = read_floats(rows, config.features.user_columns) if config.features.user_columns else None
    size = config.features.affinity_size
    (creator, creator_weight), (tag, tag_weight) = (
        rank_affinities(states.creators, size),
        rank_affinities(states.tags, size),
    )
    return Requests(
        user=np.asarray(user, np.int32),
        time=np.asarray(time, np.int64),
        surface=np.asarray(surface, np.int8),
        history=states.history,
        profile=Profile(compute_user_features(states, time, columns), creator, creator_weight, tag, tag_weight),
        seen=states.seen,
        exclude=Ragged.empty(len(time)) if exclude is None else exclude,
        attributes=read_attributes(rows, config),
    )


def build_events(columns: Mapping[str, Sequence[Any]], row: np.ndarray, names: ItemNames, config: Config) -> Events:
    """Build events from the columns type, item_id, time (µs; None = just now), value and, from the log, offset.

    `row` (N,) is the request of each event. Raises DataError on an event type that the config lacks.
    """
    types = type_codes(pa.array(columns["type"], pa.string()), config.events)
    value = [np.nan if v is None else v for v in columns.get("value", [None] * len(types))]
    return Events.of(
        row,
        look_up(pa.array(columns["item_id"], pa.string()), names.items),
        types,
        np.array([JUST_NOW if t is None else t for t in columns["time"]], np.int64),
        compute_event_weights(types, np.array(value, np.float32), config.events),
        columns.get("offset"),
    )


def _fold_events(
    states: UserStates, events: Events, time: np.ndarray, snapshot: Snapshot, rules: FoldRules
) -> UserStates:
    """Fold logged events first, then those of the query that are not in the history yet."""
    items = ItemAttributes(snapshot.creator, snapshot.item_tags)
    before = np.minimum(events.time, np.asarray(time)[events.row] - 1)
    events = Events(events.row, events.item, events.type, before, events.weight, events.offset)
    logged = events.offset > 0
    states = fold(states, events.where(logged), items, rules)
    carried, past = events.where(~logged), states.history
    known = (past.item[carried.row] == carried.item[:, None]) & (past.type[carried.row] == carried.type[:, None])
    known &= past.time[carried.row] == carried.time[:, None]
    return fold(states, carried.where(~known.any(axis=1)), items, rules)
