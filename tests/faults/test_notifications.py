"""Hints of other servers' commits are lost: they come a poll later, and none is missed."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa

from stagewire.client import Client
from tests.faults import checkers
from tests.faults.pooling import Proxy
from tests.faults.replicas import BOOKMARK_SECONDS, replicas, until
from tests.faults.scenes import Scene
from tests.servers import RunningServer
from tests.wire import streams
from tests.wire.streams import Stream, watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POLL_SECONDS = 1.0
#: A busy machine's share of a second.
SLACK_SECONDS = 1.0
NEVER = {
    "poll_interval_seconds": 600,
    "poll_interval_unheard_seconds": 600,
    "freshness_seconds": 600,
}
_LISTENERS = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%%' AND datname = %s"


class Listeners:
    """The connections on which servers of one database listen, to be ended."""

    def __init__(self, database_url: str) -> None:
        url = sa.make_url(database_url)
        self._database = url.database
        self._connection = psycopg.connect(
            host=str(url.query["host"]), user=url.username, dbname=url.database, autocommit=True
        )

    def close(self) -> None:
        self._connection.close()

    def found(self) -> set[int]:
        return {pid for (pid,) in self._connection.execute(_LISTENERS, [self._database])}

    def end(self) -> int:
        """End those there are, and wait until they are gone; answer how many there were."""
        ended = self.found()
        for pid in ended:
            self._connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        until(lambda: not self.found() & ended, "listeners are gone")
        return len(ended)


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_a_commit_that_nobody_was_notified_of_comes_within_a_poll(
    postgres_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    waits = []
    with (
        replicas(
            postgres_url,
            tmp_path,
            failpoints="notify=skip",
            poll_interval_seconds=POLL_SECONDS,
            bookmark_interval_seconds=60,
        ) as (servers, _),
        Client(servers[0].address) as writer,
        Client(servers[1].address) as reader,
        Stream(reader, watch()) as stream,
        closing(Listeners(postgres_url)) as listeners,
    ):
        stream.hello()
        until(lambda: len(listeners.found()) == len(servers), "both listen")
        for number in range(8):
            created = streams.model(writer, f"m{number}").revision
            acknowledged = time.monotonic()
            assert stream.transaction().revision == created
            waits.append(time.monotonic() - acknowledged)

    assert max(waits) < POLL_SECONDS + SLACK_SECONDS, waits
    # Told at once each time, nothing would have been lost, and nothing shown.
    assert max(waits) > POLL_SECONDS / 4, waits
    record_property("fault", "NOTIFY lost")
    record_property("runs", len(waits))
    record_property("checked", {"W4": len(waits), "longest wait, ms": round(max(waits) * 1000)})


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_what_was_committed_while_the_listener_was_away_is_read_when_it_is_back(
    postgres_url: str, record_property: Callable[[str, object], None]
) -> None:
    rounds = 4
    waits = []
    with (
        RunningServer(postgres_url) as one,
        # But for what it hears it would not look at the log while this test lasts.
        RunningServer(postgres_url, **NEVER) as other,
        Client(one.address) as writer,
        Client(other.address) as reader,
        Stream(reader, watch()) as stream,
        closing(Listeners(postgres_url)) as listeners,
    ):
        stream.hello()
        for number in range(rounds):
            until(lambda: other.server.tail.database.hears_others, "it hears")
            listeners.end()
            created = streams.model(writer, f"m{number}").revision
            committed = time.monotonic()
            assert stream.transaction().revision == created
            waits.append(time.monotonic() - committed)

    record_property("fault", "NOTIFY lost while the listener reconnects")
    record_property("runs", rounds)
    record_property("checked", {"W4": rounds, "longest wait, ms": round(max(waits) * 1000)})


@pytest.mark.fault
@pytest.mark.timeout(400)
def test_every_invariant_holds_while_listeners_are_ended_again_and_again(
    postgres_url: str,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    seconds = 60.0 if at_length else 4.0
    ended = 0
    with (
        replicas(postgres_url, tmp_path, poll_interval_seconds=POLL_SECONDS) as (_, address),
        closing(Listeners(postgres_url)) as listeners,
    ):
        scene = Scene(address, seed=160, bookmark_seconds=BOOKMARK_SECONDS)
        with scene.playing():
            over = time.monotonic() + seconds
            while time.monotonic() < over:
                ended += listeners.end()
                threading.Event().wait(0.2)

    counts = checkers.check(scene.history)
    assert all(counts[name] > 0 for name in checkers.CHECKERS), counts
    assert ended >= seconds, ended
    record_property("fault", "NOTIFY lost, listeners ended again and again")
    record_property("runs", ended)
    record_property("checked", dict(counts))


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_a_server_behind_a_proxy_that_keeps_notifications_back_polls(
    postgres_url: str, record_property: Callable[[str, object], None]
) -> None:
    waits = []
    with (
        Proxy(postgres_url) as proxy,
        RunningServer(postgres_url) as one,
        RunningServer(proxy.url, poll_interval_seconds=600) as other,
        Client(one.address) as writer,
        Client(other.address) as reader,
        Stream(reader, watch()) as stream,
    ):
        stream.hello()
        until(lambda: proxy.kept_back, "a notification is kept back")
        for number in range(8):
            created = streams.model(writer, f"m{number}").revision
            acknowledged = time.monotonic()
            assert stream.transaction().revision == created
            waits.append(time.monotonic() - acknowledged)
        assert not other.server.tail.database.hears_others

    assert max(waits) < SLACK_SECONDS, waits
    record_property("fault", "a proxy that pools transactions keeps NOTIFY back")
    record_property("runs", len(waits))
    record_property("checked", {"W4": len(waits), "longest wait, ms": round(max(waits) * 1000)})
