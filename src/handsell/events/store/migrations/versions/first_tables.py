"""Events, served slates and blocks. The SQLite files of earlier versions, which had no revision, keep their rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from handsell.events.store.interface import EVENT_FIELDS
from handsell.events.store.rows import EVENT_COLUMNS, build_event_row, compute_keys

revision = "0001"
down_revision = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    known = sa.inspect(op.get_bind())
    if known.has_table("events") and "key" not in {column["name"] for column in known.get_columns("events")}:
        _add_keys()
    op.create_table(
        "events",
        sa.Column("offset", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("event_id", sa.Text),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("time", NUMBER, nullable=False),
        sa.Column("value", sa.Double),
        sa.Column("surface", sa.Text),
        sa.Column("recommendation_id", sa.Text),
        sa.Column("position", NUMBER),
        sa.Column("propensity", sa.Double),
        sa.Column("key", NUMBER, nullable=False, unique=True),
        if_not_exists=True,
    )
    op.create_index("events_of_user", "events", ["user_id", "offset"], if_not_exists=True)
    op.create_table(
        "slates",
        sa.Column("offset", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("recommendation_id", sa.Text, nullable=False, unique=True),
        sa.Column("gateway", sa.Text, nullable=False),
        sa.Column("sequence", NUMBER, nullable=False),
        sa.Column("time", NUMBER, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("surface", sa.Text, nullable=False),
        sa.Column("bundle", sa.Text, nullable=False),
        sa.Column("items", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_index("slates_of_user", "slates", ["user_id", "time"], if_not_exists=True)
    op.create_table(
        "blocks",
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("creators", sa.Text, nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        if_not_exists=True,
    )


def _add_keys() -> None:
    """Give the events of a file without keys, in which an `event_id` was unique, their keys; offsets stay."""
    db = op.get_bind()
    columns = ", ".join(f'"{name}"' for name in EVENT_COLUMNS)
    marks = ", ".join("?" * len(EVENT_COLUMNS))
    db.exec_driver_sql("DROP INDEX IF EXISTS events_of_user")
    db.exec_driver_sql("ALTER TABLE events RENAME TO events_before")
    db.exec_driver_sql(
        'CREATE TABLE events ("offset" INTEGER PRIMARY KEY, event_id TEXT, user_id TEXT NOT NULL, item_id TEXT NOT '
        "NULL, type TEXT NOT NULL, time INTEGER NOT NULL, value REAL, surface TEXT, recommendation_id TEXT, position "
        "INTEGER, propensity REAL, key INTEGER NOT NULL UNIQUE)"
    )
    before, names = 0, ", ".join(EVENT_FIELDS)
    page = f'SELECT "offset", {names} FROM events_before WHERE "offset" > ? ORDER BY "offset" LIMIT 10000'
    while rows := db.exec_driver_sql(page, (before,)).fetchall():
        events = [dict(zip(EVENT_FIELDS, row[1:], strict=True)) for row in rows]
        keyed = zip(events, rows, compute_keys(events), strict=True)
        db.exec_driver_sql(
            f"INSERT OR IGNORE INTO events ({columns}) VALUES ({marks})",
            [build_event_row(event, row[0], key) for event, row, key in keyed],
        )
        before = rows[-1][0]
    db.exec_driver_sql("DROP TABLE events_before")
