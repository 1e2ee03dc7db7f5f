"""The way back: a stage gets the holders it had before its last forward change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from stagewire import errors, names, pb
from stagewire.service import moves
from stagewire.store import lookup, schema

if TYPE_CHECKING:
    from stagewire.store.transactions import Tx

_HOLDER = schema.StageHolder
_MOVE = schema.StageMove
_HELD_AT = sa.select(_HOLDER.number).where(
    _HOLDER.model_id == sa.bindparam("model_id"),
    _HOLDER.stage_key == sa.bindparam("stage_key"),
    _HOLDER.entered_revision <= sa.bindparam("revision"),
    sa.or_(_HOLDER.left_revision.is_(None), _HOLDER.left_revision > sa.bindparam("revision")),
)
_UNDO_OF = sa.select(_MOVE.undo).where(
    _MOVE.model_id == sa.bindparam("model_id"),
    _MOVE.stage_key == sa.bindparam("stage_key"),
    _MOVE.revision == sa.bindparam("revision"),
)


def rollback(tx: Tx, request: pb.RollbackStageRequest) -> pb.RollbackStageResponse:
    """Restore a stage's holders before its last forward change, walking on when called again."""
    space = names.namespace_or_default(request.namespace)
    owner = lookup.model_to_change(tx, space, request.model)
    defined = lookup.stages(tx, space)
    stage = lookup.stage(tx, space, request.stage, defined=defined)
    present = {
        r.number for r in tx.rows(moves.HOLDERS_OF_STAGES, model_id=owner.id, stages=[stage.key])
    }
    if present:
        moves.expect(lookup.version(tx, owner, max(present)), owner, request.expected_revision)
    target = _rollback_target(tx, owner, stage, present)
    play = moves.set_up(
        tx, owner, defined, stages=[stage.key], numbers=sorted(target.living | present)
    )
    play.board.restore(stage.key, target.living)
    moved = moves.apply(tx, play, undo={stage.key: target.undo})
    return pb.RollbackStageResponse(
        restored=[moved.versions[n] for n in sorted(target.living - present)],
        removed=[moved.versions[n] for n in sorted(present - target.living)],
        skipped_deleted=sorted(target.deleted),
        outcomes=moved.outcomes,
        restored_revision=target.revision,
    )


@dataclass(frozen=True, slots=True)
class _Target:
    revision: int
    undo: int | None
    living: set[int]
    deleted: set[int]


def _rollback_target(tx: Tx, owner: lookup.Row, stage: lookup.Row, present: set[int]) -> _Target:
    """Find the move to go back to: the nearest earlier one that would change anything."""
    place = {"model_id": owner.id, "stage_key": stage.key}
    subject = f"{owner.name}/{stage.name}"
    last = tx.row(moves.LAST_MOVE, **place)
    revision = last.undo if last else None
    while revision is not None:
        undo = tx.scalar(_UNDO_OF, **place, revision=revision)
        held = [row.number for row in tx.rows(_HELD_AT, **place, revision=revision)]
        rows = tx.rows(moves.VERSIONS, model_id=owner.id, numbers=held) if held else []
        living = {row.number for row in rows if not row.deleted}
        deleted = {row.number for row in rows if row.deleted}
        if deleted and not living:
            gone = ", ".join(str(number) for number in sorted(deleted))
            raise errors.precondition(
                "ROLLBACK_TARGET_DELETED",
                subject,
                f"stage {stage.name!r} of model {owner.name!r} held version {gone} before, which "
                "is deleted; undelete it, or promote another version",
            )
        if living and living != present:
            return _Target(revision, undo, living, deleted)
        revision = undo
    raise errors.precondition(
        "NOTHING_TO_ROLL_BACK",
        subject,
        f"stage {stage.name!r} of model {owner.name!r} had no other holders before",
    )
