"""Tokens, grants, and what was refused for want of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    text = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
    op.create_table(
        "tokens",
        sa.Column("id", text, nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("subject", text, nullable=False),
        sa.Column("description", text, nullable=False),
        sa.Column("scopes", text, nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.Column("creator", text, nullable=False),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_index(op.f("ix_tokens_create_time_id"), "tokens", ["create_time", "id"])
    op.create_index(op.f("ix_tokens_subject"), "tokens", ["subject"])
    op.create_table(
        "token_uses",
        sa.Column("token_id", text, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token_id", name=op.f("pk_token_uses")),
    )
    op.create_table(
        "grants",
        sa.Column("id", text, nullable=False),
        sa.Column("subject", text, nullable=False),
        sa.Column("role", sa.BigInteger(), nullable=False),
        sa.Column("namespace", text, nullable=False),
        sa.Column("model", text, nullable=False),
        sa.Column("stage_key", text, nullable=False),
        sa.Column("stage", text, nullable=False),
        sa.Column("alias", text, nullable=False),
        sa.Column("creator", text, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
    )
    op.create_index(op.f("ix_grants_create_time_id"), "grants", ["create_time", "id"])
    op.create_index(op.f("ix_grants_namespace"), "grants", ["namespace"])
    op.create_index(
        "ix_grants_same",
        "grants",
        ["subject", "role", "namespace", "model", "stage_key", "alias"],
        unique=True,
    )
    op.create_table(
        "refusals",
        sa.Column("id", text, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("caller", text, nullable=False),
        sa.Column("peer", text, nullable=False),
        sa.Column("method", text, nullable=False),
        sa.Column("reason", text, nullable=False),
        sa.Column("namespace", text, nullable=False),
        sa.Column("model", text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refusals")),
    )
    op.create_index(op.f("ix_refusals_time_id"), "refusals", ["time", "id"])
    op.create_index(op.f("ix_refusals_caller_time_id"), "refusals", ["caller", "time", "id"])
