"""The durable event log: one SQLite file, one writer process, any number of readers on the machine.

An event is acknowledged only after it is on disk (WAL, synchronous FULL). Appends that arrive during a commit form
the next group: one disk synchronization per group, without a timer. A second event with the same key
(handsell.data.event_key) is a duplicate and changes nothing.
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

import pyarrow as pa
from filelock import FileLock, Timeout

from handsell.data.event_key import EVENT_KEY, compute_event_keys
from handsell.events.store.interface import EVENT_FIELDS, SLATE_FIELDS, AppendResult, CatalogChange, EventStoreError

GROUP = 256  # a group is committed at this number of events, even if more are waiting

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    "offset" INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT, user_id TEXT NOT NULL, item_id TEXT NOT NULL, type TEXT NOT NULL, time INTEGER NOT NULL,
    value REAL, surface TEXT, recommendation_id TEXT, position INTEGER, propensity REAL, key INTEGER NOT NULL UNIQUE
);
CREATE INDEX IF NOT EXISTS events_of_user ON events (user_id, "offset");
CREATE TABLE IF NOT EXISTS slates (
    "offset" INTEGER PRIMARY KEY AUTOINCREMENT,
    recommendation_id TEXT NOT NULL UNIQUE, gateway TEXT NOT NULL, sequence INTEGER NOT NULL, time INTEGER NOT NULL,
    user_id TEXT, surface TEXT NOT NULL, bundle TEXT NOT NULL, items TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS slates_of_user ON slates (user_id, time);
CREATE TABLE IF NOT EXISTS blocks (user_id TEXT PRIMARY KEY, creators TEXT NOT NULL, tags TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS catalog_changes (
    "offset" INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL, id TEXT NOT NULL, action TEXT NOT NULL, fields TEXT NOT NULL, time INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS changes_of_id ON catalog_changes (kind, id, "offset");
CREATE TABLE IF NOT EXISTS positions (name TEXT PRIMARY KEY, "offset" INTEGER NOT NULL);
"""


def _insert_once(table: str, names: Sequence[str], key: str) -> str:
    marks = ", ".join("?" * len(names))
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks}) ON CONFLICT ({key}) DO NOTHING"


_INSERT = {
    "events": _insert_once("events", (*EVENT_FIELDS, "key"), "key"),
    "slates": _insert_once("slates", SLATE_FIELDS, "recommendation_id"),
    "blocks": "INSERT OR REPLACE INTO blocks (user_id, creators, tags) VALUES (?, ?, ?)",
    "catalog_changes": "INSERT INTO catalog_changes (kind, id, action, fields, time) VALUES (?, ?, ?, ?, ?)",
    "positions": 'INSERT OR REPLACE INTO positions (name, "offset") VALUES (?, ?)',
}


@dataclass(slots=True)
class _Waiting:
    table: str  # of _INSERT
    rows: list[Any]  # events as given; tuples for other tables
    done: Future


