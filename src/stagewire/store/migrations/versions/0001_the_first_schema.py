"""The first schema."""

from __future__ import annotations

import hashlib
import uuid

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "agents",
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("agent", TEXT, nullable=False),
        sa.Column("session", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("log_id", TEXT, nullable=False),
        sa.Column("observed_revision", sa.BigInteger(), nullable=False),
        sa.Column("report_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "agent", name=op.f("pk_agents")),
    )
    op.create_table(
        "counters",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
    op.create_table(
        "deployments",
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("stage_key", TEXT, nullable=False),
        sa.Column("agent", TEXT, nullable=False),
        sa.Column("stage", TEXT, nullable=False),
        sa.Column("desired_number", sa.BigInteger(), nullable=False),
        sa.Column("running_number", sa.BigInteger(), nullable=False),
        sa.Column("running_digest", TEXT, nullable=False),
        sa.Column("state", sa.BigInteger(), nullable=False),
        sa.Column("error", TEXT, nullable=False),
        sa.Column("session", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("agent_time", sa.BigInteger(), nullable=False),
        sa.Column("report_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "namespace", "target", "model", "stage_key", "agent", name=op.f("pk_deployments")
        ),
    )
    op.create_index(
        op.f("ix_deployments_namespace_model"), "deployments", ["namespace", "model"], unique=False
    )

    op.create_table(
        "log",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("commit_time", sa.BigInteger(), nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("chain_hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_log")),
    )
    op.create_index(op.f("ix_log_commit_time"), "log", ["commit_time"], unique=False)

    op.create_table(
        "log_head",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("log_id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("head_hash", sa.LargeBinary(), nullable=False),
        sa.Column("commit_time", sa.BigInteger(), nullable=False),
        sa.Column("compacted_revision", sa.BigInteger(), nullable=False),
        sa.Column("compacted_hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_head")),
    )
    op.create_table(
        "log_models",
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("model_id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "model_id", "revision", name=op.f("pk_log_models")),
    )
    op.create_index(
        op.f("ix_log_models_namespace_revision"),
        "log_models",
        ["namespace", "revision"],
        unique=False,
    )
    op.create_index(op.f("ix_log_models_revision"), "log_models", ["revision"], unique=False)

    op.create_table(
        "namespaces",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_namespaces")),
    )
    op.create_table(
        "requests",
        sa.Column("caller", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("method", TEXT, nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("caller", "request_id", name=op.f("pk_requests")),
    )
    op.create_index(op.f("ix_requests_time"), "requests", ["time"], unique=False)

    op.create_table(
        "texts",
        sa.Column("model_id", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("model_id", "number", "sha256", name=op.f("pk_texts")),
    )
    op.create_table(
        "models",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=False),
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("creator", TEXT, nullable=False),
        sa.Column("first_number", sa.BigInteger(), nullable=False),
        sa.Column("next_number", sa.BigInteger(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("purged", sa.Boolean(), nullable=False),
        sa.Column("mlflow_time", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace"], ["namespaces.name"], name=op.f("fk_models_namespace")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
    )
    op.create_index(
        op.f("ix_models_namespace_create_time_id"),
        "models",
        ["namespace", "create_time", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_models_namespace_name_id"), "models", ["namespace", "name", "id"], unique=False
    )
    op.create_index(
        op.f("ix_models_namespace_update_time_id"),
        "models",
        ["namespace", "update_time", "id"],
        unique=False,
    )

    op.create_table(
        "names",
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("model_id", TEXT, nullable=True),
        sa.Column("renamed_id", TEXT, nullable=True),
        sa.Column("next_number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace"], ["namespaces.name"], name=op.f("fk_names_namespace")
        ),
        sa.PrimaryKeyConstraint("namespace", "name", name=op.f("pk_names")),
    )
    op.create_table(
        "stages",
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("occupancy", sa.BigInteger(), nullable=False),
        sa.Column("displace_to", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace"], ["namespaces.name"], name=op.f("fk_stages_namespace")
        ),
        sa.PrimaryKeyConstraint("namespace", "key", name=op.f("pk_stages")),
    )
    op.create_table(
        "alias_holders",
        sa.Column("model_id", TEXT, nullable=False),
        sa.Column("alias", TEXT, nullable=False),
        sa.Column("set_revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("set_time", sa.BigInteger(), nullable=False),
        sa.Column("set_by", TEXT, nullable=False),
        sa.Column("unset_revision", sa.BigInteger(), nullable=True),
        sa.Column("unset_time", sa.BigInteger(), nullable=True),
        sa.Column("unset_by", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_alias_holders_model_id")
        ),
        sa.PrimaryKeyConstraint("model_id", "alias", "set_revision", name=op.f("pk_alias_holders")),
    )
    op.create_index(
        "ix_alias_holders_alias",
        "alias_holders",
        ["alias", "model_id"],
        unique=False,
        sqlite_where=sa.text("unset_revision IS NULL"),
        postgresql_where=sa.text("unset_revision IS NULL"),
    )
    op.create_index(
        "ix_alias_holders_present",
        "alias_holders",
        ["model_id", "alias"],
        unique=True,
        sqlite_where=sa.text("unset_revision IS NULL"),
        postgresql_where=sa.text("unset_revision IS NULL"),
    )

    op.create_table(
        "model_tags",
        sa.Column("model_id", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_model_tags_model_id")),
        sa.PrimaryKeyConstraint("model_id", "key", name=op.f("pk_model_tags")),
    )
    op.create_index(
        op.f("ix_model_tags_key_model_id"), "model_tags", ["key", "model_id"], unique=False
    )

    op.create_table(
        "model_versions",
        sa.Column("model_id", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("status_message", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=False),
        sa.Column("signature", TEXT, nullable=False),
        sa.Column("flavors", TEXT, nullable=False),
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("run_link", TEXT, nullable=False),
        sa.Column("experiment", TEXT, nullable=False),
        sa.Column("git_commit", TEXT, nullable=False),
        sa.Column("git_repository", TEXT, nullable=False),
        sa.Column("content_digest", TEXT, nullable=False),
        sa.Column("creator", TEXT, nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("purged", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_model_versions_model_id")
        ),
        sa.PrimaryKeyConstraint("model_id", "number", name=op.f("pk_model_versions")),
    )
    op.create_index(
        op.f("ix_model_versions_namespace_create_time_model_id_number"),
        "model_versions",
        ["namespace", "create_time", "model_id", "number"],
        unique=False,
    )
    op.create_index(
        op.f("ix_model_versions_namespace_run_id"),
        "model_versions",
        ["namespace", "run_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_model_versions_namespace_update_time_model_id_number"),
        "model_versions",
        ["namespace", "update_time", "model_id", "number"],
        unique=False,
    )

    op.create_table(
        "name_ranges",
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model_id", TEXT, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_name_ranges_model_id")),
        sa.PrimaryKeyConstraint(
            "namespace", "name", "first", "model_id", name=op.f("pk_name_ranges")
        ),
    )
    op.create_table(
        "stage_holders",
        sa.Column("model_id", TEXT, nullable=False),
        sa.Column("stage_key", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entered_revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("stage", TEXT, nullable=False),
        sa.Column("cause", sa.BigInteger(), nullable=False),
        sa.Column("displaced_from", TEXT, nullable=False),
        sa.Column("entered_time", sa.BigInteger(), nullable=False),
        sa.Column("entered_by", TEXT, nullable=False),
        sa.Column("entered_reason", TEXT, nullable=False),
        sa.Column("left_revision", sa.BigInteger(), nullable=True),
        sa.Column("left_time", sa.BigInteger(), nullable=True),
        sa.Column("left_by", TEXT, nullable=False),
        sa.Column("left_reason", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_stage_holders_model_id")
        ),
        sa.PrimaryKeyConstraint(
            "model_id", "stage_key", "number", "entered_revision", name=op.f("pk_stage_holders")
        ),
    )
    op.create_index(
        op.f("ix_stage_holders_model_id_entered_revision"),
        "stage_holders",
        ["model_id", "entered_revision"],
        unique=False,
    )
    op.create_index(
        "ix_stage_holders_present",
        "stage_holders",
        ["model_id", "number", "stage_key"],
        unique=True,
        sqlite_where=sa.text("left_revision IS NULL"),
        postgresql_where=sa.text("left_revision IS NULL"),
    )
    op.create_index(
        "ix_stage_holders_stage",
        "stage_holders",
        ["stage_key", "model_id", "number"],
        unique=False,
        sqlite_where=sa.text("left_revision IS NULL"),
        postgresql_where=sa.text("left_revision IS NULL"),
    )

    op.create_table(
        "stage_moves",
        sa.Column("model_id", TEXT, nullable=False),
        sa.Column("stage_key", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("undo", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_stage_moves_model_id")),
        sa.PrimaryKeyConstraint("model_id", "stage_key", "revision", name=op.f("pk_stage_moves")),
    )
    op.create_table(
        "latest_metrics",
        sa.Column("model_id", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("dataset", TEXT, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["model_id", "number"],
            ["model_versions.model_id", "model_versions.number"],
            name=op.f("fk_latest_metrics_model_id_number"),
        ),
        sa.PrimaryKeyConstraint(
            "model_id", "number", "key", "dataset", name=op.f("pk_latest_metrics")
        ),
    )
    op.create_index(
        op.f("ix_latest_metrics_key_value_model_id_number"),
        "latest_metrics",
        ["key", "value", "model_id", "number"],
        unique=False,
    )

    op.create_table(
        "metrics",
        sa.Column("model_id", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("dataset", TEXT, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("time", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value_bits", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["model_id", "number"],
            ["model_versions.model_id", "model_versions.number"],
            name=op.f("fk_metrics_model_id_number"),
        ),
        sa.PrimaryKeyConstraint(
            "model_id",
            "number",
            "key",
            "dataset",
            "step",
            "time",
            "value_bits",
            name=op.f("pk_metrics"),
        ),
    )
    op.create_table(
        "version_datasets",
        sa.Column("model_id", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("use", sa.BigInteger(), nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id", "number"],
            ["model_versions.model_id", "model_versions.number"],
            name=op.f("fk_version_datasets_model_id_number"),
        ),
        sa.PrimaryKeyConstraint("model_id", "number", "position", name=op.f("pk_version_datasets")),
    )
    op.create_index(
        op.f("ix_version_datasets_digest"), "version_datasets", ["digest"], unique=False
    )

    op.create_table(
        "version_params",
        sa.Column("model_id", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id", "number"],
            ["model_versions.model_id", "model_versions.number"],
            name=op.f("fk_version_params_model_id_number"),
        ),
        sa.PrimaryKeyConstraint("model_id", "number", "key", name=op.f("pk_version_params")),
    )
    op.create_index(
        op.f("ix_version_params_key_model_id_number"),
        "version_params",
        ["key", "model_id", "number"],
        unique=False,
    )

    op.create_table(
        "version_parents",
        sa.Column("model_id", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("parent_model", TEXT, nullable=False),
        sa.Column("parent_id", TEXT, nullable=False),
        sa.Column("parent_number", sa.BigInteger(), nullable=False),
        sa.Column("derivation", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id", "number"],
            ["model_versions.model_id", "model_versions.number"],
            name=op.f("fk_version_parents_model_id_number"),
        ),
        sa.PrimaryKeyConstraint("model_id", "number", "position", name=op.f("pk_version_parents")),
    )
    op.create_index(
        op.f("ix_version_parents_parent_id_parent_number"),
        "version_parents",
        ["parent_id", "parent_number"],
        unique=False,
    )

    op.create_table(
        "version_tags",
        sa.Column("model_id", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id", "number"],
            ["model_versions.model_id", "model_versions.number"],
            name=op.f("fk_version_tags_model_id_number"),
        ),
        sa.PrimaryKeyConstraint("model_id", "number", "key", name=op.f("pk_version_tags")),
    )
    op.create_index(
        op.f("ix_version_tags_key_model_id_number"),
        "version_tags",
        ["key", "model_id", "number"],
        unique=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("CREATE SEQUENCE watch_sessions")
    genesis = hashlib.sha256(b"stagewire log").digest()
    op.bulk_insert(
        sa.table(
            "log_head",
            sa.column("id"),
            sa.column("log_id"),
            sa.column("revision"),
            sa.column("head_hash"),
            sa.column("commit_time"),
            sa.column("compacted_revision"),
            sa.column("compacted_hash"),
        ),
        [
            {
                "id": 1,
                "log_id": str(uuid.uuid4()),
                "revision": 0,
                "head_hash": genesis,
                "commit_time": 0,
                "compacted_revision": 0,
                "compacted_hash": genesis,
            }
        ],
    )
