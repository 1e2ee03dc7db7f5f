"""A reader that takes nothing, among a thousand: it costs little, and in the end loses nothing."""

from __future__ import annotations

import statistics
import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from stagewire.client import statuses
from tests.faults.processes import ServerProcess
from tests.fleet.controls import Fleet
from tests.fleet.stalling import CHANGE_BYTES, Ballast, Reader, grow_by_backlog
from tests.fleet.storms import ModelWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OTHERS = 999
SHARED = "shared"
NEVER = 2**62
MEBIBYTE = 1024 * 1024
MOST_BYTES = 6 * MEBIBYTE
#: More than it may cost, so that keeping it would show.
BACKLOG_CHANGES = 2 * MOST_BYTES // CHANGE_BYTES
SLOW_SECONDS = 15.0
ROUNDS = {"short": 3, "long": 9}


@pytest.mark.fault
@pytest.mark.timeout(400)
def test_a_stalled_reader_costs_little_and_resumes_without_loss_while_others_hear_everything(
    database_url: str,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    rounds = ROUNDS["long" if at_length else "short"]
    log = tmp_path / "server.log"
    # A small ring is full at once, so that what grows is not the ring.
    server = ServerProcess(
        database_url,
        log,
        ring_bytes=MEBIBYTE,
        slow_consumer_seconds=SLOW_SECONDS,
        log_level="info",
    )
    grown: dict[str, list[int]] = {"reading": [], "stalled": []}
    with (
        server,
        Fleet(server.address, processes=1) as fleet,
        Ballast(server.address, "ballast") as ballast,
    ):
        writer = ModelWriter(server.address, [SHARED], pause_seconds=0.5)
        writer.make_models()
        fleet.open(OTHERS, [SHARED])
        fleet.wait_until_served(seconds=60)
        ballast.change(BACKLOG_CHANGES)
        with writer:
            for _ in range(rounds):
                for way, sizes in grown.items():
                    sizes.append(
                        grow_by_backlog(
                            server.process.pid,
                            server.address,
                            ballast,
                            BACKLOG_CHANGES,
                            stalled=way == "stalled",
                        )
                    )
            # Or nothing was stalled while it was measured.
            assert "RESOURCE_EXHAUSTED" not in log.read_text()
            with Reader(server.address, [ballast.model, SHARED]) as stalled:
                written = ballast.change(BACKLOG_CHANGES)
                _wait_for(lambda: "RESOURCE_EXHAUSTED" in log.read_text())
                with pytest.raises(grpc.RpcError) as ended:
                    stalled.read_until(NEVER)
        state, _ = fleet.wait(lambda s: s.reached == s.members, seconds=30, reached=writer.last())
        expected = sorted({*written, *writer.written[SHARED]})
        with Reader(server.address, [ballast.model, SHARED], cursor=stalled.cursor) as resumed:
            resumed.read_until(expected[-1])
        told = fleet.told()[SHARED]

    refusal = statuses.of(ended.value)
    assert refusal.reason == "SLOW_CONSUMER"
    # It began in the midst of the writer's changes.
    both = [*stalled.told, *resumed.told]
    assert both == [revision for revision in expected if revision >= both[0]]
    assert set(written) <= set(both)
    assert resumed.told
    assert told == [(writer.written[SHARED], OTHERS)]
    assert state.streams == OTHERS
    # What the process happened to give back meanwhile is nobody's saving.
    usual = max(0, statistics.median(grown["reading"]))
    cost = statistics.median(grown["stalled"]) - usual
    assert cost < MOST_BYTES, grown
    record_property("fault", "Slow consumer")
    record_property("runs", 2 * rounds + 1)
    record_property(
        "checked",
        {
            "W4": len(both) + state.revisions,
            "W5": len(resumed.told),
            "W14": OTHERS,
            "W20": rounds,
            "KiB": round(cost / 1024),
        },
    )


def _wait_for(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SLOW_SECONDS + 20
    while not met():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)
