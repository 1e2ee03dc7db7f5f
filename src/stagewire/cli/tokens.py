"""`stagewire token`: make, list and revoke what says who calls."""

import re
from datetime import UTC, datetime
from typing import Annotated

import typer

from stagewire import pb
from stagewire.cli import output, paging, scopes, texts, wording
from stagewire.cli.arguments import Format, Limit, Reason, RequestId, moment_to_come
from stagewire.cli.sessions import Session, command
from stagewire.cli.views import Column, View

app = typer.Typer()

#: A secret says which token it is: whoever found one can have it revoked as it is.
_SECRET = re.compile(r"sw_([0-9a-f]+)_.*", re.DOTALL)


def _state(token: pb.Token) -> str:
    if token.revoked:
        return "REVOKED"
    return "EXPIRED" if token.expire_time.ToDatetime(UTC) <= datetime.now(UTC) else ""


def _scopes(token: pb.Token) -> str:
    return wording.words(scopes.describe(scope) for scope in token.scopes)


TOKEN: View[pb.Token] = View(
    plural="tokens",
    name=lambda token: token.id,
    title=lambda token: f"token {token.id}",
    columns=(
        Column("ID", lambda token: token.id),
        Column("SUBJECT", lambda token: token.subject),
        Column("EXPIRES", lambda token: wording.until(token.expire_time)),
        Column("LAST USE", lambda token: wording.ago(token.last_use_time) or "never"),
        Column("STATE", _state, always=False),
        Column("SCOPES", _scopes, always=False, whole=False),
        Column("DESCRIPTION", lambda token: token.description, always=False, whole=False),
    ),
    details=lambda token: (
        ("subject", token.subject),
        ("description", token.description),
        ("scopes", _scopes(token)),
        ("state", _state(token)),
        ("expires", wording.instant_to_come(token.expire_time)),
        ("last use", wording.instant(token.last_use_time)),
        ("creator", token.creator),
    ),
)


@command(
    app,
    "create",
    examples=[
        "stagewire token create ci --description 'the build of churn'",
        "stagewire token create alice --expires 30d",
        "stagewire token create ci --scope registrar@default/churn -o name > ci.token",
        "stagewire token create release --scope approver@risk/churn/Production",
    ],
)
def create(
    session: Session,
    subject: Annotated[
        str,
        typer.Argument(
            metavar="SUBJECT",
            help="Whom it stands for: a service or person that grants name.",
            show_default=False,
        ),
    ],
    *,
    description: Annotated[
        str, typer.Option("--description", "-d", metavar="TEXT", help="What it is for.")
    ] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="Only this part of what the subject may do, as ROLE, ROLE@NAMESPACE,"
            " ROLE@NAMESPACE/MODEL, …/MODEL/STAGE or …/MODEL@ALIAS; may be repeated.",
        ),
    ] = None,
    expires: Annotated[
        str,
        typer.Option(
            "--expires", metavar="TIME", help="When it ends: 90d, 12h or 2026-12-31; else in 90 d."
        ),
    ] = "",
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Make a token and print its secret, which nobody can show again.

    What may be done with it is what is granted to its subject, or with --scope a part of that.
    Standard output has the secret alone: keep it in a file that only its user may read.
    """
    wanted = pb.Token(
        subject=subject,
        description=description,
        scopes=[scopes.parse("--scope", text, namespace=session.namespace) for text in scope or ()],
        expire_time=moment_to_come("--expires", expires),
    )
    answer = session.client.access.CreateToken(
        pb.CreateTokenRequest(token=wanted, reason=reason, request_id=request_id)
    )
    if session.output in (Format.TABLE, Format.NAME):
        output.line(answer.secret)
    else:
        output.show_plain(output.plain(answer), session.output, name="", text="")
    made = answer.token
    texts.remark(
        f"token {made.id} of {made.subject}, until {wording.instant_to_come(made.expire_time)};"
        " its secret is shown this once"
    )
    _remark_grants(session, made.subject)


def _remark_grants(session: Session, subject: str) -> None:
    """Say what is missing where a token lets nobody do anything."""
    access = session.client.access
    for one in (subject, "*"):
        request = pb.ListGrantsRequest(subject=one, namespace="*", page_size=1)
        if access.ListGrants(request).grants:
            return
    texts.remark(f"nothing is granted to {subject} yet; see `stagewire grant create --help`")


@command(
    app,
    "list",
    examples=["stagewire token list", "stagewire token list --subject ci --all -o json"],
)
def list_(
    session: Session,
    *,
    subject: Annotated[
        str, typer.Option("--subject", metavar="SUBJECT", help="Only this one's.")
    ] = "",
    all_: Annotated[
        bool, typer.Option("--all", "-a", help="Those that expired or were revoked, too.")
    ] = False,
    limit: Limit = paging.DEFAULT_LIMIT,
) -> None:
    """List tokens, the newest first: all of them for an admin, one's own for others."""
    found = paging.collect(
        session.client.access.ListTokens,
        pb.ListTokensRequest(subject=subject, include_ended=all_),
        lambda answer: answer.tokens,
        limit=limit,
    )
    session.show_all(found, TOKEN)


@command(
    app,
    "revoke",
    examples=["stagewire token revoke 3f9c2a7b10de4c55 --reason 'it was in a build log'"],
)
def revoke(
    session: Session,
    which: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="The token's id, as `token list` shows it, or its secret.",
            show_default=False,
        ),
    ],
    *,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """End a token: its calls are refused at once, its streams end within 30 s."""
    secret = _SECRET.fullmatch(which)
    answer = session.client.access.RevokeToken(
        pb.RevokeTokenRequest(
            id=secret[1] if secret else which, reason=reason, request_id=request_id
        )
    )
    ended = answer.token
    output.show_plain(
        output.plain(answer),
        session.output,
        name=ended.id,
        text=f"revoked token {ended.id} of {ended.subject}",
    )
