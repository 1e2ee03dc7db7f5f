"""What goes wrong below the use cases: it is refused by name, and nothing is half done."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from stagewire import errors, pb
from stagewire.callers import ANONYMOUS, Caller
from stagewire.store import postgresql
from tests.factories import found, head, model, numbered, refused, sql, version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stagewire.service.registry import Registry
    from stagewire.store.database import Database


@pytest.fixture
def impatient(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have writes wait for locks a moment only."""
    monkeypatch.setattr(postgresql, "WRITE_SECONDS", 0.1)

    def hurry(tx: object) -> None:
        connection: sa.Connection = tx.connection  # type: ignore[attr-defined]  # a Tx
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA busy_timeout=50")

    database.write(hurry)


@contextlib.contextmanager
def operator_writing(url: str) -> Iterator[None]:
    """Hold what every write needs in an operator's own session."""
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.connect() as session:
        if session.dialect.name == "sqlite":
            raw = session.connection.dbapi_connection
            assert raw is not None
            raw.isolation_level = None
            session.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            session.exec_driver_sql("SELECT 1 FROM log_head FOR UPDATE")
        yield
        session.rollback()


@pytest.mark.usefixtures("impatient")
def test_a_write_kept_out_by_an_operators_session_is_refused_and_may_be_repeated(
    registry: Registry, database_url: str
) -> None:
    with operator_writing(database_url), refused("CONTENTION") as caught:
        model(registry)

    assert caught.error.retry_after_seconds
    with refused("MODEL_NOT_FOUND"):
        found(registry)
    assert model(registry).revision == 2


@pytest.mark.usefixtures("impatient")
def test_all_who_wait_for_an_operators_session_are_refused_together(
    registry: Registry, database_url: str
) -> None:
    def attempt(number: int) -> str:
        try:
            model(registry, f"m{number}")
        except errors.RegistryError as error:
            return error.reason
        return "made"

    with operator_writing(database_url), ThreadPoolExecutor(8) as pool:
        outcomes = set(pool.map(attempt, range(8)))

    assert outcomes == {"CONTENTION"}
    assert head(registry) == 1


def test_reads_go_on_while_an_operator_writes(registry: Registry, database_url: str) -> None:
    made = model(registry)

    with operator_writing(database_url):
        assert found(registry).model == made


def test_a_fault_of_the_databases_is_internal_and_leaves_no_trace(
    registry: Registry, database_url: str
) -> None:
    model(registry)
    version(registry, params={"a": "1"})
    sql(database_url, "DROP TABLE version_params")

    with refused("INTERNAL") as write:
        version(registry, params={"a": "1"})
    with refused("INTERNAL") as read:
        numbered(registry, 1)

    assert "version_params" not in write.error.message + read.error.message
    assert found(registry).latest_version == 1
    assert model(registry, "other").revision == 4


def test_a_call_whose_deadline_has_passed_is_not_begun(registry: Registry) -> None:
    late = Caller(deadline=time.monotonic() - 1)

    with refused("DEADLINE_PASSED"):
        registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name="churn")), late)
    with refused("DEADLINE_PASSED"):
        registry.ListModels(pb.ListModelsRequest(), late)

    assert head(registry) == 1


def test_a_call_in_good_time_is_made(registry: Registry) -> None:
    soon = Caller(deadline=time.monotonic() + 60)

    answer = registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name="churn")), soon)

    assert answer.revision == 2


def test_refusals_among_many_writers_cost_the_others_nothing(registry: Registry) -> None:
    model(registry)

    def attempt(number: int) -> str:
        try:
            if number % 2:
                version(registry)
            else:
                model(registry)
        except errors.RegistryError as error:
            return error.reason
        return "made"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(40)))

    assert sorted(outcomes) == ["MODEL_EXISTS"] * 20 + ["made"] * 20
    assert found(registry).latest_version == 20
    assert registry.VerifyLog(pb.VerifyLogRequest(), ANONYMOUS).last_revision == 22


def test_an_exception_in_a_use_case_reaches_its_caller_and_nobody_else(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_tx: object, _request: object) -> pb.CreateModelResponse:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(type(registry).CreateModel, "work", fail)
        with pytest.raises(ZeroDivisionError):
            model(registry)

    assert model(registry).revision == 2
