"""Create and upgrade the tables of the SQLite file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw

from handsell.events.store.interface import EVENT_FIELDS, EventStoreError
from handsell.events.store.schema import HEAD, READ_REVISION, is_current, upgrade_tables
from handsell.events.store.sqlite_file import add_checksums, build_damage_error, has_checksums


def prepare(db: apsw.Connection, path: Path, revision: str = HEAD) -> None:
    """Bring a file that is open for writing up to date; raises EventStoreError for one of a newer version."""
    if not needs_upgrade(db, path):
        return
    if not has_checksums(db):
        add_checksums(db)
    upgrade(db, revision)


def needs_upgrade(db: apsw.Connection, path: Path) -> bool:
    """Return whether an earlier version has written the file; raises EventStoreError if a newer one has."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    found = db.execute(READ_REVISION).fetchall() if "alembic_version" in tables else []
    if tables and not found and not _list_columns(db, "events") >= set(EVENT_FIELDS):
        raise EventStoreError(
            f"{path} is a SQLite file of another program: expected an event store, "
            f"got tables {', '.join(sorted(tables))}; move it away"
        )
    current = is_current(str(found[0][0]) if found else None, f"event store {path}")
    if current and not has_checksums(db):  # the upgrade adds them first
        raise build_damage_error(path, "its header says that pages have no checksums")
    return not current


def _list_columns(db: apsw.Connection, table: str) -> set[str]:
    return {str(row[1]) for row in db.execute(f"PRAGMA table_info({table})")}


def upgrade(db: apsw.Connection, revision: str) -> None:
    """Run the migrations in one transaction."""
    import sqlalchemy
    from sqlalchemy.pool import StaticPool

    engine = sqlalchemy.create_engine(
        "sqlite://", module=_Driver, creator=lambda: _DriverConnection(db), poolclass=StaticPool
    )
    db.execute("BEGIN IMMEDIATE")
    try:
        with engine.connect() as connection:
            upgrade_tables(connection, revision)
            connection.commit()
        db.execute("COMMIT")
    except BaseException as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if isinstance(error, sqlalchemy.exc.DBAPIError) and error.orig is not None:
            raise error.orig from None  # such as a full disk
        raise


class _Driver:
    """What SQLAlchemy needs of a database driver, for migrations alone."""

    paramstyle = "qmark"
    Error = DatabaseError = ProgrammingError = apsw.Error
    sqlite_version_info = tuple(map(int, apsw.sqlite_lib_version().split(".")))
    sqlite_version = apsw.sqlite_lib_version()


class _DriverCursor:
    def __init__(self, db: apsw.Connection):
        self._db, self._cursor = db, db.cursor()
        self._cursor.exec_trace = self._describe
        self.description: Any = None
        self.arraysize, self.rowcount, self.lastrowid = 1, -1, None

    def execute(self, sql: str, values: Any = ()) -> None:
        self._cursor.execute(sql, values)
        self.rowcount = self._db.changes()

    def _describe(self, cursor: apsw.Cursor, *_: Any) -> bool:
        """Note the columns of a query before it runs: after it has returned no rows, they are unknown."""
        self.description = cursor.get_description() or None
        return True

    def executemany(self, sql: str, rows: Any) -> None:
        self._cursor.executemany(sql, rows)

    def fetchall(self) -> list[tuple]:
        return self._cursor.fetchall()

    def fetchone(self) -> tuple | None:
        return self._cursor.fetchone()

    def close(self) -> None:
        self._cursor.close()


class _DriverConnection:
    """A connection whose transaction its owner commits."""

    def __init__(self, db: apsw.Connection):
        self._db = db

    def cursor(self) -> _DriverCursor:
        return _DriverCursor(self._db)

    def create_function(self, *_: Any, **__: Any) -> None:
        """SQLAlchemy registers `regexp`, which no migration uses."""

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def close(self) -> None: ...
