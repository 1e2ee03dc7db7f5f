"""`stagewire serve` and `stagewire database`: what needs the server's dependencies.

Importing this module needs them already; where only the SDK is installed, the command that
asked for it says so in one line. It is the one module of the CLI that reaches below the
service floor: what it runs owns a database.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pydantic
import typer

from stagewire import pb
from stagewire.cli import output, texts
from stagewire.cli.arguments import refuse
from stagewire.cli.sessions import Session, command
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


def _settings(**given: Any) -> Settings:
    """Join options, environment and defaults; refuses a value by its option's name."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        refuse(
            f"--{name.replace('_', '-')} or STAGEWIRE_{name.upper()}",
            f"{first.get('input')!r}: {first['msg']}",
        )


def _takes_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting: what can be set is said in one place."""
    session, *_ = inspect.signature(function).parameters.values()
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                field.annotation | None,  # type: ignore[operator]  # a setting has a type
                typer.Option(help=field.description, show_default=str(field.default)),
            ],
        )
        for name, field in Settings.model_fields.items()
    ]
    function.__signature__ = inspect.Signature([session, *options])  # type: ignore[attr-defined]
    return function


@command(
    app,
    "serve",
    examples=[
        "stagewire serve",
        "stagewire serve --database-url sqlite:///registry.db --grpc-address 0.0.0.0:50051",
        "stagewire serve --database-url postgresql+psycopg://registry@db/registry",
    ],
    everywhere=(),
)
@_takes_settings
def serve(_session: Session, **given: Any) -> None:
    """Run the registry's server until it is told to stop.

    Every option is also a variable of the environment: --grpc-address is
    STAGEWIRE_GRPC_ADDRESS. Options win.
    """
    settings = _settings(**given)
    from stagewire.server.serve import Server, run
    from stagewire.store.database import parse_url

    def announce(server: Server) -> None:
        shown = parse_url(settings.database_url).render_as_string(hide_password=True)
        typer.echo(texts.SERVING.format(address=server.address, database=shown))

    run(settings, announce=announce)


database = typer.Typer()
app.add_typer(database, name="database")


@command(
    database,
    "upgrade",
    examples=["stagewire database upgrade --database-url sqlite:///registry.db"],
    everywhere=("output",),
)
def upgrade(session: Session, *, database_url: DatabaseUrl = None) -> None:
    """Bring the database to this release's schema; a SQLite file is copied first."""
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
    everywhere=("output",),
)
def check(session: Session, *, database_url: DatabaseUrl = None) -> None:
    """Say whether the database has this release's schema; exit 1 when it has not."""
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
    everywhere=("output",),
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
