"""`stagewire promote`, `transition` and `batch`: versions move between stages."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format

from stagewire import pb
from stagewire.cli import movements, texts
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

app = typer.Typer()

_DISPLACEMENTS = {
    Displace.KEEP: pb.DISPLACEMENT_KEEP,
    Displace.ARCHIVE: pb.DISPLACEMENT_ARCHIVE,
}


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
    session.show(answer, movements.BATCH)


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
    session.show(answer, movements.MOVE)


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
