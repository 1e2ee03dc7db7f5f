"""Registered models: made, described, renamed, deleted, brought back and erased."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, names, pb
from stagewire.rights import MOVE
from stagewire.service import bearers, history, holdings, limits, messages, quotas, versions
from stagewire.store import filters, lookup, pages, schema, visibility

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stagewire.store.transactions import Tx

_UPDATABLE = frozenset({"description", "owner"})

_TAGS = sa.select(schema.ModelTag.key, schema.ModelTag.value).where(
    schema.ModelTag.model_id == sa.bindparam("model_id")
)
_HELD = (
    sa.select(schema.StageHolder.stage, schema.StageHolder.number, schema.Stage.active)
    .join(schema.Model, schema.Model.id == schema.StageHolder.model_id)
    .join(
        schema.Stage,
        sa.and_(
            schema.Stage.namespace == schema.Model.namespace,
            schema.Stage.key == schema.StageHolder.stage_key,
        ),
    )
    .where(
        schema.StageHolder.model_id == sa.bindparam("model_id"),
        schema.StageHolder.left_revision.is_(None),
    )
    .order_by(schema.Stage.position, schema.Stage.key, schema.StageHolder.number)
)
_ALIASES = (
    sa.select(schema.AliasHolder.alias, schema.AliasHolder.number)
    .where(
        schema.AliasHolder.model_id == sa.bindparam("model_id"),
        schema.AliasHolder.unset_revision.is_(None),
    )
    .order_by(schema.AliasHolder.alias)
)
_LATEST = sa.select(sa.func.max(schema.Version.number)).where(
    schema.Version.model_id == sa.bindparam("model_id"), schema.Version.deleted.is_(False)
)


def create(tx: Tx, request: pb.CreateModelRequest) -> pb.CreateModelResponse:
    """Register a model. Refuses MODEL_EXISTS."""
    name = names.canonical_model(request.model.name)
    space = lookup.namespace_to_write_in(tx, request.namespace).name
    taken = lookup.name_to_change(tx, space, name)
    bearers.refuse_taken(taken, name)
    values: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "namespace": space,
        "name": name,
        "description": request.model.description,
        "owner": request.model.owner or tx.actor,
        "creator": tx.actor,
        "first_number": taken.next_number,
        "next_number": taken.next_number,
        "deleted": False,
        "purged": False,
        "mlflow_time": tx.time,
        "revision": tx.revision,
        "create_time": tx.time,
        "update_time": tx.time,
    }
    tx.insert(schema.Model, **values)
    _put_tags(tx, values["id"], request.model.tags, fresh=True)
    tx.insert(
        schema.NameRange,
        namespace=space,
        name=name,
        first=taken.next_number,
        last=None,
        model_id=values["id"],
    )
    tx.update(schema.Name, {"namespace": space, "name": name}, model_id=values["id"])
    quotas.count(tx, space, models=1)
    state = messages.model(tx, SimpleNamespace(**values), request.model.tags)
    history.record_model(
        tx,
        pb.CHANGE_KIND_MODEL_CREATED,
        state,
        before=None,
        after=history.keys(space, models=[name]),
    )
    return pb.CreateModelResponse(model=state)


def get(tx: Tx, request: pb.GetModelRequest) -> pb.GetModelResponse:
    """Return one model with what its stages and aliases hold."""
    space = names.namespace_or_default(request.namespace)
    row = lookup.model(tx, space, request.model)
    answer = pb.GetModelResponse(
        model=messages.model(tx, row, tags(tx, row.id)),
        aliases={r.alias: r.number for r in tx.rows(_ALIASES, model_id=row.id)},
        latest_version=tx.scalar(_LATEST, model_id=row.id) or 0,
        activity_time=messages.timestamp(row.mlflow_time),
    )
    if request.include_latest_versions:
        defined = lookup.stages(tx, row.namespace)
        answer.latest_versions.extend(holdings.latest(tx, {row.id: row}, defined)[row.id])
    for held in tx.rows(_HELD, model_id=row.id):
        if not answer.stages or answer.stages[-1].stage != held.stage:
            answer.stages.add(stage=held.stage)
        answer.stages[-1].versions.append(held.number)
        answer.stages[-1].primary_version = held.number
    return answer


def list_(tx: Tx, request: pb.ListModelsRequest) -> pb.ListModelsResponse:
    """List the living models of a namespace that match a filter."""
    space = lookup.namespace(tx, request.namespace).name
    statement = sa.select(schema.Model).where(
        schema.Model.namespace == space,
        schema.Model.deleted.is_(False),
        visibility.models(tx, space),
        filters.models(request.filter),
    )
    paged = pages.paginate(
        statement,
        pages.order_models(request.order_by),
        token=request.page_token,
        size=request.page_size,
        query=("ListModels", space, request.filter, request.order_by),
    )
    rows, token = paged.split(tx.rows(paged.statement))
    labels: dict[str, dict[str, str]] = {row.id: {} for row in rows}
    tagged = sa.select(schema.ModelTag).where(schema.ModelTag.model_id.in_(list(labels)))
    for tag in tx.rows(tagged) if labels else ():
        labels[tag.model_id][tag.key] = tag.value
    return pb.ListModelsResponse(
        models=[messages.model(tx, row, labels[row.id]) for row in rows],
        next_page_token=token,
        holdings=holdings.of(tx, rows) if request.include_holdings else (),
    )


def update(tx: Tx, request: pb.UpdateModelRequest) -> pb.UpdateModelResponse:
    """Change a model's description or owner."""
    paths = limits.mask_paths(request.update_mask, _UPDATABLE)
    row = _to_change(tx, request)
    wanted = {path: getattr(request.update, path) for path in paths}
    if all(getattr(row, path) == value for path, value in wanted.items()):
        return pb.UpdateModelResponse(model=messages.model(tx, row, tags(tx, row.id)))
    return pb.UpdateModelResponse(model=_changed(tx, row, wanted))


