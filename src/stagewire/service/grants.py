"""Grants: who has which role on which part of the registry."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, names, pb, rights
from stagewire.rights import ALL, NARROWED_BY_ALIAS, NARROWED_BY_STAGE, Scope
from stagewire.service import history, messages
from stagewire.store import clock, lookup, pages, schema

if TYPE_CHECKING:
    from stagewire.store.transactions import Tx

#: As many are shown to one who asks what it may do.
MOST_SHOWN = 1000

_GRANT = sa.select(schema.Grant).where(schema.Grant.id == sa.bindparam("id"))
_OF_NAMESPACE = (
    sa.select(schema.Grant)
    .where(schema.Grant.namespace == sa.bindparam("namespace"))
    .order_by(schema.Grant.create_time, schema.Grant.id)
)
_SAME = sa.select(schema.Grant).where(
    schema.Grant.subject == sa.bindparam("subject"),
    schema.Grant.role == sa.bindparam("role"),
    schema.Grant.namespace == sa.bindparam("namespace"),
    schema.Grant.model == sa.bindparam("model"),
    schema.Grant.stage_key == sa.bindparam("stage_key"),
    schema.Grant.alias == sa.bindparam("alias"),
)
_ADMINS = sa.select(schema.Grant.subject).where(
    schema.Grant.role == pb.ROLE_ADMIN,
    schema.Grant.namespace == ALL,
    schema.Grant.id != sa.bindparam("besides_grant"),
)
_LIVE_TOKEN = sa.select(schema.Token.id).where(
    schema.Token.subject == sa.bindparam("subject"),
    schema.Token.revoked.is_(False),
    schema.Token.expire_time > sa.bindparam("now"),
    schema.Token.id != sa.bindparam("besides_token"),
)


def create(tx: Tx, request: pb.CreateGrantRequest) -> pb.CreateGrantResponse:
    """Grant a role. Refuses what the caller does not administer, and what is no scope."""
    wanted = request.grant
    subject = wanted.subject
    if subject != ALL:
        subject = names.canonical_subject(subject, "grant.subject")
    scope = checked(wanted.scope, "grant.scope")
    if subject == ALL and scope.role == "admin":
        raise errors.invalid("grant.subject", "everybody can't be an admin; name who is")
    tx.rights.demand(rights.ADMINISTER, scope.namespace, caller=tx.actor)
    stage = scope.stage
    if scope.namespace == ALL:
        lookup.lock_access(tx)
    else:
        space = lookup.namespace_to_change(tx, scope.namespace).name
        if stage:
            stage = str(lookup.stage(tx, space, stage).name)
    place = {
        "subject": subject,
        "role": wanted.scope.role,
        "namespace": scope.namespace,
        "model": scope.model,
        "stage_key": names.stage_key(stage),
        "alias": scope.alias,
    }
    present = tx.row(_SAME, **place)
    if present is not None:
        return pb.CreateGrantResponse(grant=messages.grant(tx, present))
    values: dict[str, Any] = {
        **place,
        "id": uuid.uuid4().hex,
        "stage": stage,
        "creator": tx.actor,
        "revision": tx.revision,
        "create_time": tx.time,
    }
    tx.insert(schema.Grant, **values)
    state = messages.grant(tx, SimpleNamespace(**values))
    history.record_grant(tx, pb.CHANGE_KIND_GRANT_CREATED, state)
    return pb.CreateGrantResponse(grant=state)


def checked(scope: pb.Scope, field: str) -> Scope:
    """Bring a scope into its one spelling. Refuses INVALID_FIELD."""
    role = messages.role(scope.role)
    model = scope.model or ALL
    if model != ALL:
        prefix = model.removesuffix(ALL)
        canonical = names.canonical_model(prefix, f"{field}.model")
        model = canonical + model[len(prefix) :]
    if scope.stage and scope.alias:
        raise errors.invalid(f"{field}.alias", "give either a stage or an alias, not both")
    for name, takes in (("stage", NARROWED_BY_STAGE), ("alias", NARROWED_BY_ALIAS)):
        if getattr(scope, name) and role not in takes:
            raise errors.invalid(
                f"{field}.{name}",
                f"role {role} is not narrowed by it; leave it out, or grant "
                + " or ".join(sorted(takes)),
            )
    if scope.alias:
        names.check_alias(scope.alias, f"{field}.alias")
    if role == "admin" and model != ALL:
        raise errors.invalid(
            f"{field}.model", "an admin is one of a whole namespace; leave it out, or grant editor"
        )
    space = names.namespace_or_default(scope.namespace)
    return Scope(role, space, model, scope.stage, scope.alias)


def list_(tx: Tx, request: pb.ListGrantsRequest) -> pb.ListGrantsResponse:
    """List the grants that the caller administers, and its own."""
    statement = sa.select(schema.Grant)
    if not tx.rights.everything:
        run = {a.namespace for a in tx.rights.allowances if a.permissions & rights.ADMINISTER}
        statement = statement.where(
            sa.or_(
                schema.Grant.namespace.in_(sorted(run)),
                schema.Grant.subject.in_(tx.caller.subjects),
            )
        )
    if request.subject:
        statement = statement.where(schema.Grant.subject == request.subject)
    if request.namespace not in ("", ALL):
        statement = statement.where(schema.Grant.namespace.in_([request.namespace, ALL]))
    paged = pages.paginate(
        statement,
        [pages.Key(schema.Grant.create_time, descending=True), pages.Key(schema.Grant.id)],
        token=request.page_token,
        size=request.page_size,
        query=("ListGrants", request.subject, request.namespace),
    )
    rows, token = paged.split(tx.rows(paged.statement))
    return pb.ListGrantsResponse(
        grants=[messages.grant(tx, row) for row in rows], next_page_token=token
    )


def delete(tx: Tx, request: pb.DeleteGrantRequest) -> pb.DeleteGrantResponse:
    """Take a grant back. Refuses GRANT_NOT_FOUND and LAST_ADMIN."""
    row = tx.row(_GRANT, id=request.id)
    if row is None or not (
        tx.rights.administers(row.namespace) or row.subject in tx.caller.subjects
    ):
        raise errors.not_found(
            "GRANT_NOT_FOUND", "grant", request.id, f"grant {request.id!r} does not exist"
        )
    tx.rights.demand(rights.ADMINISTER, row.namespace, caller=tx.actor)
    if row.namespace == ALL:
        lookup.lock_access(tx)
    else:
        lookup.namespace_to_change(tx, row.namespace)
    if not tx.delete(schema.Grant, id=row.id):
        raise errors.not_found(
            "GRANT_NOT_FOUND", "grant", request.id, f"grant {request.id!r} does not exist"
        )
    if row.role == pb.ROLE_ADMIN and row.namespace == ALL:
        keep_an_admin(tx, besides_grant=row.id)
    history.record_grant(tx, pb.CHANGE_KIND_GRANT_DELETED, messages.grant(tx, row))
    return pb.DeleteGrantResponse()


def forget(tx: Tx, space: str) -> None:
    """Take back every grant on a namespace, which is locked, and no other."""
    for row in tx.rows(_OF_NAMESPACE, namespace=space):
        tx.delete(schema.Grant, id=row.id)
        history.record_grant(tx, pb.CHANGE_KIND_GRANT_DELETED, messages.grant(tx, row))


def keep_an_admin(tx: Tx, *, besides_grant: str = "", besides_token: str = "") -> None:
    """Refuse LAST_ADMIN where nobody could administer the registry any more.

    While access is not controlled everybody can.
    """
    if tx.caller.method and not has_admin(
        tx, besides_grant=besides_grant, besides_token=besides_token
    ):
        raise errors.precondition(
            "LAST_ADMIN",
            besides_grant or besides_token,
            "nobody could administer the registry any more; make another admin first",
        )


def has_admin(tx: Tx, *, besides_grant: str = "", besides_token: str = "") -> bool:
    """Tell whether somebody can come in and administer the registry."""
    for row in tx.rows(_ADMINS, besides_grant=besides_grant):
        # Whether an identity provider or an authority still vouches for these, it alone knows.
        if row.subject.startswith(names.KINDS_OF_SUBJECT):
            return True
        token = tx.scalar(
            _LIVE_TOKEN, subject=row.subject, now=clock.now(tx), besides_token=besides_token
        )
        if token is not None:
            return True
    return False


def caller(tx: Tx, _request: pb.GetCallerRequest) -> pb.GetCallerResponse:
    """Say who calls and what they may do."""
    found = tx.caller
    allowances = found.rights.allowances[:MOST_SHOWN]
    return pb.GetCallerResponse(
        subject=found.name,
        method=found.method,
        groups=found.groups,
        token_id=found.token_id,
        expire_time=None if found.expires is None else messages.timestamp(int(found.expires * 1e6)),
        scopes=[messages.scope(scope) for scope in rights.scopes_of(allowances)],
    )
