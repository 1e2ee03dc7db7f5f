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
    NewDescription,
    Reason,
    RequestId,
    refuse,
)
from stagewire.cli.sessions import Session, command

app = typer.Typer()

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the namespace.", show_default=False)
]
MaxModels = Annotated[
    int | None,
    typer.Option(metavar="N", help="Most living models; 0 lifts the limit.", show_default=False),
]
MaxVersions = Annotated[
    int | None,
    typer.Option(metavar="N", help="Most living versions; 0 lifts the limit.", show_default=False),
]
MaxWatches = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Most watches on each server; 0 lifts the limit.", show_default=False
    ),
]
RequestsPerSecond = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Most calls a second on each server; 0 lifts it.", show_default=False
    ),
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
    """Show one namespace, its quota, and what it holds of that."""
    answer = session.client.namespaces.GetNamespace(pb.GetNamespaceRequest(name=name))
    session.show(answer, views.NAMESPACE_IN_USE)


@command(
    app,
    "update",
    examples=[
        "stagewire namespace update risk --max-models 100 --max-versions 10000",
        "stagewire namespace update risk --requests-per-second 0",
    ],
)
def update(
    session: Session,
    name: Name,
    *,
    description: NewDescription = None,
    max_models: MaxModels = None,
    max_versions: MaxVersions = None,
    max_watches: MaxWatches = None,
    requests_per_second: RequestsPerSecond = None,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Change a namespace's description or quota; what is not named stays as it is."""
    quota = {
        "max_models": max_models,
        "max_versions": max_versions,
        "max_watches": max_watches,
        "requests_per_second": requests_per_second,
    }
    given = {field: value for field, value in quota.items() if value is not None}
    paths = [f"quota.{field}" for field in given]
    if description is not None:
        paths.append("description")
    if not paths:
        refuse("--max-models", "nothing to change; see --help for what can be")
    request = pb.UpdateNamespaceRequest(
        name=name,
        update=pb.NamespaceUpdate(description=description or "", quota=pb.Quota(**given)),
        expected_revision=expected_revision,
        reason=reason,
        request_id=request_id,
    )
    request.update_mask.paths.extend(paths)
    session.show(session.client.namespaces.UpdateNamespace(request).namespace, views.NAMESPACE)


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
