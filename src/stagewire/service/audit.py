"""The log as a record: what happened, and the proof that it was not altered."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, names, pb
from stagewire.service import messages, views
from stagewire.store import events, lookup, pages, schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stagewire.store.transactions import Tx

MOST_VERIFIED = 100_000
_BATCH = 1000
# How many pages a rare kind is looked for in before the caller gets a token to go on with.
_PAGES_SCANNED = 20

_ROWS = (
    sa.select(schema.Log)
    .where(schema.Log.revision > sa.bindparam("after"))
    .order_by(schema.Log.revision)
    .limit(sa.bindparam("size"))
)
_ABOUT = sa.select(schema.LogModel).where(
    schema.LogModel.revision > sa.bindparam("after"),
    schema.LogModel.revision <= sa.bindparam("until"),
)
_HEAD = sa.select(schema.LogHead)
_SPACES_OF_NAME = sa.select(schema.Name.namespace).where(schema.Name.name == sa.bindparam("name"))


def head(tx: Tx, _request: pb.GetHeadRequest) -> pb.GetHeadResponse:
    """Return the log's head."""
    row = tx.rows(_HEAD)[0]
    return pb.GetHeadResponse(
        log_id=row.log_id,
        revision=row.revision,
        commit_time=messages.timestamp(row.commit_time) if row.revision else None,
        compacted_revision=row.compacted_revision,
        head_hash=row.head_hash,
    )


def list_events(tx: Tx, request: pb.ListEventsRequest) -> pb.ListEventsResponse:
    """List events, newest first."""
    statement = sa.select(schema.Log).where(*_conditions(tx, request))
    query = (
        "ListEvents",
        request.namespace,
        request.model,
        request.actor,
        tuple(request.kinds),
        request.since_time.ToJsonString(),
        request.until_time.ToJsonString(),
        request.after_revision,
    )
    kinds = set(request.kinds)
    token = request.page_token
    for _ in range(_PAGES_SCANNED):
        paged = pages.paginate(
            statement,
            [pages.Key(schema.Log.revision, descending=True)],
            token=token,
            size=request.page_size,
            query=query,
        )
        rows, token = paged.split(tx.rows(paged.statement))
        found = [event for row in rows if (event := _event(tx, row)) is not None]
        if request.actor:
            # Whose it is was withheld from some: that it is theirs must not be told either.
            found = [e for e in found if e.payload.actor]
        if kinds:
            found = [e for e in found if any(r.change.kind in kinds for r in e.payload.records)]
        if found or not token:
            break
    return pb.ListEventsResponse(events=found, next_page_token=token)


def _conditions(tx: Tx, request: pb.ListEventsRequest) -> Iterator[sa.ColumnElement[bool]]:
    about = schema.LogModel
    if request.namespace != "*":
        space = lookup.namespace(tx, request.namespace).name
        if request.model:
            model_id = _model_id(tx, space, request.model)
            where = sa.and_(about.namespace == space, about.model_id == model_id)
        else:
            where = about.namespace == space
        yield schema.Log.revision.in_(sa.select(about.revision).where(where))
    elif request.model:
        spaces = tx.rows(_SPACES_OF_NAME, name=names.lookup_model(request.model))
        model_ids = []
        for row in spaces:
            with suppress(errors.RegistryError):
                model_ids.append(_model_id(tx, row.namespace, request.model))
        if not model_ids:
            raise lookup.model_not_found(request.model)
        yield schema.Log.revision.in_(
            sa.select(about.revision).where(about.model_id.in_(model_ids))
        )
    if request.actor:
        yield schema.Log.actor == request.actor
    if request.HasField("since_time"):
        yield schema.Log.commit_time >= messages.micros(request.since_time)
    if request.HasField("until_time"):
        yield schema.Log.commit_time < messages.micros(request.until_time)
    if request.after_revision:
        yield schema.Log.revision > request.after_revision


def _model_id(tx: Tx, space: str, name: str) -> str:
    """Find the model that a name means, a deleted one when no living model does."""
    last_deleted = (
        sa.select(schema.Model.id)
        .where(schema.Model.namespace == space, schema.Model.name == names.lookup_model(name))
        .order_by(schema.Model.deleted, schema.Model.revision.desc())
        .limit(1)
    )
    found = tx.scalar(last_deleted)
    if found is None or not tx.rights.sees(space, names.lookup_model(name)):
        return str(lookup.model(tx, space, name).id)
    return str(found)


def _event(tx: Tx, row: Any) -> pb.Event | None:
    whole = pb.EventPayload()
    whole.ParseFromString(row.payload)
    payload = views.show(tx.rights, whole)
    if payload is None:
        return None
    return pb.Event(
        revision=row.revision,
        commit_time=messages.timestamp(row.commit_time),
        payload=payload,
        chain_hash=row.chain_hash,
    )


def verify(tx: Tx, request: pb.VerifyLogRequest) -> pb.VerifyLogResponse:
    """Recompute the chain over a stretch of the log, and compare the copies beside it."""
    top = tx.rows(_HEAD)[0]
    first = max(request.from_revision, top.compacted_revision + 1)
    answer = pb.VerifyLogResponse(intact=True, head_revision=top.revision)
    if first > top.revision:
        answer.last_hash = top.head_hash
        if top.compacted_revision == top.revision and top.compacted_hash != top.head_hash:
            return _bad(answer, top.revision, "is not what the log's head row says")
        return answer
    previous = top.compacted_hash
    if first > top.compacted_revision + 1:
        before = tx.row(_ROWS, after=first - 2, size=1)
        if before is None or before.revision != first - 1:
            return _bad(answer, first - 1, "is missing")
        previous = before.chain_hash
    answer.first_revision = first
    last = min(top.revision, first + (request.max_revisions or MOST_VERIFIED) - 1)
    expected = first
    while expected <= last:
        rows = tx.rows(_ROWS, after=expected - 1, size=min(_BATCH, last - expected + 1))
        if not rows:
            return _bad(answer, expected, "is missing")
        about = _about(tx, expected - 1, rows[-1].revision)
        for row in rows:
            if row.revision != expected:
                return _bad(answer, expected, "is missing")
            if problem := _problem(row, previous, about.get(row.revision, set())):
                return _bad(answer, expected, problem)
            previous = row.chain_hash
            answer.last_revision, answer.last_hash = expected, previous
            expected += 1
    if last == top.revision and previous != top.head_hash:
        return _bad(answer, last, "is not what the log's head row says")
    return answer


def _about(tx: Tx, after: int, until: int) -> dict[int, set[tuple[str, str]]]:
    found: dict[int, set[tuple[str, str]]] = {}
    for row in tx.rows(_ABOUT, after=after, until=until):
        found.setdefault(row.revision, set()).add((row.namespace, row.model_id))
    return found


def _problem(row: Any, previous: bytes, about: set[tuple[str, str]]) -> str:
    if events.chain(previous, row.revision, row.commit_time, row.payload) != row.chain_hash:
        return "does not hash onto the revision before it"
    payload = pb.EventPayload()
    payload.ParseFromString(row.payload)
    if (row.actor, row.request_id) != (payload.actor, payload.request_id):
        return "has an actor or request_id column that differs from its payload"
    if about != {(r.change.namespace, r.change.model_id) for r in payload.records}:
        return "has index rows that differ from its payload"
    return ""


def _bad(answer: pb.VerifyLogResponse, revision: int, problem: str) -> pb.VerifyLogResponse:
    answer.intact = False
    answer.bad_revision = revision
    answer.problem = f"revision {revision} {problem}"
    return answer
