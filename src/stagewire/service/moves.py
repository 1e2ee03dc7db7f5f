"""Stages as a board with rows under it: laid out, played on by the rules, written back.

Holder sets are intervals in `stage_holders`. Each change of what a (model, stage) holds is a row
of `stage_moves` with the move that a rollback of it goes back to: a forward change undoes to the
move it follows, a rollback to move X undoes to what X undid to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from stagewire import names, pb, rights
from stagewire.service import history
from stagewire.service import states as versions
from stagewire.service.lifecycle import Board, Entry, Rules
from stagewire.store import lookup, schema

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from stagewire.store.transactions import Tx

_HOLDER = schema.StageHolder
_MOVE = schema.StageMove
HOLDERS_OF_STAGES = sa.select(_HOLDER).where(
    _HOLDER.model_id == sa.bindparam("model_id"),
    _HOLDER.stage_key.in_(sa.bindparam("stages", expanding=True)),
    _HOLDER.left_revision.is_(None),
)
_STAGES_OF_NUMBERS = sa.select(_HOLDER).where(
    _HOLDER.model_id == sa.bindparam("model_id"),
    _HOLDER.number.in_(sa.bindparam("numbers", expanding=True)),
    _HOLDER.left_revision.is_(None),
)
_PRIMARIES = (
    sa.select(_HOLDER.stage_key, sa.func.max(_HOLDER.number).label("number"))
    .where(
        _HOLDER.model_id == sa.bindparam("model_id"),
        _HOLDER.stage_key.in_(sa.bindparam("stages", expanding=True)),
        _HOLDER.left_revision.is_(None),
    )
    .group_by(_HOLDER.stage_key)
)
LAST_MOVE = (
    sa.select(_MOVE.revision, _MOVE.undo)
    .where(_MOVE.model_id == sa.bindparam("model_id"), _MOVE.stage_key == sa.bindparam("stage_key"))
    .order_by(_MOVE.revision.desc())
    .limit(1)
)
VERSIONS = (
    sa.select(schema.Version)
    .where(
        schema.Version.model_id == sa.bindparam("model_id"),
        schema.Version.number.in_(sa.bindparam("numbers", expanding=True)),
    )
    .order_by(schema.Version.number)
)


@dataclass(slots=True)
class Moved:
    """What a change of stages came to: versions as they are now, and each stage's outcome."""

    versions: dict[int, pb.ModelVersion] = field(default_factory=dict)
    outcomes: list[pb.StageOutcome] = field(default_factory=list)


@dataclass(slots=True)
class Play:
    """A board with the rows under it."""

    owner: lookup.Row
    defined: dict[str, lookup.Row]
    board: Board
    since: dict[tuple[str, int], int]

    def stages_before(self, number: int) -> list[str]:
        """Name the stages that a version held, in the namespace's order."""
        return [row.name for key, row in self.defined.items() if (key, number) in self.board.before]


def end(tx: Tx, owner: lookup.Row, number: int, before: pb.MatchKeys) -> None:
    """Take a version that is being deleted out of every stage, and record its deletion."""
    defined = lookup.stages(tx, owner.namespace)
    play = set_up(tx, owner, defined, stages=(), numbers=[number])
    play.board.leave_all(number)
    apply(tx, play, deleted={number: before})


def set_up(
    tx: Tx,
    owner: lookup.Row,
    defined: dict[str, lookup.Row],
    *,
    stages: Collection[str],
    numbers: Collection[int],
) -> Play:
    """Lay out the holders of some stages, and every stage of these and of some versions."""
    involved = set(numbers)
    if stages:
        held = tx.rows(HOLDERS_OF_STAGES, model_id=owner.id, stages=list(stages))
        involved |= {row.number for row in held}
    rows = tx.rows(_STAGES_OF_NUMBERS, model_id=owner.id, numbers=sorted(involved))
    rules = {
        key: Rules(
            name=row.name,
            active=row.active,
            occupancy=row.occupancy,
            displace_to=names.stage_key(row.displace_to),
        )
        for key, row in defined.items()
    }
    before = {(r.stage_key, r.number): Entry(r.cause, r.displaced_from) for r in rows}
    return Play(
        owner=owner,
        defined=defined,
        board=Board(owner.name, rules, before),
        since={(r.stage_key, r.number): r.entered_revision for r in rows},
    )


def apply(
    tx: Tx,
    play: Play,
    *,
    undo: Mapping[str, int | None] | None = None,
    deleted: Mapping[int, pb.MatchKeys] | None = None,
) -> Moved:
    """Write what the board says changed, and record it."""
    board, owner = play.board, play.owner
    entered, left = board.entered(), board.left()
    touched = [key for key in play.defined if any(key == s for s, *_ in (*entered, *left))]
    numbers = sorted({n for _, n, *_ in entered} | {n for _, n in left} | set(deleted or ()))
    if not numbers:
        return Moved()
    _demand(tx, play, deleting=bool(deleted))
    was = _primaries(tx, owner, touched)
    _write_moves(tx, play, touched, undo or {})
    for number in numbers:
        tx.update(
            schema.Version,
            {"model_id": owner.id, "number": number},
            revision=tx.revision,
            update_time=tx.time,
            mlflow_time=tx.time,
        )
    tx.update(schema.Model, {"id": owner.id}, mlflow_time=tx.time)
    now = states(tx, owner, numbers)
    held = {names.stage_key(stage) for state in now.values() for stage in state.stages}
    primaries = _primaries(tx, owner, [k for k in play.defined if k in held or k in touched])
    for number, state in now.items():
        _record(tx, play, state, primaries, (deleted or {}).get(number))
    _record_new_primaries(tx, play, touched, was=was, now=primaries, recorded=set(numbers))
    outcomes = [
        pb.StageOutcome(
            model=owner.name,
            stage=play.defined[key].name,
            primary_version=primaries.get(key, 0),
            entered=[n for stage, n, _ in entered if stage == key],
            left=[n for stage, n in left if stage == key],
        )
        for key in touched
    ]
    return Moved(now, outcomes)


