"""Reports of agents: what is stored of them never goes back, by (session, seq).

They stand beside the log, in two tables: each agent's newest sign of life, and what it runs at
its targets. Both are written for many reports at once, agents first, whose rows are the locks.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from google.protobuf.duration_pb2 import Duration

from stagewire import errors, names, pb
from stagewire.rights import REPORT, denied
from stagewire.service import cursors, messages
from stagewire.store import clock, lookup, schema, sessions
from stagewire.store.given import Bulk, Given
from stagewire.store.transactions import dialect_insert

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from stagewire.callers import Caller
    from stagewire.rights import Rights
    from stagewire.store.transactions import Tx

#: How often agents report while there is no reason to spare the registry.
SHORTEST_PACE_SECONDS = 10.0
LONGEST_PACE_SECONDS = 60.0
#: An agent that was not heard of for so many of its paces is silent.
PACES_OF_A_LEASE = 3
#: What agents' reports may cost: this part of the time, and so many a second from each server.
_BUSY = 0.25
_REPORTS_A_SECOND = 500.0

_AGENT: sa.Table = schema.Table.metadata.tables["agents"]
_DEPLOYMENT: sa.Table = schema.Table.metadata.tables["deployments"]
_RUNS = (
    sa.select(_DEPLOYMENT.c.model, _DEPLOYMENT.c.stage_key)
    .where(
        _DEPLOYMENT.c.namespace == sa.bindparam("namespace"),
        _DEPLOYMENT.c.agent == sa.bindparam("agent"),
    )
    .distinct()
    .order_by(_DEPLOYMENT.c.stage_key, _DEPLOYMENT.c.model)
)


@dataclass(frozen=True, slots=True)
class Report:
    """One agent's report, checked, as it stands in rows but for what the transaction knows."""

    agent: dict[str, Any]
    targets: Sequence[dict[str, Any]]
    rights: Rights

    @property
    def namespace(self) -> str:
        """Whose agent it is."""
        return str(self.agent["namespace"])

    @property
    def who(self) -> tuple[str, str]:
        """The agent's key."""
        return self.agent["namespace"], self.agent["agent"]

    @property
    def order(self) -> tuple[int, int]:
        """Its place among the agent's reports."""
        return self.agent["session"], self.agent["seq"]


class Pace:
    """How long agents are asked to wait: longer while reports are a burden.

    Judged once a pace, since an agent takes on a new one only with its next report.
    """

    def __init__(self, *, now: float) -> None:
        """Begin with the shortest."""
        self.seconds = SHORTEST_PACE_SECONDS
        self._lock = threading.Lock()
        self._since = now
        self._busy_seconds = 0.0
        self._reports = 0

    def note(self, reports: int, busy_seconds: float, *, now: float) -> None:
        """Take a batch into account."""
        with self._lock:
            self._reports += reports
            self._busy_seconds += busy_seconds
            elapsed = now - self._since
            if elapsed < self.seconds:
                return
            burden = max(
                self._busy_seconds / elapsed / _BUSY, self._reports / elapsed / _REPORTS_A_SECOND
            )
            # The burden goes with the number of reports, so that this pace would make it 1.
            wanted = self.seconds * min(max(burden, 0.5), 2.0)
            self.seconds = min(max(wanted, SHORTEST_PACE_SECONDS), LONGEST_PACE_SECONDS)
            self._since, self._busy_seconds, self._reports = now, 0.0, 0


