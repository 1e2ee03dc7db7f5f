"""`stagewire serve` and `stagewire database`: what needs the server's dependencies.

They are imported by the command that needs them, so that an installation of the SDK alone says
in one line what is missing. This module is the one that may reach below the service floor:
what it runs owns a database.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stagewire import pb
from stagewire.cli import output, texts
from stagewire.cli.sessions import Session, command

if TYPE_CHECKING:
    from stagewire.settings import Settings

app = typer.Typer()

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="sqlite:///FILE or postgresql+psycopg://HOST/NAME; else STAGEWIRE_DATABASE_URL.",
        show_default=False,
    ),
]


class MissingServerError(Exception):
    """The server's dependencies are not installed."""

    reason = "NOT_INSTALLED"
    message = "this needs the server's dependencies; run: pip install 'stagewire[server]'"


@contextmanager
def _server_installed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("stagewire"):
            raise
        raise MissingServerError from error


def _settings(**given: Any) -> "Settings":
    from stagewire.settings import Settings

    return Settings(**{name: value for name, value in given.items() if value is not None})


@command(
    app,
    "serve",
    examples=[
        "stagewire serve",
        "stagewire serve --database-url sqlite:///registry.db --grpc-address 0.0.0.0:50051",
        "stagewire serve --database-url postgresql+psycopg://registry@db/registry",
    ],
)
def serve(
    session: Session,  # noqa: ARG001 - every command has one
    *,
    database_url: DatabaseUrl = None,
    grpc_address: Annotated[
        str | None,
        typer.Option(
            "--grpc-address",
            metavar="HOST:PORT",
            help="Where to listen; port 0 takes a free one and says which.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the registry's server until it is told to stop.

    Every setting may also come from the environment as STAGEWIRE_…; options win.
    """
    with _server_installed():
        from stagewire.server import serve as serving

        serving.run(_settings(database_url=database_url, grpc_address=grpc_address))


database = typer.Typer()
app.add_typer(database, name="database")


@command(
    database,
    "upgrade",
    examples=["stagewire database upgrade --database-url sqlite:///registry.db"],
)
def upgrade(session: Session, *, database_url: DatabaseUrl = None) -> None:
    """Bring the database to this release's schema; a SQLite file is copied first."""
    with _server_installed():
        from stagewire.store import upgrades

        before, after = upgrades.upgrade(_url(database_url))
    text = (
        f"at {after} already" if before == after else f"upgraded from {before or 'none'} to {after}"
    )
    output.show_plain({"before": before, "after": after}, session.output, name=after, text=text)


@command(
    database,
    "check",
    examples=["stagewire database check --database-url postgresql+psycopg://registry@db/registry"],
)
def check(session: Session, *, database_url: DatabaseUrl = None) -> None:
    """Say whether the database has this release's schema; exit 1 when it has not."""
    with _server_installed():
        from stagewire.store import upgrades

        current, needed = upgrades.check(_url(database_url))
    fits = current == needed
    output.show_plain(
        {"current": current, "needed": needed, "fits": fits},
        session.output,
        name=current or "none",
        text=f"has schema {current or 'none'}; this release needs {needed}",
    )
    if not fits:
        texts.remark("run `stagewire database upgrade` before serving from it (SCHEMA_DIFFERS)")
        raise typer.Exit(1)


@command(
    database,
    "backup",
    examples=["stagewire database backup monday.db --database-url sqlite:///registry.db"],
)
def backup(
    session: Session,
    target: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Where to; it must not exist yet.", show_default=False),
    ],
    *,
    database_url: DatabaseUrl = None,
) -> None:
    """Copy a SQLite registry to a file, also while it is served."""
    with _server_installed():
        from stagewire.store import upgrades

        upgrades.backup(_url(database_url), target)
    size = target.stat().st_size
    output.show_plain(
        {"file": str(target), "size_bytes": size},
        session.output,
        name=str(target),
        text=f"wrote {target}, {size:,} bytes",
    )


@contextmanager
def verifier(database_url: str) -> Iterator[Callable[[pb.VerifyLogRequest], pb.VerifyLogResponse]]:
    """Verify the log in a database itself, beside a running server or without one."""
    with _server_installed():
        import sqlalchemy as sa

        from stagewire.service import audit
        from stagewire.store import upgrades
        from stagewire.store.database import parse_url
        from stagewire.store.sqlite import read_engine
        from stagewire.store.transactions import Tx

    upgrades.require(database_url)
    url = parse_url(database_url)
    engine = (
        read_engine(url, pool_size=1)
        if url.get_backend_name() == "sqlite"
        else sa.create_engine(url, execution_options={"postgresql_readonly": True})
    )

    def verify(request: pb.VerifyLogRequest) -> pb.VerifyLogResponse:
        with engine.connect() as connection:
            return audit.verify(Tx(connection), request)

    try:
        yield verify
    finally:
        engine.dispose()


def _url(given: str | None) -> str:
    return given or _settings().database_url
