"""Imported history: who held which stage and alias when, before this registry's log began.

Steps become negative revisions, so what is imported comes before all that happens here, and a
rollback walks back into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, names, pb
from stagewire.service import exports, history, rows
from stagewire.service.arrivals import missing
from stagewire.service.states import of as states_of
from stagewire.store import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stagewire.service.arrivals import Batch
    from stagewire.service.exports import Steps

_EXCLUSIVE = (pb.STAGE_OCCUPANCY_EXCLUSIVE, pb.STAGE_OCCUPANCY_EXCLUSIVE_REFUSING)
_HOLDER, _MOVE, _ALIAS = schema.StageHolder, schema.StageMove, schema.AliasHolder
_WENT_ON = "history went on here since then; keep what is here by skipping"

_MOVE_AT = sa.select(_MOVE).where(
    _MOVE.model_id == sa.bindparam("model_id"),
    _MOVE.stage_key == sa.bindparam("stage_key"),
    _MOVE.revision == sa.bindparam("revision"),
)
_HOLDER_AT = sa.select(_HOLDER).where(
    _HOLDER.model_id == sa.bindparam("model_id"),
    _HOLDER.stage_key == sa.bindparam("stage_key"),
    _HOLDER.number == sa.bindparam("number"),
    _HOLDER.entered_revision == sa.bindparam("revision"),
)
_HOLDERS_NOW = sa.select(_HOLDER.number).where(
    _HOLDER.model_id == sa.bindparam("model_id"),
    _HOLDER.stage_key == sa.bindparam("stage_key"),
    _HOLDER.left_revision.is_(None),
)
_ALIAS_AT = sa.select(_ALIAS).where(
    _ALIAS.model_id == sa.bindparam("model_id"),
    _ALIAS.alias == sa.bindparam("alias"),
    _ALIAS.set_revision == sa.bindparam("revision"),
)
_ALIAS_NOW = sa.select(_ALIAS.number).where(
    _ALIAS.model_id == sa.bindparam("model_id"),
    _ALIAS.alias == sa.bindparam("alias"),
    _ALIAS.unset_revision.is_(None),
)


class _Pasts:
    """What is known of the history of each model of a batch, before it is added to."""

    def __init__(self, known: Mapping[str, Steps]) -> None:
        self.known = known
        self._revisions = {
            model_id: {step: revision for revision, step in steps.of.items()}
            for model_id, steps in known.items()
        }

    def revision(self, model_id: str, step: int) -> int:
        """Give the revision under which a step is, or will be, kept."""
        before = exports.BEFORE_THE_LOG + step
        return self._revisions.get(model_id, {}).get(step, before)

    def places(self, model_id: str) -> Callable[[int], int]:
        """Give what turns a step of a model into a revision."""
        return lambda step: self.revision(model_id, step)

    def step(self, model_id: str, revision: int | None) -> int:
        """Give the step of a revision that is kept."""
        if revision is None:
            return 0
        known = self.known[model_id].of
        return known.get(revision, revision - exports.BEFORE_THE_LOG)

    def lived(self, model_id: str) -> bool:
        """Tell whether anything happened here since."""
        return self.known[model_id].lived


def take_in(batch: Batch) -> None:
    """Write the moves and tenures of a batch."""
    kinds = ("move", "tenure", "alias")
    ids = sorted(
        {m.model_id for kind in kinds for _, m in batch.records[kind]} & batch.owners.keys()
    )
    if not ids and not any(batch.records[kind] for kind in kinds):
        return
    past = _Pasts(exports.steps(batch.tx, ids) if ids else {})
    held = [(r.model_id, r.version) for kind in kinds[1:] for _, r in batch.records[kind]]
    present = batch.present(place for place in held if place[0] in batch.owners)
    _remember(batch, present)
    for index, move in batch.records["move"]:
        if batch.owner(index, "move", move.model_id) is not None:
            _move(batch, past, index, move)
    for kind, write in (("tenure", _tenure), ("alias", _alias)):
        for index, record in batch.records[kind]:
            place = (record.model_id, record.version)
            if batch.goes_with_skipped(index, place):
                continue
            if (
                batch.owner(index, kind, record.model_id) is not None
                and (version := batch.version(index, kind, place, present)) is not None
            ):
                if version.deleted and not _end_of(record):
                    raise errors.invalid(
                        f"records[{index}].{kind}",
                        "a deleted version holds nothing; say when it ended",
                    )
                write(batch, past, index, record)


def _remember(batch: Batch, present: Mapping[tuple[str, int], Any]) -> None:
    """Note what versions that were there are found by, before they get stages and aliases."""
    rows = [row for place, row in present.items() if place not in batch.new_versions]
    for state in states_of(batch.tx, batch.owners, rows):
        batch.before[state.model_id, state.version] = history.version_keys(state)


def _move(batch: Batch, past: _Pasts, index: int, wanted: pb.StageMoveRecord) -> None:
    tx, model_id = batch.tx, wanted.model_id
    place = {
        "model_id": model_id,
        "stage_key": names.stage_key(wanted.stage),
        "revision": past.revision(model_id, wanted.step),
    }
    row = tx.row(_MOVE_AT, **place)
    subject = f"a move of stage {wanted.stage!r} of model {batch.owners[model_id].name!r}"
    if row is not None:
        if past.step(model_id, row.undo) == wanted.undo_step:
            batch.unchanged += 1
        else:
            batch.conflict(index, subject, "is here with another move to go back to")
    elif past.lived(model_id):
        batch.conflict(index, subject, _WENT_ON)
    else:
        tx.insert(_MOVE, **rows.stage_move(wanted, past.places(model_id)))
        batch.imported += 1


def _end_of(record: Any) -> int:
    step: int = record.left_step if hasattr(record, "left_step") else record.unset_step
    return step


def _tenure(batch: Batch, past: _Pasts, index: int, wanted: pb.StageTenureRecord) -> None:
    tx, key, owner = batch.tx, names.stage_key(wanted.stage), batch.owners[wanted.model_id]
    entered = past.revision(owner.id, wanted.entered_step)
    place = {"model_id": owner.id, "stage_key": key, "number": wanted.version}
    subject = f"version {wanted.version} of model {owner.name!r} in stage {wanted.stage!r}"
    row = tx.row(_HOLDER_AT, **place, revision=entered)
    if row is not None:
        _compare(batch, index, subject, wanted, exports.stage_tenure(row, past.known[owner.id]))
        return
    _check(f"records[{index}].tenure", wanted, "entered", "left")
    stays = not wanted.left_step
    if past.lived(owner.id):
        batch.conflict(index, subject, _WENT_ON)
        return
    if stays and (problem := _full(batch, index, wanted, key)):
        batch.conflict(index, subject, problem)
        return
    tx.insert(_HOLDER, **rows.stage_tenure(wanted, past.places(owner.id), now=tx.time))
    batch.imported += 1
    if stays:
        batch.moved[owner.id, wanted.version] = None
        batch.staged.add((owner.id, wanted.version))


def _full(batch: Batch, index: int, wanted: pb.StageTenureRecord, key: str) -> str:
    """Say why a version can't be in a stage now, or nothing. Refuses STAGE_NOT_FOUND."""
    owner = batch.owners[wanted.model_id]
    stage = batch.defined[owner.namespace].get(key)
    if stage is None:
        if batch.lenient:
            return ""
        raise missing(
            "STAGE_NOT_FOUND",
            f"records[{index}].tenure.stage",
            f"there is no stage {wanted.stage!r} in namespace {owner.namespace!r}; create it first",
        )
    held = {r.number for r in batch.tx.rows(_HOLDERS_NOW, model_id=owner.id, stage_key=key)}
    if wanted.version in held:
        return "it is in that stage already, by another entry"
    if held and stage.occupancy in _EXCLUSIVE:
        return f"the stage takes one version, and holds {max(held)}; make it shared, or skip"
    return ""


