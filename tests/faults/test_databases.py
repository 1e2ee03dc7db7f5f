"""The database is restarted, frozen, or restored: servers recover by themselves, and all holds."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from stagewire import pb
from stagewire.client import Client
from tests.faults import checkers
from tests.faults.clusters import Cluster, folder
from tests.faults.replicas import BOOKMARK_SECONDS, STALE_SECONDS, longest_silence, replicas, until
from tests.faults.scenes import Scene
from tests.wire.streams import Stream, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.processes import ServerProcess


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Run a PostgreSQL of the test's own with an empty registry."""
    with folder() as made, Cluster(made / "one") as one:
        one.create_registry()
        yield one


@pytest.mark.fault
@pytest.mark.timeout(900)
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
        scene.history.slack_seconds += STALE_SECONDS
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


@pytest.mark.fault
@pytest.mark.timeout(900)
def test_a_server_whose_database_stands_still_says_so_and_ends_its_streams_in_order(
    cluster: Cluster,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    limit = 5.0 if at_length else 2.0
    everything = watch(pb.WATCH_START_BEGINNING, namespaces=["*"])
    with (
        replicas(cluster.url(), tmp_path, freshness_seconds=limit) as (servers, address),
        Client(servers[0].address) as client,
        Stream(client, everything) as stream,
    ):
        scene = Scene(address, seed=80, bookmark_seconds=BOOKMARK_SECONDS)
        scene.history.slack_seconds += STALE_SECONDS
        with scene.playing():
            threading.Event().wait(1.0)
            with cluster.frozen():
                noticed = [until(partial(is_healthy, s, False), "NOT_SERVING") for s in servers]
                goodbye = stream.until("goodbye")[-2:]
                with pytest.raises(EOFError):
                    stream.next()
            thawed = time.monotonic()
            back = [until(partial(is_healthy, s, True), "SERVING") for s in servers]
            scene.written_since(thawed)

    counts = checkers.check(scene.history)
    bookmark, last = goodbye
    assert last.goodbye.reason == pb.GOODBYE_REASON_NOT_FRESH
    assert bookmark.bookmark.cursor == last.goodbye.cursor
    assert max(noticed) < limit + 2, noticed
    record_property("fault", "a database that neither answers nor refuses")
    record_property("runs", 1)
    times = {"noticed, ms": max(noticed) * 1000, "back, ms": max(back) * 1000}
    record_property("checked", {**counts, **{name: round(ms) for name, ms in times.items()}})


def is_healthy(server: ServerProcess, expected: bool) -> bool:
    return server.healthy() is expected
