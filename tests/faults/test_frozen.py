"""A server is stopped where it stands: the others go on, and it is right when it goes on itself."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

import grpc
import pytest

from stagewire import pb
from stagewire.client import Client
from stagewire.client import history as client_history
from stagewire.client.follower import Follower
from tests.faults import checkers
from tests.faults.load import Writer
from tests.faults.processes import CHANNEL_OPTIONS
from tests.faults.recordings import Heard, StreamRecord, WatcherRecord
from tests.faults.replicas import BOOKMARK_SECONDS, longest_silence, replicas, until
from tests.faults.scenes import Scene
from tests.wire.streams import Stream, watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from tests.faults.recordings import History

#: `idle_in_transaction_session_timeout` of writes is 3 s; the rest is for a busy machine.
GOES_ON_SECONDS = 5.0


@pytest.mark.fault
@pytest.mark.timeout(900)
def test_the_others_write_on_when_a_server_stops_with_the_logs_head_taken(
    postgres_url: str,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    rounds = 5 if at_length else 1
    silences = []

    for number in range(rounds):
        history, silence = stop_with_the_head(postgres_url, tmp_path, seed=number + 50)
        silences.append(silence)
        counts = checkers.check(history)
        assert all(counts[name] > 0 for name in checkers.CHECKERS), counts

    # Below the timeout the head was not held at all, and nothing is shown.
    assert 2.0 < min(silences) <= max(silences) < GOES_ON_SECONDS, silences
    record_property("fault", 'SIGSTOP at "head taken, not committed"')
    record_property("runs", rounds)
    record_property("checked", {**counts, "longest silence, ms": round(max(silences) * 1000)})


def stop_with_the_head(url: str, folder: Path, *, seed: int) -> tuple[History, float]:
    """Stop one of two servers holding the head; say how long the other could not write."""
    with (
        replicas(url, folder, failpoints="head.taken=stop@100") as (servers, address),
        grpc.insecure_channel(servers[1].address, options=CHANNEL_OPTIONS) as channel,
    ):
        scene = Scene(address, seed=seed, bookmark_seconds=BOOKMARK_SECONDS)
        # Its writes go to the other server alone: no pause of theirs is the stopped one's.
        probe = Writer(channel, seed)
        with scene.playing():
            probe.start()
            until(lambda: servers[0].frozen, "it stops with the head taken", 60)
            began = time.monotonic()
            threading.Event().wait(GOES_ON_SECONDS + 1)
            ended = time.monotonic()
            servers[0].thaw()
            scene.written_since(ended)
            probe.stop()
            silence = longest_silence(probe.records, began, ended)
            scene.history.writes += probe.records
    return scene.history, silence


@pytest.mark.fault
@pytest.mark.timeout(900)
def test_streams_of_a_server_that_stood_still_are_right_when_it_goes_on(
    postgres_url: str,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    seconds = 60.0 if at_length else 8.0
    everything = watch(pb.WATCH_START_BEGINNING, namespaces=["*"])
    with (
        replicas(postgres_url, tmp_path) as (servers, address),
        Client(servers[0].address) as client,
        # One that does not mind silence, and stays with the server that stands still.
        Faithful(client, everything) as faithful,
    ):
        scene = Scene(address, seed=60, bookmark_seconds=BOOKMARK_SECONDS)
        with scene.playing():
            threading.Event().wait(1.0)
            servers[0].freeze()
            frozen = time.monotonic()
            threading.Event().wait(seconds)
            servers[0].thaw()
            thawed = time.monotonic()
            scene.written_since(thawed)
            scene.rest()
            with Client(address) as other:
                head = other.watches.GetHead(pb.GetHeadRequest()).revision
            scene.history.watchers.append(faithful.heard_until(head))

    counts = checkers.check(scene.history)
    resumed = [
        watcher.name
        for watcher in scene.history.watchers
        if any(
            frozen < heard.time < thawed and heard.message.HasField("transaction")
            for stream in watcher.streams
            for heard in stream.heard
        )
    ]
    assert len(resumed) >= 10, resumed
    record_property("fault", "SIGSTOP 60 s of a server")
    record_property("runs", 1)
    record_property("checked", {**counts, "seconds": round(seconds)})


class Faithful:
    """A watcher of one server alone, however long that says nothing."""

    def __init__(self, client: Client, request: pb.WatchRequest) -> None:
        self._client = client
        self._request = request
        self._follower = Follower(client_history.History(), request)

    def __enter__(self) -> Self:
        self._stream = Stream(self._client, self._request).__enter__()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stream.__exit__(None, None, None)

    def heard_until(self, revision: int) -> WatcherRecord:
        """Write down what it hears up to a revision, resuming when its stream ends in order."""
        # That it heard nothing while its server stood still is not the server's fault.
        record = WatcherRecord("faithful", self._request.filter, dawdles=True)
        record.streams.append(StreamRecord(self._request))
        while record.position < revision:
            try:
                message = self._stream.next()
            except EOFError:
                self._stream.__exit__(None, None, None)
                again = self._follower.request()
                self._stream = Stream(self._client, again).__enter__()
                record.streams.append(StreamRecord(again))
                continue
            heard = pb.WatchResponse()
            heard.CopyFrom(message)
            record.streams[-1].heard.append(Heard(time.monotonic(), heard))
            event = self._follower.receive(message)
            if event is not None:
                record.events.append(event)
                record.position = event.revision
        return record
