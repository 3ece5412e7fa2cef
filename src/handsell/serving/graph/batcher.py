"""Micro-batching without a timer: when a slot is free, a batch starts with all waiting queries.

Queries that would wait too long are refused when they arrive, before they delay others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from statistics import median
from typing import Generic, TypeVar

from handsell.core.errors import RequestError

Q = TypeVar("Q")
A = TypeVar("A")

WAITING_BATCHES = 8  # most full batches that may wait
QUIET_TURNS = 4  # of the event loop, after which a batch is cut: a request that has been read takes three to arrive
RECENT = 15  # batches by whose median duration waits are estimated: a few that a hanging stage held do not count


class MicroBatcher(Generic[Q, A]):
    """Queries that arrive while `in_flight` batches are running share the next one, up to `size`.

    A batch is cut in the event loop's next turn, or where queries come together, after the turns that bring more of
    them. So what arrives while a batch keeps the loop busy, as with stages in this process, shares the next one.

    `run(queries)` returns one answer per query, None for those that have been answered early or handed over; its
    exception reaches every other caller of the batch. Only queries of one `kind` share a batch. A query that would wait
    longer than `max_wait_s`, by the duration of recent batches, is refused.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Q]], Awaitable[Sequence[A | None]]],
        size: int,
        in_flight: int,
        max_wait_s: float = float("inf"),
        kind: Callable[[Q], object] = lambda query: None,
    ):
        self._run, self._size, self._slots, self._free = run, size, in_flight, in_flight
        self._max_wait_s, self._kind = max_wait_s, kind
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._running: dict[int, asyncio.Future[A]] = {}  # by the identity of the query
        self._handed_over: set[asyncio.Future[A]] = set()
        self._is_starting = False  # a batch that has a slot and is not cut yet
        self._shared = 1  # queries of the latest batch
        self._batches: set[asyncio.Task] = set()
        self._durations = deque([0.0] * RECENT, RECENT)  # the first batches of a gateway, which connect, do not count
        self._batch_s = 0.0  # their median
        self.capacity = WAITING_BATCHES * size

    def __len__(self) -> int:
        return len(self._waiting)

    async def submit(self, query: Q) -> A:
        """The query's answer; raises RequestError (503) when too many queries are waiting."""
        if self._count_later() >= self.capacity or self.wait_s() > self._max_wait_s:
            raise RequestError(
                "requests arrive faster than they are answered: retry in a second", status=503, code="overloaded"
            )
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((query, answer))
        self._start()
        return await answer

    def answer_early(self, query: Q, answer: A) -> None:
        """Answer a query of a running batch before the others."""
        waiting = self._running.get(id(query))
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def hand_over(self, query: Q) -> asyncio.Future[A]:
        """Return the future on which a query's caller waits; somebody else sets it, no failure of the batch does."""
        waiting = self._running[id(query)]
        self._handed_over.add(waiting)
        return waiting

    def wait_s(self) -> float:
        """Estimated seconds until a query that arrives now would start."""
        later = self._count_later()
        return 0.0 if later < 0 else (later // self._size + 1) * self._batch_s / self._slots

    def _count_later(self) -> int:
        """Count the queries that wait beyond what the free slots take; below 0: there is room for as many more."""
        return len(self._waiting) - self._size * (self._free + self._is_starting)

    def _next(self) -> list[tuple[Q, asyncio.Future[A]]]:
        """The query that has waited longest, and the next ones of its kind."""
        batch = [self._waiting.popleft()]
        others: list[tuple[Q, asyncio.Future[A]]] = []
        kind = self._kind(batch[0][0])
        while self._waiting and len(batch) < self._size:
            one = self._waiting.popleft()
            (batch if self._kind(one[0]) == kind else others).append(one)
        self._waiting.extendleft(reversed(others))
        return [(query, answer) for query, answer in batch if not answer.done()]  # drop disconnected callers

    def _start(self) -> None:
        if self._free and self._waiting and not self._is_starting:
            self._free -= 1
            self._is_starting = True
            task = asyncio.get_running_loop().create_task(self._cut_batch())
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    async def _cut_batch(self) -> None:
        """Run a batch of the queries that wait now, in the slot that has been taken for it."""
        try:
            try:
                await self._wait_for_company()
            finally:
                self._is_starting = False
            if batch := self._next():
                self._shared = len(batch)
                self._start()  # others that wait, if there is another slot
                await self._run_batch(batch)
        finally:
            self._free += 1
            self._start()

    async def _wait_for_company(self) -> None:
        """Let the loop turn while that brings more queries, if there are several, or the latest batch had several."""
        quiet = 0 if max(self._shared, len(self._waiting)) > 1 else QUIET_TURNS
        while quiet < QUIET_TURNS and len(self._waiting) < self._size:
            before = len(self._waiting)
            await asyncio.sleep(0)
            quiet = 0 if len(self._waiting) > before else quiet + 1

    async def _run_batch(self, batch: list[tuple[Q, asyncio.Future[A]]]) -> None:
        started = asyncio.get_running_loop().time()
        self._running.update((id(query), waiting) for query, waiting in batch)
        try:
            answers = await self._run([query for query, _ in batch])
            for (_, waiting), answer in zip(batch, answers, strict=True):
                if answer is not None and not waiting.done():
                    waiting.set_result(answer)
        except Exception as error:
            self._fail(batch, error)
        except asyncio.CancelledError:  # or the callers would wait for ever
            self._fail(batch, build_ending())
            raise
        finally:
            for query, waiting in batch:
                self._running.pop(id(query), None)
                self._handed_over.discard(waiting)
            self._durations.append(asyncio.get_running_loop().time() - started)
            self._batch_s = median(self._durations)

    def _fail(self, batch: Sequence[tuple[Q, asyncio.Future[A]]], error: Exception) -> None:
        for _, waiting in batch:
            if waiting not in self._handed_over and not waiting.done():
                waiting.set_exception(error)


def build_ending() -> RequestError:
    """Return the error of queries whose batch is cancelled."""
    return RequestError("the service is ending: retry in a second", status=503, code="ending")
