"""`stagewire grant`: say who has which role on which part of the registry."""

from typing import Annotated

import typer

from stagewire import pb
from stagewire.cli import output, paging, scopes, wording
from stagewire.cli.arguments import DryRun, Limit, Reason, RequestId
from stagewire.cli.scopes import Role
from stagewire.cli.sessions import Session, command
from stagewire.cli.views import Column, View

app = typer.Typer()

GRANT: View[pb.Grant] = View(
    plural="grants",
    name=lambda grant: grant.id,
    title=lambda grant: f"grant {grant.id}",
    columns=(
        Column("ID", lambda grant: grant.id),
        Column("SUBJECT", lambda grant: grant.subject),
        Column("ROLE", lambda grant: scopes.role_of(grant.scope)),
        Column("NAMESPACE", lambda grant: grant.scope.namespace),
        Column("MODEL", lambda grant: grant.scope.model or scopes.ALL),
        Column("STAGE", lambda grant: grant.scope.stage, always=False),
        Column("ALIAS", lambda grant: grant.scope.alias, always=False),
        Column("GRANTED", lambda grant: wording.ago(grant.create_time)),
        Column("BY", lambda grant: grant.creator),
    ),
    details=lambda grant: (
        ("subject", grant.subject),
        ("role", scopes.role_of(grant.scope)),
        ("namespace", grant.scope.namespace),
        ("model", grant.scope.model or scopes.ALL),
        ("stage", grant.scope.stage),
        ("alias", grant.scope.alias),
        ("granted", wording.instant(grant.create_time)),
        ("by", grant.creator),
    ),
)


@command(
    app,
    "create",
    examples=[
        "stagewire grant create ci --role registrar --model 'churn*'",
        "stagewire grant create group:data-science --role editor -n risk",
        "stagewire grant create release --role approver --stage Production",
        "stagewire grant create cert:agent-7 --role deployer --stage Production",
        "stagewire grant create oidc:bob@example.com --role admin -n '*'",
    ],
)
def create(
    session: Session,
    subject: Annotated[
        str,
        typer.Argument(
            metavar="SUBJECT",
            help="A token's subject, oidc:NAME, cert:SAN, group:NAME, or '*' for all who are"
            " known.",
            show_default=False,
        ),
    ],
    *,
    role: Annotated[
        Role, typer.Option("--role", help="What they may do there.", show_default=False)
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="Only this model, or as 'risk-*' those so named."
        ),
    ] = "",
    stage: Annotated[
        str,
        typer.Option(
            "--stage", "-s", metavar="STAGE", help="Only into and out of this stage, or for it."
        ),
    ] = "",
    alias: Annotated[
        str, typer.Option("--alias", "-a", metavar="ALIAS", help="Only this alias.")
    ] = "",
    dry_run: DryRun = False,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Grant a role in a namespace; `-n '*'` means every one, also those to come.

    viewer sees. registrar also registers models and versions, logs metrics, says what is ready.
    editor also describes, tags, renames, deletes and moves. approver sees and moves versions;
    deployer sees and reports what runs. admin does everything there, grants too.
    """
    wanted = pb.Grant(
        subject=subject,
        scope=pb.Scope(
            role=scopes.number(role),
            namespace=session.namespace,
            model=model,
            stage=stage,
            alias=alias,
        ),
    )
    answer = session.client.access.CreateGrant(
        pb.CreateGrantRequest(
            grant=wanted, validate_only=dry_run, reason=reason, request_id=request_id
        )
    )
    session.show(answer.grant, GRANT)


@command(
    app,
    "list",
    examples=["stagewire grant list", "stagewire grant list --subject ci -n '*' -o json"],
)
def list_(
    session: Session,
    *,
    subject: Annotated[
        str, typer.Option("--subject", metavar="SUBJECT", help="Only this one's.")
    ] = "",
    limit: Limit = paging.DEFAULT_LIMIT,
) -> None:
    """List the grants that hold in a namespace, newest first. `-n '*'` means all there are.

    Those of others show only to who administers the namespace.
    """
    found = paging.collect(
        session.client.access.ListGrants,
        pb.ListGrantsRequest(subject=subject),
        lambda answer: answer.grants,
        limit=limit,
    )
    session.show_all(found, GRANT)


@command(app, "delete", examples=["stagewire grant delete ID --reason 'she left the team'"])
def delete(
    session: Session,
    grant: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The grant's id, as `grant list` shows it.", show_default=False
        ),
    ],
    *,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Take a grant back; watches that lived by it end within 30 s."""
    answer = session.client.access.DeleteGrant(
        pb.DeleteGrantRequest(id=grant, reason=reason, request_id=request_id)
    )
    output.show_plain(
        output.plain(answer), session.output, name=grant, text=f"deleted grant {grant}"
    )
