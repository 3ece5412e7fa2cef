"""Tables of the SQLite file."""

from __future__ import annotations

import sqlite3

from handsell.events.store.interface import EVENT_FIELDS
from handsell.events.store.rows import EVENT_COLUMNS, build_event_row, compute_keys
from handsell.events.store.transaction import TABLES

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
CREATE TABLE IF NOT EXISTS identities (
    visitor_id TEXT PRIMARY KEY, user_id TEXT NOT NULL, time INTEGER NOT NULL, "offset" INTEGER NOT NULL UNIQUE
);
CREATE INDEX IF NOT EXISTS visitors_of_user ON identities (user_id);
CREATE TABLE IF NOT EXISTS erasures (person TEXT PRIMARY KEY, user_id TEXT, time INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS trimmed_keys (
    key INTEGER PRIMARY KEY, "offset" INTEGER NOT NULL, owner INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS removed_slates (gateway TEXT PRIMARY KEY, count INTEGER NOT NULL, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS offsets (name TEXT PRIMARY KEY, last INTEGER NOT NULL);
"""


def prepare(db: sqlite3.Connection) -> None:
    """Create the tables, or upgrade those of an earlier version."""
    _upgrade(db)
    db.executescript(_SCHEMA)
    for table in TABLES:
        last = f'SELECT coalesce(max("offset"), 0) FROM {table}'
        db.execute(f"INSERT OR IGNORE INTO offsets (name, last) VALUES (?, ({last}))", (table,))


def _upgrade(db: sqlite3.Connection) -> None:
    """Give the events of a log without keys, in which an `event_id` was unique, their keys; offsets stay."""
    columns = {row[1] for row in db.execute("PRAGMA table_info(events)")}
    if not columns or "key" in columns:
        return
    db.execute("BEGIN IMMEDIATE")
    db.execute("DROP INDEX IF EXISTS events_of_user")
    db.execute("ALTER TABLE events RENAME TO events_before")
    db.execute(_SCHEMA.partition(";")[0])
    old = db.execute(f'SELECT "offset", {", ".join(EVENT_FIELDS)} FROM events_before')
    columns_of_event = ", ".join(f'"{name}"' for name in EVENT_COLUMNS)
    marks = ", ".join("?" * len(EVENT_COLUMNS))
    while rows := old.fetchmany(10_000):
        events = [dict(zip(EVENT_FIELDS, row[1:], strict=True)) for row in rows]
        keyed = zip(events, rows, compute_keys(events), strict=True)
        db.executemany(
            f"INSERT OR IGNORE INTO events ({columns_of_event}) VALUES ({marks})",
            [build_event_row(event, row[0], key) for event, row, key in keyed],
        )
    db.execute("DROP TABLE events_before")
    db.execute("COMMIT")
