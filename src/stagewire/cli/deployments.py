"""`stagewire deployment`: what agents run, against what the registry desires."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import grpc
import typer

from stagewire import pb
from stagewire.cli import deployment_views, deployment_watches, output, paging, texts, wording
from stagewire.cli.arguments import (
    LARGEST_VERSION,
    Format,
    Limit,
    ModelName,
    OfModel,
    OfStage,
    StageName,
    finite_seconds,
)
from stagewire.cli.sessions import Session, command
from stagewire.client import statuses

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
OfTarget = Annotated[str, typer.Option("--target", metavar="TARGET", help="Only this target's.")]
OfPrefix = Annotated[
    str, typer.Option("--prefix", metavar="TEXT", help="Only targets that begin so, e.g. eu-west/.")
]
OfAgent = Annotated[str, typer.Option("--agent", metavar="AGENT", help="Only this agent's.")]


class NothingDeployed(Exception):
    """Nobody has reported from there."""

    reason = "NOT_DEPLOYED"

    def __init__(self, target: str) -> None:
        self.message = (
            f"nothing is reported at target {target!r}; `stagewire deployment list` shows what is"
        )
        super().__init__(self.message)


@command(
    app,
    "list",
    examples=[
        "stagewire deployment list",
        "stagewire deployment list --drift --prefix eu-west/",
        "stagewire deployment list --silent -o name",
        "stagewire deployment list --state failed -o json | jq '.[].error'",
    ],
)
def list_(
    session: Session,
    *,
    model: OfModel = "",
    stage: OfStage = "",
    target: OfTarget = "",
    prefix: OfPrefix = "",
    agent: OfAgent = "",
    state: Annotated[
        list[State] | None,
        typer.Option("--state", help="Only those doing this; may be repeated."),
    ] = None,
    drift: Annotated[
        bool, typer.Option("--drift", help="Only those that do not run what is desired.")
    ] = False,
    silent: Annotated[
        bool, typer.Option("--silent", help="Only those whose agent has gone silent.")
    ] = False,
    limit: Limit = paging.DEFAULT_LIMIT,
) -> None:
    """List deployments: desired against running, how far behind, and who has gone silent.

    The table marks with ! what drifts from what is desired and with ? what is not heard of any
    more, and begins with them. Other outputs are in the order of targets.
    """
    request = pb.ListDeploymentsRequest(
        model=model,
        stage=stage,
        target=target,
        target_prefix=prefix,
        agent=agent,
        states=[_number(one) for one in state or ()],
        in_sync=False if drift else None,
        silent=True if silent else None,
    )
    parts = _drift_first(request) if session.output is Format.TABLE else [request]
    found: list[pb.Deployment] = []
    for part in parts:
        left = limit - len(found) if limit else 0
        # One more than is shown tells that there is more.
        found += _collect(session, part, limit=left + 1 if limit else 0)
        if limit and len(found) > limit:
            texts.remark(f"these are the first {limit}; --limit 0 lists all")
            del found[limit:]
            break
    session.show_all(found, deployment_views.DEPLOYMENT)


def _drift_first(request: pb.ListDeploymentsRequest) -> Iterator[pb.ListDeploymentsRequest]:
    """Split a request into what drifts, what is silent, and the rest."""
    for in_sync, silent in ((False, None), (True, True), (True, False)):
        part = pb.ListDeploymentsRequest()
        part.CopyFrom(request)
        part.in_sync = in_sync
        if silent is not None:
            part.silent = silent
        unlike_asked = (request.HasField("in_sync") and request.in_sync != part.in_sync) or (
            request.HasField("silent") and request.silent != part.silent
        )
        if not unlike_asked:
            yield part


def _number(state: State) -> "pb.DeploymentState.ValueType":
    return pb.DeploymentState.Value(f"DEPLOYMENT_STATE_{state.name}")


@command(
    app,
    "show",
    examples=[
        "stagewire deployment show eu-west/prod",
        "stagewire deployment show eu-west/prod --model churn -o yaml",
    ],
)
def show(
    session: Session,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="The target.", show_default=False)
    ],
    *,
    model: OfModel = "",
    stage: OfStage = "",
    agent: OfAgent = "",
) -> None:
    """Show all that is known of what runs at one target."""
    found = _collect(
        session, pb.ListDeploymentsRequest(target=target, model=model, stage=stage, agent=agent)
    )
    if not found:
        raise NothingDeployed(target)
    if session.output is not Format.TABLE:
        session.show_all(found, deployment_views.DEPLOYMENT)
        return
    for place, deployment in enumerate(sorted(found, key=deployment_views.urgency)):
        if place:
            output.line("")
        session.show(deployment, deployment_views.DEPLOYMENT)


@command(
    app,
    "watch",
    examples=[
        "stagewire deployment watch",
        "stagewire deployment watch --model churn --stage Production",
        "stagewire deployment watch -o json | jq -c 'select(.in_sync | not)'",
    ],
)
def watch(
    session: Session,
    *,
    model: OfModel = "",
    stage: OfStage = "",
    target: OfTarget = "",
    prefix: OfPrefix = "",
    agent: OfAgent = "",
    interval: Annotated[
        float,
        typer.Option("--interval", metavar="SECONDS", help="How often to ask for new reports."),
    ] = 2.0,
    count: Annotated[
        int, typer.Option("--count", min=0, help="End after so many changes; 0 means never.")
    ] = 0,
) -> None:
    """Show deployments and how they change, until interrupted.

    On a terminal the table is repainted, what drifts or is silent first. Elsewhere each
    deployment is a line, and each change another one; with `-o json` each line is one object
    whose `type` is present, new, changed or gone.
    """
    request = pb.ListDeploymentsRequest(
        model=model, stage=stage, target=target, target_prefix=prefix, agent=agent
    )
    deployment_watches.watch(
        session, request, interval=finite_seconds("--interval", interval), count=count
    )


def _collect(
    session: Session, request: pb.ListDeploymentsRequest, *, limit: int = 0
) -> list[pb.Deployment]:
    return list(
        paging.rows(
            session.client.deployments.ListDeployments,
            request,
            lambda answer: answer.deployments,
            limit=limit,
        )
    )


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
    session.show(answer, deployment_views.DEPLOYMENTS)


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
                state=_number(state),
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


@command(
    app,
    "forget",
    examples=[
        "stagewire deployment forget --agent gpu-7/eu-west/prod/Production",
        "stagewire deployment list --silent -o json | jq -r '.[].agent' | sort -u",
    ],
)
def forget(
    session: Session,
    *,
    agent: Annotated[
        str,
        typer.Option(
            "--agent", metavar="AGENT", help="The agent that is gone for good.", show_default=False
        ),
    ],
) -> None:
    """Forget an agent and what it reported; one that reports again comes back.

    Silent deployments stay listed until then: that something ran there is worth knowing.
    """
    answer = session.client.deployments.ForgetAgent(pb.ForgetAgentRequest(agent=agent))
    count = answer.deployments
    output.show_plain(
        output.plain(answer),
        session.output,
        name=agent,
        text=f"forgot {agent} and {count} deployment{'' if count == 1 else 's'}",
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
