"""Moves of versions through stages, and the way back.

Holder sets are intervals in `stage_holders`. Each change of what a (model, stage) holds is a row
of `stage_moves` with the move that a rollback of it goes back to: a forward change undoes to the
move it follows, a rollback to move X undoes to what X undid to. So a rollback called again walks
further back, and a promotion after a rollback goes back to the set that the rollback restored.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, names, pb
from stagewire.service import history, messages, states
from stagewire.service.lifecycle import Board, Entry, Rules
from stagewire.store import lookup, pages, schema

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from stagewire.store.transactions import Tx

NONE = "none"

_HOLDER = schema.StageHolder
_MOVE = schema.StageMove
_HOLDERS_OF_STAGES = sa.select(_HOLDER).where(
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
_HELD_AT = sa.select(_HOLDER.number).where(
    _HOLDER.model_id == sa.bindparam("model_id"),
    _HOLDER.stage_key == sa.bindparam("stage_key"),
    _HOLDER.entered_revision <= sa.bindparam("revision"),
    sa.or_(_HOLDER.left_revision.is_(None), _HOLDER.left_revision > sa.bindparam("revision")),
)
_LAST_MOVE = (
    sa.select(_MOVE.revision, _MOVE.undo)
    .where(_MOVE.model_id == sa.bindparam("model_id"), _MOVE.stage_key == sa.bindparam("stage_key"))
    .order_by(_MOVE.revision.desc())
    .limit(1)
)
_UNDO_OF = sa.select(_MOVE.undo).where(
    _MOVE.model_id == sa.bindparam("model_id"),
    _MOVE.stage_key == sa.bindparam("stage_key"),
    _MOVE.revision == sa.bindparam("revision"),
)
_VERSIONS = (
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
    version = moved.versions.pop(request.version, None) or _state(tx, owner, request.version)
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
    moves: dict[str, list[tuple[str, pb.Transition]]] = {}
    for index, move in enumerate(request.transitions):
        place = moves.setdefault(owners[move.model].id, [])
        place.append((f"transitions[{index}]: ", move))
    answer = pb.BatchTransitionStagesResponse()
    for owner in sorted({o.id: o for o in owners.values()}.values(), key=lambda o: str(o.name)):
        moved = _play(tx, owner, moves[owner.id])
        answer.versions.extend(moved.versions.values())
        answer.outcomes.extend(moved.outcomes)
    return answer


def remove(tx: Tx, request: pb.RemoveFromStageRequest) -> pb.RemoveFromStageResponse:
    """Take a version out of a stage."""
    space = names.namespace_or_default(request.namespace)
    owner = lookup.model_to_change(tx, space, request.model)
    version = lookup.version_to_change(tx, owner, request.version)
    _expect(version, owner, request.expected_revision)
    defined = lookup.stages(tx, space)
    stage = lookup.stage(tx, space, request.stage, defined=defined)
    play = _set_up(tx, owner, defined, stages=[stage.key], numbers=[version.number])
    play.board.leave(version.number, stage.key)
    moved = _apply(tx, play)
    return pb.RemoveFromStageResponse(
        version=moved.versions.get(version.number) or _state(tx, owner, version.number),
        outcomes=moved.outcomes,
    )


def rollback(tx: Tx, request: pb.RollbackStageRequest) -> pb.RollbackStageResponse:
    """Restore a stage's holders before its last forward change, walking on when called again."""
    space = names.namespace_or_default(request.namespace)
    owner = lookup.model_to_change(tx, space, request.model)
    defined = lookup.stages(tx, space)
    stage = lookup.stage(tx, space, request.stage, defined=defined)
    present = {r.number for r in tx.rows(_HOLDERS_OF_STAGES, model_id=owner.id, stages=[stage.key])}
    if present:
        _expect(lookup.version(tx, owner, max(present)), owner, request.expected_revision)
    target = _rollback_target(tx, owner, stage, present)
    play = _set_up(tx, owner, defined, stages=[stage.key], numbers=sorted(target.living | present))
    play.board.restore(stage.key, target.living)
    moved = _apply(tx, play, undo={stage.key: target.undo})
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
    last = tx.row(_LAST_MOVE, **place)
    revision = last.undo if last else None
    while revision is not None:
        undo = tx.scalar(_UNDO_OF, **place, revision=revision)
        held = [row.number for row in tx.rows(_HELD_AT, **place, revision=revision)]
        rows = tx.rows(_VERSIONS, model_id=owner.id, numbers=held) if held else []
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


def end(tx: Tx, owner: lookup.Row, number: int, before: pb.MatchKeys) -> None:
    """Take a version that is being deleted out of every stage, and record its deletion."""
    defined = lookup.stages(tx, owner.namespace)
    play = _set_up(tx, owner, defined, stages=(), numbers=[number])
    play.board.leave_all(number)
    _apply(tx, play, deleted={number: before})


def _play(tx: Tx, owner: lookup.Row, moves: list[tuple[str, pb.Transition]]) -> Moved:
    """Play moves of one model in their order; the prefix names them in refusals."""
    defined = lookup.stages(tx, owner.namespace)
    keys: list[str] = []
    for prefix, move in moves:
        with _naming(prefix):
            keys.append(_checked(tx, owner, move, defined))
    play = _set_up(
        tx,
        owner,
        defined,
        stages=sorted({key for key in keys if key != NONE}),
        numbers=sorted({move.version for _, move in moves}),
    )
    for key, (prefix, move) in zip(keys, moves, strict=True):
        if key == NONE:
            play.board.leave_all(move.version)
            continue
        with _naming(prefix):
            play.board.enter(move.version, key, move.displace, leave_others=move.leave_other_stages)
    play.board.settle()
    return _apply(tx, play)


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
    _expect(version, owner, move.expected_revision)
    key = names.stage_key(move.stage)
    if key == NONE:
        return key
    lookup.stage_in(defined, move.stage)
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


def _set_up(
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
        held = tx.rows(_HOLDERS_OF_STAGES, model_id=owner.id, stages=list(stages))
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


def _apply(
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
    was = _primaries(tx, owner, touched)
    _write_moves(tx, play, touched, undo or {})
    for number in numbers:
        tx.update(
            schema.Version,
            {"model_id": owner.id, "number": number},
            revision=tx.revision,
            update_time=tx.time,
        )
    now = _states(tx, owner, numbers)
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


def _write_moves(tx: Tx, play: Play, touched: list[str], undo: Mapping[str, int | None]) -> None:
    model_id = play.owner.id
    for key in touched:
        last = tx.row(_LAST_MOVE, model_id=model_id, stage_key=key)
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
    for number, state in _states(tx, play.owner, risen).items() if risen else ():
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


def _states(tx: Tx, owner: lookup.Row, numbers: Collection[int]) -> dict[int, pb.ModelVersion]:
    rows = tx.rows(_VERSIONS, model_id=owner.id, numbers=list(numbers))
    return {state.version: state for state in states.of(tx, {owner.id: owner}, rows)}


def _state(tx: Tx, owner: lookup.Row, number: int) -> pb.ModelVersion:
    return _states(tx, owner, [number])[number]


def _expect(version: lookup.Row, owner: lookup.Row, expected: int) -> None:
    what = f"version {version.number} of model {owner.name!r}"
    lookup.expect(expected, version.revision, what)


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
