"""Follow the store's catalog changes: a bundle's items and user attributes as of a second ago."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from handsell.catalog.live_items import LiveItems
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.events.store.interface import CatalogChange, EventReader
from handsell.events.store.rows import hash_person

log = logging.getLogger(__name__)

FOLLOW_S = 1.0  # time between two readings
ERASURES_S = 3.0  # time between two readings of erasures
AT_ONCE = 10_000  # changes read and applied at a time

Users = Mapping[str, Mapping[str, Any]]  # user id → changed attributes; attributes that are not named are unchanged


class LiveCatalog:
    """The changes of one bundle's catalog after the offset that the bundle includes.

    `snapshot` and `users` are replaced as a whole: who has read one sees one version. Listeners are called with each
    new snapshot before it is set, so that nothing of it is computed in a request.
    """

    def __init__(self, base: Snapshot, reader: EventReader, after: int, untouched: Mapping[str, float], config: Config):
        """untouched: value of each item feature for an item without events."""
        self.snapshot: Snapshot = base
        self.users: Users = {}
        self.offset = after
        self.read_at = time.monotonic()  # of the last successful reading
        names = base.value_names
        values = np.array([untouched.get(name, np.nan) for name in names], np.float32)
        columns = {
            name: names.index(f"item_{name}") for name in config.features.item_columns if f"item_{name}" in names
        }
        self._items, self._reader = LiveItems(base, values, columns), reader
        features = config.features
        self._attributes = (*features.filter_attributes, *features.user_columns)
        self._erased: dict[str, int] = {}  # SHA-256 of the user id → time of the erasure
        self._read_erasures_at = 0.0
        self._listeners: list[Callable[[Snapshot], object]] = []
        self._lock = threading.Lock()
        weakref.finalize(self, reader.close).atexit = False

    def subscribe(self, listener: Callable[[Snapshot], object]) -> None:
        """Call `listener` with the present and with each later snapshot."""
        with self._lock:
            self._listeners.append(listener)
            listener(self.snapshot)

    def read(self) -> None:
        """Read and apply all new changes; raises what the store raises."""
        with self._lock:
            while changes := self._reader.read_changes(self.offset, AT_ONCE):
                self._apply(changes)
                self.offset = changes[-1].offset
            if self.users and time.monotonic() >= self._read_erasures_at:
                self._forget_erased_users()
                self._read_erasures_at = time.monotonic() + ERASURES_S
            self.read_at = time.monotonic()

    def forget_users(self, user_ids: Collection[str]) -> None:
        """Forget the attributes of users who have been erased from the store."""
        with self._lock:
            self.users = {user_id: fields for user_id, fields in self.users.items() if user_id not in user_ids}

    @property
    def age_s(self) -> float:
        """Seconds since the store was last read."""
        return time.monotonic() - self.read_at

    def _apply(self, changes: list[CatalogChange]) -> None:
        items = [change for change in changes if change.kind == "item"]
        users = [change for change in changes if change.kind == "user"]
        if users and self._attributes:
            self.users = self._change_users(self.users, users)
        snapshot = self._items.apply(items) if items else self.snapshot
        if snapshot is not self.snapshot:
            for listener in self._listeners:
                try:
                    listener(snapshot)
                except Exception:
                    log.exception("a version of the live catalog was not taken over; the next one will be")
            self.snapshot = snapshot

    def _forget_erased_users(self) -> None:
        """Read what the store has of users who have been erased since: only what came after the erasure."""
        erased = {erasure.person: erasure.time for erasure in self._reader.read_erasures()}
        fresh = {person for person, erased_at in erased.items() if self._erased.get(person) != erased_at}
        gone = {user_id for user_id in self.users if hash_person(user_id) in fresh} if fresh else set()
        if gone:
            kept = {user_id: fields for user_id, fields in self.users.items() if user_id not in gone}
            self.users = self._change_users(kept, self._reader.read_changes_of("user", list(gone)))
        self._erased = erased

    def _change_users(self, users: Users, changes: list[CatalogChange]) -> Users:
        found = dict(users)
        for change in changes:
            whole = dict.fromkeys(self._attributes) if change.action != "patch" else found.get(change.id, {})
            named = change.fields if change.action != "delete" else {}
            found[change.id] = {**whole, **{name: named[name] for name in self._attributes if name in named}}
        return found


class CatalogFollower:
    """Reads the changes of all live catalogs of this process in one thread."""

    def __init__(self) -> None:
        self._catalogs: weakref.WeakSet[LiveCatalog] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._failing = False

    def follow(self, catalog: LiveCatalog) -> LiveCatalog:
        with self._lock:
            self._catalogs.add(catalog)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="catalog-changes")
                self._thread.start()
        return catalog

    def read_all(self) -> None:
        """Read once; a failure is logged when it begins and when it ends, and the last version stays."""
        with self._lock:
            catalogs = list(self._catalogs)
        failure: Exception | None = None
        for catalog in catalogs:
            try:
                catalog.read()
            except Exception as error:
                failure = error
        if failure is not None and not self._failing:
            log.error("catalog changes cannot be read; the last known ones hold: %r", failure, exc_info=failure)
        if failure is None and self._failing:
            log.info("catalog changes are read again")
        self._failing = failure is not None

    def _run(self) -> None:
        while True:
            time.sleep(FOLLOW_S)
            self.read_all()


FOLLOWER = CatalogFollower()
"""That of this process."""
