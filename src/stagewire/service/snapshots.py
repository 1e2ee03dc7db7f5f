"""The present state as a watcher sees it: read at one revision, shared by all who ask alike."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import sqlalchemy as sa

from stagewire import names, pb
from stagewire.service import messages, models, states
from stagewire.service.tail import history_changed
from stagewire.store import events, patterns, schema, visibility

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from stagewire.rights import Rights
    from stagewire.service.tail import Filter
    from stagewire.store.database import Database
    from stagewire.store.transactions import Tx

T = TypeVar("T")

CHUNK_BYTES = 512 * 1024
SPILL_BYTES = 8 * 1024 * 1024
SHARED_SECONDS = 5.0
BUILDERS = 2
_BATCH = 500


class Snapshot:
    """The serialised chunks of one snapshot, on disk above 8 MiB."""

    def __init__(self, log_id: str, revision: int, chain: bytes) -> None:
        """Begin an empty snapshot of a revision."""
        self.log_id = log_id
        self.revision = revision
        self.chain = chain
        self.count = 0
        self._digest = hashlib.sha256()
        self._open = pb.SnapshotChunk()
        self._open_bytes = 0
        self._chunks: list[bytes | tuple[int, int]] = []
        self._in_memory = 0
        self._file: Any = None

    @property
    def digest(self) -> bytes:
        """SHA-256 over the serialised items."""
        return self._digest.digest()

    def add(self, item: pb.SnapshotItem) -> None:
        """Append one item."""
        data = item.SerializeToString(deterministic=True)
        self._digest.update(data)
        self.count += 1
        if self._open_bytes + len(data) > CHUNK_BYTES:
            self.seal()
        self._open.items.append(item)
        self._open_bytes += len(data)

    def seal(self) -> None:
        """Close the chunk being filled."""
        if not self._open.items:
            return
        response = pb.WatchResponse(snapshot_chunk=self._open)
        data = response.SerializeToString(deterministic=True)
        self._open, self._open_bytes = pb.SnapshotChunk(), 0
        if self._in_memory + len(data) <= SPILL_BYTES:
            self._in_memory += len(data)
            self._chunks.append(data)
            return
        if self._file is None:
            # Unlinked at once: it goes with the process, however that ends.
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # kept open
            weakref.finalize(self, self._file.close)
        self._chunks.append((self._file.tell(), len(data)))
        self._file.write(data)

    def holds(self, tx: Tx) -> bool:
        """Tell whether the log still has the revision that this shows."""
        chain = events.hash_at(tx, self.revision)
        return tx.log_id == self.log_id and chain is not None and chain[:8] == self.chain

    def chunks(self) -> Iterator[bytes]:
        """Give the messages to send, in order."""
        for chunk in self._chunks:
            yield (
                chunk
                if isinstance(chunk, bytes)
                else os.pread(self._file.fileno(), chunk[1], chunk[0])
            )


class _Sharing(NamedTuple):
    """Whose watches share a snapshot: they ask for the same, and may see the same."""

    filter_digest: bytes
    epoch: bytes


class Snapshots:
    """Builds snapshots, few at a time, and lets those who ask for the same one share it."""

    def __init__(self, database: Database, executor: Executor) -> None:
        """Build from `database`."""
        self.database = database
        self.executor = executor
        self._builders = asyncio.Semaphore(BUILDERS)
        self._shared: dict[_Sharing, tuple[float, asyncio.Future[Snapshot]]] = {}

    async def get(self, filter_: Filter, rights: Rights, *, at_least: int = 0) -> Snapshot:
        """Give a snapshot of what matches and may be seen, at a revision not below `at_least`.

        Refuses DATABASE_UNAVAILABLE when the log no longer reaches that far.
        """
        now = time.monotonic()
        for old in [k for k, (since, _) in self._shared.items() if now - since > SHARED_SECONDS]:
            del self._shared[old]
        tried = None
        sharing = _Sharing(filter_.digest, rights.epoch)
        while (found := self._shared.get(sharing)) is not tried and found is not None:
            snapshot = await asyncio.shield(found[1])
            if snapshot.revision >= at_least and await self._read(snapshot.holds):
                return snapshot
            # While this one was awaited somebody else may have begun a newer one.
            tried = found
        snapshot = await asyncio.shield(self._begin(sharing, filter_, rights))
        if snapshot.revision < at_least:
            raise history_changed()
        return snapshot

    def _begin(
        self, sharing: _Sharing, filter_: Filter, rights: Rights
    ) -> asyncio.Future[Snapshot]:
        future = asyncio.ensure_future(self._build(filter_, rights))
        shared = self._shared[sharing] = (time.monotonic(), future)

        def forget_failed(done: asyncio.Future[Snapshot]) -> None:
            failed = done.cancelled() or done.exception() is not None
            if failed and self._shared.get(sharing) is shared:
                del self._shared[sharing]

        future.add_done_callback(forget_failed)
        return future

    async def _build(self, filter_: Filter, rights: Rights) -> Snapshot:
        async with self._builders:
            return await self._read(lambda tx: build(tx, filter_, rights))

    async def _read(self, work: Callable[[Tx], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, self.database.read, work)


def build(tx: Tx, filter_: Filter, rights: Rights) -> Snapshot:
    """Read everything that matches a filter and may be seen, at one revision."""
    snapshot = Snapshot(tx.log_id, tx.head, tx.head_hash[:8])
    spaces = tx.rows(sa.select(schema.Namespace).order_by(schema.Namespace.name))
    spaces = [
        s for s in spaces if filter_.namespaces & {s.name, "*"} and rights.sees_namespace(s.name)
    ]
    named = bool(filter_.models or filter_.prefix)
    for space in spaces:
        if not named and not filter_.stages:
            snapshot.add(_item(namespace=messages.namespace(tx, space)))
    for space in () if named else spaces:
        stages = sa.select(schema.Stage).where(schema.Stage.namespace == space.name)
        for row in tx.rows(stages.order_by(schema.Stage.position, schema.Stage.key)):
            if not filter_.stages or row.key in filter_.stages:
                snapshot.add(_item(stage=messages.stage(tx, row)))
    wanted = _models([space.name for space in spaces], filter_, rights)
    if not filter_.stages:
        for row in tx.rows(wanted.order_by(schema.Model.id)):
            snapshot.add(_item(model=messages.model(tx, row, models.tags(tx, row.id))))
    for state, primaries in _versions(tx, wanted, filter_):
        snapshot.add(_item(primaries, version=state))
    snapshot.seal()
    return snapshot


def _item(primaries: Any = (), **resource: Any) -> pb.SnapshotItem:
    item = pb.SnapshotItem(primaries=primaries, **resource)
    name = item.WhichOneof("resource")
    if name is not None and item.ByteSize() > events.OMIT_ABOVE_BYTES:
        for omitted, _body in events.omit_texts(getattr(item, name)):
            item.omitted_texts.append(omitted)
    return item


def _models(spaces: list[str], filter_: Filter, rights: Rights) -> sa.Select[Any]:
    statement = sa.select(schema.Model).where(
        visibility.models_of(rights, spaces), schema.Model.deleted.is_(False)
    )
    if filter_.models:
        statement = statement.where(schema.Model.name.in_(sorted(filter_.models)))
    if filter_.prefix:
        statement = statement.where(patterns.begins_with(schema.Model.name, filter_.prefix))
    return statement


def _versions(
    tx: Tx, wanted: sa.Select[Any], filter_: Filter
) -> Iterator[tuple[pb.ModelVersion, list[pb.StagePrimary]]]:
    """Read the living versions of the models wanted, a batch at a time."""
    chosen = wanted.with_only_columns(schema.Model.id, schema.Model.name).subquery()
    statement = (
        sa.select(schema.Version, chosen.c.name)
        .join(chosen, chosen.c.id == schema.Version.model_id)
        .where(schema.Version.deleted.is_(False))
        .order_by(schema.Version.model_id, schema.Version.number)
        .limit(_BATCH)
    )
    if filter_.stages:
        holder = schema.StageHolder
        statement = statement.where(
            sa.select(holder.number)
            .where(
                holder.model_id == schema.Version.model_id,
                holder.number == schema.Version.number,
                holder.left_revision.is_(None),
                holder.stage_key.in_(sorted(filter_.stages)),
            )
            .exists()
        )
    after: tuple[str, int] = ("", 0)
    place = sa.tuple_(schema.Version.model_id, schema.Version.number)
    while True:
        bound = sa.tuple_(sa.literal(after[0], schema.TEXT), sa.literal(after[1]))
        rows = tx.rows(statement.where(place > bound))
        owners = {row.model_id: row for row in rows}
        found = states.of(tx, owners, rows)
        primaries = primaries_of(tx, {s.model_id for s in found if s.stages})
        for state in found:
            held = [
                pb.StagePrimary(
                    stage=stage, version=primaries[state.model_id, names.stage_key(stage)]
                )
                for stage in state.stages
            ]
            yield state, held
        if len(rows) < _BATCH:
            return
        after = (rows[-1].model_id, rows[-1].number)


def primaries_of(tx: Tx, model_ids: set[str]) -> dict[tuple[str, str], int]:
    """Read the primary of each stage that versions of these models hold, by stage key."""
    holder = schema.StageHolder
    statement = (
        sa.select(holder.model_id, holder.stage_key, sa.func.max(holder.number).label("number"))
        .where(holder.model_id.in_(sorted(model_ids)), holder.left_revision.is_(None))
        .group_by(holder.model_id, holder.stage_key)
    )
    rows = tx.rows(statement) if model_ids else ()
    return {(row.model_id, row.stage_key): row.number for row in rows}
