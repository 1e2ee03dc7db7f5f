"""Imported namespaces and their stages: taken over where nothing depends on them yet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, names, pb
from stagewire.service import exports, history, messages, quotas, rows
from stagewire.store import lookup, schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stagewire.service.arrivals import Batch
    from stagewire.store.transactions import Tx

_SPACE = sa.select(schema.Namespace).where(schema.Namespace.name == sa.bindparam("name"))
_BORNE = sa.select(schema.Name.name).where(schema.Name.namespace == sa.bindparam("name")).limit(1)


def exists(tx: Tx, space: str) -> bool:
    """Tell whether there is such a namespace."""
    return tx.row(_SPACE, name=space) is not None


def take_in(batch: Batch) -> None:
    """Create, take over or complete each namespace of a batch."""
    for index, record in sorted(batch.records["namespace"], key=lambda r: r[1].namespace.name):
        _check(index, record)
        if not exists(batch.tx, record.namespace.name):
            _create(batch.tx, record)
            batch.imported += 1
            continue
        row = lookup.namespace_to_change(batch.tx, record.namespace.name)
        defined = lookup.stages(batch.tx, row.name)
        if _says_the_same(batch.tx, record, row, defined):
            batch.unchanged += 1
        elif _is_pristine(batch.tx, row, defined):
            _take_over(batch.tx, record, row, defined)
            batch.imported += 1
        else:
            _complete(batch, index, record, row, defined)


def _check(index: int, record: pb.NamespaceRecord) -> None:
    path = f"records[{index}].namespace"
    keys = {names.stage_key(stage.name) for stage in record.stages}
    if len(keys) != len(record.stages):
        raise errors.invalid(f"{path}.stages", "two stages differ in nothing but letter case")
    for place, stage in enumerate(record.stages):
        names.canonical_stage(stage.name, f"{path}.stages[{place}].name")
        if stage.displace_to and names.stage_key(stage.displace_to) not in keys:
            raise errors.invalid(
                f"{path}.stages[{place}].displace_to",
                f"there is no stage {stage.displace_to!r} among the namespace's",
            )


def _says_the_same(
    tx: Tx, record: pb.NamespaceRecord, row: Any, defined: dict[str, lookup.Row]
) -> bool:
    wanted = pb.NamespaceRecord()
    wanted.CopyFrom(record)
    for message in (wanted.namespace, *wanted.stages):
        message.ClearField("revision")
    return wanted == exports.namespace(tx, row, defined.values(), with_log=False)


def _is_pristine(tx: Tx, row: Any, defined: dict[str, lookup.Row]) -> bool:
    """Tell whether a namespace is as it was created, and never had a model."""
    made = all(stage.revision == row.revision for stage in defined.values())
    return made and tx.row(_BORNE, name=row.name) is None


def _create(tx: Tx, record: pb.NamespaceRecord) -> None:
    tx.insert(schema.Namespace, name=record.namespace.name, **_values(tx, record.namespace))
    row = tx.rows(_SPACE, name=record.namespace.name)[0]
    quotas.settle(tx, row.name, row)
    state = messages.namespace(tx, row)
    history.record_namespace(tx, pb.CHANGE_KIND_NAMESPACE_CREATED, state)
    _put(tx, record.namespace.name, record.stages, {})


def _take_over(
    tx: Tx, record: pb.NamespaceRecord, row: Any, defined: dict[str, lookup.Row]
) -> None:
    """Make a namespace that nothing depends on the one that was exported."""
    tx.update(schema.Namespace, {"name": row.name}, **_values(tx, record.namespace))
    taken = tx.rows(_SPACE, name=row.name)[0]
    quotas.settle(tx, row.name, taken)
    state = messages.namespace(tx, taken)
    history.record_namespace(tx, pb.CHANGE_KIND_NAMESPACE_CREATED, state)
    kept = {names.stage_key(stage.name) for stage in record.stages}
    for key, old in defined.items():
        if key not in kept:
            tx.delete(schema.Stage, namespace=row.name, key=key)
            history.record_stage(tx, pb.CHANGE_KIND_STAGE_DELETED, messages.stage(tx, old))
    _put(tx, row.name, record.stages, defined)


def _complete(
    batch: Batch,
    index: int,
    record: pb.NamespaceRecord,
    row: Any,
    defined: dict[str, lookup.Row],
) -> None:
    """Add the stages that a namespace in use lacks; the others have to agree."""
    differing = ["description"] if row.description != record.namespace.description else []
    if quotas.of(row) != quotas.of(SimpleNamespace(**quotas.values(record.namespace))):
        differing.append("quota")
    missing = []
    for stage in record.stages:
        there = defined.get(names.stage_key(stage.name))
        if there is None:
            missing.append(stage)
        elif any(getattr(there, name) != value for name, value in rows.stage(stage).items()):
            differing.append(f"stage {stage.name!r}")
    if differing:
        batch.conflict(
            index,
            f"namespace {row.name!r}",
            f"is in use here and differs in {', '.join(differing)}; change that first, or keep "
            "what is here by skipping",
        )
    elif missing:
        _put(batch.tx, row.name, missing, {})
        batch.imported += 1
    else:
        batch.unchanged += 1


def _put(tx: Tx, space: str, stages: Iterable[pb.Stage], defined: dict[str, lookup.Row]) -> None:
    for stage in stages:
        key = names.stage_key(stage.name)
        values = rows.stage(stage)
        values.update(rows.times(stage, revision=tx.revision, now=tx.time))
        place = {"namespace": space, "key": key}
        if key in defined:
            tx.update(schema.Stage, place, **values)
        else:
            tx.insert(schema.Stage, **place, **values)
        kind = pb.CHANGE_KIND_STAGE_UPDATED if key in defined else pb.CHANGE_KIND_STAGE_CREATED
        history.record_stage(tx, kind, messages.stage(tx, SimpleNamespace(**place, **values)))


def _values(tx: Tx, message: pb.Namespace) -> dict[str, Any]:
    stamps = rows.times(message, revision=tx.revision, now=tx.time)
    return {"description": message.description, **quotas.values(message), **stamps}
