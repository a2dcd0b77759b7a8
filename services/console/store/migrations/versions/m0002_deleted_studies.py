"""Studies may be deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """All that there are stay."""
    op.add_column("studies", sa.Column("deleted_at", sa.Double(), nullable=True))
