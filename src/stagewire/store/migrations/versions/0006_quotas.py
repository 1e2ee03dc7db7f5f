"""Quotas of namespaces, and what is counted for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    text = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
    for name in ("max_models", "max_versions", "max_watches", "requests_per_second"):
        column = sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"))
        op.add_column("namespaces", column)
    op.create_table(
        "namespace_usage",
        sa.Column("namespace", text, nullable=False),
        sa.Column("models", sa.BigInteger(), nullable=False),
        sa.Column("versions", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace"],
            ["namespaces.name"],
            name=op.f("fk_namespace_usage_namespace"),
        ),
        sa.PrimaryKeyConstraint("namespace", name=op.f("pk_namespace_usage")),
    )
