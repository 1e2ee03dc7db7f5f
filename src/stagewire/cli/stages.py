"""`stagewire stage`: define the lifecycle, see who held a stage when, take versions out."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from stagewire import pb
from stagewire.cli import output, paging, views
from stagewire.cli.arguments import (
    LARGEST_REVISION,
    Description,
    DryRun,
    ExpectedRevision,
    Limit,
    ModelName,
    NewDescription,
    OfStage,
    Reason,
    RequestId,
    StageName,
    VersionNumber,
    moment,
    refuse,
)
from stagewire.cli.movements import REMOVAL
from stagewire.cli.sessions import Session, command

app = typer.Typer()


class Occupancy(StrEnum):
    """Whether holders share a stage, and what an entry does to the present ones."""

    SHARED = "shared"
    DISPLACING = "displacing"
    EXCLUSIVE = "exclusive"
    EXCLUSIVE_REFUSING = "exclusive-refusing"


_OCCUPANCIES = {
    Occupancy.SHARED: pb.STAGE_OCCUPANCY_SHARED,
    Occupancy.DISPLACING: pb.STAGE_OCCUPANCY_DISPLACING,
    Occupancy.EXCLUSIVE: pb.STAGE_OCCUPANCY_EXCLUSIVE,
    Occupancy.EXCLUSIVE_REFUSING: pb.STAGE_OCCUPANCY_EXCLUSIVE_REFUSING,
}

Name = Annotated[
    str, typer.Argument(metavar="STAGE", help="Name of the stage.", show_default=False)
]
OccupancyChoice = Annotated[
    Occupancy | None,
    typer.Option(
        "--occupancy",
        help="Whether holders share it; in all but `shared`, an entry acts on those present.",
        show_default=False,
    ),
]
DisplaceTo = Annotated[
    str | None,
    typer.Option(
        "--displace-to",
        metavar="STAGE",
        help="Where displaced versions go when no active stage holds them.",
        show_default=False,
    ),
]
Position = Annotated[
    int | None,
    typer.Option(
        "--position", min=0, max=2**31 - 1, help="Place in the order.", show_default=False
    ),
]


@command(
    app,
    "create",
    examples=[
        "stagewire stage create Canary --active --occupancy exclusive --displace-to Archived",
        "stagewire stage create Shadow --position 5",
    ],
)
def create(
    session: Session,
    stage: Name,
    *,
    description: Description = "",
    position: Position = None,
    active: Annotated[
        bool, typer.Option("--active/--inactive", help="Whether a version in it is in use.")
    ] = False,
    occupancy: OccupancyChoice = None,
    displace_to: DisplaceTo = None,
    dry_run: DryRun = False,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Define a stage; it comes last unless it is given a position."""
    answer = session.client.stages.CreateStage(
        pb.CreateStageRequest(
            stage=pb.Stage(
                name=stage,
                description=description,
                position=position,
                active=active,
                occupancy=_OCCUPANCIES[occupancy] if occupancy else None,
                displace_to=displace_to,
            ),
            validate_only=dry_run,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.stage, views.STAGE)


@command(
    app, "update", examples=["stagewire stage update Staging --occupancy shared --displace-to ''"]
)
def update(
    session: Session,
    stage: Name,
    *,
    description: NewDescription = None,
    position: Position = None,
    active: Annotated[
        bool | None,
        typer.Option(
            "--active/--inactive", help="Whether a version in it is in use.", show_default=False
        ),
    ] = None,
    occupancy: OccupancyChoice = None,
    displace_to: DisplaceTo = None,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Change a stage's definition; what holds it stays."""
    changes: dict[str, Any] = {
        "description": description,
        "position": position,
        "active": active,
        "occupancy": _OCCUPANCIES[occupancy] if occupancy else None,
        "displace_to": displace_to,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        refuse("--occupancy", "nothing to change; see --help for what can be")
    request = pb.UpdateStageRequest(
        stage=stage,
        update=pb.StageUpdate(**given),
        expected_revision=expected_revision,
        reason=reason,
        request_id=request_id,
    )
    request.update_mask.paths.extend(given)
    session.show(session.client.stages.UpdateStage(request).stage, views.STAGE)


@command(app, "list", examples=["stagewire stage list", "stagewire stage list -o json"])
def list_(session: Session, *, limit: Limit = paging.DEFAULT_LIMIT) -> None:
    """List the namespace's stages in their order."""
    found = paging.collect(
        session.client.stages.ListStages,
        pb.ListStagesRequest(),
        lambda answer: answer.stages,
        limit=limit,
    )
    session.show_all(found, views.STAGE)


@command(app, "delete", examples=["stagewire stage delete Shadow"])
def delete(
    session: Session,
    stage: Name,
    *,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Delete a stage that no version holds and no stage displaces into."""
    answer = session.client.stages.DeleteStage(
        pb.DeleteStageRequest(
            stage=stage, expected_revision=expected_revision, reason=reason, request_id=request_id
        )
    )
    output.show_plain(
        output.plain(answer), session.output, name=stage, text=f"deleted stage {stage}"
    )


@command(
    app,
    "history",
    examples=[
        "stagewire stage history churn --stage Production",
        "stagewire stage history churn --stage Production --at 2026-05-01T12:00:00Z",
        "stagewire stage history churn --at 7d -o json",
    ],
)
def history(
    session: Session,
    model: ModelName,
    *,
    stage: OfStage = "",
    at: Annotated[
        str,
        typer.Option(
            "--at",
            metavar="TIME",
            help="Who held it then: 2026-05-01T12:00:00Z, or an age such as 2h.",
        ),
    ] = "",
    at_revision: Annotated[
        int,
        typer.Option(
            "--at-revision", min=0, max=LARGEST_REVISION, help="Who held it at this revision."
        ),
    ] = 0,
    limit: Limit = paging.DEFAULT_LIMIT,
) -> None:
    """List who held a model's stages when, by whom and why, newest first."""
    found = paging.collect(
        session.client.stages.GetStageHistory,
        pb.GetStageHistoryRequest(
            model=model, stage=stage, at_time=moment("--at", at), at_revision=at_revision
        ),
        lambda answer: answer.tenures,
        limit=limit,
    )
    session.show_all(found, views.TENURE)


@command(
    app, "remove", examples=["stagewire stage remove churn 3 --stage Staging --reason 'superseded'"]
)
def remove(
    session: Session,
    model: ModelName,
    version: VersionNumber,
    *,
    stage: StageName,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Take a version out of a stage; one that is not in it is no error."""
    answer = session.client.stages.RemoveFromStage(
        pb.RemoveFromStageRequest(
            model=model,
            version=version,
            stage=stage,
            expected_revision=expected_revision,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer, REMOVAL)
