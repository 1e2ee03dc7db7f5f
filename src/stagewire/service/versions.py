"""Model versions: registered once, numbered inside the transaction, never numbered twice."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

from stagewire import errors, names, pb, sources
from stagewire.rights import MOVE
from stagewire.service import history, limits, messages, metrics, moves, quotas, states
from stagewire.service.messages import Satellites
from stagewire.store import filters, lookup, pages, schema, visibility

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stagewire.store.transactions import Tx

_UPDATABLE = frozenset({"description", "status", "status_message"})
_ERASED: dict[str, Any] = {
    "source": "",
    "storage_uri": "",
    "logged_model_id": "",
    "status_message": "",
    "description": "",
    "signature": "",
    "flavors": "",
    "run_id": "",
    "run_link": "",
    "experiment": "",
    "git_commit": "",
    "git_repository": "",
}
_SATELLITE_TABLES = (
    schema.VersionTag,
    schema.VersionParam,
    schema.VersionDataset,
    schema.VersionParent,
)


def create(tx: Tx, request: pb.CreateModelVersionRequest) -> pb.CreateModelVersionResponse:
    """Register the next version of a model. Refuses VERSION_NOT_FOUND for a parent."""
    space = names.namespace_or_default(request.namespace)
    for uri in (request.version.source, request.version.storage_uri):
        tx.sources.check(uri, _origin(request.version.lineage))
    owner = lookup.model_to_change(tx, space, request.model)
    parents = [_parent(tx, owner, parent) for parent in request.version.lineage.parents]
    wanted = request.version
    if sources.names_a_version(wanted.source):
        wanted, origin = _taken_over(tx, owner, wanted)
        if all((p.model_id, p.version) != (origin.model_id, origin.version) for p in parents):
            parents.append(origin)
    state = _add(tx, owner, wanted, parents)
    metrics.add(tx, owner.id, state.version, request.metrics)
    return pb.CreateModelVersionResponse(version=state)


def copy(tx: Tx, request: pb.CopyModelVersionRequest) -> pb.CopyModelVersionResponse:
    """Register a copy of a version under another model, with the original as its parent."""
    space = names.namespace_or_default(request.namespace)
    target = lookup.model_to_change(tx, space, request.target_model)
    origin, row = lookup.numbered(tx, space, request.model, request.version)
    asked = names.lookup_model(request.model)
    if origin.name != asked:
        raise lookup.renamed(asked, origin.name, number=row.number)
    wanted = states.of(tx, {origin.id: origin}, [row])[0]
    copied = pb.ParentVersion(
        model=origin.name,
        version=row.number,
        derivation=pb.DERIVATION_COPIED,
        model_id=origin.id,
    )
    # The original's own parents are taken over as they are: they may be deleted by now.
    parents = [*wanted.lineage.parents, copied]
    return pb.CopyModelVersionResponse(version=_add(tx, target, wanted, parents))


def _add(
    tx: Tx, owner: lookup.Row, wanted: pb.ModelVersion, parents: list[pb.ParentVersion]
) -> pb.ModelVersion:
    """Give the next number and insert what is wanted under it."""
    number = owner.next_number
    tx.update(schema.Model, {"id": owner.id}, next_number=number + 1, mlflow_time=tx.time)
    satellites = Satellites(
        tags=dict(wanted.tags),
        params=dict(wanted.params),
        datasets=list(wanted.lineage.datasets),
        parents=parents,
    )
    values: dict[str, Any] = {
        "model_id": owner.id,
        "number": number,
        "namespace": owner.namespace,
        "source": wanted.source,
        "status": wanted.status or pb.MODEL_VERSION_STATUS_READY,
        "status_message": wanted.status_message,
        "description": wanted.description,
        "signature": wanted.signature,
        "flavors": json.dumps(list(wanted.flavors)) if wanted.flavors else "",
        "run_id": wanted.lineage.run_id,
        "run_link": wanted.lineage.run_link,
        "experiment": wanted.lineage.experiment,
        "git_commit": wanted.lineage.git_commit,
        "git_repository": wanted.lineage.git_repository,
        "logged_model_id": wanted.lineage.logged_model_id,
        "storage_uri": "" if wanted.storage_uri == wanted.source else wanted.storage_uri,
        "content_digest": content_digest(wanted, parents),
        "creator": tx.actor,
        "deleted": False,
        "purged": False,
        "mlflow_time": tx.time,
        "revision": tx.revision,
        "create_time": tx.time,
        "update_time": tx.time,
    }
    tx.insert(schema.Version, **values)
    insert_satellites(tx, owner.id, number, satellites)
    quotas.count(tx, owner.namespace, versions=1)
    state = messages.version(tx, SimpleNamespace(**values), owner, satellites)
    history.record_version(
        tx,
        pb.CHANGE_KIND_VERSION_CREATED,
        state,
        before=None,
        after=history.version_keys(state),
    )
    return state


def _origin(lineage: pb.Lineage) -> sources.Origin:
    return sources.Origin(lineage.run_id, lineage.logged_model_id)


def _taken_over(
    tx: Tx, owner: lookup.Row, wanted: pb.ModelVersion
) -> tuple[pb.ModelVersion, pb.ParentVersion]:
    """Take over from the version that a models:/ source names what `wanted` leaves out."""
    request = pb.ResolveModelVersionRequest(uri=wanted.source)
    try:
        origin, row = _resolved(tx, owner.namespace, request)
    except errors.RegistryError as error:
        if not error.fields:
            raise
        raise errors.invalid(sources.FIELD, error.fields[0].description) from None
    whole = pb.ModelVersion()
    whole.CopyFrom(wanted)
    whole.source = f"models:/{origin.name}/{row.number}"
    whole.storage_uri = wanted.storage_uri or row.storage_uri or row.source
    lineage = whole.lineage
    tx.sources.check_named(
        wanted.source, _origin(lineage), sources.Origin(row.run_id, row.logged_model_id)
    )
    lineage.run_id = lineage.run_id or row.run_id
    lineage.logged_model_id = lineage.logged_model_id or row.logged_model_id
    return whole, pb.ParentVersion(
        model=origin.name,
        version=row.number,
        derivation=pb.DERIVATION_COPIED,
        model_id=origin.id,
    )


def _parent(tx: Tx, owner: lookup.Row, parent: pb.ParentVersion) -> pb.ParentVersion:
    model, row = lookup.numbered(tx, owner.namespace, parent.model, parent.version)
    return pb.ParentVersion(
        model=names.lookup_model(parent.model),
        version=row.number,
        derivation=parent.derivation,
        model_id=model.id,
    )


def insert_satellites(tx: Tx, model_id: str, number: int, satellites: Satellites) -> None:
    """Insert what a version has in rows of their own."""
    for table, rows in satellite_rows(model_id, number, satellites):
        tx.insert_many(table, rows)


def satellite_rows(
    model_id: str, number: int, satellites: Satellites
) -> Iterator[tuple[type[schema.Table], list[dict[str, Any]]]]:
    """Give what a version has in rows of their own, by table."""
    key = {"model_id": model_id, "number": number}
    for table, pairs in (
        (schema.VersionTag, satellites.tags),
        (schema.VersionParam, satellites.params),
    ):
        yield table, [{**key, "key": k, "value": v} for k, v in pairs.items()]
    yield (
        schema.VersionDataset,
        [
            {
                **key,
                "position": position,
                "name": dataset.name,
                "digest": dataset.digest,
                "use": dataset.use,
                "source": dataset.source,
            }
            for position, dataset in enumerate(satellites.datasets)
        ],
    )
    yield (
        schema.VersionParent,
        [
            {
                **key,
                "position": position,
                "parent_model": parent.model,
                "parent_id": parent.model_id,
                "parent_number": parent.version,
                "derivation": parent.derivation,
            }
            for position, parent in enumerate(satellites.parents)
        ],
    )


def content_digest(wanted: pb.ModelVersion, parents: Sequence[pb.ParentVersion]) -> str:
    """Hash what a version is, so that an approval can be bound to it.

    Source, params, signature, flavors and lineage, as one deterministic message; tags,
    descriptions and stages are not part of it.
    """
    content = pb.ModelVersion(
        source=wanted.source,
        params=wanted.params,
        signature=wanted.signature,
        flavors=wanted.flavors,
        lineage=wanted.lineage,
    )
    del content.lineage.parents[:]
    content.lineage.parents.extend(parents)
    return hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest()


def get(tx: Tx, request: pb.GetModelVersionRequest) -> pb.GetModelVersionResponse:
    """Return one version."""
    space = names.namespace_or_default(request.namespace)
    owner, row = lookup.numbered(tx, space, request.model, request.version)
    state = states.of(tx, {owner.id: owner}, [row], with_metrics=request.include_metrics)[0]
    return pb.GetModelVersionResponse(version=state)


def resolve(tx: Tx, request: pb.ResolveModelVersionRequest) -> pb.ResolveModelVersionResponse:
    """Return the version that a number, stage, alias or "latest" means now."""
    space = names.namespace_or_default(request.namespace)
    owner, row = _resolved(tx, space, request)
    state = states.of(tx, {owner.id: owner}, [row], with_metrics=request.include_metrics)[0]
    return pb.ResolveModelVersionResponse(version=state)


def _resolved(
    tx: Tx, space: str, request: pb.ResolveModelVersionRequest
) -> tuple[lookup.Row, lookup.Row]:
    name, selector = request.model, request.WhichOneof("selector")
    value: Any = getattr(request, selector) if selector else ""
    kind = str(selector or "latest")
    if kind == "uri":
        if name:
            raise errors.invalid("model", "give either model or uri, not both")
        name, meant = names.parse_models_uri(request.uri)
        kind, value = next(
            ((field, v) for field, v in meant._asdict().items() if v), ("latest", "")
        )
    if not name:
        raise errors.invalid("model", "is required: name the model, or give a models:/ uri")
    if kind == "version":
        return lookup.numbered(tx, space, name, value)
    owner = lookup.model(tx, space, name)
    if kind == "stage":
        stage = lookup.stage(tx, space, value)
        number = tx.scalar(_PRIMARY, model_id=owner.id, stage_key=stage.key)
        if number is None:
            raise errors.not_found(
                "STAGE_EMPTY",
                "stage",
                stage.name,
                f"no version of model {owner.name!r} is in stage {stage.name!r}",
            )
    elif kind == "alias":
        number = tx.scalar(_ALIASED, model_id=owner.id, alias=value)
        if number is None:
            raise errors.not_found(
                "ALIAS_NOT_FOUND",
                "alias",
                value,
                f"model {owner.name!r} has no alias {value!r}",
            )
    else:
        number = tx.scalar(_LATEST, model_id=owner.id)
        if number is None:
            raise errors.not_found(
                "VERSION_NOT_FOUND",
                "model_version",
                owner.name,
                f"model {owner.name!r} has no version yet",
            )
    return owner, lookup.version(tx, owner, number)


_PRIMARY = sa.select(sa.func.max(schema.StageHolder.number)).where(
    schema.StageHolder.model_id == sa.bindparam("model_id"),
    schema.StageHolder.stage_key == sa.bindparam("stage_key"),
    schema.StageHolder.left_revision.is_(None),
)
_ALIASED = sa.select(schema.AliasHolder.number).where(
    schema.AliasHolder.model_id == sa.bindparam("model_id"),
    schema.AliasHolder.alias == sa.bindparam("alias"),
    schema.AliasHolder.unset_revision.is_(None),
)
_LATEST = sa.select(sa.func.max(schema.Version.number)).where(
    schema.Version.model_id == sa.bindparam("model_id"), schema.Version.deleted.is_(False)
)


def list_(tx: Tx, request: pb.ListModelVersionsRequest) -> pb.ListModelVersionsResponse:
    """List living versions of one model, or of every living model, that match a filter."""
    space = lookup.namespace(tx, request.namespace).name
    statement = (
        sa.select(schema.Version, schema.Model.name)
        .join(schema.Model, schema.Model.id == schema.Version.model_id)
        .where(
            # Said of the model too: it is by (namespace, name) that one name is found.
            schema.Model.namespace == space,
            schema.Version.deleted.is_(False),
            schema.Model.deleted.is_(False),
            visibility.models(tx, space),
            filters.versions(request.filter),
        )
    )
    if request.model:
        owner = lookup.model(tx, space, request.model)
        statement = statement.where(schema.Version.model_id == owner.id)
    else:
        statement = statement.where(schema.Version.namespace == space)
    newest = "version desc" if request.model else "create_time desc"
    paged = pages.paginate(
        cast("sa.Select[Any]", statement),
        pages.order_versions(request.order_by or newest),
        token=request.page_token,
        size=request.page_size,
        query=("ListModelVersions", space, request.model, request.filter, request.order_by),
    )
    rows, token = paged.split(tx.rows(paged.statement))
    owners = {row.model_id: SimpleNamespace(name=row.name) for row in rows}
    return pb.ListModelVersionsResponse(
        versions=states.of(tx, owners, rows, with_metrics=request.include_metrics),
        next_page_token=token,
    )


def update(tx: Tx, request: pb.UpdateModelVersionRequest) -> pb.UpdateModelVersionResponse:
    """Change a version's description or status."""
    paths = limits.mask_paths(request.update_mask, _UPDATABLE)
    if "status" in paths and not request.update.status:
        raise errors.invalid("update.status", "is in the update_mask and must be given")
    owner, row = _to_change(tx, request)
    wanted = {path: getattr(request.update, path) for path in paths}
    if all(getattr(row, path) == value for path, value in wanted.items()):
        return pb.UpdateModelVersionResponse(version=states.of(tx, {owner.id: owner}, [row])[0])
    return pb.UpdateModelVersionResponse(version=_changed(tx, owner, row.number, wanted))