def set_tags(tx: Tx, request: pb.SetModelTagsRequest) -> pb.SetModelTagsResponse:
    """Set tags of a model."""
    row = _to_change(tx, request)
    present = tags(tx, row.id)
    wanted = {k: v for k, v in request.tags.items() if present.get(k) != v}
    if not wanted:
        return pb.SetModelTagsResponse(model=messages.model(tx, row, present))
    _refuse_many_tags({**present, **wanted})
    _put_tags(tx, row.id, wanted)
    state = _changed(tx, row, {})
    history.name_tags(tx, set_=wanted)
    return pb.SetModelTagsResponse(model=state)


def delete_tags(tx: Tx, request: pb.DeleteModelTagsRequest) -> pb.DeleteModelTagsResponse:
    """Delete tags of a model."""
    row = _to_change(tx, request)
    present = tags(tx, row.id)
    doomed = [key for key in request.keys if key in present]
    if not doomed:
        return pb.DeleteModelTagsResponse(model=messages.model(tx, row, present))
    for key in dict.fromkeys(doomed):
        tx.delete(schema.ModelTag, model_id=row.id, key=key)
    state = _changed(tx, row, {})
    history.name_tags(tx, deleted=doomed)
    return pb.DeleteModelTagsResponse(model=state)


def rename(tx: Tx, request: pb.RenameModelRequest) -> pb.RenameModelResponse:
    """Give a model another name. Refuses MODEL_EXISTS and NAME_HAS_HISTORY."""
    new = names.canonical_model(request.new_name, "new_name")
    space = lookup.namespace_to_write_in(tx, request.namespace).name
    old = names.lookup_model(request.model)
    # Names before models, and both names in one order, or two renames could deadlock.
    for name in sorted({old, new}):
        if name == new or tx.row(lookup.NAME, namespace=space, name=name) is not None:
            lookup.name_to_change(tx, space, name)
    row = lookup.model_to_change(tx, space, old)
    lookup.expect(request.expected_revision, row.revision, f"model {row.name!r}")
    if new == row.name:
        return pb.RenameModelResponse(model=messages.model(tx, row, tags(tx, row.id)))
    # Whoever asks for a stage or an alias under either name finds something else there then.
    for name in (row.name, new):
        _demand_held(tx, row, name)
    bearers.leave(tx, row, renamed=True)
    next_number, first_number = bearers.take(tx, row, new)
    tx.update(
        schema.Model,
        {"id": row.id},
        name=new,
        next_number=next_number,
        first_number=first_number,
        revision=tx.revision,
        update_time=tx.time,
        mlflow_time=tx.time,
    )
    state = _state(tx, row.id)
    stages, aliases = _held(tx, row.id)
    history.record_model(
        tx,
        pb.CHANGE_KIND_MODEL_RENAMED,
        state,
        before=history.keys(space, models=[row.name], stages=stages, aliases=aliases),
        after=history.keys(space, models=[new], stages=stages, aliases=aliases),
        previous=row.name,
    )
    return pb.RenameModelResponse(model=state)


