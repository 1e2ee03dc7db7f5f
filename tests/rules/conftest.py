"""One upgraded database of each kind for all the rules: each test takes back what it writes."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[sa.Engine]:
    """Open each database in turn; a fresh one a test would cost more than all of the tests."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        path = shutil.copy(template, tmp_path_factory.mktemp("rules"))
        engine = sa.create_engine(f"sqlite:///{path}")
    else:
        # A worker may set this up twice: tests of one parameter come to it in several batches.
        name = f"rules_{uuid.uuid4().hex}"
        server = sa.make_url(request.getfixturevalue("postgres"))
        administration = sa.create_engine(server, isolation_level="AUTOCOMMIT")
        with administration.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE stagewire_template")
        administration.dispose()
        engine = sa.create_engine(server.set(database=name))
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give a connection that forgets what was written."""
    with engine.connect() as connection:
        yield connection
        connection.rollback()
