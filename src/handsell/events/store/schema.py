"""The revision of the event store's tables, and their upgrade with Alembic.

Alembic and SQLAlchemy are imported only where there is something to upgrade.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handsell.events.store.interface import EventStoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection

HEAD = "0005"
KNOWN = ("0001", "0002", "0003", "0004", HEAD)
READ_REVISION = "SELECT version_num FROM alembic_version"


def is_current(revision: str | None, store: str) -> bool:
    """Return whether a store needs no upgrade; raises EventStoreError if a newer version has written it.

    `revision` is None where the tables have none yet.
    """
    if revision is not None and revision not in KNOWN:
        raise EventStoreError(
            f"{store} was written by a newer version of handsell: expected revision {HEAD} or earlier, got "
            f"{revision}; install that version again, or restore a backup from before the upgrade"
        )
    return revision == HEAD


def upgrade_tables(connection: Connection, revision: str = HEAD) -> None:
    """Create the tables or upgrade those of an earlier version, inside the connection's transaction."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "handsell.events.store:migrations")
    script = ScriptDirectory.from_config(config)
    with EnvironmentContext(config, script, fn=lambda current, _: script._upgrade_revs(revision, current)) as upgrade:  # type: ignore[arg-type]
        upgrade.configure(connection=connection, transactional_ddl=False)  # the caller has a transaction
        upgrade.run_migrations()
