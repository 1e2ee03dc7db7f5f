"""A server's clock steps back and forth: the log's time never does, and nothing else notices."""

from __future__ import annotations

import itertools
import shutil
import struct
import subprocess
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stagewire import pb
from stagewire.client import Client
from tests.faults import checkers
from tests.faults.processes import ServerProcess
from tests.faults.scenes import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Record = Callable[[str, object], None]

HOUR = 3600
BOOKMARK_SECONDS = 0.5
LIFETIME_SECONDS = 2.0
#: What a busy machine may add to a stream's life.
SLACK_SECONDS = 5.0
_SOURCE = Path(__file__).parent / "steps.c"


class Clock:
    """The wall clock of one process, which a test sets; its monotonic clock stays the machine's."""

    def __init__(self, folder: Path) -> None:
        """Compile what answers the process when it asks for the time. It takes a C compiler."""
        library, self._file = folder / "steps.so", folder / "steps"
        compiler = shutil.which("cc") or shutil.which("gcc")
        assert compiler, "a clock that steps is compiled by cc, which is not installed"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", library, _SOURCE], check=True
        )
        self.step(0)
        self.environment = {"LD_PRELOAD": str(library), "STEPS_FILE": str(self._file)}

    def step(self, seconds: int) -> None:
        """Have it go so much fast or slow from now on."""
        # In place, and all eight bytes at once: the process has the file mapped.
        with self._file.open("r+b" if self._file.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("=q", seconds))


@contextmanager
def served(
    database_url: str, folder: Path, **settings: Any
) -> Iterator[tuple[ServerProcess, Clock]]:
    """Serve a registry by a clock of the test's own."""
    clock = Clock(folder)
    server = ServerProcess(database_url, folder / "server.log", **settings)
    server._environment |= clock.environment
    with server:
        yield server, clock


def wait_for_writes(scene: Scene, count: int) -> None:
    """Wait until so many more writes have been answered."""
    began = time.monotonic()
    while True:
        records = [record for writer in scene.writers for record in list(writer.records)]
        if sum((record.acknowledged or 0) > began for record in records) >= count:
            return
        assert time.monotonic() < began + 30, "nothing more is written"
        threading.Event().wait(0.02)


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_nobody_notices_a_clock_that_steps_by_hours_but_commit_times_that_wait_for_it(
    database_url: str, tmp_path: Path, at_length: bool, record_property: Record
) -> None:
    record_property("fault", "clock steps of an hour")
    steps = [1, 0, -1, 2, -2, 1, 0] * (10 if at_length else 1)
    with served(
        database_url,
        tmp_path,
        bookmark_interval_seconds=BOOKMARK_SECONDS,
        stream_lifetime_seconds=LIFETIME_SECONDS,
        poll_interval_seconds=0.2,
    ) as (server, clock):
        scene = Scene(server.address, seed=4, bookmark_seconds=BOOKMARK_SECONDS)
        with scene.playing():
            for step in steps:
                clock.step(step * HOUR)
                wait_for_writes(scene, 20)

    history = scene.history
    counts = checkers.check(history)
    record_property("runs", len(steps))
    record_property("checked", dict(counts))
    assert all(counts[name] > 0 for name in checkers.CHECKERS), counts
    # Bookmarks are W7's; as to lifetimes, no stream outlived its own.
    lives = [
        stream.heard[-1].time - stream.heard[0].time
        for watcher in history.watchers
        if not watcher.dawdles
        for stream in watcher.streams
        if stream.heard
    ]
    assert max(lives) < 2 * LIFETIME_SECONDS + SLACK_SECONDS
    if database_url.startswith("sqlite"):
        # PostgreSQL stamps the log by its own clock; here it is the server's that stepped.
        times = [event.commit_time.ToMicroseconds() / 1e6 for event in history.log]
        assert max(b - a for a, b in itertools.pairwise(times)) > HOUR / 2
        assert times == sorted(times)


@pytest.mark.fault
@pytest.mark.timeout(60)
def test_a_request_is_known_again_after_a_step_and_forgotten_after_one_of_a_day(
    database_url: str, tmp_path: Path, record_property: Record
) -> None:
    record_property("fault", "clock steps of an hour: repeated requests")
    steps = [-25, -1, 1, 23]
    with served(database_url, tmp_path) as (server, clock), Client(server.address) as client:
        model = pb.Model(name="churn")
        client.registry.CreateModel(pb.CreateModelRequest(model=model))
        request = pb.CreateModelVersionRequest(model="churn", request_id=uuid.uuid4().hex)
        first = client.registry.CreateModelVersion(request)
        answers = []
        for step in steps:
            clock.step(step * HOUR)
            answers.append(client.registry.CreateModelVersion(request))
        # Answers are kept for a day by the clock: after more than that it is a new request.
        clock.step(25 * HOUR)
        later = client.registry.CreateModelVersion(request)
        clock.step(0)
        after = client.registry.CreateModelVersion(request)
        verified = client.audit.VerifyLog(pb.VerifyLogRequest())
        head = client.watches.GetHead(pb.GetHeadRequest())

    assert answers == [first] * len(steps)
    assert (later.version.version, after) == (2, later)
    assert verified.intact
    assert head.revision == after.revision
    record_property("runs", len(steps) + 2)
    record_property("checked", {"W16": len(steps) + 2})
