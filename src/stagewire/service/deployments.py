"""What agents run: their newest reports, held against what the registry desires."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa
from google.protobuf.duration_pb2 import Duration

from stagewire import names, pb
from stagewire.service import cursors, messages
from stagewire.store import lookup, pages, schema
from stagewire.store.transactions import dialect_insert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stagewire.store.transactions import Tx

REPORT_INTERVAL_SECONDS = 10
SILENT_AFTER_SECONDS = 3 * REPORT_INTERVAL_SECONDS
MOST_SHOWN = 1000

_DEPLOYMENT = schema.Deployment
_AGENT_KEY = ("namespace", "agent")
_DEPLOYMENT_KEY = ("namespace", "target", "model", "stage_key", "agent")


def report(tx: Tx, request: pb.ReportStatusRequest) -> pb.ReportStatusResponse:
    """Record what an agent runs, unless a newer report is recorded."""
    space = lookup.namespace_to_write_in(tx, request.namespace).name
    now = time.time_ns() // 1000
    observed = 0
    if request.observed_cursor:
        observed = cursors.decode(request.observed_cursor, "observed_cursor").revision
    order = {"session": request.session, "seq": request.seq}
    dialect = tx.connection.dialect.name
    sign_of_life = {
        "namespace": space,
        "agent": request.agent,
        "log_id": request.log_id,
        "observed_revision": observed,
        "report_time": now,
        **order,
    }
    tx.run(_upsert(dialect, schema.Agent, _AGENT_KEY), sign_of_life)
    rows = [
        {
            "namespace": space,
            "target": target.target,
            "model": names.lookup_model(target.model),
            "stage_key": names.stage_key(target.stage),
            "agent": request.agent,
            "stage": target.stage,
            "desired_number": target.desired_version,
            "running_number": target.running_version,
            "running_digest": target.running_digest,
            "state": target.state,
            "error": target.error,
            "agent_time": messages.micros(target.agent_time),
            "report_time": now,
            **order,
        }
        for target in request.targets
    ]
    if rows:
        tx.run(_upsert(dialect, _DEPLOYMENT, _DEPLOYMENT_KEY), rows)
    return pb.ReportStatusResponse(next_report_after=Duration(seconds=REPORT_INTERVAL_SECONDS))


@cache
def _upsert(dialect: str, table: type[schema.Table], key: tuple[str, ...]) -> sa.Executable:
    """Insert, or replace what an earlier (session, seq) said."""
    statement = dialect_insert(dialect)(table)
    old, new = table.__table__.c, statement.excluded
    newer = sa.or_(
        new.session > old.session, sa.and_(new.session == old.session, new.seq > old.seq)
    )
    upsert: sa.Executable = statement.on_conflict_do_update(
        index_elements=list(key),
        set_={column.name: new[column.name] for column in old if column.name not in key},
        where=newer,
    )
    return upsert


def list_(tx: Tx, request: pb.ListDeploymentsRequest) -> pb.ListDeploymentsResponse:
    """List deployments, desired against running."""
    space = lookup.namespace(tx, request.namespace).name
    wanted = {
        "model": names.lookup_model(request.model),
        "stage_key": names.stage_key(request.stage),
        "target": request.target,
        "agent": request.agent,
    }
    statement = _reported(space)
    for column, value in wanted.items():
        if value:
            statement = statement.where(_DEPLOYMENT.__table__.c[column] == value)
    paged = pages.paginate(
        statement,
        [
            pages.Key(_DEPLOYMENT.target),
            pages.Key(_DEPLOYMENT.model),
            pages.Key(_DEPLOYMENT.stage_key),
            pages.Key(_DEPLOYMENT.agent),
        ],
        token=request.page_token,
        size=request.page_size,
        query=("ListDeployments", space, *wanted.values()),
    )
    rows, token = paged.split(tx.rows(paged.statement))
    return pb.ListDeploymentsResponse(
        deployments=_deployments(tx, space, rows), next_page_token=token
    )


def status(tx: Tx, request: pb.GetDeploymentStatusRequest) -> pb.GetDeploymentStatusResponse:
    """Return one model's deployments, counted."""
    space = lookup.namespace(tx, request.namespace).name
    owner = lookup.model(tx, space, request.model)
    statement = (
        _reported(space)
        .where(_DEPLOYMENT.model == owner.name)
        .order_by(_DEPLOYMENT.target, _DEPLOYMENT.stage_key, _DEPLOYMENT.agent)
    )
    found = _deployments(tx, space, tx.rows(statement))
    return pb.GetDeploymentStatusResponse(
        deployments=found[:MOST_SHOWN],
        total=len(found),
        in_sync=sum(d.in_sync for d in found),
        silent=sum(d.silent for d in found),
    )


def _reported(space: str) -> sa.Select[Any]:
    """Select reports beside the newest sign of life of their agent."""
    agent = schema.Agent
    statement = (
        sa.select(
            _DEPLOYMENT,
            agent.log_id,
            agent.observed_revision,
            agent.report_time.label("alive_time"),
        )
        .join(
            agent,
            sa.and_(agent.namespace == _DEPLOYMENT.namespace, agent.agent == _DEPLOYMENT.agent),
        )
        .where(_DEPLOYMENT.namespace == space)
    )
    return cast("sa.Select[Any]", statement)


def _deployments(tx: Tx, space: str, rows: Sequence[Any]) -> list[pb.Deployment]:
    desired = _desired(tx, space, {(row.model, row.stage_key) for row in rows})
    behind = {row.observed_revision + 1 for row in rows if row.observed_revision < tx.head}
    waiting = sa.select(schema.Log.revision, schema.Log.commit_time).where(
        schema.Log.revision.in_(behind)
    )
    times = {row.revision: row.commit_time for row in tx.rows(waiting)} if behind else {}
    now = time.time_ns() // 1000
    found = []
    for row in rows:
        number = desired.get((row.model, row.stage_key), 0)
        known = row.log_id == tx.log_id and row.observed_revision <= tx.head
        since = times.get(row.observed_revision + 1, now)
        found.append(
            pb.Deployment(
                namespace=row.namespace,
                target=row.target,
                agent=row.agent,
                model=row.model,
                stage=row.stage,
                desired_version=number,
                agent_desired_version=row.desired_number,
                running_version=row.running_number,
                running_digest=row.running_digest,
                state=row.state,
                error=row.error,
                in_sync=row.running_number == number,
                silent=now - row.alive_time > SILENT_AFTER_SECONDS * 1_000_000,
                lag_revisions=tx.head - row.observed_revision if known else -1,
                lag=_duration(max(0, now - since)) if known else None,
                agent_time=messages.timestamp(row.agent_time) if row.agent_time else None,
                report_time=messages.timestamp(row.report_time),
                session=row.session,
            )
        )
    return found


def _duration(micros: int) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(micros)
    return duration


def _desired(tx: Tx, space: str, places: set[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Read the primaries of (model name, stage key) pairs."""
    if not places:
        return {}
    holder, name = schema.StageHolder, schema.Name
    statement = (
        sa.select(name.name, holder.stage_key, sa.func.max(holder.number).label("number"))
        .join(name, name.model_id == holder.model_id)
        .where(
            name.namespace == space,
            name.name.in_({model for model, _ in places}),
            holder.stage_key.in_({stage for _, stage in places}),
            holder.left_revision.is_(None),
        )
        .group_by(name.name, holder.stage_key)
    )
    return {(row.name, row.stage_key): row.number for row in tx.rows(statement)}
