"""The network fails between real hosts: cut, slow and lossy, or silent towards the database.

Needs what an ordinary user has not (network namespaces, TUN devices), so it is run by itself.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.faults import checkers
from tests.faults.clusters import Cluster, folder
from tests.faults.load import Writer
from tests.faults.network.cables import Cable
from tests.faults.processes import CHANNEL_OPTIONS, ServerProcess
from tests.faults.replicas import BOOKMARK_SECONDS, STALE_SECONDS, address, longest_silence, until
from tests.faults.scenes import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Long enough for a server to give up its connections to the database, too.
CUT_SECONDS = 12.0
#: A server at the other end of a cable is reached without TLS and by whoever comes.
OPEN: dict[str, Any] = {"allow_plaintext": True, "allow_anonymous": True}


@pytest.fixture
def cable() -> Iterator[Cable]:
    with Cable() as laid:
        yield laid


@pytest.mark.fault
@pytest.mark.network
@pytest.mark.timeout(900)
def test_watchers_and_writers_go_on_after_the_cable_was_cut(
    cable: Cable,
    database_url: str,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    seconds = 40.0 if at_length else 5.0
    with ServerProcess(
        database_url,
        tmp_path / "server.log",
        host=cable.there,
        inside=cable.inside,
        **OPEN,
        bookmark_interval_seconds=BOOKMARK_SECONDS,
    ) as server:
        scene = Scene(server.address, seed=130, bookmark_seconds=BOOKMARK_SECONDS)
        with scene.playing():
            threading.Event().wait(1.0)
            cable.cut = True
            cut = time.monotonic()
            threading.Event().wait(seconds)
            mended = time.monotonic()
            cable.mend()
            scene.written_since(mended)

    counts = checkers.check(scene.history)
    written = [w for w in scene.history.writes if cut + 0.5 < (w.acknowledged or 0) < mended]
    assert not written
    record_property("fault", "network cut")
    record_property("runs", 1)
    record_property("checked", {**counts, "seconds": round(seconds), "packets": cable.passed})


@pytest.mark.fault
@pytest.mark.network
@pytest.mark.timeout(900)
def test_every_invariant_holds_over_a_slow_and_lossy_network(
    cable: Cable,
    database_url: str,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    seconds = 60.0 if at_length else 8.0
    # Three intervals of silence make a stream broken: two round trips are one second here.
    bookmark_seconds = 2.0
    with ServerProcess(
        database_url,
        tmp_path / "server.log",
        host=cable.there,
        inside=cable.inside,
        **OPEN,
        bookmark_interval_seconds=bookmark_seconds,
    ) as server:
        scene = Scene(server.address, seed=140, bookmark_seconds=bookmark_seconds)
        with scene.playing():
            cable.delay_seconds, cable.loss = 0.5, 0.05
            lossy = time.monotonic()
            threading.Event().wait(seconds)
            mended = time.monotonic()
            cable.mend()
            scene.written_since(mended)

    counts = checkers.check(scene.history)
    written = [w for w in scene.history.writes if lossy + 2 < (w.acknowledged or 0) < mended]
    assert written
    assert cable.dropped > 10, cable.dropped
    record_property("fault", "500 ms / 5 % loss")
    record_property("runs", 1)
    packets = {"packets": cable.passed, "packets lost": cable.dropped, "writes": len(written)}
    record_property("checked", {**counts, "seconds": round(seconds), **packets})


@pytest.mark.fault
@pytest.mark.network
@pytest.mark.timeout(900)
def test_the_others_write_on_when_the_database_no_longer_hears_whoever_has_the_head(
    cable: Cable, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    listen: dict[str, object] = {"listen_addresses": f"127.0.0.1,{cable.here}"}
    with folder() as made, Cluster(made / "one", listen) as one:
        url = one.create_registry()
        ways: dict[str, Any] = {"bookmark_interval_seconds": BOOKMARK_SECONDS}
        far = ServerProcess(
            url.replace("127.0.0.1", cable.here),
            tmp_path / "far.log",
            host=cable.there,
            inside=cable.inside,
            **OPEN,
            **ways,
        )
        near = ServerProcess(url, tmp_path / "near.log", **ways)
        with near, grpc.insecure_channel(near.address, options=CHANNEL_OPTIONS) as channel:
            far.start(failpoints="head.taken=stop@80")
            try:
                scene = Scene(address([far, near]), seed=150, bookmark_seconds=BOOKMARK_SECONDS)
                # A watch that was to begin when the cable was cut begins when it is mended, and
                # ends at once with a bookmark of where it would have gone on.
                scene.history.slack_seconds += CUT_SECONDS + STALE_SECONDS
                probe = Writer(channel, 150)
                with scene.playing():
                    probe.start()
                    until(lambda: far.frozen, "it stops with the head taken", 60)
                    cable.cut_ports = frozenset({one.port})
                    far.thaw()
                    began = time.monotonic()
                    threading.Event().wait(CUT_SECONDS)
                    ended = time.monotonic()
                    cable.mend()
                    scene.written_since(ended)
                    until(far.healthy, "it serves again")
                    probe.stop()
                    silence = longest_silence(probe.records, began, ended)
                    scene.history.writes += probe.records
            finally:
                far.kill()

    counts = checkers.check(scene.history)
    assert 2.0 < silence < 5.0, silence
    record_property("fault", 'cable cut at "head taken, not committed"')
    record_property("runs", 1)
    record_property("checked", {**counts, "longest silence, ms": round(silence * 1000)})
