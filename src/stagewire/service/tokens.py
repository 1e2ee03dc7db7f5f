"""Tokens: secrets that stand for a subject. A secret is shown once and kept as its hash alone."""

from __future__ import annotations

import hashlib
import json
import secrets
import uuid
from dataclasses import asdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

from stagewire import errors, names, pb, rights
from stagewire.rights import ALL
from stagewire.service import grants, history, messages
from stagewire.store import clock, lookup, pages, schema
from stagewire.store.transactions import dialect_insert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stagewire.store.transactions import Tx

PREFIX = "sw"
DEFAULT_SECONDS = 90 * 24 * 3600
MOST_SECONDS = 10 * 366 * 24 * 3600
#: Whoever proves who they are to somebody else may have a token of their own name.
_MAKE_THEIR_OWN = (pb.AUTHENTICATION_METHOD_OIDC, pb.AUTHENTICATION_METHOD_CERTIFICATE)

_TOKEN = sa.select(schema.Token).where(schema.Token.id == sa.bindparam("id"))


def create(tx: Tx, request: pb.CreateTokenRequest) -> pb.CreateTokenResponse:
    """Make a token. Refuses what is no subject, no scope, or no time to come."""
    wanted = request.token
    subject = names.canonical_subject(wanted.subject, "token.subject")
    if subject == ALL or subject.startswith("group:"):
        raise errors.invalid(
            "token.subject", "stands for one subject, not for many; grant roles to those instead"
        )
    if not (tx.caller.method in _MAKE_THEIR_OWN and subject == tx.actor):
        tx.rights.demand(rights.ADMINISTER, ALL, caller=tx.actor)
    scopes = [
        grants.checked(scope, f"token.scopes[{index}]") for index, scope in enumerate(wanted.scopes)
    ]
    id_, secret = mint()
    state = put(tx, id_, subject, hashed(secret), wanted=wanted, scopes=scopes)
    return pb.CreateTokenResponse(token=state, secret=secret)


def mint() -> tuple[str, str]:
    """Make up a token's identity and secret: 256 random bits."""
    id_ = uuid.uuid4().hex[:16]
    return id_, f"{PREFIX}_{id_}_{secrets.token_urlsafe(32)}"


def hashed(secret: str) -> bytes:
    """Hash a secret: 256 random bits need no slow one."""
    return hashlib.sha256(secret.encode()).digest()


def put(
    tx: Tx,
    id_: str,
    subject: str,
    secret_hash: bytes,
    *,
    wanted: pb.Token,
    scopes: list[rights.Scope],
) -> pb.Token:
    """Write a token and record it."""
    values: dict[str, Any] = {
        "id": id_,
        "secret_hash": secret_hash,
        "subject": subject,
        "description": wanted.description,
        "scopes": json.dumps([asdict(scope) for scope in scopes]),
        "expire_time": _expiry(tx, wanted),
        "creator": tx.actor,
        "revoked": False,
        "revision": tx.revision,
        "create_time": tx.time,
        "update_time": tx.time,
    }
    tx.insert(schema.Token, **values)
    state = messages.token(tx, SimpleNamespace(**values))
    history.record_token(tx, pb.CHANGE_KIND_TOKEN_CREATED, state)
    return state


def _expiry(tx: Tx, wanted: pb.Token) -> int:
    now = clock.now(tx)
    if not wanted.HasField("expire_time"):
        return now + DEFAULT_SECONDS * 1_000_000
    expiry = messages.micros(wanted.expire_time)
    if expiry <= now:
        raise errors.invalid("token.expire_time", "is over; give a time to come, or leave it out")
    if expiry > now + MOST_SECONDS * 1_000_000:
        raise errors.invalid("token.expire_time", "is more than 10 years from now; give it sooner")
    return expiry


