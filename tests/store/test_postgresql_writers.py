"""PostgreSQL's writers: whatever becomes of one, the fleet goes on and the log has no hole."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from stagewire import errors, pb
from stagewire.callers import ANONYMOUS
from stagewire.service import models
from stagewire.service.registry import Registry
from stagewire.store import events, schema, upgrades
from stagewire.store.database import StartRefusal
from stagewire.store.opening import open_database
from stagewire.store.postgresql import PostgresDatabase
from tests.store import stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stagewire.store.transactions import Tx

DEADLINE_SECONDS = 20.0
# The promise of watch.md: a writer stopped between head and commit costs the fleet no more.
FLEET_SECONDS = 5.0


@pytest.fixture
def database(postgres_url: str) -> Iterator[PostgresDatabase]:
    opened = open_database(postgres_url, readers=16)
    assert isinstance(opened, PostgresDatabase)
    Registry(opened).bootstrap()
    yield opened
    opened.close()


def create(database: PostgresDatabase, name: str) -> int:
    request = pb.CreateModelRequest(model=pb.Model(name=name))
    return Registry(database).CreateModel(request, ANONYMOUS).revision


def names(database: PostgresDatabase) -> list[str]:
    listed = Registry(database).ListModels(pb.ListModelsRequest(), ANONYMOUS)
    return [model.name for model in listed.models]


def expect_sound(database: PostgresDatabase, revision: int) -> None:
    """Check that the log is whole up to a head, and that writing goes on from it."""
    verified = Registry(database).VerifyLog(pb.VerifyLogRequest(), ANONYMOUS)
    assert (verified.intact, verified.head_revision) == (True, revision), verified
    assert create(database, "after") == revision + 1


def administer(url: str, *statements: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    finally:
        engine.dispose()


@contextmanager
def stopped_writer(url: str) -> Iterator[subprocess.Popen[str]]:
    """Run a writer up to where it stops itself, with the head taken and nothing committed."""
    with subprocess.Popen(
        [sys.executable, stopping.__file__, url], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "head 2\n"
            yield process
        finally:
            process.kill()


@pytest.mark.fault
def test_a_writer_stopped_between_head_and_commit_blocks_the_fleet_for_seconds_only(
    database: PostgresDatabase, postgres_url: str
) -> None:
    with stopped_writer(postgres_url) as process:
        began = time.monotonic()
        revision = create(database, "next")
        waited = time.monotonic() - began
        process.send_signal(signal.SIGCONT)
        told = process.communicate(timeout=DEADLINE_SECONDS)[0]

    assert waited <= FLEET_SECONDS
    assert (revision, told.splitlines()[-1]) == (2, "DATABASE_UNAVAILABLE")
    assert names(database) == ["next"]
    expect_sound(database, 2)


@pytest.mark.fault
def test_many_writers_wait_out_a_stopped_one_together(
    database: PostgresDatabase, postgres_url: str
) -> None:
    with stopped_writer(postgres_url), ThreadPoolExecutor(12) as pool:
        began = time.monotonic()
        futures = [pool.submit(create, database, f"m{number}") for number in range(12)]
        revisions = [future.result(DEADLINE_SECONDS) for future in futures]
        waited = time.monotonic() - began

    assert waited <= FLEET_SECONDS
    assert sorted(revisions) == list(range(2, 14))
    expect_sound(database, 13)


@pytest.mark.fault
def test_a_writer_killed_between_head_and_commit_leaves_no_trace(
    database: PostgresDatabase, postgres_url: str
) -> None:
    with stopped_writer(postgres_url) as process:
        process.kill()
        process.wait(DEADLINE_SECONDS)
        revision = create(database, "next")

    assert revision == 2
    assert names(database) == ["next"]
    expect_sound(database, 2)


def test_a_backend_killed_between_head_and_commit_leaves_no_gap(
    database: PostgresDatabase, postgres_url: str
) -> None:
    def killed(tx: Tx) -> None:
        models.create(tx, pb.CreateModelRequest(model=pb.Model(name="lost")))
        events.append(tx, request_id="", method="CreateModel")
        pid = tx.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        administer(postgres_url, f"SELECT pg_terminate_backend({pid}, 5000)")

    with pytest.raises(errors.RegistryError) as refused:
        database.write(killed)

    assert refused.value.reason == "DATABASE_UNAVAILABLE"
    assert create(database, "next") == 2
    assert names(database) == ["next"]
    expect_sound(database, 2)


def test_a_use_case_that_raises_consumes_no_revision(database: PostgresDatabase) -> None:
    def failing(tx: Tx) -> None:
        models.create(tx, pb.CreateModelRequest(model=pb.Model(name="lost")))
        events.append(tx, request_id="", method="CreateModel")
        raise errors.invalid("x", "is wrong")

    with pytest.raises(errors.RegistryError, match="is wrong"):
        database.write(failing)

    expect_sound(database, 1)


def test_nobody_notices_that_every_connection_died(
    database: PostgresDatabase, postgres_url: str
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: create(database, f"m{number}"), range(8)))
    name = sa.make_url(postgres_url).database
    others = f"datname = '{name}' AND pid <> pg_backend_pid()"
    administer(
        postgres_url,
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}",  # noqa: S608
    )

    assert len(names(database)) == 8
    assert create(database, "next") == 10
    expect_sound(database, 10)


def test_writers_at_once_get_revisions_without_holes(database: PostgresDatabase) -> None:
    create(database, "churn")
    registry = Registry(database)
    request = pb.CreateModelVersionRequest(model="churn")

    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda _: registry.CreateModelVersion(request, ANONYMOUS), range(100))
        )

    by_revision = sorted((answer.revision, answer.version.version) for answer in answers)
    assert by_revision == [(number + 2, number) for number in range(1, 101)]
    expect_sound(database, 102)


def test_servers_that_start_at_once_write_one_first_event(postgres_url: str) -> None:
    count = 8
    opened = [open_database(postgres_url, readers=2) for _ in range(count)]
    barrier = threading.Barrier(count)

    def start(number: int) -> None:
        barrier.wait(DEADLINE_SECONDS)
        Registry(opened[number]).bootstrap()

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(start, range(count)))

    verified = Registry(opened[0]).VerifyLog(pb.VerifyLogRequest(), ANONYMOUS)
    assert (verified.intact, verified.head_revision) == (True, 1)
    for database in opened:
        database.close()


@pytest.fixture
def empty_url(postgres: str) -> Iterator[str]:
    """Give a database without a registry."""
    name = f"empty_{uuid.uuid4().hex}"
    administer(postgres, f"CREATE DATABASE {name}")
    yield sa.make_url(postgres).set(database=name).render_as_string(hide_password=False)
    administer(postgres, f"DROP DATABASE {name} WITH (FORCE)")


def test_upgrades_that_run_at_once_upgrade_once(empty_url: str) -> None:
    barrier = threading.Barrier(4)

    def upgrade(_number: int) -> tuple[str | None, str]:
        barrier.wait(DEADLINE_SECONDS)
        return upgrades.upgrade(empty_url)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(upgrade, range(4)))

    newest = found[0][1]
    assert sorted(before or "" for before, _ in found) == ["", newest, newest, newest]
    database = open_database(empty_url)
    Registry(database).bootstrap()
    database.close()


def test_a_database_without_a_registry_is_refused_with_the_command(empty_url: str) -> None:
    with pytest.raises(StartRefusal, match="stagewire database upgrade --database-url"):
        upgrades.require(empty_url)


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_database_that_could_lose_changes_is_refused(
    postgres: str, postgres_url: str, setting: str
) -> None:
    name = sa.make_url(postgres_url).database
    if setting == "synchronous_commit":
        administer(postgres, f"ALTER DATABASE {name} SET {setting} = off")
    else:
        # These two are the whole server's, which runs this test alone and gets them back.
        administer(postgres, f"ALTER SYSTEM SET {setting} = off", "SELECT pg_reload_conf()")
    try:
        wait_until(lambda: shown(postgres_url, setting) == "off")
        with pytest.raises(StartRefusal, match=f"{setting}=off and could lose changes"):
            open_database(postgres_url)
    finally:
        administer(postgres, f"ALTER SYSTEM RESET {setting}", "SELECT pg_reload_conf()")
    wait_until(lambda: shown(postgres, setting) == "on")


def shown(url: str, setting: str) -> str:
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return str(connection.exec_driver_sql(f"SHOW {setting}").scalar_one())
    finally:
        engine.dispose()


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not claim():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def test_sessions_only_grow_over_restarts_and_replicas(postgres_url: str) -> None:
    found = []
    for _ in range(3):
        one, other = open_database(postgres_url), open_database(postgres_url)
        found += [*one.next_sessions(2), *other.next_sessions(1), *one.next_sessions(3)]
        one.close()
        other.close()

    assert found == sorted(set(found))


def test_the_heads_time_does_not_run_backwards(database: PostgresDatabase) -> None:
    ahead = time.time_ns() // 1000 + 3_600_000_000

    def step(tx: Tx) -> None:
        tx.run(sa.update(schema.LogHead).values(commit_time=ahead), {})

    database.write(step)
    create(database, "next")

    head = Registry(database).GetHead(pb.GetHeadRequest(), ANONYMOUS)
    assert head.commit_time.ToMicroseconds() == ahead
    expect_sound(database, 2)
