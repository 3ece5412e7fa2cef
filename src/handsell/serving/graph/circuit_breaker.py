"""Circuit breaker for calls of a stage or a store: after a few late answers callers no longer wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")

STALL = 0.3  # share of the service's deadline that one call may take
LATE_CALLS = 2  # late calls in a row that open the breaker
RETRY_S = 0.25  # between trial calls


class Breaker:
    """Guards the calls of one stage in one gateway.

    A stage that hangs would hold every slot of the gateway for its share of the deadline, and waiting requests would
    be refused. A call is therefore abandoned after `stall_s`. After LATE_CALLS late calls in a row the breaker is open:
    calls raise TimeoutError immediately, while a trial call is made every RETRY_S. An answered trial closes it.
    """

    def __init__(self, name: str, stall_s: float):
        self._name, self._stall_s = name, stall_s
        self._late, self._last_trial = 0, 0.0
        self._trial: asyncio.Task | None = None

    @property
    def open(self) -> bool:
        """Whether calls fail without waiting."""
        return self._late >= LATE_CALLS

    async def wait(self, call: Callable[[], Awaitable[T]], limit: float) -> T:
        """The call's answer; raises TimeoutError when there is none by `limit` (event loop time) or after `stall_s`."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        if started >= limit:
            raise TimeoutError(f"no time is left to call {self._name}")
        if self.open:
            self._start_trial(call, started)
            raise TimeoutError(f"{self._name} was late {self._late} times in a row; calls fail until it answers")
        try:
            async with asyncio.timeout_at(min(limit, started + self._stall_s)):
                answer = await call()
        except Exception as error:
            if loop.time() - started >= self._stall_s / 2:  # an error that took so long holds slots, too
                self._count_late()
            elif not isinstance(error, TimeoutError):  # a prompt error is an answer; a shorter limit says nothing
                self._late = 0
            raise
        self._late = 0
        return answer

    def _count_late(self) -> None:
        self._late += 1
        if self._late == LATE_CALLS:
            log.warning("%s does not answer within %.2f s; answering without it", self._name, self._stall_s)

    def _start_trial(self, call: Callable[[], Awaitable[T]], now: float) -> None:
        """Start a trial call, at most one at a time."""
        if (self._trial is None or self._trial.done()) and now - self._last_trial >= RETRY_S:
            self._last_trial = now
            self._trial = asyncio.get_running_loop().create_task(self._run_trial(call))

    async def _run_trial(self, call: Callable[[], Awaitable[T]]) -> None:
        try:
            async with asyncio.timeout(self._stall_s):
                await call()
        except TimeoutError:
            return
        except Exception as error:  # a prompt error is an answer; the next caller gets it
            if asyncio.get_running_loop().time() - self._last_trial >= self._stall_s / 2:
                return
            log.info("%s answers again, with %r", self._name, error)
        else:
            log.info("%s answers again", self._name)
        self._late = 0
