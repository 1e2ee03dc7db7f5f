"""A registry is restored from a backup: who knew more than that is told so, and agents go back."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults import losses
from tests.faults.clusters import Cluster, folder
from tests.faults.losses import EARLY, LATE, losing
from tests.faults.processes import ServerProcess
from tests.faults.replicas import BOOKMARK_SECONDS, replicas

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from pathlib import Path

TAIL_SECONDS = 0.5


def told(counts: Counter[str], record_property: Callable[[str, object], None]) -> None:
    assert counts["went on"] >= len(EARLY) * 0.8, counts
    assert counts["LOG_DIVERGED"] >= len(LATE), counts
    assert counts["CURSOR_AHEAD"] >= 20 - len(EARLY) - len(LATE), counts
    record_property("fault", "database restored from a backup")
    record_property("runs", 1)
    record_property("checked", dict(counts))


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_who_knew_more_than_the_backup_of_a_file_is_told_so(
    sqlite_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    path, backup = tmp_path / "stagewire.db", tmp_path / "backup.db"
    command = [sys.executable, "-m", "stagewire.cli.main", "database", "backup", str(backup)]
    command += ["--database-url", sqlite_url]
    settings: dict[str, Any] = {"bookmark_interval_seconds": BOOKMARK_SECONDS, "drain_seconds": 0.1}
    with (
        ServerProcess(sqlite_url, tmp_path / "server.log", **settings) as server,
        losing(server.address, seed=110) as loss,
    ):
        before = loss.lose(lambda: subprocess.run(command, check=True), TAIL_SECONDS)
        server.kill()
        for rest in tmp_path.glob("stagewire.db*"):
            rest.unlink()
        backup.rename(path)
        server.start()
        loss.reset_those_who_stayed()
        loss.see_that_it_is_lost(before)
        loss.scene.go_on(112)
        loss.write_over(before)

    told(losses.check(before, loss.scene.history), record_property)


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_who_knew_more_than_a_base_backup_is_told_so(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    copies: list[Cluster] = []
    with (
        folder() as made,
        ExitStack() as restored,
        Cluster(made / "one") as one,
        replicas(one.create_registry(), tmp_path) as (_servers, address),
        losing(address, seed=120) as loss,
    ):
        before = loss.lose(lambda: copies.append(one.copy(made / "two")), TAIL_SECONDS)
        one.kill()
        copies[0].port = one.port
        restored.enter_context(copies[0])
        loss.reset_those_who_stayed()
        loss.see_that_it_is_lost(before)
        loss.scene.go_on(122)
        loss.write_over(before)

    told(losses.check(before, loss.scene.history), record_property)
