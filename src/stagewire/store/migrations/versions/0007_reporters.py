"""Whose an agent is, so that nobody else speaks for it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    text = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
    column = sa.Column("reporter", text, nullable=False, server_default=sa.text("''"))
    op.add_column("agents", column)
