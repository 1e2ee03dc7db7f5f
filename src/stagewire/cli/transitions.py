"""`stagewire promote`, `transition`, `batch` and `rollback`: versions move between stages."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format

from stagewire import pb
from stagewire.cli import texts, views
from stagewire.cli.arguments import (
    Displace,
    DisplaceChoice,
    DryRun,
    ExpectedRevision,
    LeaveOtherStages,
    ModelName,
    Reason,
    RequestId,
    StageName,
    VersionNumber,
    refuse,
)
from stagewire.cli.sessions import Session, command
from stagewire.cli.views import View
from stagewire.client.errors import StagewireError

app = typer.Typer()

_DISPLACEMENTS = {
    Displace.KEEP: pb.DISPLACEMENT_KEEP,
    Displace.ARCHIVE: pb.DISPLACEMENT_ARCHIVE,
}


def _effects(outcomes: Iterable[pb.StageOutcome]) -> list[tuple[str, str]]:
    found = list(outcomes)
    several = len({effect.model for effect in found}) > 1
    return [
        (f"{effect.model} {effect.stage}" if several else effect.stage, views.outcome(effect))
        for effect in found
    ]


def _displaced(versions: Iterable[pb.ModelVersion]) -> str:
    return views.words(
        f"version {version.version} (now {views.words(version.stages) or 'in no stage'})"
        for version in versions
    )


MOVE: View[pb.TransitionStageResponse] = View(
    plural="moves",
    name=lambda answer: str(answer.version.version),
    columns=(),
    title=lambda answer: f"{answer.version.model} version {answer.version.version}",
    details=lambda answer: (
        ("stages", views.words(answer.version.stages) or "none"),
        *_effects(answer.outcomes),
        ("displaced", _displaced(answer.displaced)),
        ("revision", _written(answer.revision)),
    ),
)

REMOVAL: View[pb.RemoveFromStageResponse] = View(
    plural="removals",
    name=lambda answer: str(answer.version.version),
    columns=(),
    title=lambda answer: f"{answer.version.model} version {answer.version.version}",
    details=lambda answer: (
        ("stages", views.words(answer.version.stages) or "none"),
        *_effects(answer.outcomes),
        ("revision", _written(answer.revision)),
    ),
)

BATCH: View[pb.BatchTransitionStagesResponse] = View(
    plural="batches",
    name=lambda answer: str(answer.revision),
    columns=(),
    details=lambda answer: (*_effects(answer.outcomes), ("revision", _written(answer.revision))),
)

ROLLBACK: View[pb.RollbackStageResponse] = View(
    plural="rollbacks",
    name=lambda answer: views.words(version.version for version in answer.restored),
    columns=(),
    details=lambda answer: (
        ("restored", _displaced(answer.restored)),
        ("removed", _displaced(answer.removed)),
        ("left out", views.words(f"version {n} (deleted)" for n in answer.skipped_deleted)),
        *_effects(answer.outcomes),
        ("holders of", f"revision {answer.restored_revision}"),
        ("revision", _written(answer.revision)),
    ),
)


@command(
    app,
    "promote",
    examples=[
        "stagewire promote churn 4 --stage Production --reason 'beat version 3 for a week'",
        "stagewire promote churn 4 --stage Production --dry-run",
        "stagewire promote churn 4 --stage Canary --displace keep -o json",
    ],
)
def promote(
    session: Session,
    model: ModelName,
    version: VersionNumber,
    *,
    stage: StageName,
    displace: DisplaceChoice = None,
    leave_other_stages: LeaveOtherStages = False,
    expected_revision: ExpectedRevision = 0,
    dry_run: DryRun = False,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Move a version into a stage; agents that follow the stage hear of it at once.

    What happens to the versions that hold the stage is the stage's own rule unless
    --displace says otherwise. A version keeps its other stages.
    """
    _move(
        session,
        pb.TransitionStageRequest(
            model=model,
            version=version,
            stage=stage,
            displace=_DISPLACEMENTS[displace] if displace else None,
            leave_other_stages=leave_other_stages,
            expected_revision=expected_revision,
            validate_only=dry_run,
            reason=reason,
            request_id=request_id,
        ),
    )


