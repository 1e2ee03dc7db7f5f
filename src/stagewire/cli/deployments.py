"""`stagewire deployment`: what agents run, against what the registry desires."""

from enum import StrEnum
from typing import Annotated

import grpc
import typer

from stagewire import pb
from stagewire.cli import output, paging, views, wording
from stagewire.cli.arguments import (
    LARGEST_VERSION,
    Limit,
    ModelName,
    OfModel,
    OfStage,
    StageName,
)
from stagewire.cli.sessions import Session, command
from stagewire.client import interceptors, statuses

app = typer.Typer()

#: One model's present state in one stage is a few kilobytes.
_SNAPSHOT_SECONDS = 10


class State(StrEnum):
    """What a target is doing."""

    PENDING = "pending"
    DOWNLOADING = "downloading"
    APPLYING = "applying"
    SERVING = "serving"
    FAILED = "failed"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled-back"
    STOPPED = "stopped"


Number = Annotated[
    int, typer.Option(min=0, max=LARGEST_VERSION, help="A version's number; 0 means none.")
]


@command(
    app,
    "list",
    examples=[
        "stagewire deployment list",
        "stagewire deployment list --stage Production -o json | jq '.[] | select(.in_sync | not)'",
    ],
)
def list_(
    session: Session,
    *,
    model: OfModel = "",
    stage: OfStage = "",
    target: Annotated[
        str, typer.Option("--target", metavar="TARGET", help="Only this target's.")
    ] = "",
    agent: Annotated[str, typer.Option("--agent", metavar="AGENT", help="Only this agent's.")] = "",
    limit: Limit = paging.DEFAULT_LIMIT,
) -> None:
    """List deployments: desired against running, how far behind, and who has gone silent."""
    found = paging.collect(
        session.client.deployments.ListDeployments,
        pb.ListDeploymentsRequest(model=model, stage=stage, target=target, agent=agent),
        lambda answer: answer.deployments,
        limit=limit,
    )
    session.show_all(found, views.DEPLOYMENT)


@command(
    app,
    "status",
    examples=[
        "stagewire deployment status churn",
        "stagewire deployment status churn -o name   # 3/4 in sync",
    ],
)
def status(session: Session, model: ModelName) -> None:
    """Show one model's deployments, counted."""
    answer = session.client.deployments.GetDeploymentStatus(
        pb.GetDeploymentStatusRequest(model=model)
    )
    session.show(answer, views.DEPLOYMENTS)


@command(
    app,
    "report",
    examples=[
        "stagewire deployment report churn -s Production --target eu/prod --running 4",
        "stagewire deployment report churn -s Canary --target eu/prod --running 3 --state failed",
    ],
)
def report(
    session: Session,
    model: ModelName,
    *,
    stage: StageName,
    target: Annotated[
        str, typer.Option("--target", metavar="TARGET", help="Where it runs.", show_default=False)
    ],
    running: Number,
    desired: Annotated[
        int | None,
        typer.Option(
            "--desired",
            min=0,
            max=LARGEST_VERSION,
            help="What it was told to run; --running by default.",
        ),
    ] = None,
    state: Annotated[State, typer.Option("--state", help="What it is doing.")] = State.SERVING,
    error: Annotated[
        str, typer.Option("--error", metavar="TEXT", help="Why it failed or was refused.")
    ] = "",
    digest: Annotated[
        str, typer.Option("--digest", metavar="DIGEST", help="Digest of what it runs.")
    ] = "",
    agent: Annotated[
        str,
        typer.Option("--agent", metavar="AGENT", help="Who reports; the target's name by default."),
    ] = "",
) -> None:
    """Report what a target runs, for deployments that are driven by scripts and not by `agent`."""
    hello, cursor = _position(session, model, stage)
    request = pb.ReportStatusRequest(
        agent=agent or target,
        session=hello.session,
        seq=1,
        log_id=hello.log_id,
        observed_cursor=cursor,
        targets=[
            pb.TargetStatus(
                target=target,
                model=model,
                stage=stage,
                desired_version=running if desired is None else desired,
                running_version=running,
                running_digest=digest,
                state=pb.DeploymentState.Value(f"DEPLOYMENT_STATE_{state.name}"),
                error=error,
            )
        ],
    )
    request.targets[0].agent_time.GetCurrentTime()
    answer = session.client.deployments.ReportStatus(request)
    pause = wording.elapsed(answer.next_report_after.ToTimedelta())
    output.show_plain(
        output.plain(answer),
        session.output,
        name=target,
        text=f"reported {target}; report again within {pause}",
    )


def _position(session: Session, model: str, stage: str) -> tuple[pb.Hello, bytes]:
    """Read the present state for its position in the log, which the report's lag is measured by.

    The stream's session orders this report after all earlier ones.
    """
    stream = session.client.watches.Watch(
        pb.WatchRequest(
            start=pb.WATCH_START_SNAPSHOT,
            filter=pb.WatchFilter(namespaces=[session.namespace], models=[model], stages=[stage]),
        ),
        timeout=_SNAPSHOT_SECONDS,
        wait_for_ready=False,
        metadata=interceptors.authorization(session.token or ""),
    )
    hello, cursor = pb.Hello(), b""
    try:
        for message in stream:
            if message.HasField("hello"):
                hello = message.hello
            if message.HasField("snapshot_end"):
                cursor = message.snapshot_end.cursor
                break
    except grpc.RpcError as error:
        raise statuses.of(error) from error
    finally:
        stream.cancel()
    return hello, cursor
