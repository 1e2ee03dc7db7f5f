"""`stagewire refusal`: the calls that were refused for want of credentials or grants."""

from typing import Annotated

import typer

from stagewire import pb
from stagewire.cli import paging, wording
from stagewire.cli.arguments import Limit, moment
from stagewire.cli.sessions import Session, command
from stagewire.cli.views import Column, View

app = typer.Typer()


def _about(refusal: pb.Refusal) -> str:
    return "/".join(filter(None, (refusal.namespace, refusal.model)))


REFUSAL: View[pb.Refusal] = View(
    plural="refusals",
    name=lambda refusal: refusal.id,
    title=lambda refusal: f"refusal {refusal.id}",
    columns=(
        Column("TIME", lambda refusal: wording.ago(refusal.time)),
        Column("COUNT", lambda refusal: str(refusal.count), right=True),
        Column("CALLER", lambda refusal: refusal.caller or "-"),
        Column("FROM", lambda refusal: refusal.peer),
        Column("METHOD", lambda refusal: refusal.method),
        Column("REASON", lambda refusal: refusal.reason),
        Column("ABOUT", _about, always=False, whole=False),
    ),
    details=lambda refusal: (
        ("time", wording.instant(refusal.time)),
        ("count", str(refusal.count)),
        ("caller", refusal.caller),
        ("from", refusal.peer),
        ("method", refusal.method),
        ("reason", refusal.reason),
        ("about", _about(refusal)),
    ),
)


@command(
    app,
    "list",
    examples=[
        "stagewire refusal list --since 1h",
        "stagewire refusal list --caller ci -o json",
    ],
)
def list_(
    session: Session,
    *,
    caller: Annotated[
        str, typer.Option("--caller", metavar="WHO", help="Only those of this caller.")
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            "--since", metavar="TIME", help="Not before 2026-05-01T12:00:00Z, or an age such as 2h."
        ),
    ] = "",
    limit: Limit = paging.DEFAULT_LIMIT,
) -> None:
    """List refused calls, newest first; equal ones within a minute count as one."""
    found = paging.collect(
        session.client.access.ListRefusals,
        pb.ListRefusalsRequest(caller=caller, since_time=moment("--since", since)),
        lambda answer: answer.refusals,
        limit=limit,
    )
    session.show_all(found, REFUSAL)
