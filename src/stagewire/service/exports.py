"""A registry as records: everything it holds, in the order in which it can be imported.

Equal registries give equal records: rows are read by their keys, and what differs between a
registry and its restored twin (revisions, the log) is left out unless the log goes along.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, pb
from stagewire.service import messages, states
from stagewire.store import lookup, schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stagewire.store.transactions import Tx

FORMAT = 1
# History from before a registry's log stands at negative revisions: step 1 is the first of them.
BEFORE_THE_LOG = -(2**40)
PART_BYTES = 256 * 1024
# Models whose rows are read together, and rows of a page.
_MODELS = 100
_PAGE = 500
_POINTS = 1000
_LENGTH = struct.Struct(">I")

_HEAD = sa.select(schema.LogHead)


@dataclass(slots=True)
class Steps:
    """The steps of one model's history: its place before the log, then its revisions in order."""

    of: dict[int, int] = field(default_factory=dict)
    #: Whether anything happened that this registry's own log has.
    lived: bool = False

    @classmethod
    def among(cls, revisions: Iterable[int]) -> Steps:
        """Give numbers to the revisions at which something happened to a model."""
        ordered = sorted(set(revisions))
        before = {r: r - BEFORE_THE_LOG for r in ordered if r < 0}
        after = [r for r in ordered if r > 0]
        last = max(before.values(), default=0)
        return cls(before | {r: last + n for n, r in enumerate(after, start=1)}, bool(after))


class Spool:
    """An export on disk, in parts that are ready to be sent: whoever reads it holds no view."""

    def __init__(self) -> None:
        """Begin an empty one, in a file that goes with the process, however that ends."""
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # kept open
        self._part = pb.ExportRegistryResponse()
        self._part_bytes = 0
        self._digest = hashlib.sha256()
        self.records = 0

    def add(self, record: pb.RegistryRecord) -> None:
        """Append a record."""
        data = record.SerializeToString(deterministic=True)
        if self.records:
            self._digest.update(data)
        self.records += 1
        self._part.records.append(record)
        self._part_bytes += len(data)
        if self._part_bytes >= PART_BYTES:
            self._seal()

    def end(self) -> None:
        """Append the end."""
        self._part.records.add(
            end=pb.ExportEnd(records=self.records - 1, sha256=self._digest.digest())
        )
        self.records += 1
        self._seal()
        self._file.seek(0)

    def _seal(self) -> None:
        data = self._part.SerializeToString(deterministic=True)
        self._file.write(_LENGTH.pack(len(data)) + data)
        # A new one: a message that is cleared keeps all the memory that it ever had.
        self._part, self._part_bytes = pb.ExportRegistryResponse(), 0

    def parts(self) -> Iterator[bytes]:
        """Give the messages to send, in order; the first says how many records there are."""
        total = pb.ExportRegistryResponse(total_records=self.records).SerializeToString()
        while head := self._file.read(_LENGTH.size):
            # Serialised messages concatenate.
            yield self._file.read(_LENGTH.unpack(head)[0]) + total
            total = b""

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def spool(tx: Tx, request: pb.ExportRegistryRequest) -> Spool:
    """Write everything to disk as it is now. Refuses NAMESPACE_NOT_FOUND, INVALID_FIELD."""
    made = Spool()
    try:
        for record in records(tx, request):
            made.add(record)
        made.end()
    except BaseException:
        made.close()
        raise
    return made


def records(tx: Tx, request: pb.ExportRegistryRequest) -> Iterator[pb.RegistryRecord]:
    """Read everything but the end. Refuses NAMESPACE_NOT_FOUND, INVALID_FIELD."""
    if request.with_log and request.namespaces:
        raise errors.invalid("with_log", "the log is of all namespaces; name none, or leave it out")
    header = pb.ExportHeader(
        format=FORMAT, log_id=tx.log_id, revision=tx.head, namespaces=sorted(request.namespaces)
    )
    if request.with_log:
        head = tx.rows(_HEAD)[0]
        header.with_log = True
        header.commit_time.CopyFrom(messages.timestamp(head.commit_time))
        header.head_hash = head.head_hash
        header.compacted_revision = head.compacted_revision
        header.compacted_hash = head.compacted_hash
    yield pb.RegistryRecord(header=header)
    spaces = sa.select(schema.Namespace).order_by(schema.Namespace.name)
    if request.namespaces:
        for name in request.namespaces:
            lookup.namespace(tx, name)
        spaces = spaces.where(schema.Namespace.name.in_(list(request.namespaces)))
    for space in tx.rows(spaces):
        yield from _namespace(tx, space, with_log=request.with_log)
    if request.with_log:
        yield from _texts(tx)
        yield from _log(tx)


