"""`stagewire metric`: measured values of versions."""

from typing import Annotated

import typer

from stagewire import pb
from stagewire.cli import paging, views
from stagewire.cli.arguments import (
    LARGEST_VERSION,
    Limit,
    ModelName,
    VersionNumber,
    moment,
    numbers,
)
from stagewire.cli.sessions import Session, command

app = typer.Typer()


@command(
    app,
    "log",
    examples=[
        "stagewire metric log churn 3 auc=0.913 logloss=0.21 --dataset holdout-05",
        "stagewire metric log churn 3 loss=0.42 --step 1000",
    ],
)
def log(
    session: Session,
    model: ModelName,
    version: VersionNumber,
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=NUMBER...", help="Values; nan and inf count, too.", show_default=False
        ),
    ],
    *,
    step: Annotated[
        int, typer.Option("--step", min=-(2**63), max=2**63 - 1, help="The training step.")
    ] = 0,
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="NAME", help="What it was measured on.")
    ] = "",
    time: Annotated[
        str,
        typer.Option(
            "--time", metavar="TIME", help="When; now by default, or 2h for two hours ago."
        ),
    ] = "",
) -> None:
    """Add points to a version's metrics; a point sent again is counted once."""
    answer = session.client.metrics.LogMetrics(
        pb.LogMetricsRequest(
            model=model,
            version=version,
            metrics=[
                pb.Metric(
                    key=key, value=value, step=step, dataset=dataset, time=moment("--time", time)
                )
                for key, value in numbers("KEY=NUMBER", values).items()
            ],
        )
    )
    session.show(answer, views.LOGGED)


@command(
    app,
    "list",
    examples=[
        "stagewire metric list churn --version 3 --key loss --limit 0",
        "stagewire metric list churn --key auc   # the latest value of every version",
    ],
)
def list_(
    session: Session,
    model: ModelName,
    *,
    version: Annotated[
        int,
        typer.Option(
            "--version",
            min=0,
            max=LARGEST_VERSION,
            help="Every point of this version; 0 means the latest points of all versions.",
        ),
    ] = 0,
    key: Annotated[str, typer.Option("--key", "-k", metavar="KEY", help="Only this key.")] = "",
    limit: Limit = paging.DEFAULT_LIMIT,
) -> None:
    """List the points of a version over its steps, or of a model over its versions."""
    found = paging.collect(
        session.client.metrics.ListMetrics,
        pb.ListMetricsRequest(model=model, version=version, key=key),
        lambda answer: answer.metrics,
        limit=limit,
    )
    session.show_all(found, views.METRIC)
