"""The id by which the arms of a merged person are assigned; rows of earlier versions have the visitor merged first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("identities", sa.Column("unit", sa.Text))
