"""`stagewire admin`: what is done on the server's own machine, by whoever runs it."""

import shlex
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from stagewire.cli import output, texts
from stagewire.cli.arguments import Format
from stagewire.cli.sessions import Session, command

app = typer.Typer()


@app.callback()
def admin() -> None:
    """Do what is done on the server's own machine, by whoever runs it."""


@command(
    app,
    "bootstrap",
    examples=[
        "stagewire admin bootstrap --database-url sqlite:///registry.db",
        "stagewire admin bootstrap -o name > admin.token",
        "stagewire admin bootstrap --file /etc/stagewire/bootstrap",
    ],
    everywhere=("output",),
)
def bootstrap(
    session: Session,
    *,
    database_url: Annotated[
        str | None,
        typer.Option(
            "--database-url",
            metavar="URL",
            help="The server's database; else STAGEWIRE_DATABASE_URL.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Where the server finds it: STAGEWIRE_BOOTSTRAP_TOKEN_FILE, else beside the"
            " SQLite file.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make the first admin's token, once, and print its secret, which nobody can show again.

    The server learns of it from a file that holds no secret, when it is started the next time.
    Refused where the file is there already, or somebody is an admin.
    """
    from stagewire.cli import serving

    token = serving.first_token(database_url, file)
    if session.output in (Format.TABLE, Format.NAME):
        output.line(token.secret)
    else:
        tree = {"id": token.id, "secret": token.secret, "file": str(token.file)}
        output.show_plain(tree, session.output, name="", text="")
    texts.remark(f"the first admin's secret is shown this once; the server reads {token.file}")
    start = ["stagewire", "serve"]
    if database_url and not urlsplit(database_url).password:
        start += ["--database-url", database_url]
    start += [] if token.file_is_default else ["--bootstrap-token-file", str(token.file)]
    texts.remark(f"next: {shlex.join(start)}")
    texts.remark("then, with the secret in STAGEWIRE_TOKEN: stagewire whoami")
