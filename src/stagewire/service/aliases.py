"""Aliases: movable names for one version of a model, kept as tenures like stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from stagewire import errors, names, pb
from stagewire.service import history, states, versions
from stagewire.store import lookup, schema

if TYPE_CHECKING:
    from stagewire.store.transactions import Tx

_PRESENT = sa.select(schema.AliasHolder).where(
    schema.AliasHolder.model_id == sa.bindparam("model_id"),
    schema.AliasHolder.alias == sa.bindparam("alias"),
    schema.AliasHolder.unset_revision.is_(None),
)


def set_(tx: Tx, request: pb.SetAliasRequest) -> pb.SetAliasResponse:
    """Point an alias at a version. Refuses ALIAS_EXISTS unless `reassign`."""
    names.check_alias(request.alias, "alias")
    space = names.namespace_or_default(request.namespace)
    owner = lookup.model_to_change(tx, space, request.model)
    row = lookup.version_to_change(tx, owner, request.version)
    what = f"version {row.number} of model {owner.name!r}"
    lookup.expect(request.expected_revision, row.revision, what)
    present = tx.row(_PRESENT, model_id=owner.id, alias=request.alias)
    if present is not None and present.number == row.number:
        state = states.of(tx, {owner.id: owner}, [row])[0]
        return pb.SetAliasResponse(version=state, previous_version=row.number)
    if present is not None and not request.reassign:
        raise errors.RegistryError(
            "ALIAS_EXISTS",
            f"model {owner.name!r} already has alias {request.alias!r} on version "
            f"{present.number}; pass `reassign` to move it",
            resource_type="alias",
            resource_name=request.alias,
            metadata={"version": str(present.number)},
        )
    if present is not None:
        versions.end_aliases(tx, owner.id, [request.alias])
    tx.insert(
        schema.AliasHolder,
        model_id=owner.id,
        alias=request.alias,
        number=row.number,
        set_revision=tx.revision,
        set_time=tx.time,
        set_by=tx.actor,
        unset_revision=None,
        unset_time=None,
        unset_by="",
    )
    if present is not None:
        _record(tx, owner, present.number, lost=request.alias)
    state = _record(tx, owner, row.number, got=request.alias)
    previous = present.number if present is not None else 0
    return pb.SetAliasResponse(version=state, previous_version=previous)


def delete(tx: Tx, request: pb.DeleteAliasRequest) -> pb.DeleteAliasResponse:
    """Remove an alias. Refuses ALIAS_NOT_FOUND."""
    space = names.namespace_or_default(request.namespace)
    owner = lookup.model_to_change(tx, space, request.model)
    present = tx.row(_PRESENT, model_id=owner.id, alias=request.alias)
    if present is None:
        raise errors.not_found(
            "ALIAS_NOT_FOUND",
            "alias",
            request.alias,
            f"model {owner.name!r} has no alias {request.alias!r}",
        )
    row = lookup.version(tx, owner, present.number)
    what = f"version {row.number} of model {owner.name!r}"
    lookup.expect(request.expected_revision, row.revision, what)
    versions.end_aliases(tx, owner.id, [request.alias])
    return pb.DeleteAliasResponse(version=_record(tx, owner, row.number, lost=request.alias))


def _record(
    tx: Tx, owner: lookup.Row, number: int, *, got: str = "", lost: str = ""
) -> pb.ModelVersion:
    """Stamp a version whose aliases changed, and record it."""
    tx.update(
        schema.Version,
        {"model_id": owner.id, "number": number},
        revision=tx.revision,
        update_time=tx.time,
    )
    row = lookup.version(tx, owner, number)
    state = states.of(tx, {owner.id: owner}, [row])[0]
    aliases = {*state.aliases, lost} - {got, ""}
    history.record_version(
        tx,
        pb.CHANGE_KIND_ALIASES_CHANGED,
        state,
        before=history.keys(
            owner.namespace,
            models=[owner.name],
            stages=state.stages,
            aliases=sorted(aliases),
        ),
        after=history.version_keys(state),
    )
    return state
