"""Three servers restarted one after another under traffic: no call fails, no stream just breaks."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from stagewire import pb
from tests.faults import fleet_checkers
from tests.faults.callers import calling
from tests.faults.checkers import streams
from tests.faults.fleet_scenes import FleetScene
from tests.faults.tapes import CLOSED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.recordings import History

LONGEST_STOP_SECONDS = 40.0
#: The product's own times are seen at length; in short only their order is.
SWIFT = {"drain_seconds": 0.5, "goodbye_seconds": 1, "stop_seconds": 5}
IN_ORDER = {pb.GOODBYE_REASON_SHUTTING_DOWN, pb.GOODBYE_REASON_LIFETIME}


@pytest.mark.fault
@pytest.mark.timeout(900)
def test_a_rolling_restart_fails_no_call_and_ends_every_stream_in_order(
    postgres_url: str,
    at_length: bool,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    bookmark_seconds = 5.0 if at_length else 1.0
    scene = FleetScene(
        postgres_url,
        tmp_path,
        watchers=2000 if at_length else 300,
        agents=20,
        bookmark_seconds=bookmark_seconds,
        pause_seconds=0.4,
        at_once=False,
        **({} if at_length else SWIFT),
    )
    stops = []
    # Whoever runs servers waits before the next one too: clients have to find this one again.
    beat = 10.0 if at_length else 1.5
    with scene.playing(), calling(scene.address, pause_seconds=0.02) as account:
        for server in scene.servers:
            began = time.monotonic()
            code = server.stop()
            stops.append((code, time.monotonic() - began))
            server.start()
            threading.Event().wait(beat)

    counts = fleet_checkers.check(scene.history)
    ends = _ends(scene.history)
    counts += Counter({f"streams ended {how}": count for how, count in ends.items()})
    counts["calls"] = len(account.seconds)
    counts["failed calls"] = len(account.failures)
    counts["reads held against writes"] = account.reads
    counts["writers' repetitions"] = sum(w.attempts - 1 for w in scene.history.writes)
    counts["ms median"] = round(statistics.median(account.seconds) * 1000)
    counts["ms longest"] = round(max(account.seconds) * 1000)
    counts["seconds of the longest stop"] = round(max(seconds for _, seconds in stops))
    record_property("fault", "rolling restart under traffic")
    record_property("runs", len(stops))
    record_property("checked", dict(counts))
    assert not account.failures, "\n".join(account.failures)
    assert not account.wrong, "\n".join(account.wrong)
    assert [code for code, _ in stops] == [0] * len(scene.servers)
    assert all(seconds < LONGEST_STOP_SECONDS for _, seconds in stops), stops
    assert ends.pop("in order") > 0
    assert ends == {}
    assert counts["calls"] > 1000


def _ends(history: History) -> Counter[str]:
    """Count how streams ended that their clients had not done with."""
    ends: Counter[str] = Counter()
    for _, stream in streams(history):
        # Who was turned away at the door had no stream yet.
        if stream.end in ("", CLOSED) or not stream.heard:
            continue
        last = [heard.message for heard in stream.heard[-2:]]
        in_order = (
            stream.end == "OK"
            and last[0].HasField("bookmark")
            and last[-1].HasField("goodbye")
            and last[-1].goodbye.reason in IN_ORDER
        )
        ends["in order" if in_order else stream.end] += 1
    return ends
