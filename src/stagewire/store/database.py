"""Open a database, read from it, and write to it: the only place that begins and commits.

`read(work)` and `write(work)` take a whole use case as a function, so that it can be run again
when the database asks for it. Driver errors end here: they are logged, and the caller gets a
`RegistryError` that names none of their text.
"""

from __future__ import annotations

import abc
import threading
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa
import structlog

from stagewire import errors
from stagewire.store import schema
from stagewire.store.transactions import Tx

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
log = structlog.get_logger()

_HEAD = sa.select(
    schema.LogHead.log_id,
    schema.LogHead.revision,
    schema.LogHead.head_hash,
    schema.LogHead.commit_time,
).where(schema.LogHead.id == 1)

# Whole use cases are tried this often before the caller hears of it.
WRITE_ATTEMPTS = 10
# And no longer than this: whoever holds a lock for so long is an operator, not a writer.
WRITE_SECONDS = 10.0


class Database(abc.ABC):
    """One registry's rows, on either database."""

    def __init__(self) -> None:
        """Start without listeners."""
        self._committed: Callable[[int], None] = lambda _revision: None
        self._closing = threading.Event()

    def on_commit(self, listener: Callable[[int], None]) -> None:
        """Have `listener(revision)` called after each commit to the log of this process.

        On any thread, and before the caller of `write` has its answer.
        """
        self._committed = listener

    def on_hint(self, listener: Callable[[], None]) -> None:  # noqa: B027  # most have nothing to do
        """Have `listener()` called, on any thread, when another process may have committed."""

    @property
    def hears_others(self) -> bool:
        """Whether commits of other processes are told of; or else only looking finds them."""
        return True

    def break_off(self, held_seconds: float = 0.0) -> int:  # noqa: ARG002  # as above
        """Cut every connection that has been in use for so long; answer how many there were.

        Whoever waits on a database that is silent gets an error.
        """
        return 0

    def read(self, work: Callable[[Tx], T], *, min_revision: int = 0) -> T:
        """Run `work` on one consistent, read-only view of the database.

        Refuses REVISION_AHEAD when the log has not reached `min_revision`, DATABASE_UNAVAILABLE.
        """
        try:
            try:
                return self._read(work, min_revision)
            except sa.exc.DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            # The pool has let go of all that died with that connection.
            return self._read(work, min_revision)
        except sa.exc.SQLAlchemyError as error:
            raise self.refusal(error) from error

    def _read(self, work: Callable[[Tx], T], min_revision: int) -> T:
        with self._reader() as connection:
            head = connection.execute(_HEAD).one()
            if min_revision > head.revision:
                raise revision_ahead(min_revision, head.log_id, head.revision)
            result = work(
                Tx(
                    connection,
                    head=head.revision,
                    head_hash=head.head_hash,
                    log_id=head.log_id,
                    commit_time=head.commit_time,
                )
            )
            # Not left to the pool's rollback: psycopg forgets its prepared statements at a
            # ROLLBACK, and PostgreSQL would plan every read anew, at twice the price.
            connection.commit()
            return result

    @abc.abstractmethod
    def write(self, work: Callable[[Tx], T], *, deadline: float | None = None) -> T:
        """Run `work` in a transaction and commit it, running it again where that helps.

        `deadline` is on `time.monotonic`'s clock. Refuses CONTENTION, DATABASE_UNAVAILABLE, and
        DEADLINE_PASSED when the deadline is over before the work began.
        """

    @abc.abstractmethod
    def next_sessions(self, count: int) -> Sequence[int]:
        """Hand out rising numbers, larger than every one before, over restarts and replicas."""

    @abc.abstractmethod
    def tidy(self) -> None:
        """Do what the database wants done now and then."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let running work end and let go of the database."""

    @abc.abstractmethod
    def refusal(self, error: sa.exc.SQLAlchemyError) -> errors.RegistryError:
        """Log a driver's error and say what the caller is told."""

    @abc.abstractmethod
    def _reader(self) -> sa.engine.base.Connection:
        """Give a connection that begins a read-only transaction by itself."""


def revision_ahead(asked: int, log_id: str, head: int) -> errors.RegistryError:
    """Build the refusal of a read at a revision that does not exist."""
    return errors.RegistryError(
        "REVISION_AHEAD",
        f"min_revision {asked} is above the log's head {head}: history was lost, or the mark "
        "belongs to another registry; drop it and read again",
        metadata={"log_id": log_id, "head": str(head)},
    )


def unavailable() -> errors.RegistryError:
    """Build the refusal for a database that can't be reached, or can't write: its disk is full."""
    return errors.RegistryError(
        "DATABASE_UNAVAILABLE",
        "the registry's database can't be reached, or can't write; try again",
        retry_after_seconds=1.0,
    )


def contention() -> errors.RegistryError:
    """Build the refusal of a change that concurrent ones kept out."""
    return errors.RegistryError(
        "CONTENTION",
        "concurrent changes kept this one from being made; nothing was written, try again",
        retry_after_seconds=0.5,
    )


def deadline_passed() -> errors.RegistryError:
    """Build the refusal of work whose caller has stopped waiting."""
    return errors.RegistryError(
        "DEADLINE_PASSED", "the deadline had passed before work began; nothing was done"
    )


class StartRefusal(ValueError):
    """The database must not be served from as it is; the text says the remedy."""


def parse_url(url: str) -> sa.URL:
    """Read a database URL. Raises StartRefusal for what is neither SQLite nor PostgreSQL."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        text = "database URL does not parse; use sqlite:///FILE or postgresql+psycopg://HOST/NAME"
        raise StartRefusal(text) from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            text = "SQLite needs a file: sqlite:///data/stagewire.db"
            raise StartRefusal(text)
        return parsed.set(drivername="sqlite+pysqlite")
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    text = f"database {backend!r} is not supported; use SQLite or PostgreSQL"
    raise StartRefusal(text)