class Intake:
    """Writes reports, many at once."""

    def __init__(self) -> None:
        """Begin with the shortest pace."""
        self._pace = Pace(now=time.monotonic())

    def prepare(self, request: pb.ReportStatusRequest, caller: Caller) -> Report:
        """Check one report and turn it into rows. Refuses INVALID_FIELD, INVALID_CURSOR."""
        if request.complete_from_seq > request.seq:
            raise errors.invalid(
                "complete_from_seq",
                f"{request.complete_from_seq} is above seq {request.seq}; send the seq of the"
                " first report that names what the agent runs, at most this one's",
            )
        observed = 0
        if request.observed_cursor:
            observed = cursors.decode(request.observed_cursor, "observed_cursor").revision
        by = {
            "namespace": names.namespace_or_default(request.namespace),
            "agent": request.agent,
            "session": request.session,
            "seq": request.seq,
        }
        agent = {
            **by,
            "log_id": request.log_id,
            "observed_revision": observed,
            "complete_from_seq": request.complete_from_seq,
            "reporter": caller.name,
        }
        targets = [_target(target, by) for target in request.targets]
        return Report(agent, targets, caller.rights)

    def weigh(self, report: Report) -> int:
        """Count the rows."""
        return 1 + len(report.targets)

    def spent(self, items: int, seconds: float) -> None:
        """Adapt the pace."""
        self._pace.note(items, seconds, now=time.monotonic())

    def write(
        self, tx: Tx, reports: Sequence[Report]
    ) -> list[pb.ReportStatusResponse | errors.RegistryError]:
        """Store what is newer than what is stored; answer or refuse each report."""
        refusals = _refusals(tx, reports)
        accepted = [
            report for report, refusal in zip(reports, refusals, strict=True) if refusal is None
        ]
        pace = Duration()
        pace.FromNanoseconds(int(self._pace.seconds * 1e9))
        newest = _store(tx, accepted, lease_seconds=PACES_OF_A_LEASE * self._pace.seconds)
        return [
            refusal
            or pb.ReportStatusResponse(
                next_report_after=pace,
                superseded=newest[report.who].session > report.agent["session"],
            )
            for report, refusal in zip(reports, refusals, strict=True)
        ]


def forget(tx: Tx, request: pb.ForgetAgentRequest) -> pb.ForgetAgentResponse:
    """Delete what is stored of an agent. Refuses AGENT_NOT_FOUND."""
    space = lookup.namespace(tx, request.namespace).name
    if not tx.rights.everything:
        runs = tx.rows(_RUNS, namespace=space, agent=request.agent)
        for stage in sorted({row.stage_key for row in runs}):
            tx.rights.demand(REPORT, space, stage=stage, caller=tx.actor)
    # The agent's row first: it is the lock on the others.
    if not tx.delete(schema.Agent, namespace=space, agent=request.agent):
        raise errors.not_found(
            "AGENT_NOT_FOUND",
            "agent",
            request.agent,
            f"no agent {request.agent!r} has reported in namespace {space!r}, or it is forgotten; "
            "ListDeployments names those that have",
        )
    deployments = tx.delete(schema.Deployment, namespace=space, agent=request.agent)
    return pb.ForgetAgentResponse(deployments=deployments)


def _target(target: pb.TargetStatus, by: dict[str, Any]) -> dict[str, Any]:
    return {
        **by,
        "target": target.target,
        "model": names.lookup_model(target.model),
        "stage_key": names.stage_key(target.stage),
        "stage": target.stage,
        "desired_number": target.desired_version,
        "running_number": target.running_version,
        "running_digest": target.running_digest,
        "state": target.state,
        "error": target.error,
        "agent_time": messages.micros(target.agent_time),
    }


def _refusals(tx: Tx, reports: Sequence[Report]) -> list[errors.RegistryError | None]:
    """Refuse what only the transaction can know to be wrong."""
    spaces = {report.namespace for report in reports}
    living = lookup.namespaces_to_report_in(tx, spaces)
    last = sessions.newest(tx)
    others = _others(tx, [report for report in reports if not report.rights.everything])
    refusals: list[errors.RegistryError | None] = []
    for report in reports:
        if report.namespace not in living:
            refusals.append(lookup.no_namespace(report.namespace))
        elif report.agent["session"] > last:
            # Of a history that was lost: it would stand above all sessions to come.
            refusals.append(
                errors.invalid(
                    "session",
                    f"{report.agent['session']} was not handed out by this registry; open a new "
                    "stream and send its Hello.session",
                )
            )
        else:
            refusals.append(others.get(report.who))
    return refusals


def _others(tx: Tx, reports: Collection[Report]) -> dict[tuple[str, str], errors.RegistryError]:
    """Refuse to report for an agent of somebody else's that runs what is not for the caller.

    Whoever may report all that it runs may take it over.
    """
    if not reports:
        return {}
    rows = [report.agent for report in reports]
    stored = _stored(tx.connection.dialect.name).rows(tx, rows)
    reporters = {(row.namespace, row.agent): row.reporter for row in stored}
    found = {}
    for report in reports:
        space, agent = report.who
        caller = report.agent["reporter"]
        if reporters.get(report.who, "") in ("", names.ANONYMOUS, caller):
            continue
        for row in tx.rows(_RUNS, namespace=space, agent=agent):
            if not report.rights.may(REPORT, space, row.model, stage=row.stage_key):
                refusal = denied(REPORT, space, caller=caller)
                refusal.message = f"agent {agent!r} is another caller's; rename yours, or: " + (
                    refusal.message
                )
                found[report.who] = refusal
    return found


