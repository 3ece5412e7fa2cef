"""API keys, the requests that each made in a day, and the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("created_us", NUMBER, nullable=False),
        sa.Column("former_secret", sa.Text),
        sa.Column("former_until_us", NUMBER),
        sa.Column("expires_us", NUMBER),
        sa.Column("revoked_us", NUMBER),
        sa.Column("rate_per_s", sa.Double),
        sa.Column("quota_per_day", NUMBER),
        sa.Column("offset", NUMBER, nullable=False),
    )
    op.create_index("api_keys_by_offset", "api_keys", ["offset"])
    op.create_table(
        "key_usage",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("day", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("requests", NUMBER, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("offset", NUMBER, primary_key=True, autoincrement=False),
        sa.Column("time_us", NUMBER, nullable=False),
        sa.Column("key_id", sa.Text),
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("object", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    for table in ("api_keys", "audit"):
        op.execute(f"INSERT INTO offsets (name, last) VALUES ('{table}', 0) ON CONFLICT (name) DO NOTHING")
