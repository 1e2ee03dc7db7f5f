"""Webhooks, their places in the log, and what became of their deliveries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    text = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
    op.create_table(
        "webhooks",
        sa.Column("id", text, nullable=False),
        sa.Column("namespace", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("description", text, nullable=False),
        sa.Column("url", text, nullable=False),
        sa.Column("events", text, nullable=False),
        sa.Column("models", text, nullable=False),
        sa.Column("model_prefix", text, nullable=False),
        sa.Column("format", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=True),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace"], ["namespaces.name"], name=op.f("fk_webhooks_namespace")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index(
        op.f("ix_webhooks_namespace_create_time_id"), "webhooks", ["namespace", "create_time", "id"]
    )
    op.create_table(
        "webhook_cursors",
        sa.Column("webhook_id", text, nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("skip", sa.BigInteger(), nullable=False),
        sa.Column("holder", text, nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("lease_end_time", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("failing_since_time", sa.BigInteger(), nullable=True),
        sa.Column("next_attempt_time", sa.BigInteger(), nullable=True),
        sa.Column("error", text, nullable=False),
        sa.Column("delivered_revision", sa.BigInteger(), nullable=False),
        sa.Column("delivered_time", sa.BigInteger(), nullable=True),
        sa.Column("missed_revisions", sa.BigInteger(), nullable=False),
        sa.Column("last_missed_revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_webhook_cursors_webhook_id")
        ),
        sa.PrimaryKeyConstraint("webhook_id", name=op.f("pk_webhook_cursors")),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", text, nullable=False),
        sa.Column("webhook_id", text, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.BigInteger(), nullable=False),
        sa.Column("event", text, nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("response_status", sa.BigInteger(), nullable=False),
        sa.Column("error", text, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("attempt_time", sa.BigInteger(), nullable=True),
        sa.Column("next_attempt_time", sa.BigInteger(), nullable=True),
        sa.Column("until_revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_webhook_deliveries_webhook_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    for columns in (("webhook_id", "revision", "place"), ("webhook_id", "status", "revision")):
        name = op.f(f"ix_webhook_deliveries_{'_'.join(columns)}")
        op.create_index(name, "webhook_deliveries", list(columns))
    if op.get_bind().dialect.name == "postgresql":
        # Each delivery rewrites its webhook's place: with room on the page that costs no index.
        op.execute("ALTER TABLE webhook_cursors SET (fillfactor = 50)")