def delete(tx: Tx, request: pb.DeleteModelRequest) -> pb.DeleteModelResponse:
    """Delete a model softly. Refuses MODEL_IN_USE unless forced."""
    space = lookup.namespace_to_write_in(tx, request.namespace).name
    name = names.lookup_model(request.model)
    if tx.row(lookup.NAME, namespace=space, name=name) is not None:
        lookup.name_to_change(tx, space, name)
    row = lookup.model_to_change(tx, space, name)
    lookup.expect(request.expected_revision, row.revision, f"model {row.name!r}")
    if not request.force:
        _refuse_used(tx, row)
    _demand_held(tx, row, row.name)
    bearers.leave(tx, row, renamed=False)
    tx.update(schema.Model, {"id": row.id}, deleted=True, revision=tx.revision, update_time=tx.time)
    quotas.count(tx, space, models=-1, versions=-quotas.versions_of(tx, space, row.id))
    state = _state(tx, row.id)
    stages, aliases = _held(tx, row.id)
    history.record_model(
        tx,
        pb.CHANGE_KIND_MODEL_DELETED,
        state,
        before=history.keys(space, models=[row.name], stages=stages, aliases=aliases),
        after=None,
    )
    return pb.DeleteModelResponse(model=state)


def undelete(tx: Tx, request: pb.UndeleteModelRequest) -> pb.UndeleteModelResponse:
    """Bring a deleted model back. Refuses MODEL_EXISTS, NOT_DELETED, PURGED, NAME_HAS_HISTORY."""
    row = lookup.model_by_id_to_change(tx, request.namespace, request.model_id)
    lookup.expect(request.expected_revision, row.revision, f"model {row.name!r}")
    _refuse_living(row)
    _demand_held(tx, row, row.name)
    next_number, first_number = bearers.take(tx, row, row.name)
    tx.update(
        schema.Model,
        {"id": row.id},
        deleted=False,
        next_number=next_number,
        first_number=first_number,
        revision=tx.revision,
        update_time=tx.time,
    )
    back = quotas.versions_of(tx, row.namespace, row.id)
    quotas.count(tx, row.namespace, models=1, versions=back)
    state = _state(tx, row.id)
    stages, aliases = _held(tx, row.id)
    history.record_model(
        tx,
        pb.CHANGE_KIND_MODEL_UNDELETED,
        state,
        before=None,
        after=history.keys(row.namespace, models=[row.name], stages=stages, aliases=aliases),
    )
    return pb.UndeleteModelResponse(model=state)


def purge(tx: Tx, request: pb.PurgeModelRequest) -> pb.PurgeModelResponse:
    """Erase a deleted model's texts. Refuses NOT_DELETED and PURGED."""
    row = lookup.model_by_id_to_change(tx, request.namespace, request.model_id)
    lookup.expect(request.expected_revision, row.revision, f"model {row.name!r}")
    _refuse_living(row)
    versions.erase(tx, row.id)
    tx.delete(schema.ModelTag, model_id=row.id)
    tx.update(
        schema.Model,
        {"id": row.id},
        description="",
        owner="",
        purged=True,
        revision=tx.revision,
        update_time=tx.time,
    )
    state = _state(tx, row.id)
    found = history.keys(row.namespace, models=[row.name])
    history.record_model(tx, pb.CHANGE_KIND_MODEL_PURGED, state, before=found, after=None)
    return pb.PurgeModelResponse(model=state)


