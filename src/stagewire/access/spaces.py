"""Quotas of namespaces in memory, as the log's tail tells of them: no call reads them.

Of the few namespaces that limit calls or watches; where nothing is known nothing is limited.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import sqlalchemy as sa
import structlog

from stagewire import pb
from stagewire.service import quotas
from stagewire.store import schema

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from stagewire.service.tail import Entry, Tail
    from stagewire.store.database import Database
    from stagewire.store.transactions import Tx

log = structlog.get_logger("stagewire.access")

_KINDS = frozenset(
    {
        pb.CHANGE_KIND_NAMESPACE_CREATED,
        pb.CHANGE_KIND_NAMESPACE_UPDATED,
        pb.CHANGE_KIND_NAMESPACE_DELETED,
    }
)
_RETRY_SECONDS = 0.5
_NONE = pb.Quota()
_LIMITED = sa.select(schema.Namespace).where(
    sa.or_(schema.Namespace.max_watches > 0, schema.Namespace.requests_per_second > 0)
)


class Spaces:
    """What namespaces may ask for. For the event loop's thread only."""

    def __init__(self, database: Database, executor: Executor) -> None:
        """Know of no limit yet; `load` reads what there is."""
        self._database = database
        self._executor = executor
        self._quotas: dict[str, pb.Quota] = {}
        self._revision = 0
        self._heard = 0
        self._whole = False
        self._loading: asyncio.Task[None] | None = None

    def follow(self, tail: Tail) -> None:
        """Hear of changes from now on."""
        tail.listeners.append(self.hear)
        tail.on_break.append(self.start_over)

    async def load(self) -> None:
        """Read every quota, at one revision that is not behind what was heard of."""
        loop = asyncio.get_running_loop()
        while not self._whole:
            found, revision = await loop.run_in_executor(
                self._executor, self._database.read, _read_all
            )
            if revision >= self._heard:
                self._quotas, self._revision, self._whole = found, revision, True

    def start_over(self) -> None:
        """Read everything again: the log's history is another one now."""
        self._heard, self._whole = 0, False
        if self._loading is None or self._loading.done():
            self._loading = asyncio.ensure_future(self._reload())

    async def _reload(self) -> None:
        while not self._whole:
            try:
                await self.load()
            except Exception:
                log.exception("quotas can't be read; it is tried again")
                await asyncio.sleep(_RETRY_SECONDS)

    def hear(self, entry: Entry) -> None:
        """Take in a revision of the log."""
        self._heard = entry.revision
        if not self._whole or entry.revision <= self._revision:
            return
        for slice_ in entry.slices:
            if slice_.kind in _KINDS:
                for change in pb.Transaction.FromString(slice_.full).changes:
                    self._take_in(change)
        self._revision = entry.revision

    def _take_in(self, change: pb.Change) -> None:
        quota = change.namespace_state.quota
        gone = change.kind == pb.CHANGE_KIND_NAMESPACE_DELETED
        if gone or not (quota.max_watches or quota.requests_per_second):
            self._quotas.pop(change.namespace, None)
        else:
            self._quotas[change.namespace] = quota

    def quota(self, space: str) -> pb.Quota:
        """Give what a namespace may ask for."""
        return self._quotas.get(space, _NONE)


def _read_all(tx: Tx) -> tuple[dict[str, pb.Quota], int]:
    found = {row.name: quotas.of(row) or _NONE for row in tx.rows(_LIMITED)}
    return found, tx.head
