"""SQLite: one thread writes, in groups that share a commit.

Waiting use cases run one after another in one transaction, each in its own savepoint and with
its own revision, and nobody is answered before the commit has returned: the fsync is shared, the
order is not. Only that thread's connection writes and checkpoints.
"""

from __future__ import annotations

import fcntl
import os
import queue
import sqlite3
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import sqlalchemy as sa
import structlog
from sqlalchemy import event

from stagewire import errors, failpoints
from stagewire.store import schema
from stagewire.store.database import (
    _HEAD,
    WRITE_ATTEMPTS,
    Database,
    StartRefusal,
    contention,
    deadline_passed,
    unavailable,
)
from stagewire.store.transactions import Again, Tx

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
log = structlog.get_logger()

# A commit costs one fsync; past 32 sharing it no longer pays for the first one's wait.
MAX_GROUP = 32
# Sessions are reserved in blocks, so that opening a watch costs no commit.
SESSION_BLOCK = 1000

# What SQLite says of a file that another process, an operator's say, is writing.
_HELD = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
# One statement may take so long, as on PostgreSQL: whoever asks for more is told so, and holds up
# nobody. It is looked at after so many steps of SQLite's, which take some milliseconds.
READ_SECONDS = 2.0
WRITE_STATEMENT_SECONDS = 5.0
_STEPS = 100_000
# A missing table or wrong SQL: no second attempt mends it.
_OURS = {sqlite3.SQLITE_ERROR}


class _GroupLost(Exception):
    """SQLite rolled the whole transaction back by itself."""


