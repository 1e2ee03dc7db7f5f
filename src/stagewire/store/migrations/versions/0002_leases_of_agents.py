"""Leases of agents, complete reports, and an index for each filter of deployments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COLUMNS = ("complete_from_seq", "lease_end_time")
_INDEXES = (
    ("namespace", "model", "target", "stage_key", "agent"),
    ("namespace", "agent", "target", "model", "stage_key"),
    ("namespace", "state", "target", "model", "stage_key", "agent"),
)


def upgrade() -> None:
    """Apply."""
    postgresql = op.get_bind().dialect.name == "postgresql"
    for name in _COLUMNS:
        # Rows that are there need a value; new ones always bring theirs.
        column = sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")
        op.add_column("agents", column)
        if postgresql:
            op.alter_column("agents", name, server_default=None)
    # Until now every agent was told to report after ten seconds.
    op.execute("UPDATE agents SET lease_end_time = report_time + 30000000")
    op.drop_index("ix_deployments_namespace_model", "deployments")
    for columns in _INDEXES:
        op.create_index(f"ix_deployments_{'_'.join(columns)}", "deployments", list(columns))
    if postgresql:
        # Each report rewrites its rows: with room on the page that costs no index entry.
        for table in ("agents", "deployments"):
            op.execute(f"ALTER TABLE {table} SET (fillfactor = 70)")
