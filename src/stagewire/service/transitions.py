"""Moves of versions through stages, one or several at once, and the record of who was where."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, names, pb
from stagewire.service import messages, moves
from stagewire.service.lifecycle import ARCHIVED
from stagewire.store import lookup, pages, schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stagewire.store.transactions import Tx

NONE = "none"

_HOLDER = schema.StageHolder


def transition(tx: Tx, request: pb.TransitionStageRequest) -> pb.TransitionStageResponse:
    """Move a version into a stage. Refuses VERSION_NOT_READY and STAGE_OCCUPIED."""
    space = names.namespace_or_default(request.namespace)
    owner = lookup.model_to_change(tx, space, request.model)
    move = pb.Transition(
        model=request.model,
        version=request.version,
        stage=request.stage,
        displace=request.displace,
        leave_other_stages=request.leave_other_stages,
        expected_revision=request.expected_revision,
    )
    moved = _play(tx, owner, [("", move)])
    version = moved.versions.pop(request.version, None) or moves.state(tx, owner, request.version)
    return pb.TransitionStageResponse(
        version=version,
        displaced=[v for v in moved.versions.values() if v.version != request.version],
        outcomes=moved.outcomes,
    )


def batch(tx: Tx, request: pb.BatchTransitionStagesRequest) -> pb.BatchTransitionStagesResponse:
    """Make several transitions in one revision, all or none."""
    space = names.namespace_or_default(request.namespace)
    owners = lookup.models_to_change(tx, space, [move.model for move in request.transitions])
    # By id: two spellings of one name are one model, played on one board.
    wanted: dict[str, list[tuple[str, pb.Transition]]] = {}
    for index, move in enumerate(request.transitions):
        place = wanted.setdefault(owners[move.model].id, [])
        place.append((f"transitions[{index}]: ", move))
    answer = pb.BatchTransitionStagesResponse()
    for owner in sorted({o.id: o for o in owners.values()}.values(), key=lambda o: str(o.name)):
        moved = _play(tx, owner, wanted[owner.id])
        answer.versions.extend(moved.versions.values())
        answer.outcomes.extend(moved.outcomes)
    return answer


def remove(tx: Tx, request: pb.RemoveFromStageRequest) -> pb.RemoveFromStageResponse:
    """Take a version out of a stage."""
    space = names.namespace_or_default(request.namespace)
    owner = lookup.model_to_change(tx, space, request.model)
    version = lookup.version_to_change(tx, owner, request.version)
    moves.expect(version, owner, request.expected_revision)
    defined = lookup.stages(tx, space)
    stage = lookup.stage(tx, space, request.stage, defined=defined)
    play = moves.set_up(tx, owner, defined, stages=[stage.key], numbers=[version.number])
    play.board.leave(version.number, stage.key)
    moved = moves.apply(tx, play)
    return pb.RemoveFromStageResponse(
        version=moved.versions.get(version.number) or moves.state(tx, owner, version.number),
        outcomes=moved.outcomes,
    )


def _play(tx: Tx, owner: lookup.Row, wanted: list[tuple[str, pb.Transition]]) -> moves.Moved:
    """Play moves of one model in their order; the prefix names them in refusals."""
    defined = lookup.stages(tx, owner.namespace)
    keys: list[str] = []
    for prefix, move in wanted:
        with _naming(prefix):
            keys.append(_checked(tx, owner, move, defined))
    play = moves.set_up(
        tx,
        owner,
        defined,
        stages=sorted({key for key in keys if key != NONE}),
        numbers=sorted({move.version for _, move in wanted}),
    )
    for key, (prefix, move) in zip(keys, wanted, strict=True):
        if key == NONE:
            play.board.leave_all(move.version)
            continue
        with _naming(prefix):
            play.board.enter(move.version, key, move.displace, leave_others=move.leave_other_stages)
    play.board.settle()
    return moves.apply(tx, play)


@contextmanager
def _naming(prefix: str) -> Iterator[None]:
    """Say in a refusal which of several moves was refused."""
    try:
        yield
    except errors.RegistryError as error:
        error.message = f"{prefix}{error.message}"
        raise


def _checked(tx: Tx, owner: lookup.Row, move: pb.Transition, defined: dict[str, lookup.Row]) -> str:
    """Check that a move is possible at all, and answer the key of its stage."""
    version = lookup.version_to_change(tx, owner, move.version)
    moves.expect(version, owner, move.expected_revision)
    key = names.stage_key(move.stage)
    if key == NONE:
        if move.displace == pb.DISPLACEMENT_RETIRE:
            raise errors.invalid("displace", 'nobody can retire from "None", which is no stage')
        return key
    stage = lookup.stage_in(defined, move.stage)
    if move.displace == pb.DISPLACEMENT_RETIRE:
        _check_retirement(stage, defined)
    if version.status != pb.MODEL_VERSION_STATUS_READY:
        status = pb.ModelVersionStatus.Name(version.status)
        raise errors.precondition(
            "VERSION_NOT_READY",
            f"{owner.name}/{version.number}",
            f"version {version.number} of model {owner.name!r} is "
            f"{status.removeprefix('MODEL_VERSION_STATUS_')}; only a READY version may "
            "enter a stage",
        )
    return key


def _check_retirement(stage: lookup.Row, defined: dict[str, lookup.Row]) -> None:
    if not stage.active:
        raise errors.invalid(
            "displace",
            f"nobody can retire from stage {stage.name!r}, which is not active; use KEEP",
        )
    if ARCHIVED not in defined and not stage.displace_to:
        raise errors.invalid(
            "displace",
            f"there is no stage 'Archived' to retire to, and stage {stage.name!r} has no "
            "displace_to; define either, or use KEEP",
        )


def list_history(tx: Tx, request: pb.GetStageHistoryRequest) -> pb.GetStageHistoryResponse:
    """List who held a model's stages when, newest first."""
    space = lookup.namespace(tx, request.namespace).name
    owner = lookup.model(tx, space, request.model)
    statement = sa.select(_HOLDER).where(_HOLDER.model_id == owner.id)
    if request.stage:
        key = names.stage_key(request.stage)
        held_once = sa.select(_HOLDER.stage).where(
            _HOLDER.model_id == owner.id, _HOLDER.stage_key == key
        )
        # A stage whose definition is gone still has its history.
        if tx.scalar(held_once.limit(1)) is None:
            lookup.stage(tx, space, request.stage)
        statement = statement.where(_HOLDER.stage_key == key)
    if request.at_revision:
        statement = statement.where(
            *_covers(_HOLDER.entered_revision, _HOLDER.left_revision, request.at_revision)
        )
    if request.HasField("at_time"):
        moment = messages.micros(request.at_time)
        statement = statement.where(*_covers(_HOLDER.entered_time, _HOLDER.left_time, moment))
    moment_key = request.at_time.ToJsonString() if request.HasField("at_time") else ""
    paged = pages.paginate(
        statement,
        [
            pages.Key(_HOLDER.entered_revision, descending=True),
            pages.Key(_HOLDER.stage_key),
            pages.Key(_HOLDER.number),
        ],
        token=request.page_token,
        size=request.page_size,
        query=("GetStageHistory", owner.id, request.stage, moment_key, request.at_revision),
    )
    rows, token = paged.split(tx.rows(paged.statement))
    return pb.GetStageHistoryResponse(
        tenures=[messages.tenure(row) for row in rows], next_page_token=token
    )


def _covers(since: Any, until: Any, point: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (since <= point, sa.or_(until.is_(None), until > point))