def _to_change(tx: Tx, request: Any) -> lookup.Row:
    space = names.namespace_or_default(request.namespace)
    row = lookup.model_to_change(tx, space, request.model)
    lookup.expect(request.expected_revision, row.revision, f"model {row.name!r}")
    return row


def _changed(tx: Tx, row: lookup.Row, values: Mapping[str, str]) -> pb.Model:
    """Write a change of the model itself and record it."""
    # MLflow's clients see no change in a tag.
    activity = {"mlflow_time": tx.time} if values else {}
    tx.update(
        schema.Model,
        {"id": row.id},
        revision=tx.revision,
        update_time=tx.time,
        **activity,
        **values,
    )
    state = _state(tx, row.id)
    found = history.keys(row.namespace, models=[row.name])
    history.record_model(tx, pb.CHANGE_KIND_MODEL_UPDATED, state, before=found, after=found)
    return state


def _state(tx: Tx, model_id: str) -> pb.Model:
    row = tx.rows(lookup.MODEL, model_id=model_id)[0]
    return messages.model(tx, row, tags(tx, model_id))


def tags(tx: Tx, model_id: str) -> dict[str, str]:
    """Read a model's tags."""
    return {row.key: row.value for row in tx.rows(_TAGS, model_id=model_id)}


def _put_tags(tx: Tx, model_id: str, tags: Mapping[str, str], *, fresh: bool = False) -> None:
    for key in () if fresh else tags:
        tx.delete(schema.ModelTag, model_id=model_id, key=key)
    tx.insert_many(
        schema.ModelTag, [{"model_id": model_id, "key": k, "value": v} for k, v in tags.items()]
    )


def _refuse_many_tags(tags: Mapping[str, str]) -> None:
    limits.check(pb.Model(name="-", tags=tags))


def _held(tx: Tx, model_id: str) -> tuple[list[str], list[str]]:
    """Name the stages and aliases that a model's versions hold."""
    stages = list(dict.fromkeys(row.stage for row in tx.rows(_HELD, model_id=model_id)))
    return stages, [row.alias for row in tx.rows(_ALIASES, model_id=model_id)]


def _demand_held(tx: Tx, row: lookup.Row, name: str) -> None:
    """Refuse to take away, or to bring, what a model's versions hold under a name of it.

    That is to move them all, out of every active stage and from every alias or into them.
    """
    if tx.rights.everything:
        return
    stages = {held.stage for held in tx.rows(_HELD, model_id=row.id) if held.active}
    places = [{"stage": names.stage_key(stage)} for stage in sorted(stages)]
    places += [{"alias": held.alias} for held in tx.rows(_ALIASES, model_id=row.id)]
    for place in places:
        tx.rights.demand(MOVE, row.namespace, name, caller=tx.actor, **place)


def _refuse_living(row: lookup.Row) -> None:
    if not row.deleted:
        raise errors.precondition(
            "NOT_DELETED", row.name, f"model {row.name!r} is not deleted; delete it first"
        )
    if row.purged:
        raise errors.precondition(
            "PURGED", row.name, f"model {row.name!r} was purged: its texts are gone for good"
        )


def _refuse_used(tx: Tx, row: lookup.Row) -> None:
    uses = [
        f"version {held.number} is in stage {held.stage!r}"
        for held in tx.rows(_HELD, model_id=row.id)
        if held.active
    ] + [
        f"alias {alias.alias!r} is on version {alias.number}"
        for alias in tx.rows(_ALIASES, model_id=row.id)
    ]
    if uses:
        shown: Sequence[str] = uses[:20]
        raise errors.RegistryError(
            "MODEL_IN_USE",
            f"model {row.name!r} is in use: {'; '.join(shown)}; end that first, or force",
            preconditions=[
                errors.PreconditionViolation("MODEL_IN_USE", row.name, use) for use in shown
            ],
        )
