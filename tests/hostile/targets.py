"""A server in a process of its own that tells which files it opens, and what else it may give away.

Everything a hostile request could do to it is looked at from outside: files, memory, CPU, log.
"""

from __future__ import annotations

import copy
import os
import re
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa

from tests.faults.processes import ServerProcess, free_port
from tests.guarded import make_secret
from tests.hostile.texts import SECRET

if TYPE_CHECKING:
    from types import TracebackType

HOOK = Path(__file__).with_name("hook")
HERE = Path(__file__).resolve().parents[2]

#: Where code is; only code may be opened there.
_CODE = tuple(
    {
        str(Path(folder).resolve())
        for folder in (
            *(sys.prefix, sys.base_prefix, sysconfig.get_path("purelib")),
            *(HERE / "src", HERE / "generated"),
        )
    }
)
_CODES = (".py", ".zip", ".pyc", ".so", ".lark", ".typed", "METADATA", "entry_points.txt")
#: Where long snapshots and exports are kept while they are sent.
_SPOOLED = re.compile(r"[a-z0-9_]{8}|tmp[a-z0-9_]{8}")

#: What only the inside of a server says: none of it is in a request of ours.
_INSIDE = re.compile(
    rb"Traceback|File \"|\.py\b|site-packages|sqlalchemy|sqlite3|psycopg|starlette|uvicorn|asyncio"
    rb"|\b(?:Operational|Integrity|Programming|Data|Interface|Type|Value|Key|Attribute|Index"
    rb"|Unicode\w*|Recursion|Memory|OS|Runtime|Assertion|Decode)Error\b|Exception\b"
    rb"|\bSELECT\s+\w+[.,]|\bINSERT INTO\b|\bDELETE FROM\b|\bUPDATE \w+ SET\b"
    rb"|UNIQUE constraint|violates |no such (?:table|column)|syntax error|\bSQLSTATE\b"
    rb"|invalid byte sequence|\bat 0x[0-9a-f]{6,}|root:[x*]:0|<\w+ object at",
    re.IGNORECASE,
)


class Target:
    """A registry's server, watched."""

    def __init__(self, database_url: str, folder: Path, **settings: Any) -> None:
        """Serve `database_url`; `folder` takes what is told of it."""
        self.database_url = database_url
        self.http_address = f"127.0.0.1:{free_port()}"
        self._opened = folder / "opened"
        self._spool = folder / "spool"
        self._spool.mkdir()
        self.secret = folder / "secret.txt"
        self.secret.write_text(SECRET)
        self.process = ServerProcess(
            database_url,
            folder / "server.log",
            inside=(
                *("env", f"PYTHONPATH={HOOK}", f"STAGEWIRE_TEST_OPENED={self._opened}"),
                f"TMPDIR={self._spool}",
            ),
            **{
                "http_address": self.http_address,
                # Deliveries end at a closed port of this machine instead of anybody's name server.
                "webhook_allow_private_addresses": True,
                # What is kept on purpose must not look like growth.
                "hot_bytes": 1 << 20,
                "ring_bytes": 1 << 20,
                # Its first admin may do everything, so that hostile requests get far; what is too
                # often for a caller is another test's.
                "bootstrap_token_file": folder / "bootstrap",
                "caller_requests_per_second": 0,
                "refused_calls_per_second": 0,
                **settings,
            },
        )
        self.token = make_secret()
        (folder / "bootstrap").write_text(self.token)
        #: Sent along with every request.
        self.credentials: tuple[tuple[str, str], ...] = (("authorization", f"Bearer {self.token}"),)
        self.process.shown = self.credentials
        self._mark = 0
        #: What the registry called what is in it.
        self.ids: dict[str, str] = {}

    def from_nobody(self) -> Target:
        """Give the same target, to whom nobody says who asks."""
        stranger = copy.copy(self)
        stranger.credentials = ()
        return stranger

    def __enter__(self) -> Self:
        """Start it."""
        self.process.start()
        self._mark = self._opened.stat().st_size
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """End it."""
        self.process.kill()

    @property
    def address(self) -> str:
        """Where it speaks gRPC."""
        return self.process.address

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.process.pid

    @property
    def alive(self) -> bool:
        """Whether its process is the one that was started."""
        return self.process.process.poll() is None

    def resident_bytes(self) -> int:
        """Tell how much memory it holds."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """Tell how long it has worked."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def reached(self) -> list[str]:
        """List what it opened, ran and connected to since it serves, but for what it lives on."""
        text = self._opened.read_bytes()[self._mark :].decode()
        lines = dict.fromkeys(text.splitlines())
        return [line for line in lines if not self._is_its_own(line)]

    def _is_its_own(self, line: str) -> bool:
        event, _, told = line.partition("\t")
        words = re.findall(r"'((?:[^'\\]|\\.)*)'", told)
        if event in (
            "open",
            "os.remove",
            "os.listdir",
            "os.scandir",
            "sqlite3.connect",
            "ctypes.dlopen",
        ):
            return not words or self._is_own_file(words[0])
        # Its webhooks lead to a port where nobody listens.
        return event.startswith("socket.") and "'127.0.0.1'" in told

    def _is_own_file(self, path: str) -> bool:
        database = sa.make_url(self.database_url)
        if database.get_backend_name() == "sqlite" and path.startswith(str(database.database)):
            return path.removeprefix(str(database.database)) in ("", "-wal", "-shm", ".key")
        if Path(path) == self._spool or _SPOOLED.fullmatch(os.path.relpath(path, self._spool)):
            return True
        resolved = str(Path(path).resolve())
        if resolved == str(HERE):
            # Where it was started, and so where Python looks for modules, too.
            return True
        return resolved.startswith(_CODE) and (resolved.endswith(_CODES) or Path(resolved).is_dir())

    def leaks(self, answer: bytes) -> list[str]:
        """List what an answer gives away of the server's inside, or of this machine."""
        found = [match.group().decode(errors="replace") for match in _INSIDE.finditer(answer)]
        told = (
            SECRET,
            self.token,
            str(HERE),
            sys.prefix,
            sys.base_prefix,
            self.process.database_url,
        )
        return found + [word for word in told if word.encode() in answer]
