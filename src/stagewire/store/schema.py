"""The tables. Rows are read with Core statements; nothing here is ever used as an ORM entity.

Times are microseconds since 1970 in UTC. A `revision` or time of 0 means "this transaction's":
only the statement that takes the log's head knows them, and writes them into every row that
was touched (`events.append`).
"""

from __future__ import annotations

from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Both databases compare text by code point, so pages and filters agree.
TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
DOUBLE: sa.Double[float] = sa.Double()


class Table(DeclarativeBase):
    """Parent of every table; names constraints so that migrations can address them."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: TEXT,
        int: sa.BigInteger,
        bool: sa.Boolean,
        bytes: sa.LargeBinary,
    }


class LogHead(Table):
    """The one row that orders all writes."""

    __tablename__ = "log_head"
    id: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True, autoincrement=False)
    log_id: Mapped[str]
    revision: Mapped[int]
    head_hash: Mapped[bytes]
    commit_time: Mapped[int]
    compacted_revision: Mapped[int]
    compacted_hash: Mapped[bytes]


class Log(Table):
    """One row a use case that changed something."""

    __tablename__ = "log"
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    commit_time: Mapped[int] = mapped_column(index=True)
    actor: Mapped[str]
    request_id: Mapped[str]
    payload: Mapped[bytes]
    chain_hash: Mapped[bytes]


class LogModel(Table):
    """Which models and namespaces a revision is about; model_id is '' for neither."""

    __tablename__ = "log_models"
    namespace: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    __table_args__ = (sa.Index(None, "namespace", "revision"), sa.Index(None, "revision"))


class Text(Table):
    """Bodies of texts too long for the log, by whose they are, so that a purge finds them all.

    `number` is 0 for a model's own texts, `model_id` '' for those of neither.
    """

    __tablename__ = "texts"
    model_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sha256: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[str]


class Request(Table):
    """Answers kept so that a repeated call is not done twice."""

    __tablename__ = "requests"
    caller: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(primary_key=True)
    method: Mapped[str]
    request_hash: Mapped[bytes]
    answer: Mapped[bytes]
    revision: Mapped[int]
    time: Mapped[int] = mapped_column(index=True)


class Counter(Table):
    """Numbers handed out outside the log."""

    __tablename__ = "counters"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int]


class Namespace(Table):
    """Whose registry; its row is what definitions and writes agree on by lock."""

    __tablename__ = "namespaces"
    name: Mapped[str] = mapped_column(primary_key=True)
    description: Mapped[str]
    # The quota; 0 means no limit.
    max_models: Mapped[int] = mapped_column(server_default=sa.text("0"), default=0)
    max_versions: Mapped[int] = mapped_column(server_default=sa.text("0"), default=0)
    max_watches: Mapped[int] = mapped_column(server_default=sa.text("0"), default=0)
    requests_per_second: Mapped[int] = mapped_column(server_default=sa.text("0"), default=0)
    revision: Mapped[int]
    create_time: Mapped[int]
    update_time: Mapped[int]


class NamespaceUsage(Table):
    """What a namespace holds that has a quota of it; others have no row that writers wait for."""

    __tablename__ = "namespace_usage"
    namespace: Mapped[str] = mapped_column(sa.ForeignKey("namespaces.name"), primary_key=True)
    models: Mapped[int]
    versions: Mapped[int]


class Stage(Table):
    """A stage's definition; `key` is the name casefolded."""

    __tablename__ = "stages"
    namespace: Mapped[str] = mapped_column(sa.ForeignKey("namespaces.name"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    description: Mapped[str]
    position: Mapped[int]
    active: Mapped[bool]
    occupancy: Mapped[int]
    displace_to: Mapped[str]
    revision: Mapped[int]
    create_time: Mapped[int]
    update_time: Mapped[int]


class Model(Table):
    """A registered model. `name` is the last it bore when it is deleted."""

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(sa.ForeignKey("namespaces.name"))
    name: Mapped[str]
    description: Mapped[str]
    owner: Mapped[str]
    creator: Mapped[str]
    first_number: Mapped[int]
    next_number: Mapped[int]
    deleted: Mapped[bool]
    purged: Mapped[bool]
    # What MLflow calls last_updated_timestamp: moved by what MLflow says moves it.
    mlflow_time: Mapped[int]
    revision: Mapped[int]
    create_time: Mapped[int]
    update_time: Mapped[int]
    __table_args__ = (
        sa.Index(None, "namespace", "name", "id"),
        sa.Index(None, "namespace", "create_time", "id"),
        sa.Index(None, "namespace", "update_time", "id"),
    )


class ModelTag(Table):
    """A label of a model."""

    __tablename__ = "model_tags"
    model_id: Mapped[str] = mapped_column(sa.ForeignKey("models.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    __table_args__ = (sa.Index(None, "key", "model_id"),)


class Name(Table):
    """A name that some model bears or bore.

    `model_id` is its living bearer, `renamed_id` the model that last left it by rename.
    """

    __tablename__ = "names"
    namespace: Mapped[str] = mapped_column(sa.ForeignKey("namespaces.name"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[str | None]
    renamed_id: Mapped[str | None]
    next_number: Mapped[int]


class NameRange(Table):
    """Which numbers under a name belong to which model; `last` is NULL while it bears it."""

    __tablename__ = "name_ranges"
    namespace: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    first: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model_id: Mapped[str] = mapped_column(sa.ForeignKey("models.id"), primary_key=True)
    last: Mapped[int | None]


class Version(Table):
    """A model version, without what is kept in rows of their own."""

    __tablename__ = "model_versions"
    model_id: Mapped[str] = mapped_column(sa.ForeignKey("models.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    namespace: Mapped[str]
    source: Mapped[str]
    status: Mapped[int]
    status_message: Mapped[str]
    description: Mapped[str]
    signature: Mapped[str]
    flavors: Mapped[str]
    run_id: Mapped[str]
    run_link: Mapped[str]
    experiment: Mapped[str]
    git_commit: Mapped[str]
    git_repository: Mapped[str]
    logged_model_id: Mapped[str]
    # Empty where `source` itself says where the files are.
    storage_uri: Mapped[str]
    content_digest: Mapped[str]
    creator: Mapped[str]
    deleted: Mapped[bool]
    purged: Mapped[bool]
    # As the model's: moved by descriptions, statuses and stages, not by tags and aliases.
    mlflow_time: Mapped[int]
    revision: Mapped[int]
    create_time: Mapped[int]
    update_time: Mapped[int]
    __table_args__ = (
        sa.Index(None, "namespace", "create_time", "model_id", "number"),
        sa.Index(None, "namespace", "update_time", "model_id", "number"),
        sa.Index(None, "namespace", "mlflow_time", "model_id", "number"),
        sa.Index(None, "namespace", "run_id"),
    )


class VersionTag(Table):
    """A label of a version."""

    __tablename__ = "version_tags"
    model_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["model_id", "number"], ["model_versions.model_id", "model_versions.number"]
        ),
        sa.Index(None, "key", "model_id", "number"),
    )


class VersionParam(Table):
    """A training parameter of a version."""

    __tablename__ = "version_params"
    model_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["model_id", "number"], ["model_versions.model_id", "model_versions.number"]
        ),
        sa.Index(None, "key", "model_id", "number"),
    )


class VersionDataset(Table):
    """A dataset in a version's lineage."""

    __tablename__ = "version_datasets"
    model_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(index=True)
    use: Mapped[int]
    source: Mapped[str]
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["model_id", "number"], ["model_versions.model_id", "model_versions.number"]
        ),
    )


class VersionParent(Table):
    """A version that this one was made from; `parent_model` is its name at that time."""

    __tablename__ = "version_parents"
    model_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent_model: Mapped[str]
    parent_id: Mapped[str]
    parent_number: Mapped[int]
    derivation: Mapped[int]
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["model_id", "number"], ["model_versions.model_id", "model_versions.number"]
        ),
        sa.Index(None, "parent_id", "parent_number"),
    )


