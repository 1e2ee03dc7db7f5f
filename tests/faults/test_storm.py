"""Thousands of watchers lose their streams at once: all are back in ten seconds, and miss nothing.

Time runs from the cut, or from the first answer of the server that was started again, until the
last watcher was greeted and had received every change that was acknowledged by then. Health is
asked every 50 ms on a connection of its own all the while.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from stagewire import pb
from stagewire.client import Client
from tests.faults.processes import ServerProcess
from tests.fleet.controls import Fleet
from tests.fleet.storms import ModelWriter, Prober, cut_connections, kill_server
from tests.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fleet.storms import Storm

WATCHERS = {"short": 2_000, "long": 10_000}
BACK_SECONDS = 10.0
MODELS = tuple(f"m{number}" for number in range(100))
CUTS = 2


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_watchers_dropped_at_once_are_all_back_in_ten_seconds_and_miss_nothing(
    database_url: str,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    size = WATCHERS["long" if at_length else "short"]
    storms: list[Storm] = []
    server = ServerProcess(database_url, tmp_path / "server.log")
    with server, Fleet(server.address) as fleet:
        writer = ModelWriter(server.address, MODELS, pause_seconds=0.05)
        writer.make_models()
        fleet.open(size, MODELS)
        fleet.wait_until_served(seconds=60)
        with Prober(server.address) as prober, writer:
            for drop in (*[cut_connections] * CUTS, kill_server):
                _wait_for_writes(writer, 10)
                storms.append(drop(fleet, server, writer))
        state, _ = fleet.wait(
            lambda s: s.served == s.reached == s.members, seconds=30, reached=writer.last()
        )
        told = fleet.told()

    assert all(told[m] == [(writer.written[m], size // len(MODELS))] for m in MODELS), told
    assert state.repeated == 0
    assert not state.resets
    assert state.streams >= size * (len(storms) + 1)
    assert set(prober.answers) <= {"SERVING", "UNAVAILABLE"}, prober.answers
    assert prober.answers["SERVING"] > 10
    assert all(storm.caught_up_seconds <= BACK_SECONDS for storm in storms), storms
    record_property("fault", "Thundering reconnect of all watchers")
    record_property("runs", len(storms))
    record_property(
        "checked",
        {
            "W2": state.revisions,
            "W4": writer.count() * size // len(MODELS),
            "W12": state.streams,
            "health answers": prober.answers["SERVING"],
            "ms longest": round(prober.longest_seconds * 1000),
            "ms back": round(max(storm.caught_up_seconds for storm in storms) * 1000),
        },
    )


@pytest.mark.fault
def test_a_server_that_starts_holds_the_end_of_the_log_for_those_who_resume(
    database_url: str,
) -> None:
    with RunningServer(database_url) as first, Client(first.address) as client:
        client.registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name="churn")))
        position = first.server.registry.database.read(lambda tx: (tx.head, tx.head_hash[:8]))
        for number in range(250):
            tags = {"n": str(number)}
            client.registry.SetModelTags(pb.SetModelTagsRequest(model="churn", tags=tags))

    with RunningServer(database_url) as second:
        kept = second.server.tail.recent(*position)

    assert kept is not None
    assert kept[0].revision == position[0] + 1


def _wait_for_writes(writer: ModelWriter, more: int) -> None:
    before, deadline = writer.count(), time.monotonic() + 30
    while writer.count() < before + more:
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