def _alias(batch: Batch, past: _Pasts, index: int, wanted: pb.AliasTenureRecord) -> None:
    tx, owner = batch.tx, batch.owners[wanted.model_id]
    set_at = past.revision(owner.id, wanted.set_step)
    place = {"model_id": owner.id, "alias": wanted.alias}
    subject = f"alias {wanted.alias!r} of model {owner.name!r}"
    row = tx.row(_ALIAS_AT, **place, revision=set_at)
    if row is not None:
        _compare(batch, index, subject, wanted, exports.alias_tenure(row, past.known[owner.id]))
        return
    names.check_alias(wanted.alias, f"records[{index}].alias.alias")
    _check(f"records[{index}].alias", wanted, "set", "unset")
    lasts = not wanted.unset_step
    if past.lived(owner.id):
        batch.conflict(index, subject, _WENT_ON)
        return
    if lasts and (number := tx.scalar(_ALIAS_NOW, **place)) is not None:
        batch.conflict(index, subject, f"is on version {number} here; skip it, or move it there")
        return
    tx.insert(_ALIAS, **rows.alias_tenure(wanted, past.places(owner.id), now=tx.time))
    batch.imported += 1
    if lasts:
        batch.moved[owner.id, wanted.version] = None


def _compare(batch: Batch, index: int, subject: str, wanted: Any, found: Any) -> None:
    asked = type(wanted)()
    asked.CopyFrom(wanted)
    if isinstance(asked, pb.StageTenureRecord):
        asked.cause = asked.cause or pb.STAGE_ENTRY_CAUSE_TRANSITION
    for name in ("entered_time", "set_time"):
        if name in asked.DESCRIPTOR.fields_by_name and not asked.HasField(name):
            getattr(asked, name).CopyFrom(getattr(found, name))
    if asked == found:
        batch.unchanged += 1
    else:
        batch.conflict(index, subject, f"is otherwise here; {_WENT_ON}")


def _check(path: str, wanted: Any, begun: str, ended: str) -> None:
    """Refuse times that could not have been."""
    begin, end = getattr(wanted, f"{begun}_step"), getattr(wanted, f"{ended}_step")
    if end and end <= begin:
        raise errors.invalid(path, "ends before it begins")
    if end and not all(wanted.HasField(f"{when}_time") for when in (begun, ended)):
        raise errors.invalid(path, f"has ended, and needs {begun}_time and {ended}_time")