class StageHolder(Table):
    """One version's time in one stage; `left_revision` is NULL while it is there."""

    __tablename__ = "stage_holders"
    model_id: Mapped[str] = mapped_column(sa.ForeignKey("models.id"), primary_key=True)
    stage_key: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    entered_revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    stage: Mapped[str]
    cause: Mapped[int]
    # Key of the stage it was displaced from, so that a rollback can undo the displacement.
    displaced_from: Mapped[str]
    entered_time: Mapped[int]
    entered_by: Mapped[str]
    entered_reason: Mapped[str]
    left_revision: Mapped[int | None]
    left_time: Mapped[int | None]
    left_by: Mapped[str]
    left_reason: Mapped[str]
    __table_args__ = (
        sa.Index(
            "ix_stage_holders_present",
            "model_id",
            "number",
            "stage_key",
            unique=True,
            sqlite_where=sa.text("left_revision IS NULL"),
            postgresql_where=sa.text("left_revision IS NULL"),
        ),
        sa.Index(None, "model_id", "entered_revision"),
        sa.Index(
            "ix_stage_holders_stage",
            "stage_key",
            "model_id",
            "number",
            sqlite_where=sa.text("left_revision IS NULL"),
            postgresql_where=sa.text("left_revision IS NULL"),
        ),
    )


