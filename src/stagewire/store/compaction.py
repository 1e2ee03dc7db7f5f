"""Compaction: the log forgets its oldest revisions, and keeps the mark up to which they are gone.

Revisions and mark go together, a batch in one transaction, so the log always holds every revision
above its mark and proves them by the mark's chain hash. What outlives its revision is kept in rows
of its own and is left alone: stage and alias history, stored answers, and the bodies of long texts,
which are shared by revisions and go with a purge.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from stagewire import errors, failpoints
from stagewire.store import schema

if TYPE_CHECKING:
    from collections.abc import Generator

    from stagewire.store.database import Database
    from stagewire.store.transactions import Tx

# Some ten milliseconds of deletes, and a commit that writers wait for as long as for each other.
BATCH = 1000
# Two compactions at once take turns; any fixed number will do.
_ADVISORY_LOCK = 5_706_114_114

_HEAD = sa.select(schema.LogHead.revision, schema.LogHead.compacted_revision)
_HASH = sa.select(schema.Log.chain_hash).where(schema.Log.revision == sa.bindparam("revision"))
# Times never run backwards in the log, so this is also the last revision of that time.
_NEWEST_BEFORE = (
    sa.select(schema.Log.revision, schema.Log.commit_time)
    .where(schema.Log.commit_time < sa.bindparam("before"))
    .order_by(schema.Log.commit_time.desc(), schema.Log.revision.desc())
    .limit(1)
)
_LOCK = sa.text("SELECT pg_advisory_xact_lock(:number)")
_POSTGRESQL_NOW = sa.text("SELECT (extract(epoch FROM statement_timestamp()) * 1000000)::bigint")
_DELETES = tuple(
    # From both sides: what earlier batches left dead in the index is not walked over again.
    sa.delete(table).where(
        table.revision > sa.bindparam("after"), table.revision <= sa.bindparam("until")
    )
    for table in (schema.LogModel, schema.Log)
)
_MOVE_MARK = sa.update(schema.LogHead).values(
    compacted_revision=sa.bindparam("mark"), compacted_hash=sa.bindparam("hash")
)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Revisions to go: those above `after` up to `until`, which was committed at `until_time`.

    The time is in microseconds, 0 when there is nothing to go.
    """

    after: int
    until: int
    until_time: int
    head: int

    @property
    def count(self) -> int:
        """How many revisions go."""
        return self.until - self.after


def older_than(tx: Tx, seconds: float) -> Stretch:
    """Find the revisions committed longer ago than this, on the clock that commits are timed by."""
    now = tx.scalar(_POSTGRESQL_NOW) if tx.postgresql else time.time_ns() // 1000
    top = tx.rows(_HEAD)[0]
    newest = tx.row(_NEWEST_BEFORE, before=int(now) - int(seconds * 1_000_000))
    if newest is None or newest.revision <= top.compacted_revision:
        return Stretch(top.compacted_revision, top.compacted_revision, 0, top.revision)
    return Stretch(top.compacted_revision, newest.revision, newest.commit_time, top.revision)


def compact(database: Database, until: int, *, batch: int = BATCH) -> Generator[int]:
    """Let revisions up to `until` go, giving the mark after each batch, which is then durable."""
    mark = 0
    while mark < until:
        mark = database.write(lambda tx: _advance(tx, until, batch))
        yield mark


def _advance(tx: Tx, until: int, most: int) -> int:
    """Move the mark by one batch and answer it."""
    if tx.postgresql:
        tx.run(_LOCK, {"number": _ADVISORY_LOCK})
    after: int = tx.rows(_HEAD)[0].compacted_revision
    mark = min(after + most, until)
    if mark <= after:
        return after
    chain = tx.scalar(_HASH, revision=mark)
    if chain is None:
        text = f"revision {mark} is missing from the log; `stagewire verify-log` says more"
        raise errors.RegistryError("INTERNAL", text)
    for statement in _DELETES:
        tx.run(statement, {"after": after, "until": mark})
    # The head row last, as in every write: it is held for the commit alone.
    tx.run(_MOVE_MARK, {"mark": mark, "hash": chain})
    failpoints.hit("mark.moved")
    return mark
