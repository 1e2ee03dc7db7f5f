"""Concurrent writers, slow readers and reconnects, with a ring that holds next to nothing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.faults import checkers
from tests.faults.processes import ServerProcess
from tests.faults.scenes import Scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOOKMARK_SECONDS = 0.5


@pytest.mark.fault
@pytest.mark.timeout(300)
@pytest.mark.parametrize("ring_bytes", [20_000, 32 * 1024 * 1024])
def test_every_invariant_holds_under_load(
    database_url: str,
    ring_bytes: int,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("fault", "writers, slow readers and reconnects at once")
    seconds = 30.0 if at_length else 3.0
    with ServerProcess(
        database_url,
        tmp_path / "server.log",
        bookmark_interval_seconds=BOOKMARK_SECONDS,
        stream_lifetime_seconds=1,
        poll_interval_seconds=0.2,
        ring_bytes=ring_bytes,
    ) as server:
        scene = Scene(
            server.address, seed=ring_bytes % 97, bookmark_seconds=BOOKMARK_SECONDS, writers=8
        )
        with scene.playing():
            threading.Event().wait(seconds)

    counts = checkers.check(scene.history)
    counts["writes"] = len(scene.history.writes)
    record_property("runs", 1)
    record_property("checked", dict(counts))
    assert all(counts[name] > 0 for name in checkers.CHECKERS), counts