def set_tags(tx: Tx, request: pb.SetModelVersionTagsRequest) -> pb.SetModelVersionTagsResponse:
    """Set tags of a version."""
    owner, row = _to_change(tx, request)
    state = states.of(tx, {owner.id: owner}, [row])[0]
    wanted = {k: v for k, v in request.tags.items() if state.tags.get(k) != v}
    if not wanted:
        return pb.SetModelVersionTagsResponse(version=state)
    limits.check(pb.ModelVersion(tags={**state.tags, **wanted}))
    key = {"model_id": owner.id, "number": row.number}
    for tag in wanted:
        tx.delete(schema.VersionTag, **key, key=tag)
    tx.insert_many(schema.VersionTag, [{**key, "key": k, "value": v} for k, v in wanted.items()])
    state = _changed(tx, owner, row.number, {})
    history.name_tags(tx, set_=wanted)
    return pb.SetModelVersionTagsResponse(version=state)


def delete_tags(
    tx: Tx, request: pb.DeleteModelVersionTagsRequest
) -> pb.DeleteModelVersionTagsResponse:
    """Delete tags of a version."""
    owner, row = _to_change(tx, request)
    state = states.of(tx, {owner.id: owner}, [row])[0]
    present = [key for key in request.keys if key in state.tags]
    if not present:
        return pb.DeleteModelVersionTagsResponse(version=state)
    for tag in present:
        tx.delete(schema.VersionTag, model_id=owner.id, number=row.number, key=tag)
    state = _changed(tx, owner, row.number, {})
    history.name_tags(tx, deleted=present)
    return pb.DeleteModelVersionTagsResponse(version=state)


