"""Where a watch begins: a cursor is resumed, answered with an announced snapshot, or refused."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import sqlalchemy as sa

from stagewire import errors, pb
from stagewire.service import cursors
from stagewire.store import events, lookup, schema

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from stagewire.rights import Rights
    from stagewire.service.tail import Filter
    from stagewire.store.database import Database
    from stagewire.store.transactions import Tx

# Batches in work, and watches in one: a batch is a few milliseconds of a thread.
WORKERS = 2
AT_ONCE = 256
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
    pb.SNAPSHOT_REASON_PERMISSIONS_CHANGED: (
        "PERMISSIONS_CHANGED",
        "what you may see is not what it was when the cursor was made; start with a snapshot",
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


class Beginnings:
    """Judges where watches begin, many in one transaction.

    When a replica dies thousands come at once, most of them with a cursor at the same few
    revisions: a transaction and a session's number for each would keep the last ones waiting.
    """

    def __init__(self, database: Database, executor: Executor) -> None:
        """Judge against `database`, on threads of `executor`."""
        self._database = database
        self._executor = executor
        self._waiting: deque[_Arrival] = deque()
        self._workers: set[asyncio.Task[None]] = set()

    async def begin(self, request: pb.WatchRequest, filter_: Filter, rights: Rights) -> Start:
        """Judge where a watch begins, and number the stream among its agent's streams.

        Whether the caller may watch what it asks for was judged before.
        """
        future: asyncio.Future[Start] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Arrival(request, filter_, rights.epoch, future))
        if len(self._workers) < WORKERS:
            self._workers.add(asyncio.create_task(self._work()))
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._begin_some()
        finally:
            # At once: whoever comes before a callback of the task's would find it counted still,
            # and nobody at work.
            self._workers.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _begin_some(self) -> None:
        loop = asyncio.get_running_loop()
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), AT_ONCE))]
        found: Sequence[Start | errors.RegistryError]
        try:
            found = await loop.run_in_executor(self._executor, self._judge, batch)
        except errors.RegistryError as error:
            found = [error] * len(batch)
        except Exception as error:  # noqa: BLE001  # it is each caller's, who logs it
            for arrival in batch:
                if not arrival.future.done():
                    arrival.future.set_exception(error)
            return
        for arrival, start in zip(batch, found, strict=True):
            # Whoever hung up meanwhile has a future that is cancelled.
            if arrival.future.done():
                continue
            if isinstance(start, errors.RegistryError):
                arrival.future.set_exception(replace(start))
            else:
                arrival.future.set_result(start)

    def _judge(self, batch: Sequence[_Arrival]) -> Sequence[Start | errors.RegistryError]:
        def work(tx: Tx) -> list[Start | errors.RegistryError]:
            judge = _Judge(tx)
            return [judge.judge(arrival) for arrival in batch]

        found = self._database.read(work)
        admitted = sum(isinstance(start, Start) for start in found)
        # After the judging, so that a session is younger than what its stream begins with.
        sessions = iter(self._database.next_sessions(admitted) if admitted else ())
        return [
            replace(start, session=next(sessions)) if isinstance(start, Start) else start
            for start in found
        ]


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A watch that waits for its beginning."""

    request: pb.WatchRequest
    filter: Filter
    epoch: bytes
    future: asyncio.Future[Start]


class _Judge:
    """Judges beginnings in one transaction, and looks nothing up twice."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._top = tx.rows(_HEAD)[0]
        self._spaces: set[str] = set()
        self._chains: dict[int, bytes | None] = {}

    def judge(self, arrival: _Arrival) -> Start | errors.RegistryError:
        """Say where a watch begins, or why it can't."""
        try:
            return self._start(arrival)
        except errors.RegistryError as error:
            return error

    def _start(self, arrival: _Arrival) -> Start:
        request = arrival.request
        for space in sorted(arrival.filter.namespaces - {"*"} - self._spaces):
            lookup.namespace(self._tx, space)
            self._spaces.add(space)
        top = self._top
        here = (top.log_id, top.revision)
        if request.cursor:
            if request.start:
                raise errors.invalid("start", "give either cursor or start, not both")
            cursor = cursors.decode(request.cursor)
            reason = self._reset(cursor, arrival)
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
        self, cursor: cursors.Cursor, arrival: _Arrival
    ) -> pb.SnapshotReason.ValueType | None:
        """Say why a cursor can't be resumed: what became of the log first, then of the asking."""
        top = self._top
        if cursor.log_id != top.log_id:
            return pb.SNAPSHOT_REASON_OTHER_LOG
        if cursor.revision > top.revision:
            return pb.SNAPSHOT_REASON_CURSOR_AHEAD
        if cursor.revision < top.compacted_revision:
            return pb.SNAPSHOT_REASON_COMPACTED
        chain = self._chain(cursor.revision)
        if chain is None or chain[:8] != cursor.chain:
            return pb.SNAPSHOT_REASON_LOG_DIVERGED
        if cursor.filter_digest != arrival.filter.digest:
            return pb.SNAPSHOT_REASON_FILTER_CHANGED
        if cursor.epoch != arrival.epoch:
            return pb.SNAPSHOT_REASON_PERMISSIONS_CHANGED
        return None

    def _chain(self, revision: int) -> bytes | None:
        if revision not in self._chains:
            self._chains[revision] = events.hash_at(self._tx, revision)
        return self._chains[revision]
