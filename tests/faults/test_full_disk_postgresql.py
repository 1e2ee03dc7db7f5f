"""PostgreSQL's disk is full: writes are refused, and when there is space again all goes on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.faults import checkers, clusters
from tests.faults.clusters import Cluster
from tests.faults.disks import mounted
from tests.faults.processes import CHANNEL_OPTIONS, ServerProcess
from tests.faults.scenes import Scene
from tests.faults.test_full_disk import BOOKMARK_SECONDS, FULL_SECONDS, Probe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DISK_BYTES = 256 * 1024 * 1024


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_servers_go_on_by_themselves_after_postgresqls_disk_was_full(
    tmp_path: Path, at_length: bool, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault", "disk full: PostgreSQL")
    rounds = 10 if at_length else 1
    deaths = 0
    with (
        clusters.folder() as folder,
        mounted(folder / "disk", size_bytes=DISK_BYTES) as disk,
        Cluster(disk.folder / "pg", {"max_wal_size": "32MB", "min_wal_size": "32MB"}) as cluster,
        ServerProcess(
            cluster.create_registry(),
            tmp_path / "server.log",
            bookmark_interval_seconds=BOOKMARK_SECONDS,
        ) as server,
        grpc.insecure_channel(server.address, options=CHANNEL_OPTIONS) as channel,
    ):
        probe = Probe(channel)
        scene = Scene(server.address, seed=8, bookmark_seconds=BOOKMARK_SECONDS)
        refused = []
        with scene.playing():
            for _ in range(rounds):
                threading.Event().wait(1.0)
                disk.fill()
                refused.append(probe.write_until(refused=True))
                threading.Event().wait(FULL_SECONDS)
                disk.free()
                # Out of space for its own log PostgreSQL gives up; its operator starts it again.
                if cluster.process.poll() is not None:
                    deaths += 1
                    cluster.start()
                probe.write_until(refused=False)
                assert probe.write(refused[-1]) is None
            threading.Event().wait(1.0)

    history = scene.history
    made = [event.payload.request_id for event in history.log]
    assert all(made.count(request.request_id) == 1 for request in refused)
    counts = checkers.check(history)
    repeated = sum(write.attempts > 1 for write in history.writes)
    record_property("runs", rounds)
    record_property("checked", {**counts, "repeated": repeated, "deaths": deaths})
    assert server.lives == 1
    assert all(counts[name] > 0 for name in checkers.CHECKERS), counts
