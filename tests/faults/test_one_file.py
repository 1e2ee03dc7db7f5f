"""Two servers on one SQLite file: the second refuses and says why, the first notices nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.faults import checkers
from tests.faults.processes import ServerProcess, free_port
from tests.faults.scenes import Scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOOKMARK_SECONDS = 0.5


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_a_second_server_on_a_file_refuses_and_the_first_is_not_disturbed(
    sqlite_url: str,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("fault", "two servers on one SQLite file")
    rounds = 20 if at_length else 3
    refused = []
    with ServerProcess(
        sqlite_url, tmp_path / "server.log", bookmark_interval_seconds=BOOKMARK_SECONDS
    ) as server:
        scene = Scene(server.address, seed=11, bookmark_seconds=BOOKMARK_SECONDS)
        with scene.playing():
            for _ in range(rounds):
                command = [sys.executable, "-m", "stagewire.cli.main", "serve"]
                command += ["--database-url", sqlite_url]
                command += ["--grpc-address", f"127.0.0.1:{free_port()}"]
                refused.append(
                    subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
                )
                threading.Event().wait(0.2)
        assert server.process.poll() is None

    counts = checkers.check(scene.history)
    record_property("runs", rounds)
    record_property("checked", dict(counts))
    assert all(done.returncode not in (0, -9) for done in refused), refused
    assert all("another process is serving" in done.stderr for done in refused), refused
    # Whoever loses a write would have repeated it: the first server answered each at once.
    assert all(write.attempts == 1 or len(write.answers) > 1 for write in scene.history.writes)
    assert all(counts[name] > 0 for name in checkers.CHECKERS), counts
