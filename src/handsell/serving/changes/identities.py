"""Merged visitors: whose requests are answered as a user's, on every gateway."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from handsell.events.merged_visitors import PAGE, MergedVisitors
from handsell.events.store.interface import EventReader
from handsell.events.store.rows import hash_person

log = logging.getLogger(__name__)

FOLLOW_S = 1.0
ROUNDS = 10  # of reads of new merges, between reads of erasures


class Identities(MergedVisitors):
    """The user of each merged visitor; a thread follows the event store, because another gateway may have merged."""

    def __init__(self, open_reader: Callable[[], EventReader]):
        super().__init__()
        self._offset, self._failed, self._rounds = 0, False, 0
        self._stop = threading.Event()
        threading.Thread(target=self._follow, args=(open_reader,), name="identities", daemon=True).start()

    def close(self) -> None:
        self._stop.set()

    def _follow(self, open_reader: Callable[[], EventReader]) -> None:
        reader: EventReader | None = None
        while not self._stop.is_set():
            try:
                reader = reader or open_reader()
                more = self._read(reader)
                self._failed = False
            except Exception as error:
                if not self._failed:
                    log.warning("merged visitors cannot be read; those known stay: %s", error)
                self._failed, more = True, False
            if not more:
                self._stop.wait(FOLLOW_S)
        if reader is not None:
            reader.close()

    def _read(self, reader: EventReader) -> bool:
        """Read new merges, and now and then erasures; returns whether there are more merges."""
        found = reader.read_identities(self._offset, PAGE)
        for identity in found:
            self.add(identity)
            self._offset = identity.offset
        if self._rounds % ROUNDS == 0 and self._owners:
            self._drop_erased({erasure.person: erasure.time for erasure in reader.read_erasures()})
        self._rounds += 1
        return len(found) == PAGE

    def _drop_erased(self, erased: dict[str, int]) -> None:
        if erased:
            self.remove(lambda identity: identity.time <= erased.get(hash_person(identity.user_id), -1))