def shown_once(answer: pb.CreateTokenResponse) -> errors.RegistryError:
    """Build the refusal of a repeated call: the first one's answer had the secret."""
    id_ = answer.token.id
    text = (
        f"this call made token {id_!r} already, and the secret was in its answer alone; revoke "
        "that token and make another"
    )
    return errors.RegistryError(
        "SECRET_SHOWN_ONCE",
        text,
        preconditions=[errors.PreconditionViolation("SECRET_SHOWN_ONCE", id_, text)],
        metadata={"token_id": id_},
    )


def list_(tx: Tx, request: pb.ListTokensRequest) -> pb.ListTokensResponse:
    """List tokens: all for an admin, one's own for others."""
    used = schema.TokenUse
    joined = sa.select(schema.Token, used.time.label("last_use")).outerjoin(
        used, used.token_id == schema.Token.id
    )
    statement = cast("sa.Select[Any]", joined)
    if not tx.rights.administers(ALL):
        statement = statement.where(schema.Token.subject == tx.actor)
    if request.subject:
        statement = statement.where(schema.Token.subject == request.subject)
    if not request.include_ended:
        statement = statement.where(
            schema.Token.revoked.is_(False), schema.Token.expire_time > clock.now(tx)
        )
    paged = pages.paginate(
        statement,
        [pages.Key(schema.Token.create_time, descending=True), pages.Key(schema.Token.id)],
        token=request.page_token,
        size=request.page_size,
        query=("ListTokens", request.subject, request.include_ended),
    )
    rows, token = paged.split(tx.rows(paged.statement))
    return pb.ListTokensResponse(
        tokens=[messages.token(tx, row, row.last_use) for row in rows], next_page_token=token
    )


def revoke(tx: Tx, request: pb.RevokeTokenRequest) -> pb.RevokeTokenResponse:
    """End a token. Refuses TOKEN_NOT_FOUND and LAST_ADMIN."""
    lookup.lock_access(tx)
    row = tx.row(_TOKEN, id=request.id)
    if row is None or not (tx.rights.administers(ALL) or row.subject == tx.actor):
        raise errors.not_found(
            "TOKEN_NOT_FOUND", "token", request.id, f"token {request.id!r} does not exist"
        )
    if row.revoked:
        return pb.RevokeTokenResponse(token=messages.token(tx, row))
    values = {"revoked": True, "revision": tx.revision, "update_time": tx.time}
    tx.update(schema.Token, {"id": row.id}, **values)
    if row.expire_time > clock.now(tx):
        grants.keep_an_admin(tx, besides_token=row.id)
    state = messages.token(tx, SimpleNamespace(**{**row._asdict(), **values}))
    history.record_token(tx, pb.CHANGE_KIND_TOKEN_REVOKED, state)
    return pb.RevokeTokenResponse(token=state)


def note_uses(tx: Tx, uses: Mapping[str, int]) -> None:
    """Write when tokens were last used, in microseconds since 1970; never back in time."""
    statement = dialect_insert(tx.connection.dialect.name)(schema.TokenUse)
    statement = statement.on_conflict_do_update(
        index_elements=[schema.TokenUse.token_id],
        set_={"time": statement.excluded.time},
        where=schema.TokenUse.time < statement.excluded.time,
    )
    rows = [{"token_id": token_id, "time": moment} for token_id, moment in sorted(uses.items())]
    if rows:
        tx.run(statement, rows)


def ensure_admin(tx: Tx, secret_hash: bytes, id_: str) -> bool:
    """Adopt the first admin's token, unless somebody can administer the registry already.

    A token that has ended stays so.
    """
    # Servers that start together adopt it once.
    lookup.lock_access(tx)
    if grants.has_admin(tx):
        return False
    row = tx.row(_TOKEN, id=id_)
    if row is None:
        wanted = pb.Token(description="the first admin's")
        put(tx, id_, "admin", secret_hash, wanted=wanted, scopes=[])
    elif row.revoked or row.expire_time <= clock.now(tx):
        return False
    grants.create(
        tx,
        pb.CreateGrantRequest(
            grant=pb.Grant(subject="admin", scope=pb.Scope(role=pb.ROLE_ADMIN, namespace=ALL))
        ),
    )
    return True
