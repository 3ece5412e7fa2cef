"""What is known of the users of a batch: their feature rows, and what they did since those were written."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import Ragged, Requests, UserExclusions
from handsell.events.exclusions import load_exclusions
from handsell.events.reader import EventReader
from handsell.events.states import Events
from handsell.features.request_builder import events_from, requests_from_rows
from handsell.features.views import USER_VIEWS, views
from handsell.serving.graph.circuit_breaker import STALL, Breaker
from handsell.serving.http.queries import Query

log = logging.getLogger(__name__)

Rows = dict[str, list[Any]]


class UserStore(Protocol):
    def online_users(self, user_ids: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        """Column → one cell per user, None where there is no row."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """A batch as requests; `cold` (B,) bool where nothing was known of the user before; what went wrong."""

    requests: Requests
    cold: np.ndarray
    degraded: tuple[str, ...]
    age_s: list[float]  # since the last folded event, of users who have a row


class Users:
    """One feature store read per batch, in a thread of its own so that a stuck store holds up nobody else."""

    def __init__(self, store: UserStore, log_reader: EventReader, snapshot: Snapshot, config: Config):
        self._store, self._reader, self._snapshot, self._config = store, log_reader, snapshot, config
        self._thread = ThreadPoolExecutor(1, "feature-store")
        self._breaker = Breaker("the feature store", STALL * config.serving.deadline_ms / 1_000)
        every = views(config)
        self._columns = tuple(name for view in USER_VIEWS for name in every[view].names)

    async def known(self, queries: Sequence[Query], limit: float) -> Known:
        """Requests for a batch of queries; `limit` is the event loop time by which the store must have answered."""
        degraded = []
        try:
            rows = await self._rows(queries, limit)
        except Exception:
            log.exception("the feature store did not answer; serving with default features")
            rows, degraded = self._nothing(len(queries)), ["features"]
        try:
            tail = self._tails(queries, rows)
        except Exception:
            log.exception("the event log cannot be read; serving without the latest events")
            tail, degraded = Events.of([], [], [], [], []), [*degraded, "event_log"]
        kept_away, unread = self._exclusions(queries)
        degraded += unread
        try:
            requests = self._requests(queries, rows, tail)
        except Exception:
            log.exception("feature rows are not usable; serving with default features")
            rows, degraded = self._nothing(len(queries)), [*degraded, "features"]
            requests = self._requests(queries, rows, tail)
        requests = replace(requests, exclusions=kept_away)
        state_time = [t or 0 for t in rows["state_time_us"]]
        cold = np.array([t == 0 for t in state_time])
        cold[tail.row] = False
        ages = [(q.time - t) / 1e6 for q, t in zip(queries, state_time, strict=True) if t]
        return Known(requests, cold, tuple(dict.fromkeys(degraded)), ages)

    async def _rows(self, queries: Sequence[Query], limit: float) -> Rows:
        """The store's rows in query order; visitors without an id have none."""
        asked = {b: q.user_id for b, q in enumerate(queries) if q.user_id is not None}
        rows = self._nothing(len(queries))
        if not asked:
            return rows
        ids = list(dict.fromkeys(asked.values()))
        loop = asyncio.get_running_loop()
        found = await self._breaker.wait(
            lambda: loop.run_in_executor(self._thread, self._store.online_users, ids), limit
        )
        place = {user_id: i for i, user_id in enumerate(ids)}
        rows.update({name: [None] * len(queries) for name in found})
        for name, cells in found.items():
            for b, user_id in asked.items():
                rows[name][b] = cells[place[user_id]]
        return rows

    def _nothing(self, n: int) -> Rows:
        return {name: [None] * n for name in self._columns}

    def _tails(self, queries: Sequence[Query], rows: Rows) -> Events:
        """What each user did beyond the offset that the row has folded already."""
        parts: list[Events] = []
        for b, query in enumerate(queries):
            if query.user_id is None:
                continue
            tail = self._reader.read_tail(query.user_id, int(rows["log_offset"][b] or 0))
            if tail["type"]:
                known = [i for i, name in enumerate(tail["type"]) if name in self._config.events.types]
                tail = {name: [cells[i] for i in known] for name, cells in tail.items()}
                parts.append(events_from(tail, np.full(len(known), b), self._snapshot, self._config))
        return joined(parts)

    def _exclusions(self, queries: Sequence[Query]) -> tuple[UserExclusions | None, list[str]]:
        """What each may not be shown, and what could not be read: then nothing at all is shown to those concerned."""
        surface = np.array([q.surface for q in queries], np.int8)
        time = np.array([q.time for q in queries], np.int64)
        ids = [q.user_id for q in queries]
        try:
            found = load_exclusions(self._reader, ids, time, surface, self._snapshot, self._config)
        except Exception:
            log.exception("the event log cannot be read; nothing is shown to users whose blocks are not known")
            unknown = np.array([user_id is not None for user_id in ids])
            return replace(UserExclusions.empty(len(queries)), unreadable=unknown), ["shown_and_blocked"]
        if not any(len(q.creators) or len(q.tags) for q in queries):
            return found, []
        found = found or UserExclusions.empty(len(queries))
        creators = [np.union1d(q.creators, found.creator.row(b)) for b, q in enumerate(queries)]
        tags = [np.union1d(q.tags, found.tag.row(b)) for b, q in enumerate(queries)]
        return replace(found, creator=Ragged.from_rows(creators), tag=Ragged.from_rows(tags)), []

    def blocks(self, user_id: str) -> dict[str, list[str]]:
        """Creators and tags that a user blocks; raises sqlite3.Error."""
        creators, tags = self._reader.read_blocks([user_id]).get(user_id, ([], []))
        return {"creators": creators, "tags": tags}

    def _requests(self, queries: Sequence[Query], rows: Rows, tail: Events) -> Requests:
        sessions = [at_row(query.session, b) for b, query in enumerate(queries) if len(query.session)]
        requests = requests_from_rows(
            rows,
            self._snapshot,
            self._config,
            time=np.array([q.time for q in queries], np.int64),
            surface=np.array([q.surface for q in queries], np.int8),
            exclude=Ragged.from_rows([q.exclude for q in queries]),
            events=joined([tail, *sessions]),
        )
        seed = np.array([seed_of(q.recommendation_id) for q in queries], np.uint64)
        return replace(requests.with_filters([q.filter for q in queries]), seed=seed)

    def anonymous(self, queries: Sequence[Query]) -> Requests:
        """Requests of visitors of whom nothing is known; asks nobody."""
        return self._requests(queries, self._nothing(len(queries)), joined([]))

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._reader.close()


def seed_of(recommendation_id: str) -> int:
    """64 bits of an answer's id: what was drawn for it can be drawn again."""
    return int.from_bytes(hashlib.blake2b(recommendation_id.encode(), digest_size=8).digest(), "big")


def joined(parts: Sequence[Events]) -> Events:
    """Events end to end."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return Events.of([], [], [], [], [])
    return Events(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Events)))


def at_row(events: Events, row: int) -> Events:
    """The same events for another row of a batch."""
    return Events.of(np.full(len(events), row), *(getattr(events, f.name) for f in fields(Events)[1:]))
