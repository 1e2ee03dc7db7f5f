"""`stagewire head` and `stagewire verify-log`: where the log stands, and whether it holds."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

import typer

from stagewire import pb
from stagewire.cli import output, texts, views
from stagewire.cli.arguments import LARGEST_REVISION
from stagewire.cli.sessions import Session, command

app = typer.Typer()

#: Verifies one stretch of the log.
Verify = Callable[[pb.VerifyLogRequest], pb.VerifyLogResponse]

#: Small enough that the bar moves, large enough that the calls do not count.
_VERIFIED_AT_ONCE = 10_000


@command(app, "head", examples=["stagewire head", "stagewire head -o json | jq .revision"])
def head(session: Session) -> None:
    """Show where the log stands: its identity and newest revision."""
    session.show(session.client.watches.GetHead(pb.GetHeadRequest()), views.HEAD)


@command(
    app,
    "verify-log",
    examples=[
        "stagewire verify-log",
        "stagewire verify-log --from-revision 100000",
        "stagewire verify-log --database-url sqlite:///registry.db",
    ],
)
def verify_log(
    session: Session,
    *,
    from_revision: Annotated[
        int,
        typer.Option(
            "--from-revision", min=0, max=LARGEST_REVISION, help="Begin here; 0 means the oldest."
        ),
    ] = 0,
    database_url: Annotated[
        str | None,
        typer.Option(
            "--database-url",
            metavar="URL",
            help="Read this database itself instead of asking the server.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Recompute the log's hash chain and compare its copies; exit 1 if anything was altered."""
    with _verifier(session, database_url) as verify:
        answer = _through(_pages(verify, from_revision))
    if not answer.intact:
        text = f"broken at revision {answer.bad_revision}: {answer.problem}"
    elif answer.first_revision:
        text = f"intact: revisions {answer.first_revision} to {answer.last_revision}"
    else:
        text = "intact: there is nothing to verify"
    output.show_plain(
        output.plain(answer), session.output, name=str(answer.last_revision), text=text
    )
    if not answer.intact:
        texts.remark(f"the log was altered: {answer.problem} (LOG_BROKEN)")
        raise typer.Exit(1)


def _verifier(session: Session, database_url: str | None) -> AbstractContextManager[Verify]:
    if not database_url:
        return nullcontext(session.client.audit.VerifyLog)
    from stagewire.cli import serving

    return serving.verifier(database_url)


def _pages(verify: Verify, from_revision: int) -> Iterator[pb.VerifyLogResponse]:
    position = from_revision
    while True:
        page = verify(pb.VerifyLogRequest(from_revision=position, max_revisions=_VERIFIED_AT_ONCE))
        yield page
        nothing = not page.first_revision
        if not page.intact or nothing or page.last_revision >= page.head_revision:
            return
        position = page.last_revision + 1


def _through(pages: Iterator[pb.VerifyLogResponse]) -> pb.VerifyLogResponse:
    """Join the pages into one answer, showing on standard error how far it is."""
    whole = pb.VerifyLogResponse(intact=True)
    with output.progress() as progress:
        bar = progress.add_task("verifying", total=None)
        for page in pages:
            first = whole.first_revision or page.first_revision
            whole.CopyFrom(page)
            whole.first_revision = first
            progress.update(
                bar, total=page.head_revision - first + 1, completed=page.last_revision - first + 1
            )
    return whole
