"""Other servers' commits, heard of by LISTEN and NOTIFY: a hint, never the delivery.

A notification can be lost in more ways than there are to notice it, so whoever is told here only
looks at the log sooner than the poll would have had them look, and `hearing` says whether to rely
on that. It turns true when a notification sent by one connection has come in by the other, which
a pooling proxy in between would prevent, and is tried again whenever all has been quiet.
"""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy as sa
import structlog

from stagewire import failpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = structlog.get_logger("stagewire.notifications")

CHANNEL = "stagewire_log"
# Commits that come closer together are told together: each NOTIFY is a transaction of its own.
_PAUSE_SECONDS = 0.005
# A listener that has heard nothing for so long proves that it still could.
_QUIET_SECONDS = 10.0
_TRIAL_SECONDS = 2.0
_GLANCE_SECONDS = 1.0
_RECONNECT_SECONDS = 1.0
# A hint may be lost with the database's memory: it need not wait for the disk.
_SPEAK = sa.text("SELECT pg_notify(:channel, :payload)")
_FAILURES = (sa.exc.SQLAlchemyError, psycopg.Error, OSError)


class _Deaf(Exception):
    """What was sent has not come in."""


class Notifications:
    """Tells other servers of commits, and hears of theirs, on two connections of its own."""

    def __init__(self, engine: sa.Engine, heard: Callable[[], None]) -> None:
        """Speak and listen over `engine`, which pools nothing and commits by itself.

        `heard()` is called, on a thread of its own, when another server may have committed, and
        after every (re)connection, when it may have done so unheard.
        """
        self.hearing = False
        self._engine = engine
        self._heard = heard
        self._closing = threading.Event()
        self._due = threading.Event()
        self._commits = False
        self._trial = ""
        self._speaker = 0
        self._threads = [
            threading.Thread(target=self._speak, name="notify", daemon=True),
            threading.Thread(target=self._listen, name="listen", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def tell(self) -> None:
        """Tell the others, soon, that something was committed."""
        if failpoints.hit("notify"):
            return
        self._commits = True
        self._due.set()

    def close(self) -> None:
        """Stop both, and wait for them a moment."""
        self._closing.set()
        self._due.set()
        for thread in self._threads:
            thread.join(_GLANCE_SECONDS + _TRIAL_SECONDS)

    def _speak(self) -> None:
        while not self._closing.is_set():
            try:
                with self._engine.connect() as connection:
                    connection.exec_driver_sql("SET synchronous_commit TO off")
                    (self._speaker,) = connection.exec_driver_sql("SELECT pg_backend_pid()").one()
                    for payload in self._due_payloads():
                        connection.execute(_SPEAK, {"channel": CHANNEL, "payload": payload})
            except _FAILURES as error:
                log.warning("other servers can't be notified; they poll", error=_told(error))
                self._closing.wait(_RECONNECT_SECONDS)

    def _due_payloads(self) -> Iterator[str]:
        """Give what is to be sent, as it comes up; what was sent is forgotten only afterwards."""
        while True:
            self._due.wait()
            self._due.clear()
            trial = self._trial
            if self._closing.is_set():
                yield trial or "closing"
                return
            if trial:
                yield trial
            if self._commits:
                self._commits = False
                yield ""
                self._closing.wait(_PAUSE_SECONDS)

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                with closing(self._engine.raw_connection()) as fairy:
                    connection = fairy.driver_connection
                    assert isinstance(connection, psycopg.Connection)  # noqa: S101  # for mypy
                    connection.execute(f"LISTEN {CHANNEL}")
                    self._follow(connection)
            except _Deaf:
                log.warning(
                    "notifications do not come in, a proxy that pools transactions may keep them "
                    "back; polling instead"
                )
            except _FAILURES as error:
                log.warning("notifications can't be listened for; polling", error=_told(error))
            self.hearing = False
            self._closing.wait(_RECONNECT_SECONDS)

    def _follow(self, connection: psycopg.Connection) -> None:
        """Prove that notifications come in, and pass them on until one that should have did not."""
        while not self._closing.is_set():
            self._trial = uuid.uuid4().hex
            self._due.set()
            if not self._wait_for(connection, self._trial):
                raise _Deaf
            if not self.hearing:
                self.hearing = True
                # Whatever was committed before this was not heard of.
                self._heard()
            self._trial = ""
            quiet_since = time.monotonic()
            while time.monotonic() < quiet_since + _QUIET_SECONDS and not self._closing.is_set():
                if self._passed_on(connection, _GLANCE_SECONDS):
                    quiet_since = time.monotonic()

    def _wait_for(self, connection: psycopg.Connection, payload: str) -> bool:
        deadline = time.monotonic() + _TRIAL_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            for notification in connection.notifies(timeout=min(left, 0.2)):
                if notification.payload == payload:
                    return True
                self._pass_on(notification)
            if self._closing.is_set():
                return True
        return False

    def _passed_on(self, connection: psycopg.Connection, seconds: float) -> bool:
        """Pass on what comes in within some time; say whether anything did."""
        heard = False
        for notification in connection.notifies(timeout=seconds, stop_after=1):
            heard = True
            self._pass_on(notification)
        return heard

    def _pass_on(self, notification: psycopg.Notify) -> None:
        # This server's own commits wake its tail in the process, and trials are nobody's news.
        if not notification.payload and notification.pid != self._speaker:
            self._heard()


def _told(error: BaseException) -> str:
    """Give the kind of an error: a driver's text may hold a password."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__} {getattr(cause, 'sqlstate', None) or ''}".strip()