def delete(tx: Tx, request: pb.DeleteModelVersionRequest) -> pb.DeleteModelVersionResponse:
    """Delete a version, ending its stages and aliases. Refuses VERSION_IN_USE unless forced."""
    owner, row = _to_change(tx, request)
    state = states.of(tx, {owner.id: owner}, [row])[0]
    found = history.version_keys(state)
    if not request.force:
        _refuse_used(tx, owner, state)
    tx.update(
        schema.Version,
        {"model_id": owner.id, "number": row.number},
        deleted=True,
        revision=tx.revision,
        update_time=tx.time,
        mlflow_time=tx.time,
    )
    tx.update(schema.Model, {"id": owner.id}, mlflow_time=tx.time)
    for alias in state.aliases:
        demand_move(tx, owner, alias=alias)
    end_aliases(tx, owner.id, state.aliases)
    moves.end(tx, owner, row.number, found)
    quotas.count(tx, owner.namespace, versions=-1)
    return pb.DeleteModelVersionResponse(version=states.reload(tx, owner, row.number))


def demand_move(tx: Tx, owner: lookup.Row, **place: str) -> None:
    """Refuse to touch what a stage or an alias holds where the caller may not move versions."""
    tx.rights.demand(MOVE, owner.namespace, owner.name, caller=tx.actor, **place)


