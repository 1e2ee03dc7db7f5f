"""`stagewire whoami`: who the server takes you for, and what it lets you do."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from stagewire import pb
from stagewire.cli import output, scopes, wording
from stagewire.cli.sessions import Session, command
from stagewire.cli.views import View

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer()


def _known_by(caller: pb.GetCallerResponse) -> str:
    match caller.method:
        case pb.AUTHENTICATION_METHOD_UNSPECIFIED:
            return "nothing: access control is off"
        case pb.AUTHENTICATION_METHOD_TOKEN:
            return f"token {caller.token_id}"
        case pb.AUTHENTICATION_METHOD_OIDC:
            return "the identity provider"
        case pb.AUTHENTICATION_METHOD_CERTIFICATE:
            return "a client certificate"
    return wording.enum_name(pb.AuthenticationMethod, caller.method)


def _may(caller: pb.GetCallerResponse) -> str:
    if caller.method == pb.AUTHENTICATION_METHOD_UNSPECIFIED:
        return "do everything, as everybody may"
    return "" if caller.scopes else "do and see nothing yet; an admin can grant a role"


def _table(caller: pb.GetCallerResponse) -> Iterable["RenderableType"]:
    if caller.scopes:
        yield ""
        yield output.table(caller.scopes, scopes.COLUMNS)


CALLER: View[pb.GetCallerResponse] = View(
    plural="callers",
    name=lambda caller: caller.subject,
    title=lambda caller: caller.subject,
    columns=(),
    details=lambda caller: (
        ("known by", _known_by(caller)),
        ("until", wording.instant_to_come(caller.expire_time)),
        ("groups", wording.words(caller.groups)),
        ("may", _may(caller)),
    ),
    appendix=_table,
)


@command(
    app,
    "whoami",
    examples=["stagewire whoami", "stagewire whoami -o json | jq .scopes"],
)
def whoami(session: Session) -> None:
    """Show who you are to the server, how it knows, until when, and what you may do."""
    session.show(session.client.access.GetCaller(pb.GetCallerRequest()), CALLER)
