"""`stagewire rollback`: the holders before the last change come back."""

import sys
from typing import Annotated

import typer

from stagewire import pb
from stagewire.cli import movements, texts
from stagewire.cli.arguments import (
    DryRun,
    ExpectedRevision,
    ModelName,
    Reason,
    RequestId,
    StageName,
    refuse,
)
from stagewire.cli.sessions import Session, command
from stagewire.client.errors import StagewireError

app = typer.Typer()


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
    session.show(session.client.stages.RollbackStage(request), movements.ROLLBACK)


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
        texts.remark(f"{effect.stage} of {effect.model} would be: {movements.outcome(effect)}")
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
