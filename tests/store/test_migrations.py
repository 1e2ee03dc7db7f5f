"""Migrations: they end at the declared tables, and keep what the tables hold."""

from __future__ import annotations

import alembic.command
import pytest
import sqlalchemy as sa

from stagewire.store import upgrades
from stagewire.store.database import parse_url


@pytest.fixture
def first_schema(database_url: str) -> sa.Engine:
    """Give an engine on a registry as the first release of the schema made it."""
    engine = sa.create_engine(parse_url(database_url), poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
        else:
            # Its own bookkeeping, sqlite_stat1, can't be dropped, and nobody misses its rows.
            names = sa.inspect(connection).get_table_names()
            for name in names:
                connection.exec_driver_sql(f"DROP TABLE {name}")
    with engine.connect() as connection:
        config = upgrades._config()
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0001")
        connection.commit()
    return engine


def test_what_is_migrated_is_what_is_declared(database_url: str) -> None:
    engine = sa.create_engine(parse_url(database_url), poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        assert upgrades.drift(connection) == []


def test_agents_keep_their_reports_and_get_a_lease(
    first_schema: sa.Engine, database_url: str
) -> None:
    with first_schema.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO agents (namespace, agent, session, seq, log_id, observed_revision,"
            " report_time) VALUES ('default', 'a1', 3, 4, 'log', 5, 1000000)"
        )

    assert upgrades.upgrade(database_url)[0] == "0001"

    with first_schema.connect() as connection:
        (agent,) = connection.exec_driver_sql("SELECT * FROM agents").mappings()
        assert upgrades.drift(connection) == []
    assert (agent["session"], agent["seq"], agent["complete_from_seq"]) == (3, 4, 0)
    assert agent["lease_end_time"] == 31_000_000
