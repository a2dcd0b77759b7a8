"""A study may want a number of judgements a pair."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Those that there are want none: everybody judges every pair."""
    op.add_column("studies", sa.Column("wanted", sa.Integer(), nullable=True))
    op.create_table(
        "turns",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("pair_id", sa.Integer(), nullable=False),
        sa.Column("taken_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["pair_id"], ["pairs.id"], name="fk_turns_pair_id"),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name="fk_turns_person_id"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_turns_study_id"),
        sa.PrimaryKeyConstraint("study_id", "person_id", name="pk_turns"),
    )
