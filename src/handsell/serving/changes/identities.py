"""Merged visitors: whose requests are answered as a user's, on every gateway."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from handsell.events.store.interface import EventReader, Identity
from handsell.events.store.rows import hash_person

log = logging.getLogger(__name__)

FOLLOW_S = 1.0
READ = 10_000  # identities in one read
ROUNDS = 10  # of reads of new merges, between reads of erasures


class Identities:
    """The user of each merged visitor; a thread follows the event store, because another gateway may have merged."""

    def __init__(self, open_reader: Callable[[], EventReader]):
        self._owners: dict[str, Identity] = {}  # by visitor
        self._first: dict[str, Identity] = {}  # by user, the visitor merged first
        self._offset, self._failed, self._rounds = 0, False, 0
        self._stop = threading.Event()
        threading.Thread(target=self._follow, args=(open_reader,), name="identities", daemon=True).start()

    def find_user(self, user_id: str | None) -> str | None:
        """Return the user to whom a visitor belongs; other ids are returned as they are."""
        found = self._owners.get(user_id) if user_id is not None else None
        return user_id if found is None else found.user_id

    def find_first_visitor(self, user_id: str | None) -> str | None:
        """Return the visitor by whose id a person's arms are assigned: the first that was merged into the user.

        Visitors are their own until they are merged; a user without visitors is returned.
        """
        user_id = self.find_user(user_id)
        found = self._first.get(user_id) if user_id is not None else None
        return user_id if found is None else found.visitor_id

    def add(self, identity: Identity) -> None:
        """Answer a visitor's requests as the user's from now on."""
        self._owners[identity.visitor_id] = identity
        first = self._first.get(identity.user_id)
        if first is None or (identity.time, identity.visitor_id) < (first.time, first.visitor_id):
            self._first[identity.user_id] = identity

    def forget(self, user_id: str) -> list[str]:
        """Forget the visitors of an erased user; returns their ids."""
        visitors = [v for v, identity in list(self._owners.items()) if identity.user_id == user_id]
        self._remove(visitors)
        return visitors

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
        found = reader.read_identities(self._offset, READ)
        for identity in found:
            self.add(identity)
            self._offset = identity.offset
        if self._rounds % ROUNDS == 0 and self._owners:
            self._drop_erased({erasure.person: erasure.time for erasure in reader.read_erasures()})
        self._rounds += 1
        return len(found) == READ

    def _drop_erased(self, erased: dict[str, int]) -> None:
        self._remove(
            [
                visitor
                for visitor, identity in (list(self._owners.items()) if erased else ())
                if identity.time <= erased.get(hash_person(identity.user_id), -1)
            ]
        )

    def _remove(self, visitors: list[str]) -> None:
        removed = [self._owners.pop(visitor, None) for visitor in visitors]
        for user_id in {identity.user_id for identity in removed if identity is not None}:
            self._first.pop(user_id, None)
            for identity in [other for other in list(self._owners.values()) if other.user_id == user_id]:
                self.add(identity)
