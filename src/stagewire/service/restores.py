"""An export with its log, back into an empty database that nobody serves from.

One transaction: the log's identity, revisions and hashes are those of the registry that was
exported, and what comes out unlike what the hashes say does not come out at all. Under a server
this can't be: its watchers hold places in the log that it has.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, names, pb
from stagewire.service import audit, messages, metrics, quotas, rows, versions
from stagewire.store import schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stagewire.store.transactions import Tx

_PAGE = 200
_PAGE_BYTES = 1024 * 1024
_HEAD = sa.select(schema.LogHead)
_NAMESPACES = sa.select(schema.Namespace)
_ORDER = {table.name: place for place, table in enumerate(schema.Table.metadata.sorted_tables)}
_EMPTIED = (
    schema.LogModel,
    schema.Log,
    schema.Text,
    schema.Request,
    schema.Stage,
    schema.NamespaceUsage,
    schema.Namespace,
)


class _Rows:
    """Rows on their way in, a page of each table at a time, in the order of foreign keys."""

    def __init__(self, tx: Tx) -> None:
        self.tx = tx
        self._waiting: dict[type[schema.Table], list[dict[str, Any]]] = {}
        self._bytes = 0

    def put(self, table: type[schema.Table], *values: dict[str, Any], size: int = 0) -> None:
        page = self._waiting.setdefault(table, [])
        page.extend(values)
        self._bytes += size
        if len(page) >= _PAGE or self._bytes >= _PAGE_BYTES:
            self.flush()

    def flush(self) -> None:
        for table in sorted(self._waiting, key=lambda t: _ORDER[t.__tablename__]):
            self.tx.insert_many(table, self._waiting[table])
        self._waiting.clear()
        self._bytes = 0


def restore(tx: Tx, records: Iterable[pb.RegistryRecord]) -> int:
    """Write an export with its log, and prove it. Answers how many records there were.

    Refuses IMPORT_CONFLICT when the database is not empty, INVALID_FIELD for an export without a
    log, or whose log does not hold.
    """
    _refuse_used(tx)
    for table in _EMPTIED:
        tx.delete(table)
    waiting = _Rows(tx)
    header = pb.ExportHeader()
    spaces: dict[str, str] = {}
    count = 0
    for record in records:
        count += 1
        if record.HasField("header"):
            header.CopyFrom(record.header)
            if not header.with_log:
                raise errors.invalid(
                    "header.with_log",
                    "this export holds no log; start a server and import it there",
                )
        else:
            _put(tx, waiting, record, spaces)
    waiting.flush()
    for row in tx.rows(_NAMESPACES):
        quotas.settle(tx, row.name, row)
    tx.update(
        schema.LogHead,
        {"id": 1},
        log_id=header.log_id,
        revision=header.revision,
        head_hash=header.head_hash,
        commit_time=messages.micros(header.commit_time),
        compacted_revision=header.compacted_revision,
        compacted_hash=header.compacted_hash,
    )
    _prove(tx)
    return count


def _refuse_used(tx: Tx) -> None:
    head = tx.rows(_HEAD)[0]
    # A server that was started once wrote the log's first event, and nothing else.
    if head.revision > 1 or tx.row(sa.select(schema.Model.id).limit(1)) is not None:
        raise errors.RegistryError(
            "IMPORT_CONFLICT",
            f"the database holds a registry already, at revision {head.revision}; give an empty "
            "one",
            resource_type="database",
            resource_name=head.log_id,
        )


def _put(tx: Tx, waiting: _Rows, record: pb.RegistryRecord, spaces: dict[str, str]) -> None:
    """Write one record, revisions and all."""
    kind = record.WhichOneof("record")
    message = getattr(record, kind) if kind else None
    match message:
        case pb.NamespaceRecord():
            _put_namespace(waiting, message)
        case pb.ModelRecord():
            values = rows.model(message, now=0)
            spaces[message.model.id] = values["namespace"]
            stamps = rows.times(message.model, revision=message.model.revision, now=0)
            waiting.put(schema.Model, {**values, **stamps})
            waiting.put(schema.ModelTag, *rows.model_tags(message.model))
            ranges = [rows.name_range(values["namespace"], values["id"], r) for r in message.ranges]
            waiting.put(schema.NameRange, *ranges)
        case pb.ModelVersion():
            values = rows.version(message, spaces[message.model_id], now=0)
            stamps = rows.times(message, revision=message.revision, now=0)
            waiting.put(schema.Version, {**values, **stamps})
            for table, page in versions.satellite_rows(
                message.model_id, message.version, rows.satellites(message)
            ):
                waiting.put(table, *page)
        case pb.MetricPoints():
            waiting.flush()
            metrics.add(tx, message.model_id, message.version, message.metrics)
        case pb.StageMoveRecord():
            waiting.put(schema.StageMove, rows.stage_move(message, int))
        case pb.StageTenureRecord():
            waiting.put(schema.StageHolder, rows.stage_tenure(message, int, now=0))
        case pb.AliasTenureRecord():
            waiting.put(schema.AliasHolder, rows.alias_tenure(message, int, now=0))
        case pb.NameRecord():
            waiting.put(schema.Name, rows.name(message))
        case pb.TextRecord():
            _put_text(waiting, message)
        case pb.LogRecord():
            _put_log(waiting, message)


def _put_namespace(waiting: _Rows, record: pb.NamespaceRecord) -> None:
    space = record.namespace
    stamps = rows.times(space, revision=space.revision, now=0)
    values = {"description": space.description, **quotas.values(space)}
    waiting.put(schema.Namespace, {"name": space.name, **values, **stamps})
    for stage in record.stages:
        definition = rows.stage(stage)
        stamps = rows.times(stage, revision=stage.revision, now=0)
        key = names.stage_key(stage.name)
        waiting.put(schema.Stage, {"namespace": space.name, "key": key, **definition, **stamps})


def _put_text(waiting: _Rows, record: pb.TextRecord) -> None:
    data = record.body.encode()
    values = {
        "model_id": record.model_id,
        "number": record.version,
        "sha256": hashlib.sha256(data).hexdigest(),
        "body": record.body,
    }
    waiting.put(schema.Text, values, size=len(data))


def _put_log(waiting: _Rows, record: pb.LogRecord) -> None:
    payload = pb.EventPayload()
    payload.ParseFromString(record.payload)
    waiting.put(
        schema.Log,
        {
            "revision": record.revision,
            "commit_time": messages.micros(record.commit_time),
            "actor": payload.actor,
            "request_id": payload.request_id,
            "payload": record.payload,
            "chain_hash": record.chain_hash,
        },
        size=len(record.payload),
    )
    about = {(r.change.namespace, r.change.model_id) for r in payload.records}
    waiting.put(
        schema.LogModel,
        *(
            {"namespace": space, "model_id": model_id, "revision": record.revision}
            for space, model_id in sorted(about)
        ),
    )


def _prove(tx: Tx) -> None:
    """Verify the log as it stands now."""
    position = 0
    while True:
        page = audit.verify(tx, pb.VerifyLogRequest(from_revision=position))
        if not page.intact:
            raise errors.invalid("log", f"does not hold: {page.problem}; nothing was restored")
        if not page.first_revision or page.last_revision >= page.head_revision:
            return
        position = page.last_revision + 1
