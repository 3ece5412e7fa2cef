"""Not waiting for what does not answer: the callers behind the first few go on without it, until it answers again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")

STALL = 0.3  # share of the service's deadline that one call may take
STRIKES = 2  # calls in a row that took as long, before nobody waits
RETRY_S = 0.25  # between calls that only try


class Breaker:
    """Around the calls of one stage, in one gateway.

    A stage that stands still would keep every slot of the gateway for as long as its share of the deadline, and those
    who wait for a slot would be refused. So a call is given up after `stall_s`, and after STRIKES such calls in a row
    none is waited for: each raises TimeoutError at once, while now and then one goes on unwatched. The first that is
    answered closes the breaker.
    """

    def __init__(self, name: str, stall_s: float):
        self._name, self._stall_s = name, stall_s
        self._late, self._tried = 0, 0.0
        self._trial: asyncio.Task | None = None

    @property
    def open(self) -> bool:
        """Whether nobody waits."""
        return self._late >= STRIKES

    async def wait(self, call: Callable[[], Awaitable[T]], limit: float) -> T:
        """The call's answer; raises TimeoutError where there is none by `limit` (event loop time) or `stall_s`."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        if started >= limit:
            raise TimeoutError(f"no time is left for {self._name}")
        if self.open:
            self._try(call, started)
            raise TimeoutError(f"{self._name} was late {self._late} times in a row: not waited for until it answers")
        try:
            async with asyncio.timeout_at(min(limit, started + self._stall_s)):
                answer = await call()
        except TimeoutError:
            if loop.time() - started >= self._stall_s / 2:  # who has less time than that tells nothing of the stage
                self._strike()
            raise
        except Exception:  # it answers
            self._late = 0
            raise
        self._late = 0
        return answer

    def _strike(self) -> None:
        self._late += 1
        if self._late == STRIKES:
            log.warning("%s does not answer within %.2f s: going on without it", self._name, self._stall_s)

    def _try(self, call: Callable[[], Awaitable[T]], now: float) -> None:
        """At most one call at a time of which nobody awaits the answer."""
        if (self._trial is None or self._trial.done()) and now - self._tried >= RETRY_S:
            self._tried = now
            self._trial = asyncio.get_running_loop().create_task(self._alone(call))

    async def _alone(self, call: Callable[[], Awaitable[T]]) -> None:
        try:
            async with asyncio.timeout(self._stall_s):
                await call()
        except TimeoutError:
            return
        except Exception as error:  # it answers: what is wrong, the next caller is told
            log.info("%s answers again, with %r", self._name, error)
        else:
            log.info("%s answers again", self._name)
        self._late = 0
