"""Compaction racing catch-up: whoever falls below the mark is reset, and nobody else is."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from stagewire import pb
from stagewire.client import Client
from tests.faults import checkers, compacting
from tests.faults.archives import Archive
from tests.faults.processes import ServerProcess
from tests.faults.scenes import ALL, WATCHERS, Scene, Watching
from tests.wire import streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.recordings import History

BOOKMARK_SECONDS = 1.0
# So much before the scene begins that who reads it slowly is not done when it is compacted.
VERSIONS = 400
LONG = "x" * 1000
LATE = 3
BEHIND: tuple[Watching, ...] = (
    ("away", {"namespaces": ALL}, "snapshot", {"reconnect_after": 20, "away_seconds": 1.5}),
    ("away-for-long", {}, "beginning", {"reconnect_after": 50, "away_seconds": 3.0}),
    (
        "production-away",
        {"stages": ["Production"]},
        "snapshot",
        {"reconnect_after": 5, "away_seconds": 1.0},
    ),
    ("big-slowly", {"models": ["big"]}, "beginning", {"dawdle_seconds": 0.05}),
)


def fill(address: str) -> None:
    """Write what a watcher from the beginning has to read first."""
    with Client(address) as client:
        streams.model(client, "big")
        for _ in range(VERSIONS):
            streams.version(client, "big", version=pb.ModelVersion(description=LONG))


@contextmanager
def compacted(url: str) -> Iterator[subprocess.Popen[str]]:
    """Have the registry compacted all the time by another process."""
    with subprocess.Popen(
        [sys.executable, compacting.__file__, url], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def resets(history: History) -> int:
    return sum(
        heard.message.snapshot_begin.reason == pb.SNAPSHOT_REASON_COMPACTED
        for _, stream in checkers.streams(history)
        for heard in stream.heard
    )


@pytest.mark.fault
@pytest.mark.timeout(900)
def test_compaction_racing_catch_up_skips_nothing_silently(
    postgres_url: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    *,
    at_length: bool,
) -> None:
    seconds = 180.0 if at_length else 6.0
    archive = Archive(postgres_url)
    with ServerProcess(
        postgres_url,
        tmp_path / "server.log",
        bookmark_interval_seconds=BOOKMARK_SECONDS,
        stream_lifetime_seconds=3,
        poll_interval_seconds=0.2,
        ring_bytes=0,
    ) as server:
        fill(server.address)
        scene = Scene(
            server.address,
            seed=11,
            bookmark_seconds=BOOKMARK_SECONDS,
            writers=8,
            watchers=(*WATCHERS, *BEHIND),
        )
        with scene.playing():
            for number in range(LATE):
                with compacted(postgres_url) as process:
                    assert process.stdout is not None
                    assert process.stdout.readline()
                    late = {"dawdle_seconds": 0.02}
                    scene.admit((f"late-{number}", {}, "beginning", late))
                    # Ended in the middle of whatever it does; the next one goes on.
                    threading.Event().wait(seconds / LATE)

    history = scene.history
    archive.complete(history)
    counts = checkers.check(history)
    assert all(counts[name] > 0 for name in checkers.CHECKERS), counts
    counts["marks"] = len(history.marks)
    counts["compacted"] = history.head.compacted_revision
    counts["resets"] = resets(history)
    counts["streams"] = sum(len(watcher.streams) for watcher in history.watchers)
    record_property("fault", "Compaction racing catch-up")
    record_property("runs", 1)
    record_property("checked", dict(counts))
    assert counts["resets"] > 0
    assert counts["marks"] > LATE
