"""Open the event store of a deployment with the engine that its config names."""

from __future__ import annotations

import os

from handsell.config import Config
from handsell.core.errors import ConfigError
from handsell.core.paths import Layout
from handsell.events.store.interface import EventReader, EventWriter
from handsell.events.store.sqlite_reader import SqliteReader
from handsell.events.store.sqlite_writer import SqliteWriter

STORE_VARIABLE = "HANDSELL_EVENT_STORE"
SQLITE = "sqlite"
POSTGRESQL = ("postgresql://", "postgres://")


def find_store(config: Config) -> str:
    """Return SQLITE or the URL of a PostgreSQL database: $HANDSELL_EVENT_STORE, or else events.store.

    Raises ConfigError for anything else.
    """
    variable = os.environ.get(STORE_VARIABLE)
    store = variable or config.events.store
    if store != SQLITE and not store.startswith(POSTGRESQL):
        name = f"${STORE_VARIABLE}" if variable else "events.store"
        raise ConfigError(f"{name}: expected sqlite or postgresql://USER@HOST/DATABASE, got {_shorten(store)}")
    return store


def _shorten(store: str) -> str:
    """Return a wrong address for a message, without anything that may be a password."""
    scheme, is_url, _ = store.partition("://")
    if is_url and scheme.strip().replace("+", "").isalnum():
        return repr(f"{scheme}://…")
    return repr(store) if store.isalnum() else "something else"


def has_one_writer(config: Config) -> bool:
    """Return whether only one process may write: a SQLite file."""
    return find_store(config) == SQLITE


def open_writer(config: Config, lock_wait_s: float = 0.0) -> EventWriter:
    """Open the store for writing; for SQLite, wait up to `lock_wait_s` for another writer to end."""
    store = find_store(config)
    if store == SQLITE:
        return SqliteWriter(Layout(config.state).event_log, lock_wait_s=lock_wait_s)
    from handsell.events.store.postgresql.writer import PostgresWriter  # of the extra `postgres`

    return PostgresWriter(store)


def open_impatient_reader(config: Config) -> EventReader | None:
    """Open a reader that does not wait for other processes; None where the store is a server."""
    return SqliteReader(Layout(config.state).event_log, waits=False) if has_one_writer(config) else None


def open_reader(config: Config) -> EventReader:
    """Open the store for reading, from any process."""
    store = find_store(config)
    if store == SQLITE:
        return SqliteReader(Layout(config.state).event_log)
    from handsell.events.store.postgresql.reader import PostgresReader  # of the extra `postgres`

    return PostgresReader(store)
