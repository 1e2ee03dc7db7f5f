"""`stagewire agent`: keep a target running what a stage says."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from stagewire.agent import Agent, ExecHook, Executor, HttpHook, StateInUse
from stagewire.cli import texts
from stagewire.cli.arguments import finite_seconds, refuse
from stagewire.cli.sessions import Session, command

app = typer.Typer()


class OnWithdraw(StrEnum):
    """What becomes of the last version when the stage has none."""

    KEEP = "keep"
    STOP = "stop"


@command(
    app,
    "agent",
    examples=[
        "stagewire agent --target eu-west/prod --stage Production --exec ./deploy.sh",
        "stagewire agent --target eu-west/prod -s Production --http http://localhost:8000/",
        "stagewire agent --target laptop --stage Staging --exec ./deploy.sh --once",
    ],
)
def agent(
    session: Session,
    *,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="TARGET",
            envvar="STAGEWIRE_AGENT_TARGET",
            help="Where it deploys to.",
            show_default=False,
        ),
    ],
    stage: Annotated[
        str,
        typer.Option(
            "--stage",
            "-s",
            metavar="STAGE",
            envvar="STAGEWIRE_AGENT_STAGE",
            help="The stage to follow.",
            show_default=False,
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            envvar="STAGEWIRE_AGENT_MODEL",
            help="Only this model, may be repeated; or one prefix as 'risk-*'. All by default.",
        ),
    ] = None,
    exec_: Annotated[
        str,
        typer.Option(
            "--exec",
            metavar="COMMAND",
            envvar="STAGEWIRE_AGENT_EXEC",
            help="Run this for each order; it gets the order as JSON and as STAGEWIRE_….",
            show_default=False,
        ),
    ] = "",
    http: Annotated[
        str,
        typer.Option(
            "--http",
            metavar="URL",
            envvar="STAGEWIRE_AGENT_HTTP",
            help="Post each order there, as JSON; 2xx means done.",
            show_default=False,
        ),
    ] = "",
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            envvar="STAGEWIRE_AGENT_TIMEOUT",
            help="How long an order may take.",
        ),
    ] = 600.0,
    on_withdraw: Annotated[
        OnWithdraw,
        typer.Option(
            "--on-withdraw",
            envvar="STAGEWIRE_AGENT_ON_WITHDRAW",
            help="When the stage is empty: go on with the last version, or be told to stop it.",
        ),
    ] = OnWithdraw.KEEP,
    name: Annotated[
        str,
        typer.Option(
            "--name",
            metavar="NAME",
            envvar="STAGEWIRE_AGENT_NAME",
            help="The agent's own, unique name; host, target and stage by default.",
            show_default=False,
        ),
    ] = "",
    state_dir: Annotated[
        Path | None,
        typer.Option(
            "--state-dir",
            metavar="FOLDER",
            envvar="STAGEWIRE_AGENT_STATE_DIR",
            help="Remember there what runs, and go on with it after a restart.",
            show_default=False,
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Do what is desired now, report it, and end.")
    ] = False,
) -> None:
    """Keep a target running what a stage says.

    Follows the stage and has every change carried out by a command or a web server, in the
    log's order; retries what failed; reports what runs. Waits for a registry that is not
    there. With --once, exit 1 means that something could not be carried out.
    """
    execute = _executor(exec_, http, finite_seconds("--timeout", timeout))
    logging.getLogger("stagewire.agent").setLevel(logging.INFO)
    try:
        follower = Agent(
            session.client,
            target=target,
            stage=stage,
            execute=execute,
            model=model or "*",
            name=name,
            on_withdraw="stop" if on_withdraw is OnWithdraw.STOP else "keep",
            state_dir=state_dir,
        )
    except ValueError as error:
        refuse("--model", str(error))
    try:
        if once:
            if not follower.run_once():
                texts.remark("not everything that is desired could be carried out (NOT_IN_SYNC)")
                raise typer.Exit(1)
            return
        with _until_told(follower):
            follower.run()
    except StateInUse as error:
        refuse("--state-dir", str(error))


def _executor(command_line: str, url: str, timeout_seconds: float) -> Executor:
    if bool(command_line) == bool(url):
        refuse("--exec", "say how to deploy: either --exec COMMAND or --http URL")
    try:
        if url:
            return HttpHook(url, timeout_seconds=timeout_seconds)
        return ExecHook(command_line, timeout_seconds=timeout_seconds)
    except ValueError as error:
        refuse("--http" if url else "--exec", str(error))


@contextmanager
def _until_told(follower: Agent) -> Iterator[None]:
    """Stop in order on SIGTERM and on an interrupt, which is then passed on."""
    interrupted = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = number == signal.SIGINT
        follower.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupted:
        raise KeyboardInterrupt
