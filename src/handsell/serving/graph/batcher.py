"""Micro-batching without idle waiting: a batch is cut when a slot frees, not when a timer rings.

Load is shed at the door: who would wait longer than is worth waiting is told to come back, before anybody else waits
longer for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from handsell.core.errors import RequestError

Q = TypeVar("Q")
A = TypeVar("A")

WAITING_BATCHES = 8  # full batches that may wait at most, however fast they go
RECENT = 0.2  # weight of the latest trip in the running mean of their seconds


class MicroBatcher(Generic[Q, A]):
    """Queries that arrive while `in_flight` batches are under way share the next one, up to `size`.

    `run(queries)` gives one answer per query; its exception reaches every caller of that batch. Only queries of one
    `kind` share a batch. A query that would wait longer than `patience_s`, going by recent trips, is refused.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Q]], Awaitable[Sequence[A]]],
        size: int,
        in_flight: int,
        patience_s: float = float("inf"),
        kind: Callable[[Q], object] = lambda query: None,
    ):
        self._run, self._size, self._slots, self._free = run, size, in_flight, in_flight
        self._patience_s, self._kind = patience_s, kind
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._trips: set[asyncio.Task] = set()
        self._trip_s = 0.0
        self.capacity = WAITING_BATCHES * size

    def __len__(self) -> int:
        return len(self._waiting)

    async def submit(self, query: Q) -> A:
        """The query's answer; raises RequestError (503) when too many are waiting already."""
        if len(self._waiting) >= self.capacity or self.wait_s() > self._patience_s:
            raise RequestError(
                f"{len(self._waiting)} requests are waiting: try again in a second", status=503, code="overloaded"
            )
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((query, answer))
        self._depart()
        return await answer

    def wait_s(self) -> float:
        """Seconds until a query that came now would depart, if trips go on as they went."""
        if self._free:
            return 0.0
        return (len(self._waiting) // self._size + 1) * self._trip_s / self._slots

    def _next(self) -> list[tuple[Q, asyncio.Future[A]]]:
        """The longest waiting query, and the next ones of its kind."""
        batch = [self._waiting.popleft()]
        others: list[tuple[Q, asyncio.Future[A]]] = []
        kind = self._kind(batch[0][0])
        while self._waiting and len(batch) < self._size:
            one = self._waiting.popleft()
            (batch if self._kind(one[0]) == kind else others).append(one)
        self._waiting.extendleft(reversed(others))
        return [(query, answer) for query, answer in batch if not answer.done()]  # without callers who hung up

    def _depart(self) -> None:
        while self._free and self._waiting:
            if batch := self._next():
                self._free -= 1
                trip = asyncio.get_running_loop().create_task(self._trip(batch))
                self._trips.add(trip)
                trip.add_done_callback(self._trips.discard)

    async def _trip(self, batch: list[tuple[Q, asyncio.Future[A]]]) -> None:
        begun = asyncio.get_running_loop().time()
        try:
            answers = await self._run([query for query, _ in batch])
            for (_, waiting), answer in zip(batch, answers, strict=True):
                if not waiting.done():
                    waiting.set_result(answer)
        except Exception as error:
            for _, waiting in batch:
                if not waiting.done():
                    waiting.set_exception(error)
        finally:
            took = asyncio.get_running_loop().time() - begun
            self._trip_s += (took - self._trip_s) * (RECENT if self._trip_s else 1.0)
            self._free += 1
            self._depart()
