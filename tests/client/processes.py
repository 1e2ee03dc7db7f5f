"""A real server in a process of its own, to be killed and to come back at the same address."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_QUICK = {
    "STAGEWIRE_DRAIN_SECONDS": "0",
    "STAGEWIRE_GOODBYE_SECONDS": "0.1",
    "STAGEWIRE_STOP_SECONDS": "1",
    "STAGEWIRE_BOOKMARK_INTERVAL_SECONDS": "0.5",
    "STAGEWIRE_SOURCE_POLICY": "permissive",
}


class ServerProcess:
    """`stagewire serve` on one SQLite file."""

    def __init__(self, database: Path, *, address: str = "127.0.0.1:0") -> None:
        self.database = database
        self.address = address
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> Self:
        """Serve, at the address of last time; return when it does."""
        command = [sys.executable, "-m", "stagewire.cli.main", "serve"]
        options = [f"--database-url=sqlite:///{self.database}", f"--grpc-address={self.address}"]
        self._process = subprocess.Popen(
            [*command, *options],
            env={**os.environ, **_QUICK},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.address = self._announced(self._process)
        return self

    def _announced(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if '"serving"' in line:
                # Whoever stops reading a pipe stops its writer.
                self._reader = threading.Thread(target=process.stdout.read)
                self._reader.start()
                address: str = json.loads(line)["grpc"]
                return address
        raise AssertionError("the server did not start: " + "".join(said))

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(kill=True)

    def stop(self) -> None:
        """End it in order."""
        self._end(kill=False)

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        process.wait(30)
        if self._reader is not None:
            self._reader.join()
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
