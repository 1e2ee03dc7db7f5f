"""PostgreSQL: each use case is its own transaction on the pool.

Round trips of different writers overlap; only the last statement, which takes the head row, and
the commit take turns.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import sqlalchemy as sa
import structlog
import tenacity

from stagewire import errors, failpoints
from stagewire.store.database import (
    WRITE_ATTEMPTS,
    WRITE_SECONDS,
    Database,
    StartRefusal,
    contention,
    deadline_passed,
    unavailable,
)
from stagewire.store.notifications import Notifications
from stagewire.store.transactions import Again, Tx

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
log = structlog.get_logger()

# Without the third a server stopped between head and commit blocks every other for ever.
_WRITE_OPTIONS = (
    "-c lock_timeout=2s -c statement_timeout=5s -c idle_in_transaction_session_timeout=3s"
)
_READ_OPTIONS = "-c statement_timeout=2s -c idle_in_transaction_session_timeout=10s"
_NETWORK = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}
# Serialization failure, deadlock, lock not available, and a unique violation: two callers made
# the same thing at once, and the second run finds the first one's.
_RETRIED = {"40001", "40P01", "55P03", "23505"}
_CANCELLED = "57014"
_DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")
_OLDEST = 140000
_SESSIONS = sa.text("SELECT nextval('watch_sessions') FROM generate_series(1, :count)")


class _Dropped(Exception):
    """The connection died before COMMIT was sent: nothing was written."""


class PostgresDatabase(Database):
    """A registry that several servers share."""

    def __init__(
        self,
        url: sa.URL,
        *,
        readers: int = 64,
        listens: bool = True,
        trusts_storage: bool = False,
    ) -> None:
        """Open the pools. Raises StartRefusal on a database that is not durable or a standby.

        Without `listens` other servers' commits are found by looking only. With `trusts_storage`
        a PostgreSQL that is told not to care for durability is taken with a warning.
        """
        super().__init__()
        self._listens = listens
        self._notifications: Notifications | None = None
        self._reads = _engine(
            url,
            _READ_OPTIONS,
            readers,
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
        )
        self._writes = _engine(url, _WRITE_OPTIONS, readers, isolation_level="READ COMMITTED")
        self._apart = _engine(url, "", None, isolation_level="AUTOCOMMIT")
        self._open: dict[int, tuple[psycopg.Connection, float]] = {}
        for engine in (self._reads, self._writes):
            sa.event.listen(engine, "checkout", self._taken)
            sa.event.listen(engine, "checkin", self._given_back)
            # One that died in use is not among those that are checked in.
            sa.event.listen(engine, "close", self._given_back)
        try:
            self._check_durable(trusts_storage=trusts_storage)
        except sa.exc.OperationalError as error:
            self.close()
            log.warning("database unreachable", exc_info=error)
            text = f"can't connect to {url.render_as_string(hide_password=True)}; is it running?"
            raise StartRefusal(text) from error
        except StartRefusal:
            self.close()
            raise

    def write(self, work: Callable[[Tx], T], *, deadline: float | None = None) -> T:
        """Run the use case in a transaction, again when the database asks for it."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_transient),
            stop=tenacity.stop_after_attempt(WRITE_ATTEMPTS)
            | tenacity.stop_after_delay(WRITE_SECONDS),
            wait=tenacity.wait_random_exponential(multiplier=0.01, max=0.5),
            reraise=True,
        )
        try:
            answered: tuple[T, int] = retrying(self._attempt, work, deadline)
        except Again as error:
            raise contention() from error
        except _Dropped as error:
            log.warning("database connections die", exc_info=error)
            raise unavailable() from error
        except sa.exc.SQLAlchemyError as error:
            raise self.refusal(error) from error
        result, revision = answered
        if revision:
            failpoints.hit("commit.returned")
            self._committed(revision)
        return result

    def _attempt(self, work: Callable[[Tx], T], deadline: float | None) -> tuple[T, int]:
        if deadline is not None and time.monotonic() > deadline:
            raise deadline_passed()
        with self._writes.connect() as connection, connection.begin():
            tx = Tx(connection)
            try:
                result = work(tx)
            except sa.exc.DBAPIError as error:
                if error.connection_invalidated:
                    raise _Dropped from error
                raise
        return result, tx.head

    def next_sessions(self, count: int) -> Sequence[int]:
        """Take the next values of the sequence."""
        try:
            with self._writes.connect() as connection:
                return sorted(connection.execute(_SESSIONS, {"count": count}).scalars())
        except sa.exc.SQLAlchemyError as error:
            raise self.refusal(error) from error

    def on_commit(self, listener: Callable[[int], None]) -> None:
        """Have `listener(revision)` called after each commit, and other servers told of it."""

        def committed(revision: int) -> None:
            listener(revision)
            if self._notifications is not None:
                self._notifications.tell()

        super().on_commit(committed)

    def on_hint(self, listener: Callable[[], None]) -> None:
        """Begin to listen for other servers' commits."""
        if self._listens:
            self._notifications = Notifications(self._apart, listener)

    @property
    def hears_others(self) -> bool:
        """Whether notifications are known to come in."""
        return self._notifications is not None and self._notifications.hearing

    def break_off(self, held_seconds: float = 0.0) -> int:
        """Shut the sockets of connections held for so long, and let go of the idle ones."""
        limit = time.monotonic() - held_seconds
        silent = [one for one, since in list(self._open.values()) if since <= limit]
        for connection in silent:
            # Its own thread is deep in a read of that socket and can't be reached otherwise.
            with (
                suppress(OSError, psycopg.Error),
                socket.socket(fileno=os.dup(connection.fileno())) as its_socket,
            ):
                its_socket.shutdown(socket.SHUT_RDWR)
        if silent:
            # Not otherwise: a pool that is let go of takes those being connected with it.
            self._reads.dispose()
            self._writes.dispose()
        return len(silent)

    def tidy(self) -> None:
        """Leave it to autovacuum, which analyses too."""

    def close(self) -> None:
        """Close the pools."""
        self._closing.set()
        if self._notifications is not None:
            self._notifications.close()
        self._apart.dispose()
        self._reads.dispose()
        self._writes.dispose()

    def refusal(self, error: sa.exc.SQLAlchemyError) -> errors.RegistryError:
        """Tell contention and absence from a fault of ours."""
        state = _sqlstate(error)
        if state in _RETRIED or state == _CANCELLED:
            log.warning("database contention", sqlstate=state)
            return contention()
        log.error("database error", sqlstate=state, exc_info=error)
        gone = isinstance(
            error, (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)
        ) or (isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated)
        if gone or state.startswith(("08", "57P", "53")):
            return unavailable()
        return errors.RegistryError("INTERNAL", "the registry's database refused the operation")

    def _taken(self, connection: psycopg.Connection, *_pool: object) -> None:
        self._open[id(connection)] = (connection, time.monotonic())

    def _given_back(self, connection: psycopg.Connection | None, *_pool: object) -> None:
        if connection is not None:
            self._open.pop(id(connection), None)

    def _reader(self) -> sa.Connection:
        return self._reads.connect()

    def _check_durable(self, *, trusts_storage: bool) -> None:
        with self._reads.connect() as connection:
            settings: dict[str, Any] = {
                name: connection.exec_driver_sql(f"SHOW {name}").scalar_one()
                for name in (*_DURABILITY, "server_version", "server_version_num")
            }
            standby = connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar_one()
        if standby:
            text = "the database is a standby, which takes no writes; give the primary's address"
            raise StartRefusal(text)
        if int(settings["server_version_num"]) < _OLDEST:
            text = f"PostgreSQL 14 or newer is needed, this is {settings['server_version']}"
            raise StartRefusal(text)
        if off := [name for name in _DURABILITY if settings[name] == "off"]:
            if trusts_storage:
                log.warning("PostgreSQL could lose changes; trusting the storage below it", off=off)
                return
            text = (
                f"PostgreSQL has {', '.join(f'{name}=off' for name in off)} and could lose "
                "changes; turn it on, or give --trust-storage where the storage itself is durable"
            )
            raise StartRefusal(text)


def _engine(url: sa.URL, options: str, size: int | None, **settings: Any) -> sa.Engine:
    """Make an engine with a pool of some size, or without one."""
    pool: dict[str, Any] = {"poolclass": sa.pool.NullPool}
    if size is not None:
        pool = {"pool_size": size, "max_overflow": 0, "pool_timeout": 5}
    return sa.create_engine(
        url,
        hide_parameters=True,
        connect_args={**_NETWORK, "options": options, "application_name": "stagewire"},
        **pool,
        **settings,
    )


def _sqlstate(error: BaseException) -> str:
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else None
    return (cause.sqlstate or "") if isinstance(cause, psycopg.Error) else ""


def _transient(error: BaseException) -> bool:
    # A connection that died at COMMIT is not among these: only the request_id settles that.
    return isinstance(error, (Again, _Dropped)) or _sqlstate(error) in _RETRIED
