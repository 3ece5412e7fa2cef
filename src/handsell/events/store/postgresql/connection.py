"""Connections to the PostgreSQL database of the event store."""

from __future__ import annotations

import logging
import threading
from functools import cache
from typing import Any

from handsell.events.store.interface import EventStoreError
from handsell.events.store.schema import READ_REVISION, is_current, upgrade_tables

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
except ImportError as error:
    raise EventStoreError(
        "events.store names a PostgreSQL database, but psycopg is not installed: pip install 'handsell[postgres]'"
    ) from error

log = logging.getLogger(__name__)

CONNECT_S = 5
TIMEOUT_MS = 10_000  # of a statement, of a wait for a lock, of a client that is silent within a transaction
INDEXES_ONLY = "-c enable_seqscan=off"  # plans are kept from when the tables were small
UPGRADE_TIMEOUT_MS = 3_600_000
UPGRADE_LOCK = 0x68616E6473656C6C  # "handsell": processes that start at once upgrade one after the other
_SETTINGS = (
    "SELECT current_setting('server_encoding'), current_setting('synchronous_commit'), "
    "current_setting('data_checksums'), to_regclass('alembic_version') IS NOT NULL"
)
_prepared: set[str] = set()  # databases whose tables this process has found current
_preparing = threading.Lock()


def connect(url: str) -> psycopg.Connection:
    """Open a connection whose tables are current and whose commits are durable, in autocommit mode.

    Raises EventStoreError, or psycopg.Error where the server does not answer within CONNECT_S.
    """
    connection = _open(url, TIMEOUT_MS)
    try:
        if url not in _prepared:
            with _preparing:
                prepare(connection, url)
                _prepared.add(url)
        connection.execute("SELECT set_config('synchronous_commit', 'on', false) "
                           "WHERE current_setting('synchronous_commit') = 'off'")  # fmt: skip
        return connection
    except BaseException:
        connection.close()
        raise


def _open(url: str, timeout_ms: int) -> psycopg.Connection:
    given = read_address(url)
    limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    settings = [f"-c {name}={timeout_ms}" for name in limits] + [INDEXES_ONLY]
    options = " ".join([str(given.get("options") or ""), *settings]).strip()
    defaults: dict[str, Any] = {
        "connect_timeout": CONNECT_S, "application_name": "handsell", "tcp_user_timeout": TIMEOUT_MS,
        "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3,
    }  # fmt: skip
    return psycopg.connect(
        make_conninfo("", **defaults | given | {"options": options}), autocommit=True, client_encoding="utf8"
    )


def prepare(connection: psycopg.Connection, url: str) -> None:
    """Check the database; create its tables, or upgrade those of an earlier version."""
    row = connection.execute(_SETTINGS).fetchone()
    assert row is not None
    encoding, _, checksums, has_tables = row
    name = describe(url)
    if encoding != "UTF8":
        raise EventStoreError(
            f"{name}: expected a database with encoding UTF8, got {encoding}: create it with "
            "createdb --template=template0 --encoding=UTF8"
        )
    if checksums != "on":
        log.warning("%s has no data checksums, so that damaged pages are not found: see pg_checksums --enable", name)
    if has_tables and _is_current(connection, name):
        return
    with _open(url, UPGRADE_TIMEOUT_MS) as upgrade:
        upgrade.execute("SELECT pg_advisory_lock(%s)", (UPGRADE_LOCK,))  # until this connection is closed
        has_tables = upgrade.execute("SELECT to_regclass('alembic_version') IS NOT NULL").fetchone() == (True,)
        if not has_tables or not _is_current(upgrade, name):
            upgrade_database(upgrade)


def _is_current(connection: psycopg.Connection, name: str) -> bool:
    found = connection.execute(READ_REVISION).fetchone()
    return is_current(found[0] if found else None, name)


def upgrade_database(connection: psycopg.Connection, revision: str | None = None) -> None:
    """Run the migrations in one transaction."""
    import sqlalchemy
    from sqlalchemy.pool import StaticPool

    # SQLAlchemy begins the transaction itself
    connection.autocommit = False
    try:
        engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: connection, poolclass=StaticPool)
        with engine.begin() as own:
            upgrade_tables(own, *([revision] if revision else []))
    finally:
        connection.autocommit = True


@cache
def read_address(url: str) -> dict[str, Any]:
    """Return the settings that a URL names; raises EventStoreError for a wrong one.

    A password whose special characters are not encoded ends up in other parts, which messages would show.
    """
    place = url.partition("://")[2].partition("?")[0]
    owner, _, database = place.partition("/")
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        given = None
    ports = str((given or {}).get("port") or 0).split(",")
    if given is None or owner.count("@") > 1 or "@" in database or not all(port.isdecimal() for port in ports if port):
        raise EventStoreError(
            "the address of the event store is not valid: expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with "
            "special characters of a password percent-encoded, such as %40 for @, and options that PostgreSQL has"
        )
    return given


@cache
def describe(url: str) -> str:
    """Return the name of a database for messages, without its password."""
    given = read_address(url)
    host, port = given.get("host") or "localhost", given.get("port") or 5432
    return f"event store postgresql://{host}:{port}/{given.get('dbname') or given.get('user') or ''}"


def is_unreachable(error: BaseException) -> bool:
    """Return whether a server does not answer, as opposed to refusing a statement."""
    lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return lost and not isinstance(error, psycopg.errors.DiskFull | psycopg.errors.OutOfMemory)


def explain_failure(url: str, error: Exception, otherwise: str) -> EventStoreError:
    """Say what is wrong with the database, and what to do."""
    if isinstance(error, EventStoreError):
        return error
    what = " ".join(str(error).split()) or repr(error)
    if isinstance(error, psycopg.errors.DataCorrupted | psycopg.errors.IndexCorrupted | psycopg.errors.InternalError_):
        return EventStoreError(
            f"{describe(url)} is damaged ({what}): stop the service, check the disk, and restore the store from the "
            "latest backup with handsell restore"
        )
    if is_unreachable(error):
        return EventStoreError(f"{describe(url)} does not answer ({what}): check that the server runs; {otherwise}")
    return EventStoreError(f"{describe(url)}: {what}; {otherwise}")


@cache
def translate(sql: str) -> str:
    """Return SQL with the marks of psycopg."""
    return sql.replace("?", "%s")
