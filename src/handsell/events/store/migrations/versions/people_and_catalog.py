"""Catalog changes, identities, erasures, positions, the keys of trimmed events, and the last offset of each table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "catalog_changes",
        sa.Column("offset", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("fields", sa.Text, nullable=False),
        sa.Column("time", NUMBER, nullable=False),
        if_not_exists=True,
    )
    op.create_index("changes_of_id", "catalog_changes", ["kind", "id", "offset"], if_not_exists=True)
    op.create_table(
        "identities",
        sa.Column("offset", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("visitor_id", sa.Text, nullable=False, unique=True),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("time", NUMBER, nullable=False),
    )
    op.create_index("visitors_of_user", "identities", ["user_id"])
    op.create_table(
        "erasures",
        sa.Column("person", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text),
        sa.Column("time", NUMBER, nullable=False),
    )
    op.create_table(
        "positions",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("offset", NUMBER, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "trimmed_keys",
        sa.Column("key", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("offset", NUMBER, nullable=False),
        sa.Column("owner", NUMBER, nullable=False),
    )
    op.create_index("trimmed_keys_by_offset", "trimmed_keys", ["offset"])
    op.create_table(
        "removed_slates",
        sa.Column("gateway", sa.Text, primary_key=True),
        sa.Column("count", NUMBER, nullable=False),
        sa.Column("last", NUMBER, nullable=False),
    )
    op.create_table(
        "offsets",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("last", NUMBER, nullable=False),
    )
    for table in ("events", "slates", "catalog_changes", "identities"):
        last = f'SELECT coalesce(max("offset"), 0) FROM {table}'
        op.execute(f"INSERT INTO offsets (name, last) VALUES ('{table}', ({last}))")
