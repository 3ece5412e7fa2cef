"""What users block, as of a second ago: applied while the event store does not answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Sequence

from handsell.events.store.interface import Blocks, EventReader
from handsell.events.store.rows import hash_person

log = logging.getLogger(__name__)

FOLLOW_S = 1.0  # time between two readings
ERASURES_S = 3.0  # time between two readings of erasures
AT_ONCE = 10_000  # users read at a time


class KnownBlocks:
    """Follows the blocks of all users in a thread of its own, which closes the reader in the end."""

    def __init__(self, reader: EventReader):
        self.is_complete = False  # all blocks have been read once
        self._reader, self._blocks = reader, dict[str, Blocks]()
        self._offset, self._read_erasures_at = 0, 0.0
        self._erased: dict[str, int] = {}  # SHA-256 of the user id → time of the erasure
        self._lock, self._stop, self._is_failing = threading.Lock(), threading.Event(), False

    def start(self) -> KnownBlocks:
        threading.Thread(target=self._follow, name="known-blocks", daemon=True).start()
        return self

    def find(self, user_id: str) -> Blocks | None:
        return self._blocks.get(user_id)

    def put(self, blocks: Blocks) -> None:
        """Apply blocks that this process has stored, at once."""
        with self._lock:
            self._add([blocks])

    def forget(self, user_ids: Collection[str]) -> None:
        """Forget users who have been erased from the store."""
        with self._lock:
            for user_id in user_ids:
                self._blocks.pop(user_id, None)

    def read(self) -> None:
        """Read what has changed; raises what the store raises."""
        more = True
        while more:
            with self._lock:
                found = self._reader.read_changed_blocks(self._offset, AT_ONCE)
                self._add(found)
                self._offset = found[-1].offset if found else self._offset
            more = len(found) == AT_ONCE
        if self._blocks and time.monotonic() >= self._read_erasures_at:
            with self._lock:
                self._forget_erased_users()
            self._read_erasures_at = time.monotonic() + ERASURES_S
        self.is_complete = True

    def close(self) -> None:
        self._stop.set()

    def _add(self, found: Sequence[Blocks]) -> None:
        """Add blocks, unless newer ones are known."""
        for blocks in found:
            known = self._blocks.get(blocks.user_id)
            if known is None or known.offset <= blocks.offset:
                self._blocks[blocks.user_id] = blocks

    def _forget_erased_users(self) -> None:
        """Drop the blocks of users who have been erased since, except those that they have put afterwards."""
        erased = {erasure.person: erasure.time for erasure in self._reader.read_erasures()}
        fresh = {person for person, erased_at in erased.items() if self._erased.get(person) != erased_at}
        gone = [user_id for user_id in self._blocks if hash_person(user_id) in fresh] if fresh else []
        kept = self._reader.read_blocks(gone) if gone else {}
        for user_id in gone:
            if user_id not in kept:
                self._blocks.pop(user_id)
        self._erased = erased

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self.read()
                self._is_failing = False
            except Exception as error:
                if not self._is_failing:
                    log.warning("blocks cannot be read; those known stay: %s", error)
                self._is_failing = True
            self._stop.wait(FOLLOW_S)
        self._reader.close()