class StageMove(Table):
    """One change of what a (model, stage) holds; `undo` is the move a rollback goes back to."""

    __tablename__ = "stage_moves"
    model_id: Mapped[str] = mapped_column(sa.ForeignKey("models.id"), primary_key=True)
    stage_key: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    undo: Mapped[int | None]


class AliasHolder(Table):
    """One version's time under one alias; `unset_revision` is NULL while it lasts."""

    __tablename__ = "alias_holders"
    model_id: Mapped[str] = mapped_column(sa.ForeignKey("models.id"), primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    set_revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int]
    set_time: Mapped[int]
    set_by: Mapped[str]
    unset_revision: Mapped[int | None]
    unset_time: Mapped[int | None]
    unset_by: Mapped[str]
    __table_args__ = (
        sa.Index(
            "ix_alias_holders_present",
            "model_id",
            "alias",
            unique=True,
            sqlite_where=sa.text("unset_revision IS NULL"),
            postgresql_where=sa.text("unset_revision IS NULL"),
        ),
        sa.Index(
            "ix_alias_holders_alias",
            "alias",
            "model_id",
            sqlite_where=sa.text("unset_revision IS NULL"),
            postgresql_where=sa.text("unset_revision IS NULL"),
        ),
    )


class Metric(Table):
    """One measured point. NaN is a NULL value: it matches no comparison and is never best.

    `value_bits` are the value's IEEE 754 bits, which make it part of the point's identity.
    """

    __tablename__ = "metrics"
    model_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(primary_key=True)
    dataset: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value_bits: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[float | None] = mapped_column(DOUBLE)
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["model_id", "number"], ["model_versions.model_id", "model_versions.number"]
        ),
    )


class LatestMetric(Table):
    """The newest point of a key and dataset, by step, then time, then value."""

    __tablename__ = "latest_metrics"
    model_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(primary_key=True)
    dataset: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int]
    time: Mapped[int]
    value: Mapped[float | None] = mapped_column(DOUBLE)
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["model_id", "number"], ["model_versions.model_id", "model_versions.number"]
        ),
        sa.Index(None, "key", "value", "model_id", "number"),
    )


class Agent(Table):
    """The newest report of an agent, by (session, seq).

    Of its session, reports before `complete_from_seq` count no more; at `lease_end_time` it
    becomes silent. `reporter` is whose it is: the caller that reported it.
    """

    __tablename__ = "agents"
    namespace: Mapped[str] = mapped_column(primary_key=True)
    agent: Mapped[str] = mapped_column(primary_key=True)
    session: Mapped[int]
    seq: Mapped[int]
    log_id: Mapped[str]
    observed_revision: Mapped[int]
    report_time: Mapped[int]
    complete_from_seq: Mapped[int]
    lease_end_time: Mapped[int]
    reporter: Mapped[str] = mapped_column(server_default=sa.text("''"))


class Deployment(Table):
    """What an agent last said of one model's stage at one target."""

    __tablename__ = "deployments"
    namespace: Mapped[str] = mapped_column(primary_key=True)
    target: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    stage_key: Mapped[str] = mapped_column(primary_key=True)
    agent: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str]
    desired_number: Mapped[int]
    running_number: Mapped[int]
    running_digest: Mapped[str]
    state: Mapped[int]
    error: Mapped[str]
    session: Mapped[int]
    seq: Mapped[int]
    agent_time: Mapped[int]
    report_time: Mapped[int]
    # Each filter's index has the order of the pages. No column that every report changes is in
    # any of them, so that PostgreSQL may update rows in place.
    __table_args__ = (
        sa.Index(None, "namespace", "model", "target", "stage_key", "agent"),
        sa.Index(None, "namespace", "agent", "target", "model", "stage_key"),
        sa.Index(None, "namespace", "state", "target", "model", "stage_key", "agent"),
    )


