"""Records into rows: a batch in one transaction, all or none, idempotent by content.

A record whose like is there is left alone; where something else is there the record is in
conflict, and either the batch is refused or the record skipped. What is compared is what an
export would say, so an import and an export can't differ on what content is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, names, pb, sources
from stagewire.service import (
    definitions,
    exports,
    histories,
    history,
    identities,
    metrics,
    quotas,
    rows,
    versions,
)
from stagewire.service.arrivals import Batch, differing, differs
from stagewire.service.snapshots import primaries_of
from stagewire.service.states import of as states_of
from stagewire.store import lookup, schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stagewire.store.transactions import Tx

_KINDS = ("namespace", "model", "version", "points", "move", "tenure", "alias", "name")
_MODELS = sa.select(schema.Model).where(schema.Model.id.in_(sa.bindparam("ids", expanding=True)))
_MODELS_LOCKED = _MODELS.order_by(schema.Model.id).with_for_update(key_share=True)


def apply(tx: Tx, request: pb.ImportRegistryRequest) -> pb.ImportRegistryResponse:
    """Write a batch of records. Refuses IMPORT_CONFLICT unless told to skip."""
    batch = Batch(tx, lenient=request.validate_only, records=_sorted(request.records))
    definitions.take_in(batch)
    _lock(batch)
    identities.take_in(batch)
    _versions(batch)
    _points(batch)
    histories.take_in(batch)
    identities.take_in_names(batch)
    if batch.conflicts and request.on_conflict != pb.IMPORT_CONFLICT_POLICY_SKIP:
        raise _refusal(batch.conflicts)
    _count(batch)
    _record(batch)
    return pb.ImportRegistryResponse(
        imported=batch.imported, unchanged=batch.unchanged, conflicts=batch.conflicts
    )


def _sorted(records: Iterable[pb.RegistryRecord]) -> dict[str, list[tuple[int, Any]]]:
    found: dict[str, list[tuple[int, Any]]] = {kind: [] for kind in _KINDS}
    for index, record in enumerate(records):
        kind = record.WhichOneof("record")
        if kind not in found:
            raise errors.invalid(
                f"records[{index}]",
                f"{kind or 'an empty record'} can't be imported; "
                "a log is restored by `stagewire import --database-url`, without a server",
            )
        found[kind].append((index, getattr(record, kind)))
    return found


def _refusal(conflicts: Sequence[pb.ImportConflict]) -> errors.RegistryError:
    first = conflicts[0]
    more = f" (and {len(conflicts) - 1} more)" if len(conflicts) > 1 else ""
    return errors.RegistryError(
        "IMPORT_CONFLICT",
        f"records[{first.index}], {first.subject}: {first.description}{more}",
        resource_type="record",
        resource_name=f"records[{first.index}]",
    )


def _lock(batch: Batch) -> None:
    """Lock what the batch is about: namespaces, names, models by id, in this order."""
    tx, records = batch.tx, batch.records
    ids = {m.model.id for _, m in records["model"]}
    for kind in ("version", "points", "move", "tenure", "alias"):
        ids |= {message.model_id for _, message in records[kind]}
    wanted = {"ids": sorted(ids)}
    there = tx.connection.execute(_MODELS, wanted).all() if ids else ()
    spaces = {row.namespace for row in there}
    spaces |= {names.namespace_or_default(m.model.namespace) for _, m in records["model"]}
    spaces |= {n.namespace for _, n in records["name"]}
    for space in sorted(spaces):
        if batch.lenient and not definitions.exists(tx, space):
            batch.defined[space] = {}
            continue
        lookup.namespace_to_write_in(tx, space)
        batch.defined[space] = lookup.stages(tx, space)
    texts = {
        (names.namespace_or_default(m.model.namespace), name)
        for _, m in records["model"]
        for name in (m.model.name, *(r.name for r in m.ranges))
    } | {(n.namespace, n.name) for _, n in records["name"]}
    for space, text in sorted(texts):
        if definitions.exists(tx, space):
            lookup.name_to_change(tx, space, text)
    locked = tx.connection.execute(_MODELS_LOCKED, wanted).all() if ids else ()
    batch.owners = {row.id: row for row in locked}


def _versions(batch: Batch) -> None:
    tx = batch.tx
    asked = [(v.model_id, v.version) for _, v in batch.records["version"]]
    present = batch.present(asked)
    owners = {model_id: batch.owners[model_id] for model_id, _ in present}
    there = list(present.values())
    found = {(v.model_id, v.version): v for v in exports.versions(tx, owners, there)}
    for index, wanted in batch.records["version"]:
        path = f"records[{index}].version"
        for name in ("model_id", "version"):
            if not getattr(wanted, name):
                raise errors.invalid(f"{path}.{name}", "is required: say which version it is")
        if wanted.version < 0:
            raise errors.invalid(f"{path}.version", "numbers begin at 1")
        owner = batch.owner(index, "version", wanted.model_id)
        if owner is None:
            continue
        place = (wanted.model_id, wanted.version)
        if place in batch.new_versions:
            raise errors.invalid(f"{path}.version", "is imported twice in one call")
        if place not in found:
            if refusal := _source_refused(tx, wanted):
                batch.conflict(index, f"version {wanted.version} of model {owner.name!r}", refusal)
                batch.skipped.add(place)
            else:
                _add_version(batch, owner, wanted)
            continue
        fields = differing(_bare(wanted, found[place]), found[place])
        if fields:
            subject = f"version {wanted.version} of model {owner.name!r}"
            batch.conflict(index, subject, differs(fields))
            batch.skipped.add(place)
        else:
            batch.unchanged += 1


def _source_refused(tx: Tx, wanted: pb.ModelVersion) -> str:
    """Say why this server takes no version from where a version's files are, or nothing."""
    origin = sources.Origin(wanted.lineage.run_id, wanted.lineage.logged_model_id)
    try:
        for uri in (wanted.source, wanted.storage_uri):
            tx.sources.check(uri, origin)
    except errors.RegistryError as error:
        return (
            f"has a source that this server does not take ({error.reason}): "
            f"{error.fields[0].description}; import into a server whose source_policy and "
            "source_roots allow it, or skip it"
        )
    return ""


