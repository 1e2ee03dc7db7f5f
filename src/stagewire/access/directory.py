"""Tokens and grants in memory, as the log's tail tells of them.

Every call is judged by these, so none reads the database to know who calls. What is made or taken
back here or elsewhere arrives with the tail, in the order in which it was committed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import structlog

from stagewire import names, pb
from stagewire.rights import Scope
from stagewire.service import messages
from stagewire.store import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from stagewire.service.tail import Entry
    from stagewire.store.database import Database
    from stagewire.store.transactions import Tx

log = structlog.get_logger("stagewire.access")

_KINDS = frozenset(
    {
        pb.CHANGE_KIND_TOKEN_CREATED,
        pb.CHANGE_KIND_TOKEN_REVOKED,
        pb.CHANGE_KIND_GRANT_CREATED,
        pb.CHANGE_KIND_GRANT_DELETED,
    }
)
#: Tokens that nobody knows here are looked for in the database no more often than this.
_SEARCH_SECONDS = 0.05
_RETRY_SECONDS = 0.5

_TOKENS = sa.select(schema.Token).where(
    schema.Token.revoked.is_(False), schema.Token.expire_time > sa.bindparam("now")
)
_TOKEN = sa.select(schema.Token).where(schema.Token.id == sa.bindparam("id"))
_GRANTS = sa.select(schema.Grant)
_EVER = sa.select(schema.Token.id).limit(1)


@dataclass(frozen=True, slots=True)
class KnownToken:
    """A token as calls are judged by it; `expires` in seconds since 1970."""

    id: str
    subject: str
    secret_hash: bytes
    expires: float
    scopes: frozenset[Scope]
    revoked: bool = False


class Directory:
    """Who has which token and which grants. For the event loop's thread only."""

    def __init__(self, database: Database, executor: Executor) -> None:
        """Know nobody yet; `load` reads what there is."""
        self._database = database
        self._executor = executor
        self._tokens: dict[str, KnownToken] = {}
        self._grants: dict[str, tuple[str, Scope]] = {}
        self._scopes: defaultdict[str, set[Scope]] = defaultdict(set)
        self._ended: set[str] = set()
        self._reading: dict[str, asyncio.Task[KnownToken | None]] = {}
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._searched = 0.0
        self._loading: asyncio.Task[None] | None = None
        # Heard while everything was read anew: it may be younger than what was read.
        self._unheard: list[Entry] = []
        #: The revision up to which tokens and grants are known.
        self.revision = 0
        #: Grows whenever a token or a grant changes.
        self.changes = 0
        #: Whether what is known is what there is; not so while history is read anew.
        self.whole = False
        #: Whether there ever was a token, ended or not.
        self.was_used = False
        #: Called after each change.
        self.listeners: list[Callable[[], None]] = []

    async def load(self) -> None:
        """Read every living token and every grant, at one revision."""
        loop = asyncio.get_running_loop()
        tokens, grants, self.was_used, revision = await loop.run_in_executor(
            self._executor, self._database.read, _read_all
        )
        self._tokens = {token.id: token for token in tokens}
        self._ended.clear()
        self._grants, self._scopes = {}, defaultdict(set)
        for id_, subject, scope in grants:
            self._grants[id_] = (subject, scope)
            self._scopes[subject].add(scope)
        self.whole = True
        self._reached(revision)
        unheard, self._unheard = self._unheard, []
        for entry in unheard:
            self.hear(entry)
        self._changed()

    def start_over(self) -> None:
        """Read everything again: the log's history is another one now."""
        self.whole = False
        self.revision = 0
        self._unheard.clear()
        if self._loading is None or self._loading.done():
            self._loading = asyncio.ensure_future(self._reload())

    async def _reload(self) -> None:
        while not self.whole:
            try:
                await self.load()
            except Exception:
                log.exception("tokens and grants can't be read; it is tried again")
                await asyncio.sleep(_RETRY_SECONDS)

    @property
    def has_anybody(self) -> bool:
        """Whether there is a token that somebody could call with."""
        now = time.time()
        return any(token.expires > now for token in self._tokens.values())

    def hear(self, entry: Entry) -> None:
        """Take in a revision of the log."""
        if not self.whole:
            self._unheard.append(entry)
            return
        if entry.revision <= self.revision:
            return
        touched = False
        for slice_ in entry.slices:
            if slice_.kind in _KINDS:
                self._take_in(slice_.full)
                touched = True
        self._reached(entry.revision)
        if touched:
            self._changed()

    def _take_in(self, data: bytes) -> None:
        for change in pb.Transaction.FromString(data).changes:
            if change.kind == pb.CHANGE_KIND_TOKEN_REVOKED:
                self._tokens.pop(change.access_id, None)
                self._ended.add(change.access_id)
            elif change.kind == pb.CHANGE_KIND_TOKEN_CREATED:
                # The log has no hashes.
                self._begin_reading(change.access_id)
            elif change.kind == pb.CHANGE_KIND_GRANT_CREATED:
                self._grant(change.grant_state)
            elif (known := self._grants.pop(change.access_id, None)) is not None:
                subject, scope = known
                self._scopes[subject].discard(scope)
                if not self._scopes[subject]:
                    del self._scopes[subject]

    def _grant(self, grant: pb.Grant) -> None:
        scope = Scope(
            role=messages.role(grant.scope.role),
            namespace=grant.scope.namespace,
            model=grant.scope.model,
            stage=names.stage_key(grant.scope.stage),
            alias=grant.scope.alias,
        )
        self._grants[grant.id] = (grant.subject, scope)
        self._scopes[grant.subject].add(scope)

    def _reached(self, revision: int) -> None:
        self.revision = max(self.revision, revision)
        if self._waiting:
            for least, future in self._waiting:
                if least <= self.revision and not future.done():
                    future.set_result(None)
            self._waiting = [w for w in self._waiting if not w[1].done()]

    def _changed(self) -> None:
        self.changes += 1
        for listener in self.listeners:
            listener()

    async def reach(self, revision: int) -> None:
        """Wait until everything up to a revision is known here."""
        if self.revision < revision:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((revision, future))
            await future
        if self._reading:
            await asyncio.wait(list(self._reading.values()))

    def scopes_of(self, subjects: Iterable[str]) -> frozenset[Scope]:
        """Give the grants of a subject's names."""
        found: set[Scope] = set()
        for subject in subjects:
            found |= self._scopes.get(subject, set())
        return frozenset(found)

    def token(self, id_: str) -> KnownToken | None:
        """Give a token that is known here."""
        return self._tokens.get(id_)

    async def find(self, id_: str) -> KnownToken | None:
        """Give a token, looking for one that is not known here: it may have been made just now."""
        known = self._tokens.get(id_)
        if known is not None:
            return known
        reading = self._reading.get(id_)
        if reading is None:
            # Whoever guesses ids must not keep the database busy; the tail tells of new ones.
            now = time.monotonic()
            if now - self._searched < _SEARCH_SECONDS:
                return None
            self._searched = now
            reading = self._begin_reading(id_)
        return await asyncio.shield(reading)

    def _begin_reading(self, id_: str) -> asyncio.Task[KnownToken | None]:
        task = self._reading.get(id_)
        if task is None:
            task = asyncio.ensure_future(self._read(id_))
            self._reading[id_] = task
            task.add_done_callback(lambda done: self._end_reading(id_, done))
        return task

    def _end_reading(self, id_: str, done: asyncio.Task[Any]) -> None:
        self._reading.pop(id_, None)
        if not done.cancelled() and done.exception() is not None:
            log.warning("a token can't be read", error=repr(done.exception()))

    async def _read(self, id_: str) -> KnownToken | None:
        def work(tx: Tx) -> KnownToken | None:
            row = tx.row(_TOKEN, id=id_)
            return None if row is None else _known(row)

        loop = asyncio.get_running_loop()
        known = await loop.run_in_executor(self._executor, self._database.read, work)
        # It may have been revoked since it was read, and the tail have told so already.
        if known is None or known.revoked or known.id in self._ended:
            return None
        self._tokens[known.id] = known
        return known


def _read_all(
    tx: Tx,
) -> tuple[list[KnownToken], list[tuple[str, str, Scope]], bool, int]:
    was_used = tx.scalar(_EVER) is not None
    tokens = [_known(row) for row in tx.rows(_TOKENS, now=time.time_ns() // 1000)]
    grants = [
        (
            row.id,
            row.subject,
            Scope(
                role=messages.role(row.role),
                namespace=row.namespace,
                model=row.model,
                stage=row.stage_key,
                alias=row.alias,
            ),
        )
        for row in tx.rows(_GRANTS)
    ]
    return tokens, grants, was_used, tx.head


def _known(row: Any) -> KnownToken:
    return KnownToken(
        id=row.id,
        subject=row.subject,
        secret_hash=bytes(row.secret_hash),
        expires=row.expire_time / 1e6,
        scopes=frozenset(Scope(**scope) for scope in json.loads(row.scopes)),
        revoked=row.revoked,
    )
