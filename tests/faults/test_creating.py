"""Sixteen processes create versions of one model at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stagewire import pb
from stagewire.client import Client
from tests.faults import checkers, creating
from tests.faults.processes import ServerProcess
from tests.faults.recordings import History, take_stock

if TYPE_CHECKING:
    from collections.abc import Callable

PROCESSES = 16
EACH = 25


@pytest.mark.fault
@pytest.mark.timeout(180)
def test_sixteen_processes_get_numbers_without_holes_or_twins(
    database_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault", "16 processes that create versions of one model")
    record_property("runs", 1)
    history = History()
    with (
        ServerProcess(database_url, tmp_path / "server.log") as server,
        Client(server.address) as client,
    ):
        client.registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name="churn")))
        command = [sys.executable, creating.__file__, server.address, "churn", str(EACH)]
        started = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
        ]
        outputs = [process.communicate(timeout=120)[0] for process in started]
        take_stock(client, history)

    assert all(process.returncode == 0 for process in started)
    made = [tuple(map(int, line.split())) for output in outputs for line in output.splitlines()]
    total = PROCESSES * EACH
    assert sorted(number for number, _ in made) == list(range(1, total + 1))
    # Numbers and revisions were given in one order.
    assert [number for _, number in sorted((r, n) for n, r in made)] == list(range(1, total + 1))
    assert sorted(version.version for version in history.versions) == list(range(1, total + 1))
    counts = {name: checkers.CHECKERS[name](history) for name in ("W9", "W11")}
    record_property("checked", {"processes": PROCESSES, "versions": len(made), **counts})
