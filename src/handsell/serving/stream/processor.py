"""Follow the event store and keep the online rows of users up to date, with the fold of the batch job.

Rows are written with the offset that they include, then the position is saved. After a crash between the two, events
at or below a row's offset are not folded again. `materialize` may write older rows at any time: it holds the same lock,
and afterwards the position goes back to the offset of those rows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from handsell.bundles.manifest import Manifest
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.logs.log_lines import set_named_ids
from handsell.events.store.interface import Columns, EventReader
from handsell.features.storage.online_rows import UserStore
from handsell.features.storage.row_updates import fold_into_rows
from handsell.features.storage.row_writers import RowLock, read_batch_write
from handsell.serving.stream.recent_likes import LikeCounter, RecentLikes

log = logging.getLogger(__name__)

POSITION = "processor"  # events through this offset are in the online rows
MATERIALIZED = "processor_materialized"  # start (µs) of the last `materialize` after which the position went back
IDENTITIES = "processor_identities"  # merged visitors through this offset have no row
BATCH = 20_000  # events read at once; those of a user share one write
USERS = 512  # users whose rows are written together
FOLDED = ("offset", "type", "item_id", "time", "value", "key")  # columns of events
SAVE_S = 1.0  # the position is saved at most this often
PERIOD_S = 1.0  # full batches aside, one begins at most this often, so that a user's events share a write
ERASURES_S = 5.0  # erasures are read at most this often
LIKES_S = 2.0  # recent likes are summed at most this often
RETRY_S = 2.0  # pause after an error


class UserRowStore(UserStore, Protocol):
    """Online rows of users, see handsell.features.store."""

    @property
    def lock(self) -> RowLock: ...

    def write_user_rows(self, rows: Mapping[str, pa.Table]) -> None: ...


class StreamCatalog(Protocol):
    """The live bundle and its catalog."""

    def snapshot(self) -> Snapshot: ...

    def follow(self) -> Manifest: ...


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """How far the processor is."""

    position: int  # offset through which events are in the rows
    last_offset: int  # of the store, when last looked
    events: int  # folded since the start
    rows: int  # written since the start


class Processor:
    """One writer of online rows; `save_position` stores (name, offset)."""

    def __init__(
        self,
        config: Config,
        store: UserRowStore,
        reader: EventReader,
        catalog: StreamCatalog,
        save_position: Callable[[str, int], None],
    ):
        self._config, self._store, self._reader = config, store, reader
        self._catalog, self._save_position = catalog, save_position
        self._position = self._saved = reader.read_position(POSITION)
        self._materialized = reader.read_position(MATERIALIZED)
        self._identities = reader.read_position(IDENTITIES)
        self._saved_at = 0.0
        self._likes: LikeCounter | None = None
        self._read_likes_at = self._read_erasures_at = 0.0
        self._forgotten: set[tuple[str, int]] = set()
        self.likes: RecentLikes | None = None  # replaced as a whole: another thread reads it
        self._events = self._rows = 0

    @property
    def progress(self) -> StreamProgress:
        return StreamProgress(self._position, max(self._position, self._reader.last_offset()), self._events, self._rows)

    def run(self, stop: threading.Event) -> None:
        """Follow the store until `stop`; an error is logged and the batch tried again."""
        while not stop.is_set():
            begun = time.monotonic()
            try:
                more = self.process_batch() == BATCH
                more |= self.count_likes()
                took_s = time.monotonic() - begun
                pause_s = 0.0 if more else max(PERIOD_S - took_s, took_s)
            except Exception:
                log.exception("the stream processor could not process a batch and tries it again")
                pause_s = RETRY_S
            stop.wait(pause_s)
        self.save()

    def process_batch(self) -> int:
        """Fold the next events into the rows of their users; return how many were read."""
        with self._store.lock:  # events are read under it, too: those of an erased user must not come back
            self._go_back_after_materialize()
            self._forget_merged_visitors()
            self._forget_erased_users()
            events = self._reader.scan(self._position, BATCH)
            count = len(events["offset"])
            set_named_ids(lambda: (*events["user_id"], *events["item_id"]))  # which an error may name
            if count:
                self._rows += update_rows(events, self._store, self._catalog.snapshot(), self._config)
                self._events += count
                if self._likes is not None and self._likes.offset >= self._position:
                    self._likes.add(events)
                self._position = events["offset"][-1]
        if self._position != self._saved and (not count or time.monotonic() >= self._saved_at + SAVE_S):
            self.save()
        return count

    def count_likes(self) -> bool:
        """Count the likes of the events that are in the rows; return whether there may be more.

        Popularity and trends of a bundle include the events through its `events_through`; counting begins after it.
        """
        manifest = self._catalog.follow()
        if self._likes is None or self._likes.bundle != manifest.id:
            self._likes = LikeCounter(self._config, manifest.id, manifest.events_through)
        more = self._likes.catch_up(self._reader, self._position)
        if not more and time.monotonic() >= self._read_likes_at + LIKES_S:
            self._read_likes_at = time.monotonic()
            if self.likes is None or (self.likes.bundle, self.likes.version) != (manifest.id, self._likes.offset):
                self.likes = self._likes.read()
        return more

    def save(self) -> None:
        """Save the position, of which every event is in the rows."""
        if self._position != self._saved:
            self._save_position(POSITION, self._position)
            self._saved, self._saved_at = self._position, time.monotonic()

    def _go_back_after_materialize(self) -> None:
        """Fold the events again that the rows of a newer `materialize` lack."""
        done = read_batch_write(self._config, self._reader)
        if done.started_us == self._materialized:
            return
        self._position = min(self._position, done.log_offset)
        self.save()
        self._save_position(MATERIALIZED, done.started_us)
        self._materialized = done.started_us

    def _forget_merged_visitors(self) -> None:
        """Delete the rows of visitors whose events now belong to a user."""
        while merged := self._reader.read_identities(self._identities):
            self._store.forget_users([identity.visitor_id for identity in merged])
            self._identities = merged[-1].offset
            self._save_position(IDENTITIES, self._identities)

    def _forget_erased_users(self) -> None:
        """Delete the rows of erased users, whose events are gone, and fold those of a history that has begun since."""
        if time.monotonic() < self._read_erasures_at:
            return
        self._read_erasures_at = time.monotonic() + ERASURES_S
        pending = {(e.user_id, e.time): e.user_id for e in self._reader.read_erasures() if e.user_id is not None}
        users = sorted({user_id for erasure, user_id in pending.items() if erasure not in self._forgotten})
        if users:
            self._store.forget_users(users)
            tails = self._reader.read_tails(users, [0] * len(users), BATCH)
            update_rows(tails, self._store, self._catalog.snapshot(), self._config)
        self._forgotten = set(pending)


def update_rows(events: Columns, store: UserRowStore, snapshot: Snapshot, config: Config) -> int:
    """Fold events (N,), in order of offsets, into the online rows of their users; return the number of rows."""
    place: dict[str, int] = {}
    row = np.array([place.setdefault(user_id, len(place)) for user_id in events["user_id"]], np.int64)
    users, order = list(place), np.argsort(row, kind="stable")
    for begin in range(0, len(users), USERS):
        some = users[begin : begin + USERS]
        first, last = np.searchsorted(row[order], [begin, begin + USERS]).tolist()
        own = order[first:last]
        part = {name: [events[name][i] for i in own.tolist()] for name in FOLDED}
        part["row"] = (row[own] - begin).tolist()
        store.write_user_rows(fold_into_rows(store.online_users(some), some, part, snapshot, config))
    return len(users)
