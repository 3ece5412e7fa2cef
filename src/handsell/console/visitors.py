"""Who visits the console: the owner of an API key, as the gateways know them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import closing

from handsell.access.api_key import parse_key
from handsell.access.caller import Caller
from handsell.access.config import AccessConfig
from handsell.events.store.interface import EventReader
from handsell.serving.http.access.known_keys import KnownKeys

log = logging.getLogger(__name__)

FOLLOW_S = 1.0


class Visitors:
    """Identifies keys; those that have changed are read again at most once a second."""

    def __init__(self, access: AccessConfig, open_reader: Callable[[], EventReader]):
        self.needs_key = access.keys == "required"
        self._known, self._open_reader = KnownKeys(access.widget_token_s), open_reader
        self._read_at, self._reading = -FOLLOW_S, asyncio.Lock()

    async def identify(self, key: str) -> Caller | None:
        """Return the owner of a key of kind server; None for any other text, or a key that is not valid now."""
        if not self.needs_key:
            return Caller.anonymous()
        async with self._reading:
            if time.monotonic() - self._read_at >= FOLLOW_S:
                await asyncio.to_thread(self._read)
                self._read_at = time.monotonic()
        return self._known.identify(key) if parse_key(key) is not None else None

    async def identify_new(self, key: str) -> Caller | None:
        """`identify` for a key that may have been created a moment ago; an invalid one takes a second."""
        caller = await self.identify(key)
        if caller is None:
            await asyncio.sleep(FOLLOW_S)
            caller = await self.identify(key)
        return caller

    @property
    def knows_keys(self) -> bool:
        """Whether the keys have been read since the start."""
        return self._known.is_complete

    def _read(self) -> None:
        """Read the keys that have changed; where the store is away, those known stay."""
        try:
            with closing(self._open_reader()) as reader:
                self._known.read(reader)
        except Exception as error:
            log.warning("API keys cannot be read; those known stay: %s", error)