def _demand(tx: Tx, play: Play, *, deleting: bool) -> None:
    """Refuse what moves versions where the caller may not.

    Whoever may move into a stage may have it do what its definition says: displace its holders,
    and bring them back. Everything else that leaves an active stage, and whatever enters any, is
    the caller's own doing. Stages that are not active keep nobody: they are left along with
    others, or by deletion; but to do nothing else is to move out of them.
    """
    if tx.rights.everything:
        return
    board = play.board
    left = {key for key, _ in board.left()}
    own = {key for key, _, entry in board.entered() if not board.is_defined(key, entry)}
    own |= {key for key in left if board.rules[key].active}
    for key in sorted(own if own or deleting else left):
        tx.rights.demand(
            rights.MOVE, play.owner.namespace, play.owner.name, stage=key, caller=tx.actor
        )


def _write_moves(tx: Tx, play: Play, touched: list[str], undo: Mapping[str, int | None]) -> None:
    model_id = play.owner.id
    for key in touched:
        last = tx.row(LAST_MOVE, model_id=model_id, stage_key=key)
        back = undo.get(key, last.revision if last else None)
        tx.insert(
            schema.StageMove, model_id=model_id, stage_key=key, revision=tx.revision, undo=back
        )
    for key, number in play.board.left():
        tx.update(
            _HOLDER,
            {
                "model_id": model_id,
                "stage_key": key,
                "number": number,
                "entered_revision": play.since[key, number],
            },
            left_revision=tx.revision,
            left_time=tx.time,
            left_by=tx.actor,
            left_reason=tx.reason,
        )
    for key, number, entry in play.board.entered():
        tx.insert(
            _HOLDER,
            model_id=model_id,
            stage_key=key,
            number=number,
            entered_revision=tx.revision,
            stage=play.defined[key].name,
            cause=entry.cause,
            displaced_from=entry.displaced_from,
            entered_time=tx.time,
            entered_by=tx.actor,
            entered_reason=tx.reason,
            left_revision=None,
            left_time=None,
            left_by="",
            left_reason="",
        )


def _record(
    tx: Tx,
    play: Play,
    state: pb.ModelVersion,
    primaries: Mapping[str, int],
    deleted_from: pb.MatchKeys | None,
) -> None:
    before = play.stages_before(state.version)
    entered = [stage for stage in state.stages if stage not in before]
    left = [stage for stage in before if stage not in state.stages]
    shown = [key for key, row in play.defined.items() if row.name in {*state.stages, *left}]
    gone = deleted_from is not None
    history.record_version(
        tx,
        pb.CHANGE_KIND_VERSION_DELETED if gone else pb.CHANGE_KIND_STAGES_CHANGED,
        state,
        before=deleted_from
        or history.keys(
            state.namespace, models=[state.model], stages=before, aliases=state.aliases
        ),
        after=None if gone else history.version_keys(state),
        entered=entered,
        left=left,
        primaries=_primary_messages(play, shown, primaries),
    )


def _record_new_primaries(
    tx: Tx,
    play: Play,
    touched: list[str],
    *,
    was: Mapping[str, int],
    now: Mapping[str, int],
    recorded: set[int],
) -> None:
    """Record the versions that others' leaving made primary, for agents that follow one."""
    risen = sorted(
        {now[key] for key in touched if now.get(key, 0) not in (0, was.get(key, 0))} - recorded
    )
    for number, state in states(tx, play.owner, risen).items() if risen else ():
        found = history.version_keys(state)
        held = [key for key, row in play.defined.items() if row.name in state.stages]
        current = {**_primaries(tx, play.owner, held), **now}
        history.record_version(
            tx,
            pb.CHANGE_KIND_STAGE_PRIMARY_CHANGED,
            state,
            before=found,
            after=found,
            primaries=_primary_messages(play, held, current),
        )
        recorded.add(number)


def _primary_messages(
    play: Play, keys: Collection[str], primaries: Mapping[str, int]
) -> list[pb.StagePrimary]:
    return [
        pb.StagePrimary(stage=play.defined[key].name, version=primaries.get(key, 0)) for key in keys
    ]


def _primaries(tx: Tx, owner: lookup.Row, stages: Collection[str]) -> dict[str, int]:
    if not stages:
        return {}
    rows = tx.rows(_PRIMARIES, model_id=owner.id, stages=list(stages))
    return {row.stage_key: row.number for row in rows}


def states(tx: Tx, owner: lookup.Row, numbers: Collection[int]) -> dict[int, pb.ModelVersion]:
    """Read whole versions of a model by number."""
    rows = tx.rows(VERSIONS, model_id=owner.id, numbers=list(numbers))
    return {state.version: state for state in versions.of(tx, {owner.id: owner}, rows)}


def state(tx: Tx, owner: lookup.Row, number: int) -> pb.ModelVersion:
    """Read one whole version."""
    return states(tx, owner, [number])[number]


def expect(version: lookup.Row, owner: lookup.Row, expected: int) -> None:
    """Refuse REVISION_MISMATCH unless the version is at the revision that the caller saw."""
    what = f"version {version.number} of model {owner.name!r}"
    lookup.expect(expected, version.revision, what)