def _namespace(tx: Tx, space: Any, *, with_log: bool) -> Iterator[pb.RegistryRecord]:
    defined = lookup.stages(tx, space.name).values()
    yield pb.RegistryRecord(namespace=namespace(tx, space, defined, with_log=with_log))
    statement = (
        sa.select(schema.Model)
        .where(schema.Model.namespace == space.name)
        .order_by(schema.Model.id)
        .limit(_MODELS)
    )
    after = ""
    while rows := tx.rows(statement.where(schema.Model.id > after)):
        yield from _models(tx, rows, with_log=with_log)
        after = rows[-1].id
    borne = sa.select(schema.Name).where(schema.Name.namespace == space.name)
    for row in _paged(tx, borne, schema.Name.name):
        yield pb.RegistryRecord(name=name(row))


def _models(tx: Tx, rows: Sequence[Any], *, with_log: bool) -> Iterator[pb.RegistryRecord]:
    """Read some models with all that is theirs."""
    ids = [row.id for row in rows]
    for message in models(tx, rows, with_log=with_log):
        yield pb.RegistryRecord(model=message)
    owners = {row.id: row for row in rows}
    for version in _versions(tx, owners, with_log=with_log):
        yield pb.RegistryRecord(version=version)
    for points in _points(tx, ids):
        yield pb.RegistryRecord(points=points)
    known = {} if with_log else steps(tx, ids)
    move, holder, alias = schema.StageMove, schema.StageHolder, schema.AliasHolder
    for row in _paged(tx, *_of(move, ids, "stage_key", "revision")):
        yield pb.RegistryRecord(move=stage_move(row, known.get(row.model_id)))
    keys = ("stage_key", "number", "entered_revision")
    for row in _paged(tx, *_of(holder, ids, *keys)):
        yield pb.RegistryRecord(tenure=stage_tenure(row, known.get(row.model_id)))
    for row in _paged(tx, *_of(alias, ids, "alias", "set_revision")):
        yield pb.RegistryRecord(alias=alias_tenure(row, known.get(row.model_id)))


def _of(table: Any, ids: Sequence[str], *keys: str) -> tuple[sa.Select[Any], *tuple[Any, ...]]:
    statement = sa.select(table).where(table.model_id.in_(ids))
    return (statement, table.model_id, *(getattr(table, key) for key in keys))


def _paged(
    tx: Tx, statement: sa.Select[Any], *keys: Any, size: int = _PAGE
) -> Iterator[sa.Row[Any]]:
    """Read rows in the order of their keys, a page at a time."""
    statement = statement.order_by(*keys).limit(size)
    place = sa.tuple_(*keys)
    where: Any = sa.true()
    while True:
        rows = tx.rows(statement.where(where))
        yield from rows
        if len(rows) < size:
            return
        last = [sa.literal(getattr(rows[-1], key.key), key.type) for key in keys]
        where = place > sa.tuple_(*last)


def namespace(tx: Tx, row: Any, stages: Iterable[Any], *, with_log: bool) -> pb.NamespaceRecord:
    """Map a namespace with its stages."""
    record = pb.NamespaceRecord(
        namespace=messages.namespace(tx, row), stages=[messages.stage(tx, s) for s in stages]
    )
    for message in (record.namespace, *record.stages):
        _undate(message, with_log=with_log)
    return record


def models(tx: Tx, rows: Sequence[Any], *, with_log: bool = False) -> list[pb.ModelRecord]:
    """Map models with their tags and the numbers that they have under any name."""
    ids = [row.id for row in rows]
    tags: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for tag in tx.rows(sa.select(schema.ModelTag).where(schema.ModelTag.model_id.in_(ids))):
        tags[tag.model_id][tag.key] = tag.value
    ranges: defaultdict[str, list[pb.NameRange]] = defaultdict(list)
    table = schema.NameRange
    statement = sa.select(table).where(table.model_id.in_(ids))
    for found in tx.rows(statement.order_by(table.name, table.first)):
        ranges[found.model_id].append(
            pb.NameRange(name=found.name, first=found.first, last=found.last or 0)
        )
    answer = []
    for row in rows:
        message = messages.model(tx, row, tags[row.id])
        _undate(message, with_log=with_log)
        answer.append(
            pb.ModelRecord(
                model=message,
                first_number=row.first_number,
                next_number=row.next_number,
                activity_time=messages.timestamp(row.mlflow_time),
                ranges=ranges[row.id],
            )
        )
    return answer


def _versions(tx: Tx, owners: Mapping[str, Any], *, with_log: bool) -> Iterator[pb.ModelVersion]:
    statement, *keys = _of(schema.Version, list(owners), "number")
    page: list[Any] = []
    for row in _paged(tx, statement, *keys):
        page.append(row)
        if len(page) == _PAGE:
            yield from versions(tx, owners, page, with_log=with_log)
            page = []
    yield from versions(tx, owners, page, with_log=with_log)