class Webhook(Table):
    """Where events are posted to. `secret` is encrypted, and NULL where there is none."""

    __tablename__ = "webhooks"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(sa.ForeignKey("namespaces.name"))
    name: Mapped[str]
    description: Mapped[str]
    url: Mapped[str]
    # Lists as JSON: they are read whole, with their webhook.
    events: Mapped[str]
    models: Mapped[str]
    model_prefix: Mapped[str]
    format: Mapped[int]
    status: Mapped[int]
    secret: Mapped[bytes | None]
    deleted: Mapped[bool]
    revision: Mapped[int]
    create_time: Mapped[int]
    update_time: Mapped[int]
    __table_args__ = (sa.Index(None, "namespace", "create_time", "id"),)


class WebhookCursor(Table):
    """A webhook's place in the log, and who may move it.

    Everything up to `revision` is done with, and the first `skip` events of the next one. Only
    the `holder` moves it, and only under its own `fence`, until `lease_end_time`. A row of its
    own, so that deliveries never wait for who changes the webhook.
    """

    __tablename__ = "webhook_cursors"
    webhook_id: Mapped[str] = mapped_column(sa.ForeignKey("webhooks.id"), primary_key=True)
    active: Mapped[bool]
    revision: Mapped[int]
    skip: Mapped[int]
    holder: Mapped[str]
    fence: Mapped[int]
    lease_end_time: Mapped[int]
    attempts: Mapped[int]
    failing_since_time: Mapped[int | None]
    next_attempt_time: Mapped[int | None]
    error: Mapped[str]
    delivered_revision: Mapped[int]
    delivered_time: Mapped[int | None]
    missed_revisions: Mapped[int]
    last_missed_revision: Mapped[int]


class WebhookDelivery(Table):
    """What became of one event for one webhook; what was sent is in the log alone."""

    __tablename__ = "webhook_deliveries"
    id: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[str] = mapped_column(sa.ForeignKey("webhooks.id"))
    revision: Mapped[int]
    place: Mapped[int]
    event: Mapped[str]
    status: Mapped[int]
    attempts: Mapped[int]
    response_status: Mapped[int]
    error: Mapped[str]
    create_time: Mapped[int]
    attempt_time: Mapped[int | None]
    next_attempt_time: Mapped[int | None]
    until_revision: Mapped[int]
    __table_args__ = (
        sa.Index(None, "webhook_id", "revision", "place"),
        sa.Index(None, "webhook_id", "status", "revision"),
    )


class Token(Table):
    """A secret that stands for a subject; of the secret only its hash."""

    __tablename__ = "tokens"
    id: Mapped[str] = mapped_column(primary_key=True)
    secret_hash: Mapped[bytes]
    subject: Mapped[str] = mapped_column(index=True)
    description: Mapped[str]
    scopes: Mapped[str]
    expire_time: Mapped[int]
    creator: Mapped[str]
    revoked: Mapped[bool]
    revision: Mapped[int]
    create_time: Mapped[int]
    update_time: Mapped[int]
    __table_args__ = (sa.Index(None, "create_time", "id"),)


class TokenUse(Table):
    """When a token was last used; beside its row, because that is no change of it."""

    __tablename__ = "token_uses"
    token_id: Mapped[str] = mapped_column(primary_key=True)
    time: Mapped[int]


class Grant(Table):
    """A role that a subject has on a part of the registry."""

    __tablename__ = "grants"
    id: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str]
    role: Mapped[int]
    namespace: Mapped[str] = mapped_column(index=True)
    model: Mapped[str]
    stage_key: Mapped[str]
    stage: Mapped[str]
    alias: Mapped[str]
    creator: Mapped[str]
    revision: Mapped[int]
    create_time: Mapped[int]
    __table_args__ = (
        sa.Index(None, "create_time", "id"),
        sa.Index(
            "ix_grants_same",
            "subject",
            "role",
            "namespace",
            "model",
            "stage_key",
            "alias",
            unique=True,
        ),
    )


class Refusal(Table):
    """Calls that were refused for want of credentials or grants, equal ones counted as one."""

    __tablename__ = "refusals"
    id: Mapped[str] = mapped_column(primary_key=True)
    time: Mapped[int]
    count: Mapped[int]
    caller: Mapped[str]
    peer: Mapped[str]
    method: Mapped[str]
    reason: Mapped[str]
    namespace: Mapped[str]
    model: Mapped[str]
    __table_args__ = (sa.Index(None, "time", "id"), sa.Index(None, "caller", "time", "id"))