def _store(
    tx: Tx, reports: Collection[Report], *, lease_seconds: float
) -> dict[tuple[str, str], sa.Row[Any]]:
    """Write reports of any order and number; give each agent's newest, stored now or before."""
    if not reports:
        return {}
    dialect = tx.connection.dialect.name
    now = clock.now(tx)
    times = {"report_time": now, "lease_end_time": now + int(lease_seconds * 1_000_000)}
    ordered = sorted(reports, key=lambda report: report.order)
    agents: dict[tuple[str, str], dict[str, Any]] = {}
    for report in ordered:
        agents[report.who] = {**_merged(agents.get(report.who), report.agent), **times}
    # In one order everywhere, or two servers could wait for each other.
    rows = [agents[who] for who in sorted(agents)]
    _upsert(dialect, _AGENT).run(tx, rows)
    newest = {(row.namespace, row.agent): row for row in _stored(dialect).rows(tx, rows)}
    targets: dict[tuple[Any, ...], dict[str, Any]] = {}
    for report in ordered:
        stored = newest[report.who]
        if (stored.session, stored.complete_from_seq) <= report.order:
            for row in report.targets:
                targets[_place(row)] = {**row, "report_time": now}
    if targets:
        _upsert(dialect, _DEPLOYMENT).run(tx, [targets[key] for key in sorted(targets)])
    _drop_unnamed(tx, [newest[r.who] for r in reports if r.agent["complete_from_seq"]])
    return newest


def _merged(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Say in Python what `_upsert` says in SQL of an agent's reports one after the other."""
    if old is None or old["session"] < new["session"]:
        return new
    complete = max(old["complete_from_seq"], new["complete_from_seq"])
    return {**new, "complete_from_seq": complete}


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column.name] for column in _DEPLOYMENT.primary_key)


def _drop_unnamed(tx: Tx, agents: Sequence[sa.Row[Any]]) -> None:
    """Delete what only earlier reports named than the complete ones of these agents."""
    if not agents:
        return
    rows = [dict(agent._mapping) for agent in agents]  # noqa: SLF001  # SQLAlchemy's public name for it
    # Read first: there is hardly ever something to delete.
    for row in _unnamed(tx.connection.dialect.name).rows(tx, rows):
        tx.delete(schema.Deployment, **row._mapping)  # noqa: SLF001  # as above


@cache
def _upsert(dialect: str, table: sa.Table) -> Bulk:
    """Insert, or replace what an earlier (session, seq) said."""
    given = Given(dialect, list(table.columns))
    statement = dialect_insert(dialect)(table).from_select(
        table.columns.keys(), given.select(), include_defaults=False
    )
    old, new = table.c, statement.excluded
    changes: dict[str, Any] = {c.name: new[c.name] for c in old if not c.primary_key}
    if table is _AGENT:
        # A session's complete report stays complete, whatever follows it.
        changes["complete_from_seq"] = sa.case(
            (new.session > old.session, new.complete_from_seq),
            (new.complete_from_seq > old.complete_from_seq, new.complete_from_seq),
            else_=old.complete_from_seq,
        )
    newer = sa.or_(
        new.session > old.session, sa.and_(new.session == old.session, new.seq > old.seq)
    )
    upsert = statement.on_conflict_do_update(
        index_elements=[column.name for column in table.primary_key], set_=changes, where=newer
    )
    return Bulk(upsert, given)


@cache
def _stored(dialect: str) -> Bulk:
    """Read what is stored of the agents given."""
    given = Given(dialect, [_AGENT.c.namespace, _AGENT.c.agent])
    return Bulk(sa.select(_AGENT).where(*_of_agents(_AGENT, given)), given)


@cache
def _unnamed(dialect: str) -> Bulk:
    """Read the keys of what the complete reports of the agents given do not name."""
    columns = ("namespace", "agent", "session", "complete_from_seq")
    given = Given(dialect, [_AGENT.c[name] for name in columns])
    old, new = _DEPLOYMENT.c, given.c
    before = sa.or_(
        old.session < new["session"],
        sa.and_(old.session == new["session"], old.seq < new["complete_from_seq"]),
    )
    statement = sa.select(*_DEPLOYMENT.primary_key).where(*_of_agents(_DEPLOYMENT, given), before)
    return Bulk(statement, given)


def _of_agents(table: sa.Table, given: Given) -> list[sa.ColumnElement[bool]]:
    return [table.c[name] == given.c[name] for name in ("namespace", "agent")]