def versions(
    tx: Tx, owners: Mapping[str, Any], rows: Sequence[Any], *, with_log: bool = False
) -> list[pb.ModelVersion]:
    """Map versions without what has records of its own."""
    found = states.of(tx, owners, rows)
    for message in found:
        _undate(message, with_log=with_log)
        message.ClearField("stages")
        message.ClearField("aliases")
    return found


def _undate(message: Any, *, with_log: bool) -> None:
    # A restored registry has a log of its own: its revisions are others.
    if not with_log:
        message.ClearField("revision")


def _points(tx: Tx, ids: Sequence[str]) -> Iterator[pb.MetricPoints]:
    statement, *keys = _of(
        schema.Metric, ids, "number", "key", "dataset", "step", "time", "value_bits"
    )
    points = pb.MetricPoints()
    for row in _paged(tx, statement, *keys, size=_POINTS):
        place = (row.model_id, row.number)
        if points.metrics and (
            (points.model_id, points.version) != place or len(points.metrics) == _POINTS
        ):
            yield points
            points = pb.MetricPoints()
        points.model_id, points.version = place
        points.metrics.append(messages.metric(row))
    if points.metrics:
        yield points


def steps(tx: Tx, ids: Sequence[str]) -> dict[str, Steps]:
    """Give numbers to what happened to each of some models."""
    move, holder, alias = schema.StageMove, schema.StageHolder, schema.AliasHolder
    union = sa.union(
        *(
            sa.select(column.class_.model_id, column.label("revision")).where(
                column.class_.model_id.in_(ids), column.is_not(None)
            )
            for column in (
                move.revision,
                holder.entered_revision,
                holder.left_revision,
                alias.set_revision,
                alias.unset_revision,
            )
        )
    )
    found: dict[str, list[int]] = {model_id: [] for model_id in ids}
    for row in tx.rows(union):
        found[row.model_id].append(row.revision)
    return {model_id: Steps.among(revisions) for model_id, revisions in found.items()}


def _step(revision: int | None, known: Steps | None) -> int:
    if revision is None:
        return 0
    return revision if known is None else known.of[revision]


def _time(micros: int | None) -> Any:
    return None if micros is None else messages.timestamp(micros)


def stage_move(row: Any, known: Steps | None) -> pb.StageMoveRecord:
    """Map a change of what a stage held."""
    return pb.StageMoveRecord(
        model_id=row.model_id,
        stage=row.stage_key,
        step=_step(row.revision, known),
        undo_step=_step(row.undo, known),
    )


def stage_tenure(row: Any, known: Steps | None) -> pb.StageTenureRecord:
    """Map a version's time in a stage."""
    return pb.StageTenureRecord(
        model_id=row.model_id,
        stage=row.stage,
        version=row.number,
        entered_step=_step(row.entered_revision, known),
        entered_time=_time(row.entered_time),
        entered_by=row.entered_by,
        entered_reason=row.entered_reason,
        cause=row.cause,
        displaced_from=row.displaced_from,
        left_step=_step(row.left_revision, known),
        left_time=_time(row.left_time),
        left_by=row.left_by,
        left_reason=row.left_reason,
    )


def alias_tenure(row: Any, known: Steps | None) -> pb.AliasTenureRecord:
    """Map a version's time under an alias."""
    return pb.AliasTenureRecord(
        model_id=row.model_id,
        alias=row.alias,
        version=row.number,
        set_step=_step(row.set_revision, known),
        set_time=_time(row.set_time),
        set_by=row.set_by,
        unset_step=_step(row.unset_revision, known),
        unset_time=_time(row.unset_time),
        unset_by=row.unset_by,
    )


def name(row: Any) -> pb.NameRecord:
    """Map a name."""
    return pb.NameRecord(
        namespace=row.namespace,
        name=row.name,
        model_id=row.model_id or "",
        renamed_model_id=row.renamed_id or "",
        next_number=row.next_number,
    )


def _texts(tx: Tx) -> Iterator[pb.RegistryRecord]:
    table = schema.Text
    for row in _paged(tx, sa.select(table), table.model_id, table.number, table.sha256, size=20):
        yield pb.RegistryRecord(
            text=pb.TextRecord(model_id=row.model_id, version=row.number, body=row.body)
        )


def _log(tx: Tx) -> Iterator[pb.RegistryRecord]:
    for row in _paged(tx, sa.select(schema.Log), schema.Log.revision, size=20):
        yield pb.RegistryRecord(
            log=pb.LogRecord(
                revision=row.revision,
                commit_time=messages.timestamp(row.commit_time),
                payload=row.payload,
                chain_hash=row.chain_hash,
            )
        )
