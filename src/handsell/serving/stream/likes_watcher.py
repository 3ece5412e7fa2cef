"""Fetch recent likes from the stream processor, for the popular and trending items of a gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from handsell.serving.graph.service import Service
from handsell.serving.stream.recent_likes import RecentLikes

log = logging.getLogger(__name__)

EVERY_S = 5.0
FADED_S = 60.0  # lists are computed again without new likes, too: older ones fade
TIMEOUT_S = 10.0


class LikesWatcher:
    """Adds the likes that `fetch(known version)` returns to the service's current bundle."""

    def __init__(self, service: Service, fetch: Callable[[int], Awaitable[RecentLikes | None]]):
        self._service, self._fetch = service, fetch
        self._likes: RecentLikes | None = None
        self._added: tuple[str, int] = ("", 0)  # bundle and version
        self._added_at = 0.0

    async def run(self) -> None:
        """Check every few seconds, until cancelled; without an answer, the lists stay."""
        while True:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self.check()
            except Exception as error:
                log.info("the stream processor did not return recent likes: %r", error)
            await asyncio.sleep(EVERY_S)

    async def check(self) -> None:
        likes = await self._fetch(-1 if self._likes is None else self._likes.version)
        self._likes = likes or self._likes
        if self._likes is None:
            return
        bundle, now = self._service.bundle, asyncio.get_running_loop().time()
        new = (bundle.release.bundle, self._likes.version)
        if new != self._added or now >= self._added_at + FADED_S:
            await asyncio.to_thread(bundle.add_likes, self._likes)
            self._added, self._added_at = new, now
