"""Look up the users of a batch: their feature rows, latest events and exclusions."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from handsell.config import Config
from handsell.core.batches import Ragged, Requests
from handsell.core.failures import Failures
from handsell.events.live_catalog import LiveCatalog, Users
from handsell.events.states import Events
from handsell.events.store.interface import EventReader
from handsell.features.request_builder import (
    BuiltRequests,
    OnlineRows,
    QueryBatch,
    UserStore,
    build_requests,
    build_requests_from_rows,
)
from handsell.features.row_columns import Rows, get_column
from handsell.serving.graph.circuit_breaker import STALL, Breaker
from handsell.serving.http.queries import Query


class UserLookup:
    """One feature store read per batch, in its own thread, so that a store that hangs blocks nothing else."""

    def __init__(self, store: UserStore, reader: EventReader, catalog: LiveCatalog, config: Config):
        self._rows, self._reader, self._catalog, self._config = OnlineRows(store, config), reader, catalog, config
        self._thread = ThreadPoolExecutor(1, "feature-store")
        self._breaker = Breaker("the feature store", STALL * config.serving.deadline_ms / 1_000)

    async def build_requests(self, queries: Sequence[Query], limit: float, failures: Failures) -> BuiltRequests:
        """Requests for a batch of queries; `limit` is the event loop time by which the store must have answered."""
        batch = build_query_batch(queries)
        rows: Rows = self._rows.empty(len(queries))
        with failures.tolerate("features"):
            rows = await self._read(batch.user_id, limit)
        rows = change_attributes(rows, batch.user_id, self._catalog.users)
        return build_requests(batch, rows, self._reader, self._catalog.snapshot, self._config, failures)

    async def _read(self, user_ids: Sequence[str | None], limit: float) -> dict[str, list[Any]]:
        if all(user_id is None for user_id in user_ids):
            return self._rows.empty(len(user_ids))
        loop = asyncio.get_running_loop()
        return await self._breaker.wait(lambda: loop.run_in_executor(self._thread, self._rows.read, user_ids), limit)

    async def read_attributes(self, user_id: str, limit: float) -> dict[str, Any] | None:
        """Read the attributes that filters and the ranker may read; None for a user that the store does not know."""
        row = await self._read([user_id], limit)
        if get_column(row, "user_number")[0] is None:
            return None
        return {name: row[name][0] for name in self._config.features.filter_attributes}

    async def forget_users(self, user_ids: Sequence[str], limit: float) -> None:
        """Remove the online rows of users."""
        loop = asyncio.get_running_loop()
        await self._breaker.wait(lambda: loop.run_in_executor(self._thread, self._rows.forget, user_ids), limit)

    def read_blocks(self, user_id: str) -> dict[str, list[str]]:
        """Creators and tags that a user blocks; raises EventStoreError."""
        creators, tags = self._reader.read_blocks([user_id]).get(user_id, ([], []))
        return {"creators": creators, "tags": tags}

    def build_visitor_request(self, query: Query) -> Requests:
        """Build the request of an unknown visitor, without reading the store or the log."""
        batch = build_query_batch([query])
        requests = build_requests_from_rows(
            self._rows.empty(1), self._catalog.snapshot, self._config, batch.time, batch.surface, exclude=batch.exclude
        )
        return requests.with_filters(batch.filter)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._reader.close()


def change_attributes(rows: Rows, user_ids: Sequence[str | None], users: Users) -> Rows:
    """Return feature rows (B) with the attributes that catalog changes have given to their users since."""
    changed = [(b, users[one]) for b, one in enumerate(user_ids) if one is not None and one in users] if users else []
    if not changed:
        return rows
    found = {name: list(rows[name]) for name in {name for _, fields in changed for name in fields} & set(rows)}
    for b, fields in changed:
        for name, value in fields.items():
            if name in found:
                found[name][b] = value
    return {**rows, **found}


def build_query_batch(queries: Sequence[Query]) -> QueryBatch:
    return QueryBatch(
        user_id=[q.user_id for q in queries],
        time=np.array([q.time for q in queries], np.int64),
        surface=np.array([q.surface for q in queries], np.int8),
        session=Events.concatenate([q.session.at_row(b) for b, q in enumerate(queries)]),
        exclude=Ragged.from_rows([q.exclude for q in queries]),
        creators=Ragged.from_rows([q.creators for q in queries]),
        tags=Ragged.from_rows([q.tags for q in queries]),
        filter=[q.filter for q in queries],
        seed=np.array([derive_seed(q.recommendation_id) for q in queries], np.uint64),
    )


def derive_seed(recommendation_id: str) -> int:
    """Return a 64-bit seed from a recommendation id, so that its random draws can be repeated."""
    return int.from_bytes(hashlib.blake2b(recommendation_id.encode(), digest_size=8).digest(), "big")
