"""Served slates on their way to the log: a bounded queue that never makes a response wait.

Each gateway numbers its slates 1, 2, 3 …; a number that never arrives in the log is a slate that was
lost (queue full, log gone, gateway killed) and is left out of click rates and off-policy estimates.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

log = logging.getLogger(__name__)

IMPRESSION_FIELDS = ("recommendation_id", "gateway", "sequence", "time", "user_id", "surface", "bundle", "items")
"""Columns of a served slate; `time` in µs, `items` JSON {item_id, score, propensity, sources} of equal lengths,
and `rules`, the version of the business rules, where there were some."""

FLUSH_S = 0.1
BATCH = 500  # slates in one send


class ImpressionQueue:
    """`offer` a slate and go on; a background task sends what has gathered within FLUSH_S.

    `send` appends slates durably and may fail: they are tried once more, then counted as lost.
    `lost` is called with a number of slates each time some are given up.
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

    def offer(self, slate: dict[str, Any]) -> None:
        """Number the slate and queue it; over capacity it is lost, and its number with it."""
        self._sequence += 1
        if len(self._waiting) >= self._capacity:
            self._lost(1)
            return
        self._waiting.append({**slate, "gateway": self.gateway, "sequence": self._sequence})
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        """Runs while there is something to send; idle gateways have no task."""
        while self._waiting:
            await asyncio.sleep(FLUSH_S)
            await self._drain()

    async def _drain(self) -> None:
        while self._waiting:
            batch = self._waiting[:BATCH]
            await self._deliver(batch)
            del self._waiting[: len(batch)]  # only now: a cancelled send is repeated by `close`, which is harmless

    async def _deliver(self, batch: list[dict[str, Any]]) -> None:
        for last in (False, True):
            try:
                await self._send(batch)
                return
            except Exception:
                if last:
                    log.exception("gave up %d impressions", len(batch))
                    self._lost(len(batch))

    async def close(self) -> None:
        """Send what waits now."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._drain()
