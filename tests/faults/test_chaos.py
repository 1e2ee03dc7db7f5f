"""Servers killed and restarted at random under a fleet: every invariant holds, whoever fell."""

from __future__ import annotations

import os
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults import checkers, fleet_checkers
from tests.faults.callers import calling
from tests.faults.fleet_scenes import FleetScene

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.processes import ServerProcess

ALL = {**checkers.CHECKERS, **fleet_checkers.CHECKERS}


def storm(servers: list[ServerProcess], chance: random.Random, seconds: float, calm: float) -> int:
    """Kill and restart one or two at a time, each at least once; give the number of kills."""
    deadline = time.monotonic() + seconds
    first = chance.sample(servers, len(servers))
    kills = 0
    while first or time.monotonic() < deadline:
        threading.Event().wait(chance.uniform(0.2, 2) * calm)
        victims = [first.pop()] if first else chance.sample(servers, chance.choice((1, 1, 1, 2)))
        for victim in victims:
            victim.kill()
            kills += 1
        threading.Event().wait(chance.uniform(0, 1) * calm)
        for victim in victims:
            victim.start()
    return kills


@pytest.mark.fault
@pytest.mark.timeout(1500)
def test_every_invariant_holds_while_servers_are_killed_and_restarted(
    postgres_url: str,
    at_length: bool,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    scene = FleetScene(
        postgres_url,
        tmp_path,
        watchers=2000 if at_length else 200,
        agents=50 if at_length else 20,
        bookmark_seconds=5.0 if at_length else 1.0,
        pause_seconds=0.2,
        stream_lifetime_seconds=60 if at_length else 8,
        ring_bytes=1 << 19 if at_length else 200_000,
    )
    history = scene.history
    history.settled_seconds = 30.0 if at_length else 5.0
    chance = random.Random(int(time.time()))
    seconds, calm = (300.0, 6.0) if at_length else (16.0, 1.0)
    seconds = float(os.environ.get("STAGEWIRE_CHAOS_SECONDS", seconds))
    with scene.playing(), calling(scene.address, pause_seconds=0.2) as account:
        kills = storm(scene.servers, chance, seconds, calm)

    began = time.monotonic()
    counts = fleet_checkers.check(history)
    counts["kills"] = kills
    counts["revisions"] = len(history.log)
    counts["writes"] = len(history.writes)
    counts["repeated"] = sum(write.attempts > 1 for write in history.writes)
    counts["watchers"] = len(history.watchers)
    counts["streams"] = sum(len(watcher.streams) for watcher in history.watchers)
    counts["messages"] = sum(len(s.heard) for w in history.watchers for s in w.streams)
    counts["broken streams"] = sum(
        stream.end.startswith("UNAVAILABLE") for _, stream in checkers.streams(history)
    )
    counts["reads held against writes"] = account.reads
    counts["MiB of the largest server"] = max(s.rss_bytes for s in history.memory) >> 20
    counts["seconds of checking"] = round(time.monotonic() - began)
    record_property("fault", "replicas killed and restarted at random, with every stream open")
    record_property("runs", kills)
    record_property("checked", dict(counts))
    # A call may fail when its server is killed; what is read is right all the same.
    assert not account.wrong, "\n".join(account.wrong)
    assert account.reads > 0
    assert all(server.lives > 1 for server in scene.servers)
    assert all(counts[name] > 0 for name in ALL), counts
