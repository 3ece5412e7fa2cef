"""Blocks get offsets, so that gateways can follow them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("blocks", sa.Column("offset", NUMBER, nullable=False, server_default="0"))
    op.execute(
        'UPDATE blocks SET "offset" = numbered.number FROM '
        "(SELECT user_id, row_number() OVER (ORDER BY user_id) AS number FROM blocks) AS numbered "
        "WHERE numbered.user_id = blocks.user_id"
    )
    op.create_index("blocks_by_offset", "blocks", ["offset"])
    op.execute(  # a backup that is being restored has set it to 0
        "INSERT INTO offsets (name, last) SELECT 'blocks', coalesce(max(\"offset\"), 0) FROM blocks WHERE true "
        "ON CONFLICT (name) DO UPDATE SET last = excluded.last"
    )
