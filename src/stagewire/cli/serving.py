"""`stagewire serve` and `stagewire database`: what needs the server's dependencies.

Importing this module needs them already; where only the SDK is installed, the command that
asked for it says so in one line. It is the one module of the CLI that reaches below the
service floor: what it runs owns a database.
"""

import inspect
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
import typer

from stagewire import pb
from stagewire.cli import output, texts
from stagewire.cli.arguments import refuse
from stagewire.cli.sessions import Session, command
from stagewire.settings import Settings

if TYPE_CHECKING:
    from stagewire.store.compaction import Stretch
    from stagewire.store.transactions import Tx

SECONDS_A_DAY = 24 * 3600
LONGEST_KEPT_DAYS = 36_500

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
                typer.Option(
                    # What is off needs no option to turn it off.
                    *([f"--{name.replace('_', '-')}"] if field.default is False else []),
                    help=field.description,
                    # A type's own spelling, a choice's above all, would push the name out.
                    metavar=None if field.annotation is bool else name.rpartition("_")[2].upper(),
                    show_default=str(field.get_default(call_default_factory=True)),
                ),
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
        (
            "stagewire serve --grpc-address 0.0.0.0:50051"
            " --tls-certificate-file registry.crt --tls-key-file registry.key"
        ),
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
        http = texts.SERVING_HTTP.format(url=server.http_url) if server.http else ""
        address = f"grpcs://{server.address}" if server.certificates else server.address
        typer.echo(texts.SERVING.format(address=address, http=http, database=shown))

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


@command(
    database,
    "compact",
    examples=[
        "stagewire database compact --keep-days 90 --dry-run",
        "stagewire database compact --keep-days 90",
    ],
    everywhere=("output",),
)
def compact(
    session: Session,
    *,
    keep_days: Annotated[
        float,
        typer.Option(
            "--keep-days",
            min=0,
            max=LONGEST_KEPT_DAYS,
            help="Changes younger than this stay in the log.",
            show_default=False,
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go; change nothing.")
    ] = False,
    database_url: DatabaseUrl = None,
    batch: Annotated[int, typer.Option("--batch", min=1, max=10_000, hidden=True)] = 1000,
) -> None:
    """Let the log's oldest revisions go; what is kept still verifies.

    Works beside running servers on PostgreSQL; a SQLite file must not be served meanwhile. It may
    be interrupted, and goes on where it was when it is run again. A watch that lags behind what
    is kept begins again with a snapshot. The history of stages and aliases stays whole.
    """
    from stagewire.store import compaction

    if math.isnan(keep_days):
        refuse("--keep-days", "must be a number")
    url = _url(database_url)
    with _reading(url) as view, view() as tx:
        old = compaction.older_than(tx, keep_days * SECONDS_A_DAY)
    if old.count and not dry_run:
        _compact(url, old, batch)
    moment = datetime.fromtimestamp(old.until_time / 1e6, UTC).isoformat(timespec="seconds")
    kept = old.head - old.until
    done = "would compact" if dry_run else "compacted"
    text = f"{done} {old.count:,} revisions, up to revision {old.until} of {moment}"
    output.show_plain(
        {
            "revisions": old.count,
            "compacted_revision": old.until,
            "compacted_time": moment if old.count else "",
            "kept": kept,
            "dry_run": dry_run,
        },
        session.output,
        name=str(old.until),
        text=f"{text if old.count else 'nothing is as old as that'}; the log holds {kept:,}",
    )


def _compact(url: str, old: "Stretch", batch: int) -> None:
    """Compact, showing on standard error how far it is."""
    import structlog

    from stagewire.store import compaction
    from stagewire.store.opening import open_database

    # A refusal says it all in one line; a server's log lines would stand in the answer.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    trusts = _settings().trust_storage
    opened = open_database(url, readers=1, listens=False, trusts_storage=trusts)
    with closing(opened), output.progress() as progress:
        bar = progress.add_task("compacting", total=old.count)
        for mark in compaction.compact(opened, old.until, batch=batch):
            progress.update(bar, completed=mark - old.after)


@contextmanager
def verifier(database_url: str) -> Iterator[Callable[[pb.VerifyLogRequest], pb.VerifyLogResponse]]:
    """Verify the log in a database itself, beside a running server or without one."""
    from stagewire.service import audit

    with _reading(database_url) as view:

        def verify(request: pb.VerifyLogRequest) -> pb.VerifyLogResponse:
            with view() as tx:
                return audit.verify(tx, request)

        yield verify


@contextmanager
def _reading(database_url: str) -> "Iterator[Callable[[], AbstractContextManager[Tx]]]":
    """Give what begins a consistent, read-only view, beside a running server or without one."""
    import sqlalchemy as sa

    from stagewire.store import upgrades
    from stagewire.store.database import parse_url
    from stagewire.store.sqlite import read_engine
    from stagewire.store.transactions import Tx

    upgrades.require(database_url)
    url = parse_url(database_url)
    engine = (
        read_engine(url, pool_size=1)
        if url.get_backend_name() == "sqlite"
        # One view for all statements of a transaction: the log may be compacted between two.
        else sa.create_engine(
            url,
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
        )
    )

    @contextmanager
    def view() -> Iterator[Tx]:
        with engine.connect() as connection:
            yield Tx(connection)

    try:
        yield view
    finally:
        engine.dispose()


@dataclass(frozen=True)
class FirstToken:
    """What stands for the first admin, and where the server finds out."""

    id: str
    secret: str
    file: Path
    file_is_default: bool


def first_token(database_url: str | None, file: Path | None) -> FirstToken:
    """Make the first admin's token. Raises ValueError where there is one, or an admin, already."""
    from stagewire.access import bootstrap
    from stagewire.service import tokens

    url = _url(database_url)
    said = str(file or _settings().bootstrap_token_file)
    path = bootstrap.place(said, url)
    if path is None:
        refuse(
            "--file", "say where the server will find it: PostgreSQL is no file to put it beside"
        )
    _refuse_second_admin(url)
    id_, secret = tokens.mint()
    try:
        bootstrap.write(path, id_, secret)
    except FileExistsError:
        raise ValueError(
            f"{path} is there already, and stands for a token that somebody may have; delete it "
            "to make another"
        ) from None
    return FirstToken(id_, secret, path, not said)


def _refuse_second_admin(url: str) -> None:
    from stagewire.service import grants
    from stagewire.store import upgrades

    current, _ = upgrades.check(url)
    if current is None and url.startswith("sqlite"):
        return  # the server makes the file when it starts
    with _reading(url) as view, view() as tx:
        if grants.has_admin(tx):
            raise ValueError(
                "this registry has an admin already, who can make tokens and other admins"
            )


def _url(given: str | None) -> str:
    return given or _settings().database_url
