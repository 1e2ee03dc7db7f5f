"""The databases without the registry: its own statements, recorded, and run by the bare drivers.

A recording is made of real calls, one after another, on a copy of the seeded database; a replay
runs it on another copy. So both sides run the same statements with the same values, whatever
the product's are at the time. SQLite's replay shares commits as the product's writer does.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event

from benchmarks.load import Sample, sample
from stagewire import pb
from stagewire.callers import ANONYMOUS
from stagewire.service.registry import Registry
from stagewire.store import schema
from stagewire.store.opening import open_database
from stagewire.store.sqlite import MAX_GROUP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

# Recorded revisions start here, where no other number is, so that a replay can tell them.
FIRST_REVISION = 1_000_000
# A replay begins, groups and commits by itself.
_OWN = ("BEGIN", "SAVEPOINT", "RELEASE", "COMMIT", "ROLLBACK", "PRAGMA", "SHOW")


@dataclass(frozen=True, slots=True)
class Step:
    """One statement with its values, or with many sets of values."""

    text: str
    values: Any
    many: bool


@dataclass(frozen=True, slots=True)
class Case:
    """One use case's statements: whose, and the revision it was given."""

    caller: int
    revision: int
    steps: tuple[Step, ...]


def record(url: str, kind: str, bodies: Sequence[Iterator[bytes]], count: int) -> list[Case]:
    """Make calls and note what each asks of the database at `url`, which is used up."""
    _raise_head(url)
    steps: list[Step] = []
    connect = _noted_connect(steps)
    event.listen(sa.Engine, "do_connect", connect)
    database = open_database(url, readers=4)
    registry = Registry(database)
    request_type = getattr(pb, f"{kind}Request")
    call = getattr(registry, kind)
    cases: list[Case] = []
    for index in range(count):
        caller = index % len(bodies)
        steps.clear()
        call(request_type.FromString(next(bodies[caller])), ANONYMOUS)
        cases.append(Case(caller, FIRST_REVISION + index + 1, tuple(steps)))
    database.close()
    event.remove(sa.Engine, "do_connect", connect)
    return cases


def _noted_connect(steps: list[Step]) -> Callable[..., Any]:
    """Make what opens connections that note each statement as the driver gets it."""

    def note(text: object, values: Any, *, many: bool) -> None:
        if not str(text).startswith(_OWN):
            steps.append(Step(str(text), values, many))

    class SqliteCursor(sqlite3.Cursor):
        def execute(self, text: str, values: Any = (), /) -> SqliteCursor:
            note(text, values, many=False)
            super().execute(text, values)
            return self

        def executemany(self, text: str, values: Any, /) -> SqliteCursor:
            note(text, values, many=True)
            super().executemany(text, values)
            return self

    class SqliteConnection(sqlite3.Connection):
        def cursor(self, factory: Any = None) -> Any:
            return super().cursor(factory or SqliteCursor)

    class PsycopgCursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> PsycopgCursor:
            note(query, params, many=False)
            super().execute(query, params, **options)
            return self

        def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
            note(query, params_seq, many=True)
            super().executemany(query, params_seq, **options)

    def connect(dialect: sa.Dialect, _record: Any, arguments: Any, options: Any) -> Any:
        if dialect.name == "sqlite":
            return sqlite3.connect(*arguments, factory=SqliteConnection, **options)
        return psycopg.connect(*arguments, cursor_factory=PsycopgCursor, **options)

    return connect


def _raise_head(url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.update(schema.LogHead).values(revision=FIRST_REVISION))
    engine.dispose()


def replay_sqlite(path: Path, cases: Sequence[Case], at_once: int) -> Sample:
    """Run a recording by sqlite3: callers wait, one thread writes, a group shares a commit."""
    waiting: queue.SimpleQueue[Future[None] | None] = queue.SimpleQueue()
    writer = threading.Thread(target=_write_groups, args=(path, cases, waiting))
    writer.start()

    def ask() -> None:
        future: Future[None] = Future()
        waiting.put(future)
        future.result()

    try:
        return _timed([[ask] * (len(cases) // at_once) for _ in range(at_once)])
    finally:
        waiting.put(None)
        writer.join()


def _write_groups(
    path: Path, cases: Sequence[Case], waiting: queue.SimpleQueue[Future[None] | None]
) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("UPDATE log_head SET revision = ?", (FIRST_REVISION,))
    remaining = iter(cases)
    while (first := waiting.get()) is not None:
        group = [first]
        while len(group) < MAX_GROUP and not waiting.empty():
            if (another := waiting.get()) is not None:
                group.append(another)
        connection.execute("BEGIN IMMEDIATE")
        for _ in group:
            connection.execute("SAVEPOINT use_case")
            for step in next(remaining).steps:
                if step.many:
                    connection.executemany(step.text, step.values)
                else:
                    connection.execute(step.text, step.values).fetchall()
            connection.execute("RELEASE use_case")
        connection.execute("COMMIT")
        for future in group:
            future.set_result(None)
    connection.close()


def replay_postgresql(url: str, cases: Sequence[Case], at_once: int) -> Sample:
    """Run a recording by psycopg: each caller its own cases, on a connection of its own."""
    _raise_head(url)
    plain = url.replace("postgresql+psycopg://", "postgresql://")
    connections = [psycopg.connect(plain, autocommit=True) for _ in range(at_once)]
    work: list[list[Callable[[], None]]] = []
    for index, connection in enumerate(connections):
        own = [c for c in cases if at_once == 1 or c.caller == index]
        revisions: dict[int, int] = {}
        work.append([_transaction(connection, case, revisions) for case in own])
    try:
        return _timed(work)
    finally:
        for connection in connections:
            connection.close()


def _transaction(
    connection: psycopg.Connection[Any], case: Case, revisions: dict[int, int]
) -> Callable[[], None]:
    """Prepare a case; other callers' cases come between, so revisions are the replay's own."""

    def run() -> None:
        last: Any = None
        with connection.transaction(), connection.cursor() as cursor:
            for step in case.steps:
                if step.many:
                    cursor.executemany(step.text, step.values)
                    continue
                cursor.execute(step.text, _translated(step.values, revisions))
                if cursor.description is not None:
                    last = cursor.fetchall()
        # The last statement takes the head and answers with the revision.
        revisions[case.revision] = last[0][0]

    return run


def _translated(values: Any, revisions: dict[int, int]) -> Any:
    if isinstance(values, dict):
        return {key: _translated(value, revisions) for key, value in values.items()}
    if isinstance(values, list):
        return [_translated(value, revisions) for value in values]
    if isinstance(values, int):
        return revisions.get(values, values)
    return values


def _timed(work: Sequence[Sequence[Callable[[], None]]]) -> Sample:
    """Run each caller's list on a thread of its own, all starting together."""
    latencies: list[list[int]] = [[] for _ in work]
    ends = [0] * len(work)
    faults: list[BaseException] = []
    start = threading.Barrier(len(work) + 1)

    def run(index: int) -> None:
        start.wait()
        try:
            for call in work[index]:
                began = time.monotonic_ns()
                call()
                latencies[index].append(time.monotonic_ns() - began)
        except BaseException as error:  # noqa: BLE001  # it is raised by who waits
            faults.append(error)
        ends[index] = time.monotonic_ns()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.monotonic_ns()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return sample([n for each in latencies for n in each], (max(ends) - began) / 1e9)