class SqliteWriter:
    """The writer, a context manager. Appends return futures that complete after the commit."""

    def __init__(self, path: Path, *, lock_wait_s: float = 0.0):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = _lock(path.with_suffix(".lock"), lock_wait_s)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        _upgrade(self._db)
        self._db.executescript(_SCHEMA)
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._closed = False
        self._writer = threading.Thread(target=self._write_groups, name="event-log", daemon=True)
        self._writer.start()

    def append(self, events: Sequence[dict[str, Any]]) -> Future[AppendResult]:
        """Append events, dicts of EVENT_FIELDS (absent = null); the future raises EventStoreError if that fails.

        `sent_time`, if given, replaces `time` in the key: it is None where the time is that of the arrival.
        """
        return self._submit("events", list(events))

    def append_slates(self, slates: Sequence[dict[str, Any]]) -> Future[AppendResult]:
        """Append served slates, dicts of SLATE_FIELDS; a repeated `recommendation_id` is ignored."""
        return self._submit("slates", [tuple(s[f] for f in SLATE_FIELDS) for s in slates])

    def put_blocks(self, user_id: str, creators: Sequence[str], tags: Sequence[str]) -> Future[AppendResult]:
        """Replace the creators and tags that a user blocks."""
        return self._submit("blocks", [(user_id, json.dumps(list(creators)), json.dumps(list(tags)))])

    def append_changes(self, changes: Sequence[CatalogChange]) -> Future[AppendResult]:
        rows = [(c.kind, c.id, c.action, json.dumps(c.fields, ensure_ascii=False), c.time) for c in changes]
        return self._submit("catalog_changes", rows)

    def save_position(self, name: str, offset: int) -> Future[AppendResult]:
        return self._submit("positions", [(name, offset)])

    def _submit(self, table: str, rows: list[Any]) -> Future[AppendResult]:
        if self._closed:
            raise EventStoreError(f"event log {self.path} is closed: open it again before appending")
        done: Future[AppendResult] = Future()
        done.set_running_or_notify_cancel()  # a cancelled caller must not cancel the shared commit
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
            keyed = iter(_build_rows([event for w in group if w.table == "events" for event in w.rows]))
            rows = [[next(keyed) for _ in w.rows] if w.table == "events" else w.rows for w in group]
            self._db.execute("BEGIN IMMEDIATE")
            results = [self._insert(w.table, own) for w, own in zip(group, rows, strict=True)]
            self._db.execute("COMMIT")
        except Exception as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            failure = EventStoreError(
                f"event log {self.path}: nothing was stored: {error}; free disk space and send again"
            )
            for waiting in group:
                waiting.done.set_exception(failure)
            return
        for waiting, result in zip(group, results, strict=True):
            waiting.done.set_result(result)

    def _insert(self, table: str, rows: list[tuple]) -> AppendResult:
        offsets = []
        for row in rows:
            cursor = self._db.execute(_INSERT[table], row)
            offsets.append(cursor.lastrowid if cursor.rowcount > 0 else -1)
        duplicates = offsets.count(-1)
        return AppendResult(len(offsets) - duplicates, duplicates, tuple(offsets))  # type: ignore[arg-type]

    def close(self) -> None:
        """Commit all pending appends, then close the file and release the lock."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._writer.join()
        self._db.close()
        self._lock.release()

    def __enter__(self) -> SqliteWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _build_rows(events: Sequence[dict[str, Any]]) -> list[tuple]:
    """Return the rows of events: EVENT_FIELDS and the key. The keys of a group are computed at once."""
    if not events:
        return []
    columns = {name: [event.get(name) for event in events] for name in EVENT_KEY}
    columns["time"] = [event.get("sent_time", event["time"]) for event in events]
    kinds = {name: pa.int64() if name == "time" else pa.string() for name in EVENT_KEY}
    keys = compute_event_keys({name: pa.array(column, kinds[name]) for name, column in columns.items()})
    return [(*(e.get(f) for f in EVENT_FIELDS), key) for e, key in zip(events, keys.tolist(), strict=True)]


def _upgrade(db: sqlite3.Connection) -> None:
    """Give the events of a log without keys, in which an `event_id` was unique, their keys; offsets stay."""
    columns = {row[1] for row in db.execute("PRAGMA table_info(events)")}
    if not columns or "key" in columns:
        return
    db.execute("BEGIN IMMEDIATE")
    db.execute("DROP INDEX IF EXISTS events_of_user")
    db.execute("ALTER TABLE events RENAME TO events_before")
    db.execute(_SCHEMA.partition(";")[0])
    names = ("offset", *EVENT_FIELDS)
    old = db.execute(f'SELECT "offset", {", ".join(EVENT_FIELDS)} FROM events_before')
    insert = _insert_once("events", ('"offset"', *EVENT_FIELDS, "key"), "key")
    while rows := old.fetchmany(10_000):
        keyed = _build_rows([dict(zip(names, row, strict=True)) for row in rows])
        db.executemany(insert, [(row[0], *after) for row, after in zip(rows, keyed, strict=True)])
    db.execute("DROP TABLE events_before")
    db.execute("COMMIT")


def _lock(path: Path, wait_s: float) -> FileLock:
    """Acquire the writer's lock; the kernel releases it when the process ends for any reason."""
    lock, owner = FileLock(path, mode=0o600, thread_local=False), path.with_suffix(".owner")
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        held_by = owner.read_text() if owner.exists() else "unknown"
        raise EventStoreError(
            f"{path} is locked by process {held_by}: an event log has one writer; stop that process first"
        ) from None
    owner.write_text(str(os.getpid()))
    return lock
