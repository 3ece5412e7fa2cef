"""Look up the users of a batch: their feature rows, latest events and exclusions."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import Ragged, Requests
from handsell.core.failures import Failures
from handsell.core.hashing import derive_seed, hash_unit
from handsell.events.known_blocks import KnownBlocks
from handsell.events.live_catalog import LiveCatalog
from handsell.events.states import Events
from handsell.events.store.interface import Blocks, EventReader, EventStoreError
from handsell.features.request_builder import (
    BuiltRequests,
    Logged,
    QueryBatch,
    build_requests_from_rows,
    complete_requests,
    read_logged,
)
from handsell.features.row_columns import Rows, change_attributes, get_column
from handsell.features.storage.online_rows import OnlineRows, UserStore, take_rows
from handsell.serving.graph.circuit_breaker import STALL, Breaker
from handsell.serving.graph.stages import READ_SHARE
from handsell.serving.http.queries import Query

T = TypeVar("T")
LOG_THREADS = 4  # reads of the event store at once
SLOW_S = 0.03  # of a read on the event loop
PAUSE_S = 1.0
NUMBERS = ("state_time_us", "log_offset", "user_number")


class PromptReads:
    """Reads of local files on the event loop: a thread costs more than the read.

    After a read that waited for the file for longer than SLOW_S, or was impossible, because another process holds it,
    threads read for PAUSE_S. Waiting for a processor that others use is no reason: threads would wait, too.
    """

    def __init__(self) -> None:
        self._begin_at = 0.0  # event loop time

    def try_read(self, read: Callable[[], T | None]) -> T | None:
        """Return what is read, None where a thread has to."""
        loop = asyncio.get_running_loop()
        started, found = loop.time(), None
        if started < self._begin_at:
            return None
        waits = count_waits()
        with contextlib.suppress(Exception):  # the read in a thread says what is wrong
            found = read()
        if found is None or (loop.time() - started > SLOW_S and count_waits() != waits):
            self._begin_at = loop.time() + PAUSE_S
        return found


def count_waits() -> int:
    """Return how often this thread has left the processor by itself, to wait; a new number where nobody counts it."""
    if sys.platform != "linux":
        return time.monotonic_ns()
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


@dataclass(frozen=True, slots=True)
class UserReads:
    """What the stores have of the users of a batch, before it becomes requests."""

    batch: QueryBatch
    rows: Rows
    logged: Logged
    snapshot: Snapshot  # of the catalog when reading began

    def list_ages(self) -> list[float]:
        """Return the seconds since the last folded event, of users who have a row."""
        times = zip(self.batch.time.tolist(), self.rows["state_time_us"], strict=True)
        return [(now - folded) / 1e6 for now, folded in times if folded]

    def take(self, places: Sequence[int]) -> UserReads:
        """Return the reads of some queries."""
        index, rows = np.array(places, np.int64), take_rows(self.rows, places)
        return replace(self, batch=self.batch.take(index), rows=rows, logged=self.logged.take(index))


class UserLookup:
    """One read of the feature store and one of the event store per batch: at once, or in threads where it must wait.

    `impatient` reads the event store without waiting; None: only threads read it.
    """

    def __init__(
        self, store: UserStore, reader: EventReader, blocks: KnownBlocks, catalog: LiveCatalog, config: Config,
        impatient: EventReader | None = None,
    ):  # fmt: skip
        self._blocks = blocks  # applied where the event store does not answer
        self._rows, self._reader, self._catalog, self._config = OnlineRows(store, config), reader, catalog, config
        self._impatient, self._prompt_rows, self._prompt_log = impatient, PromptReads(), PromptReads()
        self._thread = ThreadPoolExecutor(1, "feature-store")
        self._log_threads = ThreadPoolExecutor(LOG_THREADS, "event-store-reader")
        self._is_closed = False
        stall_s = STALL * config.serving.deadline_ms / 1_000
        self._breaker, self._log_breaker = Breaker("the feature store", stall_s), Breaker("the event store", stall_s)

    async def build_requests(
        self, queries: Sequence[Query], limit: float, failures: Failures, config: Config
    ) -> BuiltRequests:
        """Requests for a batch of queries; `limit` is the event loop time by which the store must have answered.

        `config` has the changed settings of the queries, if they have any.
        """
        return self.complete(await self.read(queries, limit, failures, config), queries, failures, config)

    async def read(self, queries: Sequence[Query], limit: float, failures: Failures, config: Config) -> UserReads:
        """Read the stores for `build_requests`."""
        batch, snapshot = build_query_batch(queries), self._catalog.snapshot
        rows: Rows = self._rows.empty(len(queries))
        with failures.tolerate("features"):
            found = await self._read(batch.user_id, limit)
            check_numbers(found)
            rows = found
        rows = change_attributes(rows, batch.user_id, self._catalog.users)
        logged = await self._read_logged(batch, rows, limit, failures, config)
        return UserReads(batch, rows, logged, snapshot)

    def read_at_once(self, queries: Sequence[Query], config: Config) -> UserReads | None:
        """`read` without waiting; None where that is not possible now, or a part of it fails."""
        batch, snapshot = build_query_batch(queries), self._catalog.snapshot
        rows = self._read_rows_at_once(batch.user_id)
        if rows is None:
            return None
        rows = change_attributes(rows, batch.user_id, self._catalog.users)
        logged = self._read_logged_at_once(batch, rows, config)
        return None if logged is None else UserReads(batch, rows, logged, snapshot)

    def complete(self, reads: UserReads, queries: Sequence[Query], failures: Failures, config: Config) -> BuiltRequests:
        """Build the requests of queries from what has been read for them."""
        built = complete_requests(reads.batch, reads.rows, reads.logged, self._catalog.snapshot, config, failures)
        return replace(built, requests=add_units(built.requests, queries))

    async def _read_logged(
        self, batch: QueryBatch, rows: Rows, limit: float, failures: Failures, config: Config
    ) -> Logged:
        """Read the event store; where it does not answer in time, the known blocks are applied."""
        if (at_once := self._read_logged_at_once(batch, rows, config)) is not None:
            return at_once
        own = Failures()  # the thread may outlive this request
        parts = (batch, rows, self._reader, self._catalog.snapshot, config, own, False, self._blocks)
        with failures.tolerate("event_log"):
            logged = await self._in_log_thread(lambda: read_logged(*parts), limit)
            failures.add(*own.names)
            return logged
        failures.add("shown_and_blocked")
        return Logged.unread(batch, self._blocks, self._catalog.snapshot)

    def _read_logged_at_once(self, batch: QueryBatch, rows: Rows, config: Config) -> Logged | None:
        """Read the event store without waiting; None where that is not possible now."""
        strict, snapshot = Failures(strict=True), self._catalog.snapshot
        if all(user_id is None for user_id in batch.user_id):  # nothing is read
            return read_logged(batch, rows, self._reader, snapshot, config, strict)
        if (reader := self._impatient) is None:
            return None
        return self._prompt_log.try_read(
            lambda: read_logged(batch, rows, reader, snapshot, config, strict, False, self._blocks)
        )

    async def _in_log_thread(self, read: Callable[[], T], limit: float) -> T:
        """Read the event store; a slow feature store leaves it a share of the deadline."""
        loop = asyncio.get_running_loop()
        limit = max(limit, loop.time() + READ_SHARE * self._config.serving.deadline_ms / 1_000)
        return await self._log_breaker.wait(lambda: loop.run_in_executor(self._log_threads, read), limit)

    def _read_rows_at_once(self, user_ids: Sequence[str | None]) -> Rows | None:
        """Read feature rows without waiting; None where that is not possible now."""
        if all(user_id is None for user_id in user_ids):
            return self._rows.empty(len(user_ids))

        def read() -> Rows | None:
            rows = self._rows.read_at_once(user_ids)
            if rows is not None:
                check_numbers(rows)
            return rows

        return self._prompt_rows.try_read(read)

    async def _read(self, user_ids: Sequence[str | None], limit: float) -> Rows:
        if (rows := self._read_rows_at_once(user_ids)) is not None:
            return rows
        loop = asyncio.get_running_loop()
        return await self._breaker.wait(lambda: loop.run_in_executor(self._thread, self._rows.read, user_ids), limit)

    async def read_attributes(self, user_id: str, limit: float) -> dict[str, Any] | None:
        """Read the attributes that filters and the ranker may read; None for a user that the store does not know."""
        row = await self._read([user_id], limit)
        if get_column(row, "user_number")[0] is None:
            return None
        return {name: row[name][0] for name in self._config.features.filter_attributes}

    async def forget_users(self, user_ids: Sequence[str], limit: float) -> None:
        """Remove the online rows and the known blocks of users."""
        self._blocks.forget(user_ids)
        loop = asyncio.get_running_loop()
        await self._breaker.wait(lambda: loop.run_in_executor(self._thread, self._rows.forget, user_ids), limit)

    async def read_blocks(self, user_id: str) -> dict[str, list[str]]:
        """Creators and tags that a user blocks; raises EventStoreError."""
        try:
            found = await self._in_log_thread(lambda: self._reader.read_blocks([user_id]), 0.0)
        except TimeoutError as error:
            raise EventStoreError(f"the event store did not answer in time: {error}") from error
        creators, tags = found.get(user_id, ([], []))
        return {"creators": creators, "tags": tags}

    def add_blocks(self, blocks: Blocks) -> None:
        """Apply blocks that have been stored, also while the event store is away."""
        self._blocks.put(blocks)

    def build_visitor_request(self, query: Query) -> Requests:
        """Build the request of an unknown visitor, without reading the store or the log."""
        batch = build_query_batch([query])
        requests = build_requests_from_rows(
            self._rows.empty(1), self._catalog.snapshot, self._config, batch.time, batch.surface, exclude=batch.exclude
        )
        return requests.with_filters(batch.filter)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._blocks.close()
        if self._impatient is not None:
            self._impatient.close()
        self._thread.shutdown(wait=False)  # reads that wait are made: somebody waits for them
        self._log_threads.submit(self._reader.close)  # after the reads that run
        self._log_threads.shutdown(wait=False)


def check_numbers(rows: Rows) -> None:
    """Decode the columns of rows that are read outside of the making of requests; raises an error where one cannot."""
    for name in NUMBERS:
        if name in rows:
            rows[name]


def build_query_batch(queries: Sequence[Query]) -> QueryBatch:
    return QueryBatch(
        user_id=[q.user_id for q in queries],
        time=np.array([q.time for q in queries], np.int64),
        surface=np.array([q.surface for q in queries], np.int8),
        session=Events.concatenate([q.session.at_row(b) for b, q in enumerate(queries) if len(q.session)]),
        exclude=Ragged.from_rows([q.exclude for q in queries]),
        creators=Ragged.from_rows([q.creators for q in queries]),
        tags=Ragged.from_rows([q.tags for q in queries]),
        filter=[q.filter for q in queries],
        seed=np.array([derive_seed(q.recommendation_id) for q in queries], np.uint64),
    )


def add_units(requests: Requests, queries: Sequence[Query]) -> Requests:
    """Return the requests with their users' hashes, numbers of shown items, arms and changed settings."""
    arms = None
    if any(query.arms for query in queries):
        arms = np.empty(len(queries), object)
        for b, query in enumerate(queries):
            arms[b] = query.arms
    return replace(
        requests,
        unit=np.array([hash_unit(query.user_id) for query in queries], np.uint64),
        count=np.array([query.count for query in queries], np.int16),
        arms=arms,
        overlay=queries[0].overlay,
    )