def end_aliases(tx: Tx, model_id: str, aliases: Iterable[str]) -> None:
    """End the present tenure of each alias."""
    for alias in aliases:
        since = tx.scalar(
            sa.select(schema.AliasHolder.set_revision).where(
                schema.AliasHolder.model_id == model_id,
                schema.AliasHolder.alias == alias,
                schema.AliasHolder.unset_revision.is_(None),
            )
        )
        tx.update(
            schema.AliasHolder,
            {"model_id": model_id, "alias": alias, "set_revision": since},
            unset_revision=tx.revision,
            unset_time=tx.time,
            unset_by=tx.actor,
        )


def undelete(tx: Tx, request: pb.UndeleteModelVersionRequest) -> pb.UndeleteModelVersionResponse:
    """Bring a deleted version back. Refuses NOT_DELETED and PURGED."""
    owner, row = _deleted(tx, request)
    tx.update(
        schema.Version,
        {"model_id": owner.id, "number": row.number},
        deleted=False,
        revision=tx.revision,
        update_time=tx.time,
        mlflow_time=tx.time,
    )
    tx.update(schema.Model, {"id": owner.id}, mlflow_time=tx.time)
    quotas.count(tx, owner.namespace, versions=1)
    state = states.reload(tx, owner, row.number)
    history.record_version(
        tx,
        pb.CHANGE_KIND_VERSION_UNDELETED,
        state,
        before=None,
        after=history.version_keys(state),
    )
    return pb.UndeleteModelVersionResponse(version=state)


