"""`stagewire alias`: movable names for versions."""

from typing import Annotated

import typer

from stagewire import pb
from stagewire.cli import texts, views
from stagewire.cli.arguments import (
    ExpectedRevision,
    ModelName,
    Reason,
    RequestId,
    VersionNumber,
)
from stagewire.cli.sessions import Session, command

app = typer.Typer()

AliasName = Annotated[
    str, typer.Argument(metavar="ALIAS", help="The alias, e.g. champion.", show_default=False)
]


@command(
    app,
    "set",
    examples=[
        "stagewire alias set churn champion 3",
        "stagewire alias set churn champion 4 --reassign --reason 'won the A/B test'",
    ],
)
def set_(
    session: Session,
    model: ModelName,
    alias: AliasName,
    version: VersionNumber,
    *,
    reassign: Annotated[
        bool, typer.Option("--reassign", help="Move it when it points at another version.")
    ] = False,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Point an alias at a version."""
    answer = session.client.registry.SetAlias(
        pb.SetAliasRequest(
            model=model,
            alias=alias,
            version=version,
            reassign=reassign,
            expected_revision=expected_revision,
            reason=reason,
            request_id=request_id,
        )
    )
    if answer.previous_version not in {0, version}:
        texts.remark(f"{alias!r} pointed at version {answer.previous_version} before")
    session.show(answer.version, views.VERSION)


@command(app, "delete", examples=["stagewire alias delete churn challenger"])
def delete(
    session: Session,
    model: ModelName,
    alias: AliasName,
    *,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Remove an alias; the version that had it stays."""
    answer = session.client.registry.DeleteAlias(
        pb.DeleteAliasRequest(
            model=model,
            alias=alias,
            expected_revision=expected_revision,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.version, views.VERSION)
