"""Where a version's files are, its logged model, and when MLflow says it last changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_INDEX = ("namespace", "mlflow_time", "model_id", "number")


def upgrade() -> None:
    """Apply."""
    postgresql = op.get_bind().dialect.name == "postgresql"
    text = sa.TEXT(collation="C") if postgresql else sa.Text()
    for name, kind, default in (
        ("logged_model_id", text, ""),
        ("storage_uri", text, ""),
        ("mlflow_time", sa.BigInteger(), "0"),
    ):
        # Rows that are there need a value; new ones always bring theirs.
        column = sa.Column(name, kind, nullable=False, server_default=default)
        op.add_column("model_versions", column)
        if postgresql:
            op.alter_column("model_versions", name, server_default=None)
    op.execute("UPDATE model_versions SET mlflow_time = update_time")
    op.create_index(f"ix_model_versions_{'_'.join(_INDEX)}", "model_versions", list(_INDEX))