@command(
    app,
    "transition",
    examples=[
        "stagewire transition churn 3 --stage Archived --leave-other-stages",
        "stagewire transition churn 3 --stage None   # leave every stage",
    ],
)
def transition(
    session: Session,
    model: ModelName,
    version: VersionNumber,
    *,
    stage: StageName,
    displace: DisplaceChoice = None,
    leave_other_stages: LeaveOtherStages = False,
    expected_revision: ExpectedRevision = 0,
    dry_run: DryRun = False,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Move a version into any stage; `promote` under the name that the API gives it.

    The stage None means none: the version leaves every stage.
    """
    promote(
        session,
        model,
        version,
        stage=stage,
        displace=displace,
        leave_other_stages=leave_other_stages,
        expected_revision=expected_revision,
        dry_run=dry_run,
        reason=reason,
        request_id=request_id,
    )


@command(
    app,
    "batch",
    examples=[
        "stagewire batch moves.yaml --reason 'blue/green swap'",
        "echo '[{model: churn, version: 4, stage: Canary}]' | stagewire batch - --dry-run",
    ],
)
def batch(
    session: Session,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="YAML or JSON: a list of moves with model, version, stage, and as needed displace,"
            " leave_other_stages, expected_revision; - reads standard input.",
            show_default=False,
        ),
    ],
    *,
    dry_run: DryRun = False,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Make several moves in one revision, all or none: nobody sees a swap half done."""
    answer = session.client.stages.BatchTransitionStages(
        pb.BatchTransitionStagesRequest(
            transitions=_moves(file),
            validate_only=dry_run,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer, BATCH)


@command(
    app,
    "rollback",
    examples=[
        "stagewire rollback churn --stage Production",
        "stagewire rollback churn --stage Production --yes --reason 'error rate doubled'",
    ],
)
def rollback(
    session: Session,
    model: ModelName,
    *,
    stage: StageName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't show and ask first.")] = False,
    expected_revision: ExpectedRevision = 0,
    dry_run: DryRun = False,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Restore the holders that a stage had before its last change.

    Shows what will change and asks, unless --yes is given. Called again, it walks
    further back.
    """
    request = pb.RollbackStageRequest(
        model=model,
        stage=stage,
        expected_revision=expected_revision,
        validate_only=dry_run,
        reason=reason,
        request_id=request_id,
    )
    if not yes and not dry_run:
        _agree(session, request)
    session.show(session.client.stages.RollbackStage(request), ROLLBACK)


def _move(session: Session, request: pb.TransitionStageRequest) -> None:
    answer = session.client.stages.TransitionStage(request)
    for effect in answer.outcomes:
        entered = answer.version.version in effect.entered or effect.stage in answer.version.stages
        if (
            effect.stage.casefold() == request.stage.casefold()
            and entered
            and effect.primary_version != answer.version.version
        ):
            texts.remark(
                f"warning: deployments of {effect.stage} run version {effect.primary_version}, the"
                f" highest-numbered holder, not version {answer.version.version}; without"
                " `--displace keep` it would leave"
            )
    session.show(answer, MOVE)


def _agree(session: Session, request: pb.RollbackStageRequest) -> None:
    """Show on standard error what a rollback would do, and ask; refuses without an answer.

    The request is then bound to the present primary's revision: what is done is what was
    shown, also when somebody else moved the stage in between.
    """
    request.expected_revision = request.expected_revision or _revision_of_primary(session, request)
    rehearsal = pb.RollbackStageRequest()
    rehearsal.CopyFrom(request)
    rehearsal.validate_only = True
    rehearsal.request_id = ""
    for effect in session.client.stages.RollbackStage(rehearsal).outcomes:
        texts.remark(f"{effect.stage} of {effect.model} would be: {views.outcome(effect)}")
    try:
        agreed = typer.confirm("Roll back?", err=True)
    except typer.Abort:
        sys.stderr.write("\n")
        refuse("--yes", "nobody answered; give --yes to roll back without being asked")
    if not agreed:
        texts.remark("nothing was changed")
        raise typer.Exit(1)


def _revision_of_primary(session: Session, request: pb.RollbackStageRequest) -> int:
    try:
        answer = session.client.registry.ResolveModelVersion(
            pb.ResolveModelVersionRequest(model=request.model, stage=request.stage)
        )
    except StagewireError as error:
        if error.reason != "STAGE_EMPTY":
            raise
        return 0
    return answer.version.revision


def _moves(file: Path) -> list[pb.Transition]:
    import yaml

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        listed = yaml.safe_load(text)
    except OSError as error:
        refuse("FILE", f"{str(file)!r} can't be read: {error.strerror}")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        refuse("FILE", f"{str(file)!r} is neither YAML nor JSON: {error}")
    if isinstance(listed, dict):
        listed = listed.get("transitions")
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        refuse("FILE", "write a list of moves, each with model, version and stage")
    return [_transition(entry, place) for place, entry in enumerate(listed, start=1)]


def _transition(entry: Any, place: int) -> pb.Transition:
    try:
        written = dict(entry)
        if word := written.get("displace"):
            written["displace"] = _DISPLACEMENTS.get(word, word)
        return json_format.ParseDict(written, pb.Transition())
    except (json_format.ParseError, TypeError, ValueError) as error:
        refuse("FILE", f"move {place} is wrong: {error}")


def _written(revision: int) -> str:
    return str(revision) if revision else "nothing was written"
