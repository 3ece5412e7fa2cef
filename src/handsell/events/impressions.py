"""Bounded queue from served slates to the event log; a response never waits for it.

Each gateway numbers its slates 1, 2, 3 …. A number missing in the log is a lost slate (queue full, log unavailable,
gateway killed), which click rates and off-policy estimates leave out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Any

log = logging.getLogger(__name__)

FLUSH_S = 0.1
BATCH = 500  # slates per send


def name_batch_gateway(run: str, part: int) -> str:
    """Return what stands for the gateway in slates of a batch job."""
    return f"{run}-{part:05d}"


def is_batch(gateway: str) -> bool:
    """Return whether a batch job made the slates of this gateway: nobody knows when they are looked at."""
    return "-" in gateway


class ImpressionQueue:
    """Queues slates without waiting; a background task sends them every FLUSH_S seconds.

    `send` appends slates durably. If it fails twice, `lost` is called with the number of slates.
    """

    def __init__(
        self,
        send: Callable[[Sequence[dict[str, Any]]], Awaitable[object]],
        lost: Callable[[int], object],
        capacity: int = 10_000,
    ):
        self.gateway = uuid.uuid4().hex[:12]
        self._send, self._lost, self._capacity = send, lost, capacity
        self._sequence = 0
        self._waiting: list[dict[str, Any]] = []
        self._task: asyncio.Task | None = None

    def __len__(self) -> int:
        """Number of slates that wait."""
        return len(self._waiting)

    def offer(self, slate: dict[str, Any]) -> None:
        """Number the slate and queue it; beyond the capacity it is lost."""
        self._sequence += 1
        if len(self._waiting) >= self._capacity:
            self._lost(1)
            return
        self._waiting.append({**slate, "gateway": self.gateway, "sequence": self._sequence})
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._flush(), context=Context())  # of no request

    async def _flush(self) -> None:
        """Send until the queue is empty; an idle gateway has no task."""
        while self._waiting:
            await asyncio.sleep(FLUSH_S)
            await self._drain()

    async def _drain(self) -> None:
        while self._waiting:
            batch = self._waiting[:BATCH]
            await self._deliver(batch)
            del self._waiting[: len(batch)]  # last: `close` repeats a cancelled send, duplicates are dropped

    async def _deliver(self, batch: list[dict[str, Any]]) -> None:
        for last in (False, True):
            try:
                await self._send(batch)
                return
            except Exception:
                if last:
                    log.exception("%d slates could not be logged; they are counted as lost", len(batch))
                    self._lost(len(batch))

    async def close(self) -> None:
        """Send all queued slates."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._drain()
