"""`stagewire resolve`: which version a number, a stage, an alias or a URI means now."""

from typing import Annotated

import typer

from stagewire import pb
from stagewire.cli import views
from stagewire.cli.arguments import LARGEST_VERSION, WithMetrics, refuse
from stagewire.cli.sessions import Session, command

app = typer.Typer()


@command(
    app,
    "resolve",
    examples=[
        "stagewire resolve churn --stage Production -o json | jq -r .source",
        "stagewire resolve churn --alias champion -o name",
        "stagewire resolve --uri models:/churn@champion",
        "stagewire resolve churn   # the newest version",
    ],
)
def resolve(
    session: Session,
    model: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]", help="Name of the model; not with --uri.", show_default=False
        ),
    ] = "",
    *,
    stage: Annotated[
        str | None,
        typer.Option("--stage", "-s", metavar="STAGE", help="The primary holder of this stage."),
    ] = None,
    alias: Annotated[
        str | None, typer.Option("--alias", "-a", metavar="ALIAS", help="Where this alias points.")
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", min=1, max=LARGEST_VERSION, help="This number.")
    ] = None,
    uri: Annotated[
        str | None,
        typer.Option(
            "--uri",
            metavar="URI",
            help="models:/NAME/3, models:/NAME/Production or models:/NAME@alias.",
        ),
    ] = None,
    metrics: WithMetrics = False,
) -> None:
    """Show the version that a stage, an alias, a number or a URI means now; else the newest."""
    selectors = {"stage": stage, "alias": alias, "version": version, "uri": uri}
    given = {name: value for name, value in selectors.items() if value is not None}
    if len(given) > 1:
        refuse(
            f"--{list(given)[1]}", f"give only one of {', '.join(f'--{name}' for name in given)}"
        )
    if not model and uri is None:
        refuse("MODEL", "name a model, or give --uri models:/NAME/…")
    answer = session.client.registry.ResolveModelVersion(
        pb.ResolveModelVersionRequest(
            model=model, stage=stage, alias=alias, version=version, uri=uri, include_metrics=metrics
        )
    )
    session.show(answer.version, views.ANY_VERSION if not model else views.VERSION)