class _Job:
    """One waiting use case and whom to answer."""

    __slots__ = ("attempts", "deadline", "error", "future", "result", "revision", "work")

    def __init__(self, work: Callable[[Tx], Any], deadline: float | None) -> None:
        self.work = work
        self.deadline = deadline
        self.future: Future[Any] = Future()
        self.result: Any = None
        self.error: BaseException | None = None
        self.revision = 0
        self.attempts = 0

    def answer(self) -> None:
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class SqliteDatabase(Database):
    """A registry in one file, served by one process."""

    def __init__(self, url: sa.URL, *, readers: int = 64, synchronous: str = "FULL") -> None:
        """Lock the file and start the writer. Raises StartRefusal when it is being served."""
        super().__init__()
        self.path = Path(url.database or "")
        self._lock = lock(self.path)
        self._reads = read_engine(url, pool_size=readers)
        _limit_statements(self._reads, READ_SECONDS)
        self._writes = sa.create_engine(url, poolclass=sa.pool.StaticPool, hide_parameters=True)
        event.listen(self._writes, "connect", _write_pragmas(synchronous))
        _limit_statements(self._writes, WRITE_STATEMENT_SECONDS)
        event.listen(self._writes, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing_lock = threading.Lock()
        self._sessions_lock = threading.Lock()
        self._session = self._session_end = 0
        self.largest_group = 0
        self._writer = threading.Thread(target=self._serve, name="sqlite-writer", daemon=True)
        self._writer.start()

    def write(self, work: Callable[[Tx], T], *, deadline: float | None = None) -> T:
        """Queue the use case for the writer and wait for its group's commit."""
        job = _Job(work, deadline)
        # Under the lock of `close`, or a job put behind its None would wait for ever.
        with self._closing_lock:
            if self._closing.is_set():
                raise unavailable()
            self._jobs.put(job)
        result: T = job.future.result()
        return result

    def next_sessions(self, count: int) -> Sequence[int]:
        """Hand out numbers of the reserved block, reserving others when it is used up."""
        with self._sessions_lock:
            return [self._next_session() for _ in range(count)]

    def _next_session(self) -> int:
        if self._session >= self._session_end:
            self._session_end = self.write(_reserve_sessions)
            self._session = self._session_end - SESSION_BLOCK
        self._session += 1
        return self._session

    def tidy(self) -> None:
        """Let SQLite look at how values are spread; without that it picks indexes blindly."""
        self.write(_analyze)

    def close(self) -> None:
        """Finish what is queued, checkpoint and release the file."""
        with self._closing_lock:
            if self._closing.is_set():
                return
            self._closing.set()
            self._jobs.put(None)
        self._writer.join()
        self._reads.dispose()
        self._writes.dispose()
        os.close(self._lock)

    def refusal(self, error: sa.exc.SQLAlchemyError) -> errors.RegistryError:
        """Tell a held, full or unreachable file from a fault of ours."""
        code = _code(error)
        if code in _HELD or _is_interrupt(error):
            log.warning("database contention", code=code)
            return contention()
        log.error("database error", code=code, exc_info=error)
        gone = isinstance(error, (sa.exc.OperationalError, sa.exc.TimeoutError))
        if gone and code not in _OURS:
            return unavailable()
        return errors.RegistryError("INTERNAL", "the registry's database refused the operation")

    def _reader(self) -> sa.Connection:
        return self._reads.connect()

    def _serve(self) -> None:
        stop = False
        while not stop:
            first = self._jobs.get()
            if first is None:
                break
            group = [first]
            while len(group) < MAX_GROUP:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    stop = True
                    break
                group.append(job)
            self._run(group)
        with suppress(queue.Empty):
            while True:
                if (job := self._jobs.get_nowait()) is not None:
                    job.future.set_exception(unavailable())

    def _run(self, group: list[_Job]) -> None:
        """Commit a group and answer it; if SQLite dropped it whole, each member alone, once."""
        # A cancelled future is left out here: setting its result later would kill this thread.
        members = [job for job in group if job.future.set_running_or_notify_cancel()]
        try:
            self._commit(members)
        except Exception as error:  # noqa: BLE001  # the writer must outlive any member
            # Another process holds the file: each member alone would wait as long once more.
            held = isinstance(error, sa.exc.SQLAlchemyError) and _code(error) in _HELD
            log.warning("group lost", members=len(members), again=not held, error=error)
            for job in members:
                if held:
                    job.error = self._translate(error)
                    continue
                try:
                    self._commit([job])
                except Exception as alone:  # noqa: BLE001  # as above
                    job.error = self._translate(alone)
        self.largest_group = max(self.largest_group, len(members))
        # Before the answers: whoever has one may count on what this process knows of it.
        if revision := max((job.revision for job in members if job.error is None), default=0):
            failpoints.hit("commit.returned")
            self._committed(revision)
        for job in members:
            job.answer()

    def _translate(self, error: Exception) -> Exception:
        if isinstance(error, _GroupLost) and _is_interrupt(error.__cause__):
            # Its own statement took too long, and SQLite gave up the transaction with it.
            return contention()
        if isinstance(error, sa.exc.SQLAlchemyError):
            return self.refusal(error)
        if isinstance(error, Again):
            return contention()
        return unavailable() if isinstance(error, (_GroupLost, sqlite3.Error)) else error

    def _commit(self, jobs: list[_Job]) -> None:
        with self._writes.connect() as connection:
            raw = cast("sqlite3.Connection", connection.connection.dbapi_connection)
            try:
                connection.begin()
                head = connection.execute(_HEAD).one()
                state = (head.revision, head.head_hash, head.commit_time)
                for job in jobs:
                    job.revision, job.error, job.result = 0, None, None
                    state = self._run_one(job, connection, raw, head.log_id, state)
                raw.execute("COMMIT")
            finally:
                if raw.in_transaction:
                    raw.execute("ROLLBACK")

    def _run_one(
        self,
        job: _Job,
        connection: sa.Connection,
        raw: sqlite3.Connection,
        log_id: str,
        state: tuple[int, bytes, int],
    ) -> tuple[int, bytes, int]:
        """Run one use case in its savepoint; answer the head after it."""
        if job.deadline is not None and time.monotonic() > job.deadline:
            job.error = deadline_passed()
            return state
        revision, head_hash, head_time = state
        raw.execute("SAVEPOINT use_case")
        while True:
            tx = Tx(
                connection,
                head=revision,
                head_hash=head_hash,
                log_id=log_id,
                revision=revision + 1,
                time=max(time.time_ns() // 1000, head_time),
            )
            try:
                job.result = job.work(tx)
                job.revision = tx.head if tx.head != revision else 0
            except BaseException as error:  # it goes to the caller, not to us
                # An interrupt or a full disk ends the whole transaction; a later savepoint
                # would then commit alone, behind the group's back.
                if not raw.in_transaction:
                    raise _GroupLost from error
                raw.execute("ROLLBACK TO use_case")
                job.attempts += 1
                if isinstance(error, Again) and job.attempts < WRITE_ATTEMPTS:
                    continue
                job.error = self._translate(error) if isinstance(error, Exception) else error
            break
        if not raw.in_transaction:
            raise _GroupLost
        raw.execute("RELEASE use_case")
        if job.error is not None:
            return state
        return (tx.head, tx.head_hash, tx.commit_time or head_time)


def _code(error: sa.exc.SQLAlchemyError) -> int:
    """Give SQLite's primary result code of an error, 0 when it has none."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else None
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF


def _is_interrupt(error: BaseException | None) -> bool:
    return isinstance(error, sa.exc.SQLAlchemyError) and _code(error) == sqlite3.SQLITE_INTERRUPT


def read_engine(url: sa.URL, *, pool_size: int) -> sa.Engine:
    """Open readers that can neither write nor checkpoint."""
    engine = sa.create_engine(
        url,
        poolclass=sa.pool.QueuePool,
        pool_size=pool_size,
        max_overflow=8,
        hide_parameters=True,
        connect_args={"check_same_thread": False},
    )
    event.listen(engine, "connect", _read_pragmas)
    event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN"))
    return engine


class _Stopwatch:
    """How long a connection's statement may still take."""

    __slots__ = ("ends",)

    def __init__(self) -> None:
        self.ends = 0.0

    def is_over(self) -> bool:
        return time.monotonic() > self.ends


def _limit_statements(engine: sa.Engine, seconds: float) -> None:
    """Interrupt a statement that takes longer, its rows included."""

    def connected(connection: sqlite3.Connection, record: Any) -> None:
        stopwatch = record.info["stopwatch"] = _Stopwatch()
        connection.set_progress_handler(stopwatch.is_over, _STEPS)

    def begun(connection: sa.Connection, *_statement: object) -> None:
        connection.info["stopwatch"].ends = time.monotonic() + seconds

    event.listen(engine, "connect", connected)
    event.listen(engine, "before_cursor_execute", begun)


def _read_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only=ON")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA busy_timeout=2000")


def _write_pragmas(synchronous: str) -> Callable[[sqlite3.Connection, object], None]:
    def connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA busy_timeout=5000")
        # What a savepoint remembers would go to a temporary file, made and unlinked by each write
        # of some size; without a file descriptor left, writes would fail.
        connection.execute("PRAGMA temp_store=MEMORY")

    return connect


def _analyze(tx: Tx) -> None:
    # A sample of each index is enough, and costs milliseconds on any size.
    tx.connection.exec_driver_sql("PRAGMA analysis_limit=400")
    tx.connection.exec_driver_sql("ANALYZE")


def _reserve_sessions(tx: Tx) -> int:
    counter = sa.select(schema.Counter.value).where(schema.Counter.name == "sessions")
    value = tx.scalar(counter)
    if value is None:
        tx.insert(schema.Counter, name="sessions", value=SESSION_BLOCK)
        return SESSION_BLOCK
    tx.update(schema.Counter, {"name": "sessions"}, value=value + SESSION_BLOCK)
    return int(value) + SESSION_BLOCK


def lock(path: Path) -> int:
    """Hold the file's lock for as long as this process lives, however it dies."""
    # The file itself: a link to it elsewhere is no second registry.
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        text = (
            f"another process is serving or writing {path}; stop it first, or use PostgreSQL "
            "to run several servers"
        )
        raise StartRefusal(text) from error
    return descriptor
