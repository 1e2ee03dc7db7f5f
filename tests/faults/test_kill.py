"""kill -9 at random moments under load: nothing acknowledged is lost, nothing is told twice."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.faults import checkers
from tests.faults.processes import ServerProcess
from tests.faults.scenes import Scene, moments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOOKMARK_SECONDS = 0.5
# A start takes a second or two of a busy machine; at length there are 50.
KILLS = {"sqlite": 20, "postgresql": 6}


@pytest.mark.fault
@pytest.mark.timeout(600)
def test_nothing_is_lost_or_told_twice_when_the_server_is_killed(
    database_url: str,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("fault", "kill -9 at random moments")
    kind = "sqlite" if database_url.startswith("sqlite") else "postgresql"
    kills = 50 if at_length else KILLS[kind]
    server = ServerProcess(
        database_url,
        tmp_path / "server.log",
        bookmark_interval_seconds=BOOKMARK_SECONDS,
        stream_lifetime_seconds=4,
        poll_interval_seconds=0.2,
        ring_bytes=200_000,
    )
    with server:
        scene = Scene(server.address, seed=kills, bookmark_seconds=BOOKMARK_SECONDS)
        with scene.playing():
            for moment in moments(kills, seed=kills, most=0.6):
                threading.Event().wait(moment)
                server.kill()
                server.start()

    history = scene.history
    counts = checkers.check(history)
    counts["kills"] = kills
    counts["revisions"] = len(history.log)
    counts["writes"] = len(history.writes)
    counts["repeated"] = sum(write.attempts > 1 for write in history.writes)
    counts["streams"] = sum(len(watcher.streams) for watcher in history.watchers)
    counts["messages"] = sum(len(s.heard) for w in history.watchers for s in w.streams)
    record_property("runs", kills)
    record_property("checked", dict(counts))
    assert server.lives == kills + 1
    assert all(counts[name] > 0 for name in checkers.CHECKERS), counts