def purge(tx: Tx, request: pb.PurgeModelVersionRequest) -> pb.PurgeModelVersionResponse:
    """Erase a deleted version's texts. Refuses NOT_DELETED and PURGED."""
    owner, row = _deleted(tx, request)
    erase(tx, owner.id, number=row.number)
    place = {"model_id": owner.id, "number": row.number}
    tx.update(schema.Version, place, revision=tx.revision, update_time=tx.time)
    state = states.reload(tx, owner, row.number)
    found = history.keys(owner.namespace, models=[owner.name])
    history.record_version(tx, pb.CHANGE_KIND_VERSION_PURGED, state, before=found, after=None)
    return pb.PurgeModelVersionResponse(version=state)


def erase(tx: Tx, model_id: str, *, number: int | None = None) -> None:
    """Erase the texts of one version, or those of a deleted model and all its versions.

    The latter is one change of the model, however many versions nobody can read any more.
    """
    place: dict[str, Any] = {"model_id": model_id}
    if number is not None:
        place["number"] = number
    for table in (*_SATELLITE_TABLES, schema.Metric, schema.LatestMetric, schema.Text):
        tx.delete(table, **place)
    tx.update(schema.Version, place, purged=True, **_ERASED)


def _deleted(tx: Tx, request: Any) -> tuple[lookup.Row, lookup.Row]:
    owner, row = _to_change(tx, request, deleted=True)
    if not row.deleted:
        raise errors.precondition(
            "NOT_DELETED",
            f"{owner.name}/{row.number}",
            f"version {row.number} of model {owner.name!r} is not deleted; delete it first",
        )
    if row.purged:
        raise errors.precondition(
            "PURGED",
            f"{owner.name}/{row.number}",
            f"version {row.number} of model {owner.name!r} was purged: its texts are gone for good",
        )
    return owner, row


def _refuse_used(tx: Tx, owner: lookup.Row, state: pb.ModelVersion) -> None:
    defined = {row.name: row for row in lookup.stages(tx, owner.namespace).values()}
    uses = [f"it is in stage {s!r}" for s in state.stages if defined[s].active] + [
        f"it has alias {alias!r}" for alias in state.aliases
    ]
    if uses:
        subject = f"{owner.name}/{state.version}"
        raise errors.RegistryError(
            "VERSION_IN_USE",
            f"version {state.version} of model {owner.name!r} is in use: {'; '.join(uses)}; "
            "end that first, or force",
            preconditions=[
                errors.PreconditionViolation("VERSION_IN_USE", subject, use) for use in uses
            ],
        )


def _to_change(tx: Tx, request: Any, *, deleted: bool = False) -> tuple[lookup.Row, lookup.Row]:
    space = names.namespace_or_default(request.namespace)
    owner = lookup.model_to_change(tx, space, request.model)
    row = lookup.version_to_change(tx, owner, request.version, deleted=deleted)
    what = f"version {row.number} of model {owner.name!r}"
    lookup.expect(request.expected_revision, row.revision, what)
    return owner, row


def _changed(tx: Tx, owner: lookup.Row, number: int, values: Mapping[str, Any]) -> pb.ModelVersion:
    """Write a change of the version itself and record it."""
    # MLflow's clients see no change in a tag, and none of the model in a description.
    activity = {"mlflow_time": tx.time} if values else {}
    tx.update(
        schema.Version,
        {"model_id": owner.id, "number": number},
        revision=tx.revision,
        update_time=tx.time,
        **activity,
        **values,
    )
    state = states.reload(tx, owner, number)
    found = history.version_keys(state)
    history.record_version(tx, pb.CHANGE_KIND_VERSION_UPDATED, state, before=found, after=found)
    return state
