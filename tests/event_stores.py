"""Both engines of the event store for tests that run on each: `event_store` is an empty store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from handsell.events.store.interface import EventReader, EventWriter

ITEMS = '{"item_id":["a","b"],"score":[0.5,0.4],"propensity":[1,1],"sources":[["x"],[]]}'


@dataclass(frozen=True)
class EventStore:
    """Opens one store; with SQLite, close a writer before the next is opened."""

    engine: str
    address: str  # path or URL
    open_writer: Callable[[], EventWriter]
    open_reader: Callable[[], EventReader]


def make_event(n, user="u1", **more):
    return {"event_id": f"e{n}", "user_id": user, "item_id": f"i{n}", "type": "click", "time": 1_000 + n, **more}


def make_slate(n, user="u1", **more):
    return {
        "recommendation_id": f"r{n}", "gateway": "g1", "sequence": n, "time": 1_000 + n, "user_id": user,
        "surface": "home", "bundle": "b1", "items": ITEMS, **more,
    }  # fmt: skip


def open_sqlite(path) -> EventStore:
    from handsell.events.store.sqlite_reader import SqliteReader
    from handsell.events.store.sqlite_writer import SqliteWriter

    return EventStore("sqlite", str(path), lambda: SqliteWriter(path), lambda: SqliteReader(path))


def open_postgresql(url: str) -> EventStore:
    from handsell.events.store.postgresql.reader import PostgresReader
    from handsell.events.store.postgresql.writer import PostgresWriter

    return EventStore("postgresql", url, lambda: PostgresWriter(url), lambda: PostgresReader(url))


@pytest.fixture(params=["sqlite", "postgresql"])
def event_store(request, tmp_path) -> EventStore:
    if request.param == "sqlite":
        return open_sqlite(tmp_path / "events" / "log.db")
    return open_postgresql(request.getfixturevalue("postgresql").create_database())


@pytest.fixture
def writer(event_store) -> Iterator[EventWriter]:
    opened = event_store.open_writer()
    yield opened
    opened.close()


@pytest.fixture
def reader(event_store) -> Iterator[EventReader]:
    opened = event_store.open_reader()
    yield opened
    opened.close()
