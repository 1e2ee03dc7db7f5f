"""A client that takes nothing is let go, told why, and resumes from its cursor without loss."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from modelregistry.v1.watch_service_pb2_grpc import WatchServiceStub

from stagewire import pb
from stagewire.client import Client, errors, statuses
from tests.faults import checkers
from tests.faults.processes import ServerProcess
from tests.faults.recordings import Heard, StreamRecord, WatcherRecord
from tests.faults.scenes import Scene
from tests.wire import streams

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOOKMARK_SECONDS = 0.5
SLOW_SECONDS = 1.0
#: More than the buffers between here and the server hold.
BIG = pb.ModelVersion(params={f"p{i}": "x" * 1000 for i in range(200)})
BIG_VERSIONS = 20
DEADLINE_SECONDS = 30.0


class Sleeper:
    """A client that opens a stream of everything, takes nothing for a while, then all there is."""

    def __init__(self, address: str, name: str) -> None:
        # Windows that don't grow, so that few bytes make the server wait.
        options = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(address, options=options)
        self._stub = WatchServiceStub(self._channel)
        self.record = WatcherRecord(name, pb.WatchFilter(namespaces=["*"]), dawdles=True)
        self.told: list[errors.StagewireError] = []
        self._call: Any = None
        self._cursor = b""

    @property
    def position(self) -> int:
        return self.record.position

    def open(self) -> None:
        request = pb.WatchRequest(filter=self.record.filter, cursor=self._cursor)
        if not self._cursor:
            request.start = pb.WATCH_START_BEGINNING
        self.record.streams.append(StreamRecord(request))
        self._call = self._stub.Watch(request, timeout=DEADLINE_SECONDS * 4)

    def take(self, until: int) -> None:
        """Take everything up to a revision, resuming wherever a stream ends."""
        while self.position < until:
            try:
                for message in self._call:
                    self._note(message)
                    if self.position >= until:
                        break
            except grpc.RpcError as error:
                self.told.append(statuses.of(error))
            if self.position < until:
                self.open()

    def _note(self, message: pb.WatchResponse) -> None:
        self.record.streams[-1].heard.append(Heard(time.monotonic(), message))
        match message.WhichOneof("message"):
            case "transaction":
                self.record.events.append(message.transaction)
                self.record.position = message.transaction.revision
                self._cursor = message.transaction.cursor
            case "bookmark":
                self.record.position = message.bookmark.revision
                self._cursor = message.bookmark.cursor

    def close(self) -> None:
        self._call.cancel()
        self._channel.close()


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_a_client_that_takes_nothing_is_told_and_goes_on_where_it_was(
    database_url: str,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("fault", "slow consumer")
    sleepers = 20 if at_length else 3
    with ServerProcess(
        database_url,
        tmp_path / "server.log",
        bookmark_interval_seconds=BOOKMARK_SECONDS,
        slow_consumer_seconds=SLOW_SECONDS,
        poll_interval_seconds=0.2,
        ring_bytes=500_000,
    ) as server:
        scene = Scene(server.address, seed=3, bookmark_seconds=BOOKMARK_SECONDS)
        asleep = [Sleeper(server.address, f"sleeper-{n}") for n in range(sleepers)]
        try:
            with scene.playing(), Client(server.address) as client:
                for sleeper in asleep:
                    sleeper.open()
                streams.model(client, "big")
                for _ in range(BIG_VERSIONS):
                    last = streams.version(client, "big", version=BIG).revision
                # The time itself is the fault: so long they take nothing.
                threading.Event().wait(SLOW_SECONDS * 3)
                for sleeper in asleep:
                    sleeper.take(last)
        finally:
            for sleeper in asleep:
                sleeper.close()

    told = [error for sleeper in asleep for error in sleeper.told]
    assert all(any(isinstance(e, errors.SlowConsumer) for e in s.told) for s in asleep), told
    assert all(len(sleeper.record.streams) > 1 for sleeper in asleep)
    counts = checkers.check(scene.history)
    # They stop before the end, and so don't know what the registry holds: W19 is not theirs.
    scene.history.watchers = [sleeper.record for sleeper in asleep]
    of_streams = ("W1", "W2", "W3", "W4", "W5", "W6", "W8", "W12")
    counts.update({name: checkers.CHECKERS[name](scene.history) for name in of_streams})
    record_property("runs", sleepers)
    record_property("checked", dict(counts))
    assert all(counts.values()), counts
