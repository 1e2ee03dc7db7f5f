"""`stagewire event`: the log as a record of who did what, when and why."""

from typing import Annotated

import typer

from stagewire import pb
from stagewire.cli import changes, output, paging, wording
from stagewire.cli.arguments import (
    LARGEST_REVISION,
    Limit,
    OfModel,
    chosen,
    moment,
)
from stagewire.cli.sessions import Session, command
from stagewire.cli.views import Column, View

app = typer.Typer()

EVENT: View[pb.Event] = View(
    plural="events",
    name=lambda event: str(event.revision),
    columns=(
        Column("REVISION", lambda event: str(event.revision), right=True),
        Column("WHEN", lambda event: wording.ago(event.commit_time)),
        Column("ACTOR", lambda event: event.payload.actor, always=False),
        Column(
            "WHAT",
            lambda event: "; ".join(
                changes.describe(record.change) for record in event.payload.records
            ),
            whole=False,
        ),
        Column("REASON", lambda event: event.payload.reason, always=False, whole=False),
    ),
    details=lambda _: (),
    # What a change did not touch is noise in a record of changes.
    plain=lambda event: output.plain(event, whole=False),
)


@command(
    app,
    "list",
    examples=[
        "stagewire event list --model churn --since 7d",
        "stagewire event list --kind stages-changed --actor alice -o json",
    ],
)
def list_(
    session: Session,
    *,
    model: OfModel = "",
    actor: Annotated[str, typer.Option("--actor", metavar="WHO", help="Only by this actor.")] = "",
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", metavar="KIND", help="Only these kinds, e.g. stages-changed; may be repeated."
        ),
    ] = None,
    since: Annotated[
        str,
        typer.Option(
            "--since", metavar="TIME", help="Not before 2026-05-01T12:00:00Z, or an age such as 2h."
        ),
    ] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Before this time.")] = "",
    after: Annotated[
        int,
        typer.Option("--after", min=0, max=LARGEST_REVISION, help="Only revisions above this one."),
    ] = 0,
    limit: Limit = paging.DEFAULT_LIMIT,
) -> None:
    """List who did what, when and why, newest first. `-n '*'` means every namespace."""
    kinds = chosen("--kind", kind, prefix="CHANGE_KIND_", names=pb.ChangeKind.keys())
    found = paging.collect(
        session.client.audit.ListEvents,
        pb.ListEventsRequest(
            model=model,
            actor=actor,
            kinds=[pb.ChangeKind.Value(name) for name in kinds],
            since_time=moment("--since", since),
            until_time=moment("--until", until),
            after_revision=after,
        ),
        lambda answer: answer.events,
        limit=limit,
    )
    session.show_all(found, EVENT)
