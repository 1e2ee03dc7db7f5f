"""Several servers, one after another or at once: streams end in order and go on elsewhere."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from stagewire import pb
from stagewire.client import Client
from tests.faults import checkers
from tests.faults.processes import ServerProcess
from tests.faults.scenes import Scene
from tests.servers import RunningServer
from tests.wire import streams
from tests.wire.streams import Stream, watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.recordings import WatcherRecord

BEGINNING = pb.WATCH_START_BEGINNING
CHANGES = 40


def test_two_servers_tell_the_same_history(postgres_url: str) -> None:
    with (
        RunningServer(postgres_url, poll_interval_seconds=0.05) as one,
        RunningServer(postgres_url, poll_interval_seconds=0.05) as other,
        Client(one.address) as first,
        Client(other.address) as second,
        Stream(first, watch(BEGINNING)) as here,
        Stream(second, watch(BEGINNING)) as there,
    ):
        here.hello()
        there.hello()
        streams.model(first)
        for number in range(CHANGES):
            streams.version((first, second)[number % 2])
        found = [[s.transaction() for _ in range(CHANGES + 2)] for s in (here, there)]

    assert found[0] == found[1]
    assert [t.revision for t in found[0]] == list(range(1, CHANGES + 3))


def test_a_cursor_of_one_server_is_resumed_at_another(postgres_url: str) -> None:
    with (
        # This one looks for others' commits so rarely that the test would not see it happen.
        RunningServer(
            postgres_url,
            listen=False,
            poll_interval_seconds=600,
            poll_interval_unheard_seconds=600,
            freshness_seconds=600,
        ) as stale,
        RunningServer(postgres_url) as fresh,
        Client(fresh.address) as writer,
        Client(stale.address) as reader,
    ):
        last = streams.versions(writer, 5)
        with Stream(writer, watch(BEGINNING)) as stream:
            stream.hello()
            cursor = [stream.transaction() for _ in range(last)][-1].cursor
        # Ahead of that server's tail, not of the log: no reset, it goes on from there.
        with Stream(reader, watch(cursor=cursor)) as stream:
            hello = stream.hello()
            created = streams.version(reader).revision
            found = stream.transaction()

    assert hello.head_revision == last
    assert found.revision == created == last + 1


def test_commits_of_other_servers_come_within_a_poll(postgres_url: str) -> None:
    with (
        RunningServer(postgres_url) as one,
        RunningServer(postgres_url, listen=False) as other,
        Client(one.address) as writer,
        Client(other.address) as reader,
        Stream(reader, watch()) as stream,
    ):
        stream.hello()
        began = time.monotonic()
        created = streams.model(writer).revision
        found = stream.transaction()
        waited = time.monotonic() - began

    assert found.revision == created
    assert waited < 2.0


def test_commits_of_other_servers_are_heard_of_without_a_poll(postgres_url: str) -> None:
    with (
        RunningServer(postgres_url) as one,
        # After its first look, which ends its start, this one hears of commits or never knows.
        RunningServer(
            postgres_url,
            poll_interval_seconds=600,
            poll_interval_unheard_seconds=600,
            freshness_seconds=600,
        ) as other,
        Client(one.address) as writer,
        Client(other.address) as reader,
        Stream(reader, watch()) as stream,
    ):
        stream.hello()
        deadline = time.monotonic() + 10
        while not other.server.tail.database.hears_others:
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)
        for number in range(20):
            created = streams.model(writer, f"m{number}").revision
            assert stream.transaction().revision == created


def wait_until_followed(scene: Scene) -> None:
    """Wait until every watcher hears something from now on."""
    began = time.monotonic()

    def follows(record: WatcherRecord) -> bool:
        # The last stream of one that reconnects all the time has often heard nothing yet.
        return any(s.heard and s.heard[-1].time > began for s in record.streams[-3:])

    while not all(follows(recorder.record) for recorder in scene.recorders):
        assert time.monotonic() < began + 60, "not everybody came back"
        threading.Event().wait(0.02)


@pytest.mark.fault
@pytest.mark.timeout(180)
def test_a_server_restarted_in_order_ends_every_stream_in_order(
    database_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault", "a server restarted in order, under traffic")
    record_property("runs", 4)
    server = ServerProcess(
        database_url,
        tmp_path / "server.log",
        bookmark_interval_seconds=0.5,
        drain_seconds=0.1,
        goodbye_seconds=0.2,
        stop_seconds=5,
    )
    codes = []
    with server:
        scene = Scene(server.address, seed=7, bookmark_seconds=0.5)
        with scene.playing():
            for _ in range(4):
                wait_until_followed(scene)
                codes.append(server.stop())
                server.start()

    counts = checkers.check(scene.history)
    record_property("checked", dict(counts))
    said = [
        stream.heard[-1].message.WhichOneof("message")
        for watcher in scene.history.watchers
        for stream in watcher.streams
        # The last stream of a watcher was open at the end, one that resumes was not the last.
        if stream.heard and stream is not watcher.streams[-1]
    ]
    assert codes == [0] * 4
    assert said.count("goodbye") >= 4 * 10, said
