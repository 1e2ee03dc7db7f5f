"""SQLite's writer: use cases share a commit, and a fault in one of them is nobody else's."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import sqlalchemy as sa

from stagewire import errors, pb
from stagewire.callers import ANONYMOUS
from stagewire.service import models
from stagewire.service.registry import Registry
from stagewire.store import events, sqlite, upgrades
from stagewire.store.database import StartRefusal
from stagewire.store.opening import open_database
from stagewire.store.sqlite import SqliteDatabase
from stagewire.store.transactions import Again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stagewire.store.transactions import Tx

    Work = Callable[[Tx], object]

DEADLINE_SECONDS = 15.0


@pytest.fixture
def database(sqlite_url: str) -> Iterator[SqliteDatabase]:
    opened = open_database(sqlite_url, readers=4)
    assert isinstance(opened, SqliteDatabase)
    Registry(opened).bootstrap()
    yield opened
    opened.close()


def making(name: str, *, description: str = "") -> Work:
    """Give a use case that registers a model; it answers the revision."""

    def work(tx: Tx) -> int:
        model = pb.Model(name=name, description=description)
        models.create(tx, pb.CreateModelRequest(model=model))
        return events.append(tx, request_id="", method="CreateModel")

    return work


def raw(tx: Tx) -> sqlite3.Connection:
    return cast("sqlite3.Connection", tx.connection.connection.dbapi_connection)


def together(database: SqliteDatabase, works: Sequence[Work]) -> list[Any]:
    """Have use cases run as one group, in this order; give what each answered or raised."""
    running, hold = threading.Event(), threading.Event()

    def holding(_tx: Tx) -> None:
        running.set()
        assert hold.wait(DEADLINE_SECONDS)

    with ThreadPoolExecutor(len(works) + 1) as pool:
        first = pool.submit(database.write, holding)
        assert running.wait(DEADLINE_SECONDS)
        futures = []
        for count, work in enumerate(works, start=1):
            futures.append(pool.submit(database.write, work))
            deadline = time.monotonic() + DEADLINE_SECONDS
            while database._jobs.qsize() < count:
                assert time.monotonic() < deadline
                threading.Event().wait(0.001)
        hold.set()
        first.result()
        return [future.exception() or future.result() for future in futures]


def names(database: SqliteDatabase) -> list[str]:
    listed = Registry(database).ListModels(pb.ListModelsRequest(), ANONYMOUS)
    return [model.name for model in listed.models]


def expect_sound(database: SqliteDatabase, revision: int) -> None:
    """Check that the log is whole up to a head, and that writing goes on from it."""
    registry = Registry(database)
    verified = registry.VerifyLog(pb.VerifyLogRequest(), ANONYMOUS)
    assert (verified.intact, verified.head_revision) == (True, revision), verified
    after = registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name="after")), ANONYMOUS)
    assert after.revision == revision + 1


def test_waiting_use_cases_share_a_commit_each_with_its_own_revision(
    database: SqliteDatabase,
) -> None:
    answers = together(database, [making(f"m{number}") for number in range(8)])

    assert answers == list(range(2, 10))
    assert database.largest_group == 8
    expect_sound(database, 9)


def test_a_group_has_an_end(database: SqliteDatabase) -> None:
    count = sqlite.MAX_GROUP + 5

    answers = together(database, [making(f"m{number}") for number in range(count)])

    assert answers == list(range(2, count + 2))
    assert database.largest_group == sqlite.MAX_GROUP


def test_nobody_is_answered_before_the_commit(database: SqliteDatabase) -> None:
    seen: list[list[str]] = []

    def looking(_tx: Tx) -> None:
        # What the first member wrote is not to be seen from outside yet.
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(names, database).result())

    together(database, [making("first"), looking])

    assert seen == [[]]
    assert names(database) == ["first"]


@pytest.mark.parametrize(
    "error", [errors.invalid("x", "is wrong"), ValueError("ours"), KeyboardInterrupt("not ours")]
)
def test_a_use_case_that_raises_leaves_the_others_alone(
    database: SqliteDatabase, error: BaseException
) -> None:
    def failing(tx: Tx) -> None:
        making("half")(tx)
        raise error

    answers = together(database, [making("a"), failing, making("b")])

    assert (answers[0], answers[2]) == (2, 3)
    assert type(answers[1]) is type(error)
    assert names(database) == ["a", "b"]
    expect_sound(database, 3)


# Long enough to be interrupted in; only the interrupt of a writing statement costs the group.
_LONG = (
    "INSERT INTO texts (model_id, number, sha256, body) "
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000) "
    "SELECT CAST(i AS TEXT), 0, 'x', 'x' FROM n"
)


def interrupted(name: str, *, times: int, swallow: bool = False) -> Work:
    """Give a use case that is interrupted in mid-statement, so many times."""
    left = [times]

    def work(tx: Tx) -> int:
        made = cast("int", making(name)(tx))
        if left[0]:
            left[0] -= 1
            raw(tx).set_progress_handler(lambda: 1, 1000)
            try:
                tx.connection.exec_driver_sql(_LONG)
            except sa.exc.OperationalError:
                if not swallow:
                    raise
            finally:
                raw(tx).set_progress_handler(None, 0)
        return made

    return work


@pytest.mark.fault
def test_an_interrupt_in_mid_group_costs_nobody_anything(
    database: SqliteDatabase, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault", "an interrupt in the middle of a SQLite group")
    works = [making(name) for name in "abcdefgh"]
    works[3] = interrupted("d", times=1)

    answers = together(database, works)

    assert answers == list(range(2, 10))
    assert names(database) == list("abcdefgh")
    expect_sound(database, 9)


def test_a_use_case_that_is_always_interrupted_fails_alone(database: SqliteDatabase) -> None:
    works = [making("a"), making("b"), interrupted("c", times=99), making("d")]

    answers = together(database, works)

    assert (answers[0], answers[1], answers[3]) == (2, 3, 4)
    assert answers[2].reason == "CONTENTION"
    assert names(database) == ["a", "b", "d"]
    expect_sound(database, 4)


def test_an_interrupt_that_a_use_case_keeps_to_itself_is_noticed(
    database: SqliteDatabase,
) -> None:
    works = [making("a"), interrupted("b", times=1, swallow=True), making("c")]

    answers = together(database, works)

    assert answers == [2, 3, 4]
    assert names(database) == ["a", "b", "c"]
    expect_sound(database, 4)


@pytest.mark.fault
def test_an_interrupt_from_another_thread_costs_nobody_anything(
    database: SqliteDatabase, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault", "an interrupt in the middle of a SQLite group")
    once = [True]

    def slow(tx: Tx) -> int:
        if once:
            once.clear()
            threading.Timer(0.05, raw(tx).interrupt).start()
            tx.connection.exec_driver_sql(_LONG)
        return cast("int", making("slow")(tx))

    answers = together(database, [making("a"), slow, making("b")])

    assert answers == [2, 3, 4]
    expect_sound(database, 4)


def limited(tx: Tx, pages: int) -> None:
    """Let the file grow by so many pages and no more; 0 for as far as it likes."""
    present = tx.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    most = present + pages if pages else 4294967294
    tx.connection.exec_driver_sql(f"PRAGMA max_page_count={most}")


@pytest.mark.fault
def test_a_full_file_in_mid_group_fails_only_what_does_not_fit(
    database: SqliteDatabase, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault", "a full disk in the middle of a SQLite group")
    texts = {f"t{number}": str(number) * 50_000 for number in range(10)}

    def large(tx: Tx) -> int:
        limited(tx, 20)
        models.create(tx, pb.CreateModelRequest(model=pb.Model(name="large", tags=texts)))
        return events.append(tx, request_id="", method="CreateModel")

    works = [making(name) for name in "abcdefg"]
    answers = together(database, [*works[:3], large, *works[3:]])
    database.write(lambda tx: limited(tx, 0))

    assert answers.pop(3).reason == "DATABASE_UNAVAILABLE"
    assert answers == list(range(2, 9))
    assert names(database) == list("abcdefg")
    expect_sound(database, 8)


@pytest.mark.fault
def test_a_disk_that_is_full_at_the_commit_leaves_nothing_half_written(
    database: SqliteDatabase, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault", "a full disk in the middle of a SQLite group")
    wal = Path(f"{database.path}-wal")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def filling(tx: Tx) -> int:
        # The kernel refuses to let any file of this process grow past this, as a full disk does.
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size + 4096, before[1]))
        return cast("int", making("c")(tx))

    try:
        works = [making(name) for name in "abdefgh"]
        answers = together(database, [*works[:2], filling, *works[2:]])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert [getattr(answer, "reason", answer) for answer in answers] == ["DATABASE_UNAVAILABLE"] * 8
    assert names(database) == []
    expect_sound(database, 1)


def test_cancelled_work_is_left_out_and_the_writer_lives(database: SqliteDatabase) -> None:
    job = sqlite._Job(making("cancelled"), None)
    job.future.cancel()

    database._jobs.put(job)

    assert database.write(making("a")) == 2
    assert names(database) == ["a"]


def test_work_whose_deadline_passed_while_it_waited_is_not_done(
    database: SqliteDatabase,
) -> None:
    with pytest.raises(errors.RegistryError) as refused:
        database.write(making("late"), deadline=time.monotonic() - 1)

    assert refused.value.reason == "DEADLINE_PASSED"
    assert names(database) == []


def test_a_use_case_that_always_asks_to_start_over_is_refused(database: SqliteDatabase) -> None:
    runs = []

    def restless(tx: Tx) -> None:
        runs.append(tx.revision)
        raise Again

    with pytest.raises(errors.RegistryError) as refused:
        database.write(restless)

    assert refused.value.reason == "CONTENTION"
    assert len(runs) == 10


def test_sessions_only_grow_over_restarts(sqlite_url: str) -> None:
    found = []
    for _ in range(3):
        opened = open_database(sqlite_url)
        found += [*opened.next_sessions(2), *opened.next_sessions(sqlite.SESSION_BLOCK + 1)]
        opened.close()

    assert found == sorted(set(found))


def test_after_closing_nothing_is_taken_and_the_file_stands_alone(
    database: SqliteDatabase,
) -> None:
    database.write(making("a"))

    database.close()

    with pytest.raises(errors.RegistryError) as refused:
        database.write(making("late"))
    assert refused.value.reason == "DATABASE_UNAVAILABLE"
    assert not Path(f"{database.path}-wal").exists()


def test_closing_answers_whoever_still_waits(database: SqliteDatabase) -> None:
    outcomes: list[str] = []
    halt = threading.Event()

    def keep_writing() -> None:
        count = 0
        while not halt.is_set():
            count += 1
            try:
                database.write(making(f"{threading.get_ident()}-{count}"))
            except errors.RegistryError as error:
                outcomes.append(error.reason)
                return

    threads = [threading.Thread(target=keep_writing) for _ in range(8)]
    for thread in threads:
        thread.start()
    database.write(making("between"))
    database.close()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    halt.set()

    assert not any(thread.is_alive() for thread in threads)
    assert outcomes == ["DATABASE_UNAVAILABLE"] * 8


def test_a_second_server_on_one_file_refuses_and_says_why(
    database: SqliteDatabase, sqlite_url: str
) -> None:
    with pytest.raises(StartRefusal, match=r"another process is serving .*stagewire\.db"):
        open_database(sqlite_url)
    with pytest.raises(StartRefusal, match="another process is serving"):
        upgrades.upgrade(sqlite_url)

    assert database.write(making("a")) == 2


def test_a_killed_servers_lock_does_not_block(sqlite_url: str) -> None:
    program = (
        "import sys; from stagewire.store.opening import open_database; "
        f"open_database({sqlite_url!r}); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(StartRefusal):
            open_database(sqlite_url)
        process.kill()
        process.wait(DEADLINE_SECONDS)
        opened = open_database(sqlite_url)
        opened.close()
