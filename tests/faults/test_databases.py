"""The database is restarted, frozen, or restored: servers recover by themselves, and all holds."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults import checkers
from tests.faults.clusters import Cluster, folder
from tests.faults.replicas import BOOKMARK_SECONDS, longest_silence, replicas
from tests.faults.scenes import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Run a PostgreSQL of the test's own with an empty registry."""
    with folder() as made, Cluster(made / "one") as one:
        one.create_registry()
        yield one


@pytest.mark.fault
@pytest.mark.timeout(400)
def test_servers_go_on_by_themselves_when_postgresql_is_restarted_in_the_middle(
    cluster: Cluster,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    restarts = 25 if at_length else 4
    silences = []
    with replicas(cluster.url(), tmp_path) as (_servers, address):
        scene = Scene(address, seed=40, bookmark_seconds=BOOKMARK_SECONDS)
        with scene.playing():
            for _ in range(restarts):
                threading.Event().wait(1.0)
                began = time.monotonic()
                cluster.stop(immediate=True)
                cluster.start()
                scene.written_since(began, 20)
                silences.append((began, time.monotonic()))

    counts = checkers.check(scene.history)
    record_property("fault", "PostgreSQL restarted `-m immediate`")
    record_property("runs", restarts)
    longest = max(longest_silence(scene.history.writes, *span) for span in silences)
    record_property("checked", {**counts, "longest silence, ms": round(longest * 1000)})
    assert all(counts[name] > 0 for name in checkers.CHECKERS), counts
