"""Access of a gateway: who calls, within which limits. It follows the event store about once a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict

from handsell.access.audit_entry import AuditEntry
from handsell.access.caller import Caller
from handsell.access.config import AccessConfig
from handsell.events.store.interface import EventReader
from handsell.serving.graph.event_sink import EventSink
from handsell.serving.http.access.known_keys import KnownKeys
from handsell.serving.http.access.limits import Excess, KeyLimits

log = logging.getLogger(__name__)

FOLLOW_S = 1.0


class AccessControl:
    """What a gateway knows of keys; requests never wait for the event store."""

    def __init__(self, config: AccessConfig, open_reader: Callable[[], EventReader], sink: EventSink):
        self.config = config
        self.keys, self.limits = KnownKeys(config.widget_token_s), KeyLimits(config)
        self._open_reader, self._sink, self._is_failing = open_reader, sink, False
        self._reader: EventReader | None = None
        if self.is_required:
            self.follow_keys()

    @property
    def is_required(self) -> bool:
        """Whether a request needs a key."""
        return self.config.keys == "required"

    def find_excess(self, caller: Caller) -> Excess | None:
        """Count a request; return why it is refused, None where it is not."""
        assert caller.key_id is not None
        return self.limits.find_excess(self.keys.find(caller.key_id), caller.user_id)

    async def run(self) -> None:
        """Follow the keys and exchange the counts of requests, until cancelled."""
        while self.is_required:
            await asyncio.sleep(FOLLOW_S)
            await asyncio.to_thread(self.follow_keys)
            await self.exchange_counts()

    def follow_keys(self) -> None:
        """Read the keys that have changed; where the store is away, those known stay."""
        try:
            self._reader = self._reader or self._open_reader()
            self.keys.read(self._reader)
            self._is_failing = False
        except Exception as error:
            if not self._is_failing:
                log.warning("API keys cannot be read; those known stay: %s", error)
            self._is_failing = True

    async def exchange_counts(self) -> None:
        """Add the new requests of keys with a quota to the store, and read those of all gateways."""
        day, new = self.limits.take_new()
        if not day:
            return  # no key has a quota
        try:
            if new:
                await self._sink.add_usage(day, new)
            self.limits.confirm(day)
        except Exception as error:
            self.limits.keep(day)
            log.warning("requests of API keys are not stored yet: %s", error)
            return
        try:
            if self._reader is not None:
                self.limits.set_stored(day, await asyncio.to_thread(self._reader.read_usage, day))
        except Exception as error:
            log.warning("requests of API keys on other gateways cannot be read: %s", error)

    async def append_audit(self, entry: AuditEntry) -> None:
        """Store an entry of the audit log; where the store is away, the log line has it."""
        try:
            await self._sink.append_audit([entry])
        except Exception as error:
            log.error("an entry of the audit log is not stored: %s", error, extra={"fields": asdict(entry)})

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
