"""Micro-batching without idle waiting: a batch is cut when a slot frees, not when a timer rings."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from handsell.core.errors import RequestError

Q = TypeVar("Q")
A = TypeVar("A")

WAITING_BATCHES = 8  # full batches that may wait; beyond that the caller is told to come back


class MicroBatcher(Generic[Q, A]):
    """Queries that arrive while `in_flight` batches are under way share the next one, up to `size`.

    `run(queries)` gives one answer per query; its exception reaches every caller of that batch.
    """

    def __init__(self, run: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], size: int, in_flight: int):
        self._run, self._size, self._free = run, size, in_flight
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._trips: set[asyncio.Task] = set()
        self.capacity = WAITING_BATCHES * size

    def __len__(self) -> int:
        return len(self._waiting)

    async def submit(self, query: Q) -> A:
        """The query's answer; raises RequestError (503) when too many are waiting already."""
        if len(self._waiting) >= self.capacity:
            raise RequestError(
                f"{len(self._waiting)} requests are waiting: try again in a second", status=503, code="overloaded"
            )
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((query, answer))
        self._depart()
        return await answer

    def _depart(self) -> None:
        while self._free and self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
            batch = [(query, answer) for query, answer in batch if not answer.done()]  # callers who hung up
            if batch:
                self._free -= 1
                trip = asyncio.get_running_loop().create_task(self._trip(batch))
                self._trips.add(trip)
                trip.add_done_callback(self._trips.discard)

    async def _trip(self, batch: list[tuple[Q, asyncio.Future[A]]]) -> None:
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
            self._free += 1
            self._depart()
