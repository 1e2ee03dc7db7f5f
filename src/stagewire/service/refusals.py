"""What was refused for want of credentials or grants, kept for a month and listed."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from stagewire import pb
from stagewire.service import messages
from stagewire.store import clock, pages, schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stagewire.store.transactions import Tx

KEPT_SECONDS = 30 * 24 * 3600
_EXPIRED = sa.delete(schema.Refusal).where(schema.Refusal.time < sa.bindparam("before"))


class Attempt(NamedTuple):
    """A call that was refused, as far as it told who and what."""

    caller: str
    peer: str
    method: str
    reason: str
    namespace: str = ""
    model: str = ""


def note(tx: Tx, found: Mapping[Attempt, tuple[int, int]]) -> None:
    """Write attempts, each with when it was first made and how often."""
    tx.insert_many(
        schema.Refusal,
        [
            {"id": uuid.uuid4().hex, "time": moment, "count": count, **attempt._asdict()}
            for attempt, (moment, count) in found.items()
        ],
    )


def forget_old(tx: Tx) -> int:
    """Delete what is older than a month; answers how many."""
    return tx.run(_EXPIRED, {"before": clock.now(tx) - KEPT_SECONDS * 1_000_000})


def list_(tx: Tx, request: pb.ListRefusalsRequest) -> pb.ListRefusalsResponse:
    """List refusals, the newest first."""
    statement = sa.select(schema.Refusal)
    if request.caller:
        statement = statement.where(schema.Refusal.caller == request.caller)
    if request.HasField("since_time"):
        statement = statement.where(schema.Refusal.time >= messages.micros(request.since_time))
    paged = pages.paginate(
        statement,
        [pages.Key(schema.Refusal.time, descending=True), pages.Key(schema.Refusal.id)],
        token=request.page_token,
        size=request.page_size,
        query=("ListRefusals", request.caller, request.since_time.ToJsonString()),
    )
    rows, token = paged.split(tx.rows(paged.statement))
    return pb.ListRefusalsResponse(
        refusals=[messages.refusal(row) for row in rows], next_page_token=token
    )
