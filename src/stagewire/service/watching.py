"""Where a watch begins: a cursor is resumed, answered with an announced snapshot, or refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from stagewire import errors, pb
from stagewire.service import cursors
from stagewire.store import events, lookup, schema

if TYPE_CHECKING:
    from stagewire.service.tail import Filter
    from stagewire.store.database import Database
    from stagewire.store.transactions import Tx

_HEAD = sa.select(schema.LogHead)

#: Reasons for which a cursor can't be resumed, and what to tell who does not want a snapshot.
_RESETS = {
    pb.SNAPSHOT_REASON_OTHER_LOG: (
        "OTHER_LOG",
        "the cursor belongs to another registry's log; start again with a snapshot",
    ),
    pb.SNAPSHOT_REASON_CURSOR_AHEAD: (
        "CURSOR_AHEAD",
        "the cursor is ahead of the log, which lost history; start again with a snapshot",
    ),
    pb.SNAPSHOT_REASON_LOG_DIVERGED: (
        "LOG_DIVERGED",
        "the log has another history than the cursor's; start again with a snapshot",
    ),
    pb.SNAPSHOT_REASON_COMPACTED: (
        "COMPACTED",
        "the log no longer holds what follows the cursor; start again with a snapshot",
    ),
    pb.SNAPSHOT_REASON_FILTER_CHANGED: (
        "FILTER_CHANGED",
        "the cursor was made under another filter; keep the filter, or start with a snapshot",
    ),
}


@dataclass(frozen=True, slots=True)
class Start:
    """Where a watch begins: after a revision, or with a snapshot for a reason."""

    log_id: str
    head: int
    position: int
    chain: bytes
    snapshot: pb.SnapshotReason.ValueType | None = None
    session: int = 0


def begin(database: Database, request: pb.WatchRequest, filter_: Filter) -> Start:
    """Judge where a watch begins, and number the stream among its agent's streams."""
    judged = database.read(lambda tx: start(tx, request, filter_))
    return replace(judged, session=database.next_session())


def start(tx: Tx, request: pb.WatchRequest, filter_: Filter) -> Start:
    """Judge where a watch begins, against the database's own head and history."""
    for space in sorted(filter_.namespaces - {"*"}):
        lookup.namespace(tx, space)
    top = tx.rows(_HEAD)[0]
    here = (top.log_id, top.revision)
    if request.cursor:
        if request.start:
            raise errors.invalid("start", "give either cursor or start, not both")
        cursor = cursors.decode(request.cursor)
        reason = _reset(tx, cursor, top, filter_)
        if reason is None:
            return Start(*here, cursor.revision, cursor.chain)
        if not request.snapshot_on_reset:
            name, text = _RESETS[reason]
            metadata = {"log_id": top.log_id, "head": str(top.revision)}
            raise errors.RegistryError(name, text, metadata=metadata)
        return Start(*here, top.revision, top.head_hash[:8], reason)
    if request.start == pb.WATCH_START_BEGINNING:
        return Start(*here, top.compacted_revision, top.compacted_hash[:8])
    if request.start == pb.WATCH_START_NOW:
        return Start(*here, top.revision, top.head_hash[:8])
    return Start(*here, top.revision, top.head_hash[:8], pb.SNAPSHOT_REASON_REQUESTED)


def _reset(
    tx: Tx, cursor: cursors.Cursor, top: lookup.Row, filter_: Filter
) -> pb.SnapshotReason.ValueType | None:
    if cursor.log_id != top.log_id:
        return pb.SNAPSHOT_REASON_OTHER_LOG
    if cursor.revision > top.revision:
        return pb.SNAPSHOT_REASON_CURSOR_AHEAD
    if cursor.revision < top.compacted_revision:
        return pb.SNAPSHOT_REASON_COMPACTED
    chain = events.hash_at(tx, cursor.revision)
    if chain is None or chain[:8] != cursor.chain:
        return pb.SNAPSHOT_REASON_LOG_DIVERGED
    if cursor.filter_digest != filter_.digest:
        return pb.SNAPSHOT_REASON_FILTER_CHANGED
    return None
