"""Read the service's `/metrics` again and again, and keep what it said."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from handsell.console.live.service_series import ServiceSeries, parse_scrape

log = logging.getLogger(__name__)

EVERY_S = 10.0

Fetch = Callable[[], Awaitable[str]]


class ServiceWatcher:
    """`series` has the recent past; `problem` says why the last answer could not be read, empty where it could."""

    def __init__(self, fetch: Fetch, now: Callable[[], float] = time.time):
        self.series, self.problem, self.read_at = ServiceSeries(), "", 0.0
        self._fetch, self._now = fetch, now

    async def run(self) -> None:
        """Read every EVERY_S seconds until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(EVERY_S)

    async def refresh(self) -> None:
        """Read if that was not done within the last EVERY_S seconds."""
        if self._now() - self.read_at >= EVERY_S:
            await self.read()

    async def read(self) -> None:
        """Read once, and once more for each further replica: a proxy passes a call to one of them."""
        for _ in range(max(self.series.replicas, 1)):
            try:
                scrape = parse_scrape(await self._fetch())
            except Exception as error:
                if not self.problem:
                    log.warning("the metrics of the service cannot be read: %r", error)
                self.problem = f"The service does not answer ({type(error).__name__})."
                return
            self.series.add(scrape, self._now())
            self.problem, self.read_at = "", self._now()