def _bare(wanted: pb.ModelVersion, found: pb.ModelVersion) -> pb.ModelVersion:
    """Take from a version what records of their own have, and what follows from its model."""
    bare = pb.ModelVersion()
    bare.CopyFrom(wanted)
    for name in ("stages", "aliases", "metrics", "revision"):
        bare.ClearField(name)
    bare.namespace, bare.model = found.namespace, found.model
    bare.storage_uri = bare.storage_uri or bare.source
    bare.status = bare.status or pb.MODEL_VERSION_STATUS_READY
    if not bare.lineage.ByteSize():
        bare.ClearField("lineage")
    return bare


def _add_version(batch: Batch, owner: Any, wanted: pb.ModelVersion) -> None:
    tx = batch.tx
    stamps = rows.times(wanted, revision=tx.revision, now=tx.time)
    tx.insert(schema.Version, **rows.version(wanted, owner.namespace, now=tx.time), **stamps)
    versions.insert_satellites(tx, owner.id, wanted.version, rows.satellites(wanted))
    if wanted.version >= owner.next_number:
        batch.raise_next_number(owner.id, wanted.version + 1)
    batch.new_versions[owner.id, wanted.version] = None
    batch.imported += 1


def _points(batch: Batch) -> None:
    present = batch.present((p.model_id, p.version) for _, p in batch.records["points"])
    for index, points in batch.records["points"]:
        if any(not metric.HasField("time") for metric in points.metrics):
            raise errors.invalid(
                f"records[{index}].points.metrics",
                "each point needs its time, or it would be new each time it is imported",
            )
        place = (points.model_id, points.version)
        if batch.goes_with_skipped(index, place):
            continue
        if (
            batch.owner(index, "points", points.model_id) is None
            or batch.version(index, "points", place, present) is None
        ):
            continue
        logged = metrics.add(batch.tx, *place, points.metrics)
        batch.imported += bool(logged)
        batch.unchanged += not logged


def _count(batch: Batch) -> None:
    """Count what came in. Whoever imports runs the registry, and brings back all or nothing."""
    found = {space: [0, 0] for space in sorted(batch.defined)}
    for model_id in batch.new_models:
        owner = batch.owners[model_id]
        found[owner.namespace][0] += not owner.deleted
    for (model_id, _), row in batch.present(batch.new_versions).items():
        owner = batch.owners[model_id]
        found[owner.namespace][1] += not (row.deleted or owner.deleted)
    for space, (more_models, more_versions) in found.items():
        quotas.count(batch.tx, space, models=more_models, versions=more_versions, may_exceed=True)


def _record(batch: Batch) -> None:
    """Record every model and version that is new, or holds what it did not hold before."""
    tx = batch.tx
    for place in batch.moved:
        if place not in batch.new_versions:
            key = {"model_id": place[0], "number": place[1]}
            tx.update(schema.Version, key, revision=tx.revision)
    new = [batch.owners[model_id] for model_id in sorted(batch.new_models)]
    made = tx.connection.execute(_MODELS, {"ids": [m.id for m in new]}).all() if new else ()
    for record, row in zip(exports.models(tx, made) if made else (), made, strict=True):
        found = history.keys(row.namespace, models=[row.name])
        history.record_model(
            tx,
            _kind_of(record.model, "MODEL"),
            record.model,
            before=None,
            after=None if row.deleted else found,
        )
    for state, held in _states(batch):
        place = (state.model_id, state.version)
        owner = batch.owners[state.model_id]
        fresh = place in batch.new_versions
        before = None if fresh or owner.deleted else batch.before[place]
        kind = pb.CHANGE_KIND_ALIASES_CHANGED
        if fresh:
            kind = _kind_of(state, "VERSION")
        elif place in batch.staged:
            kind = pb.CHANGE_KIND_STAGES_CHANGED
        history.record_version(
            tx,
            kind,
            state,
            before=before,
            after=None if state.deleted or owner.deleted else history.version_keys(state),
            entered=[s for s in state.stages if before is None or s not in before.stages],
            primaries=held,
        )


def _kind_of(state: pb.Model | pb.ModelVersion, resource: str) -> pb.ChangeKind.ValueType:
    how = "PURGED" if state.purged else "DELETED" if state.deleted else "CREATED"
    return pb.ChangeKind.Value(f"CHANGE_KIND_{resource}_{how}")


def _states(batch: Batch) -> Iterator[tuple[pb.ModelVersion, list[pb.StagePrimary]]]:
    tx = batch.tx
    touched = batch.present([*batch.new_versions, *batch.moved])
    found = states_of(tx, batch.owners, list(touched.values()))
    primaries = primaries_of(tx, {s.model_id for s in found if s.stages})
    for state in found:
        yield (
            state,
            [
                pb.StagePrimary(
                    stage=stage, version=primaries[state.model_id, names.stage_key(stage)]
                )
                for stage in state.stages
            ],
        )
