"""The durable event log: one SQLite file, one writer process, any number of readers on the machine.

An event is acknowledged after it is on the disk (WAL, synchronous FULL) and only then. Writers that
arrive while a commit is under way share the next one, so the disk is synchronized once per group and
nobody waits for a timer. A second event with the same `event_id` is a duplicate and changes nothing.
"""

from __future__ import annotations

import json
import os
import queue
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from handsell.core.errors import HandsellError
from handsell.events.impressions import IMPRESSION_FIELDS

EVENT_FIELDS = (
    "event_id", "user_id", "item_id", "type", "time", "value", "surface", "recommendation_id", "position", "propensity",
)  # fmt: skip
"""Columns of an event, those of handsell.data.schemas.EVENTS; `time` is int µs."""

GROUP = 256  # events after which a group is committed though more are waiting

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    "offset" INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL, item_id TEXT NOT NULL, type TEXT NOT NULL,
    time INTEGER NOT NULL, value REAL, surface TEXT, recommendation_id TEXT, position INTEGER, propensity REAL
);
CREATE INDEX IF NOT EXISTS events_of_user ON events (user_id, "offset");
CREATE TABLE IF NOT EXISTS slates (
    "offset" INTEGER PRIMARY KEY AUTOINCREMENT,
    recommendation_id TEXT NOT NULL UNIQUE, gateway TEXT NOT NULL, sequence INTEGER NOT NULL, time INTEGER NOT NULL,
    user_id TEXT, surface TEXT NOT NULL, bundle TEXT NOT NULL, items TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS slates_of_user ON slates (user_id, time);
CREATE TABLE IF NOT EXISTS blocks (user_id TEXT PRIMARY KEY, creators TEXT NOT NULL, tags TEXT NOT NULL);
"""


def _insert_once(table: str, names: Sequence[str], key: str) -> str:
    marks = ", ".join("?" * len(names))
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks}) ON CONFLICT ({key}) DO NOTHING"


_INSERT = {
    "events": _insert_once("events", EVENT_FIELDS, "event_id"),
    "slates": _insert_once("slates", IMPRESSION_FIELDS, "recommendation_id"),
    "blocks": "INSERT OR REPLACE INTO blocks (user_id, creators, tags) VALUES (?, ?, ?)",
}


class EventLogError(HandsellError):
    """The log could not take what it was given (disk full, another writer, closed); nothing was acknowledged."""


@dataclass(frozen=True, slots=True)
class Appended:
    """What one append did; `offsets[i]` is where event i now is, -1 for a duplicate."""

    accepted: int
    duplicates: int
    offsets: tuple[int, ...]


@dataclass(slots=True)
class _Waiting:
    table: str  # of _INSERT
    rows: list[tuple]
    done: Future


class EventLog:
    """The writer. `append` returns a future that completes after the commit; use as a context manager."""

    def __init__(self, path: Path, *, lock_wait_s: float = 0.0):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = _lock(path.with_suffix(".lock"), lock_wait_s)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._closed = False
        self._writer = threading.Thread(target=self._write_groups, name="event-log", daemon=True)
        self._writer.start()

    def append(self, events: Sequence[dict[str, Any]]) -> Future[Appended]:
        """Events as dicts of EVENT_FIELDS (absent = null). The future raises EventLogError when not durable."""
        return self._submit("events", [tuple(e.get(f) for f in EVENT_FIELDS) for e in events])

    def append_slates(self, slates: Sequence[dict[str, Any]]) -> Future[Appended]:
        """Served slates as dicts of IMPRESSION_FIELDS; sending one twice is harmless."""
        return self._submit("slates", [tuple(s[f] for f in IMPRESSION_FIELDS) for s in slates])

    def put_blocks(self, user_id: str, creators: Sequence[str], tags: Sequence[str]) -> Future[Appended]:
        """What a user never wants to be shown; replaces what was there."""
        return self._submit("blocks", [(user_id, json.dumps(list(creators)), json.dumps(list(tags)))])

    def _submit(self, table: str, rows: list[tuple]) -> Future[Appended]:
        if self._closed:
            raise EventLogError(f"event log {self.path} is closed: open it again before appending")
        done: Future[Appended] = Future()
        done.set_running_or_notify_cancel()  # a caller that goes away must not cancel what others share
        self._queue.put(_Waiting(table, rows, done))
        return done

    def _write_groups(self) -> None:
        while (first := self._queue.get()) is not None:
            group, size = [first], len(first.rows)
            while size < GROUP and not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    self._queue.put(None)
                    break
                group.append(more)
                size += len(more.rows)
            self._commit(group)

    def _commit(self, group: list[_Waiting]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            results = [self._insert(w.table, w.rows) for w in group]
            self._db.execute("COMMIT")
        except Exception as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            failure = EventLogError(f"event log {self.path} took nothing: {error}; free disk space and send it again")
            for waiting in group:
                waiting.done.set_exception(failure)
            return
        for waiting, result in zip(group, results, strict=True):
            waiting.done.set_result(result)

    def _insert(self, table: str, rows: list[tuple]) -> Appended:
        offsets = []
        for row in rows:
            cursor = self._db.execute(_INSERT[table], row)
            offsets.append(cursor.lastrowid if cursor.rowcount > 0 else -1)
        duplicates = offsets.count(-1)
        return Appended(len(offsets) - duplicates, duplicates, tuple(offsets))  # type: ignore[arg-type]

    def close(self) -> None:
        """Commit what waits, then let go of the file and the lock."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._writer.join()
        self._db.close()
        self._lock.release()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock(path: Path, wait_s: float) -> FileLock:
    """Hold the writer's lock; the kernel frees it when the process dies, however it dies."""
    lock, owner = FileLock(path, mode=0o600, thread_local=False), path.with_suffix(".owner")
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        held_by = owner.read_text() if owner.exists() else "unknown"
        raise EventLogError(
            f"{path} is held by process {held_by}: an event log has one writer; stop that one first"
        ) from None
    owner.write_text(str(os.getpid()))
    return lock
