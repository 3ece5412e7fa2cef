"""Report the outcomes of a gateway's arms to the guard about once a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from handsell.serving.graph.service import Service
from handsell.serving.guard_rails.counts import Counts

log = logging.getLogger(__name__)

EVERY_S = 1.0
TIMEOUT_S = 5.0

Send = Callable[[Counts, dict[str, str]], Awaitable[object]]  # counts by arm, refused bundles of arms with the reason


class OutcomeReporter:
    """Sends what was counted; without an answer it is sent with the next report."""

    def __init__(self, service: Service, send: Send):
        self._service, self._send = service, send

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.report()

    async def report(self) -> None:
        service = self._service
        counts, refused = service.arm_outcomes.take(), dict(service.refused_arms)
        if not counts and not refused:
            return
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._send(counts, refused)
        except Exception as error:
            log.info("the guard did not take the counts of arms: %r", error)
            service.arm_outcomes.put_back(counts)
