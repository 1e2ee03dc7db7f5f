"""`stagewire namespace`: one registry for each team or tenant."""

from typing import Annotated

import typer

from stagewire import pb
from stagewire.cli import output, paging, views
from stagewire.cli.arguments import (
    Description,
    DryRun,
    ExpectedRevision,
    Limit,
    Reason,
    RequestId,
)
from stagewire.cli.sessions import Session, command

app = typer.Typer()

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the namespace.", show_default=False)
]


@command(app, "create", examples=["stagewire namespace create risk --description 'Risk team'"])
def create(
    session: Session,
    name: Name,
    *,
    description: Description = "",
    dry_run: DryRun = False,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Create a namespace with the default stages."""
    answer = session.client.namespaces.CreateNamespace(
        pb.CreateNamespaceRequest(
            namespace=pb.Namespace(name=name, description=description),
            validate_only=dry_run,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.namespace, views.NAMESPACE)


@command(app, "get", examples=["stagewire namespace get risk"])
def get(session: Session, name: Name) -> None:
    """Show one namespace."""
    answer = session.client.namespaces.GetNamespace(pb.GetNamespaceRequest(name=name))
    session.show(answer.namespace, views.NAMESPACE)


@command(app, "list", examples=["stagewire namespace list -o name"])
def list_(session: Session, *, limit: Limit = paging.DEFAULT_LIMIT) -> None:
    """List namespaces by name."""
    found = paging.collect(
        session.client.namespaces.ListNamespaces,
        pb.ListNamespacesRequest(),
        lambda answer: answer.namespaces,
        limit=limit,
    )
    session.show_all(found, views.NAMESPACE)


@command(app, "delete", examples=["stagewire namespace delete risk --reason 'team dissolved'"])
def delete(
    session: Session,
    name: Name,
    *,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Delete a namespace that has no models, deleted ones included."""
    answer = session.client.namespaces.DeleteNamespace(
        pb.DeleteNamespaceRequest(
            name=name, expected_revision=expected_revision, reason=reason, request_id=request_id
        )
    )
    output.show_plain(
        output.plain(answer), session.output, name=name, text=f"deleted namespace {name}"
    )
