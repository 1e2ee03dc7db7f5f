"""Stage definitions of a namespace: what there is, in which order, and what entering does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, names, pb
from stagewire.service import history, limits, messages
from stagewire.store import lookup, pages, schema

if TYPE_CHECKING:
    from stagewire.store.transactions import Tx

_UPDATABLE = frozenset({"description", "position", "active", "occupancy", "displace_to"})
_EXCLUSIVE = (pb.STAGE_OCCUPANCY_EXCLUSIVE, pb.STAGE_OCCUPANCY_EXCLUSIVE_REFUSING)
# Room between stages, so that one can be put between two without moving the others.
_POSITION_STEP = 10
# The protos give a position 32 bits; stages there are ordered by name.
_POSITION_MAX = 2**31 - 1


def create(tx: Tx, request: pb.CreateStageRequest) -> pb.CreateStageResponse:
    """Define a stage. Refuses STAGE_EXISTS."""
    wanted = request.stage
    name = names.canonical_stage(wanted.name, "stage.name")
    space = lookup.namespace_to_change(tx, request.namespace).name
    defined = lookup.stages(tx, space)
    key = names.stage_key(name)
    if key in defined:
        raise errors.RegistryError(
            "STAGE_EXISTS",
            f"namespace {space!r} already has stage {defined[key].name!r}",
            resource_type="stage",
            resource_name=defined[key].name,
        )
    last = max((row.position for row in defined.values()), default=0)
    values: dict[str, Any] = {
        "namespace": space,
        "key": key,
        "name": name,
        "description": wanted.description,
        "position": wanted.position or min(last + _POSITION_STEP, _POSITION_MAX),
        "active": wanted.active,
        "occupancy": wanted.occupancy or pb.STAGE_OCCUPANCY_SHARED,
        "displace_to": _displace_to(defined, wanted.displace_to, key, "stage.displace_to"),
        "revision": tx.revision,
        "create_time": tx.time,
        "update_time": tx.time,
    }
    tx.insert(schema.Stage, **values)
    state = messages.stage(tx, SimpleNamespace(**values))
    history.record_stage(tx, pb.CHANGE_KIND_STAGE_CREATED, state)
    return pb.CreateStageResponse(stage=state)


def update(tx: Tx, request: pb.UpdateStageRequest) -> pb.UpdateStageResponse:
    """Change a stage's definition; its holders stay."""
    paths = limits.mask_paths(request.update_mask, _UPDATABLE)
    space = lookup.namespace_to_change(tx, request.namespace).name
    defined = lookup.stages(tx, space)
    row = lookup.stage(tx, space, request.stage, defined=defined)
    lookup.expect(request.expected_revision, row.revision, f"stage {row.name!r}")
    wanted: dict[str, Any] = {path: getattr(request.update, path) for path in paths}
    if "occupancy" in wanted:
        wanted["occupancy"] = wanted["occupancy"] or pb.STAGE_OCCUPANCY_SHARED
        feeding = [s.name for s in defined.values() if names.stage_key(s.displace_to) == row.key]
        if feeding and wanted["occupancy"] in _EXCLUSIVE:
            raise errors.invalid(
                "update.occupancy",
                f"stage {feeding[0]!r} displaces into {row.name!r}, which must stay shared; "
                "change its displace_to first",
            )
    if "displace_to" in wanted:
        wanted["displace_to"] = _displace_to(
            defined, wanted["displace_to"], row.key, "update.displace_to"
        )
    if all(getattr(row, path) == value for path, value in wanted.items()):
        return pb.UpdateStageResponse(stage=messages.stage(tx, row))
    values = {**wanted, "revision": tx.revision, "update_time": tx.time}
    tx.update(schema.Stage, {"namespace": space, "key": row.key}, **values)
    state = messages.stage(tx, SimpleNamespace(**{**row._asdict(), **values}))
    history.record_stage(tx, pb.CHANGE_KIND_STAGE_UPDATED, state)
    return pb.UpdateStageResponse(stage=state)


def list_(tx: Tx, request: pb.ListStagesRequest) -> pb.ListStagesResponse:
    """List a namespace's stages in their order."""
    space = lookup.namespace(tx, request.namespace).name
    paged = pages.paginate(
        sa.select(schema.Stage).where(schema.Stage.namespace == space),
        [pages.Key(schema.Stage.position), pages.Key(schema.Stage.key)],
        token=request.page_token,
        size=request.page_size,
        query=("ListStages", space),
    )
    rows, token = paged.split(tx.rows(paged.statement))
    return pb.ListStagesResponse(
        stages=[messages.stage(tx, row) for row in rows], next_page_token=token
    )


def delete(tx: Tx, request: pb.DeleteStageRequest) -> pb.DeleteStageResponse:
    """Delete a stage that nothing needs. Refuses STAGE_IN_USE."""
    space = lookup.namespace_to_change(tx, request.namespace).name
    defined = lookup.stages(tx, space)
    row = lookup.stage(tx, space, request.stage, defined=defined)
    lookup.expect(request.expected_revision, row.revision, f"stage {row.name!r}")
    uses = [
        f"stage {s.name!r} displaces into it"
        for s in defined.values()
        if names.stage_key(s.displace_to) == row.key
    ]
    # Deleted models keep their stages for when they come back; purged ones never do.
    held = (
        sa.select(schema.Model.name, schema.StageHolder.number)
        .join(schema.Model, schema.Model.id == schema.StageHolder.model_id)
        .where(
            schema.Model.namespace == space,
            schema.Model.purged.is_(False),
            schema.StageHolder.stage_key == row.key,
            schema.StageHolder.left_revision.is_(None),
        )
        .limit(10)
    )
    uses += [f"version {h.number} of model {h.name!r} is in it" for h in tx.rows(held)]
    if uses:
        raise errors.RegistryError(
            "STAGE_IN_USE",
            f"stage {row.name!r} is in use: {'; '.join(uses)}",
            preconditions=[
                errors.PreconditionViolation("STAGE_IN_USE", row.name, use) for use in uses
            ],
        )
    tx.delete(schema.Stage, namespace=space, key=row.key)
    history.record_stage(tx, pb.CHANGE_KIND_STAGE_DELETED, messages.stage(tx, row))
    return pb.DeleteStageResponse()


def _displace_to(defined: dict[str, lookup.Row], name: str, own: str, path: str) -> str:
    """Check the stage that displaced versions enter and spell it canonically."""
    if not name:
        return ""
    key = names.stage_key(name)
    if key == own:
        raise errors.invalid(path, "a stage can't displace into itself; name another, or none")
    found = lookup.stage_in(defined, name)
    if found.occupancy in _EXCLUSIVE:
        raise errors.invalid(
            path, f"stage {found.name!r} takes one version at a time; name a shared one"
        )
    return str(found.name)
