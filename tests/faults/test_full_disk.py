"""A disk that is really full: writes are refused, the rest goes on, and freed space is enough."""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from modelregistry.v1.registry_service_pb2_grpc import RegistryServiceStub

from stagewire import pb
from stagewire.client import errors, statuses
from stagewire.store import upgrades
from tests.faults import checkers
from tests.faults.disks import mounted
from tests.faults.processes import CHANNEL_OPTIONS, ServerProcess
from tests.faults.scenes import Scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DISK_BYTES = 128 * 1024 * 1024
BOOKMARK_SECONDS = 0.5
FULL_SECONDS = 1.5
DEADLINE_SECONDS = 30.0


class Probe:
    """A client that looks what still works, and repeats nothing by itself."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._registry: Any = RegistryServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)

    def write(self, request: pb.CreateModelRequest) -> errors.StagewireError | None:
        """Write once; give the refusal, if it was refused."""
        try:
            self._registry.CreateModel(request, timeout=10)
        except grpc.RpcError as error:
            return statuses.of(error)
        return None

    def write_until(self, *, refused: bool) -> pb.CreateModelRequest:
        """Write until a write is refused, or until one that was is made; give that one."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            request = pb.CreateModelRequest(
                model=pb.Model(name=f"probe-{uuid.uuid4().hex}"), request_id=uuid.uuid4().hex
            )
            refusal = self.write(request)
            if refusal is not None:
                assert refusal.reason == "DATABASE_UNAVAILABLE", refusal
                assert refusal.code is grpc.StatusCode.UNAVAILABLE, refusal
            if (refusal is not None) is refused:
                return request
            assert time.monotonic() < deadline, refusal

    def expect_reads_and_health(self) -> None:
        found = self._registry.ListModels(pb.ListModelsRequest(), timeout=10)
        assert found.models
        health = self._health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert health.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_a_full_disk_refuses_writes_and_nothing_else_until_there_is_space_again(
    tmp_path: Path, at_length: bool, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault", "disk full: SQLite")
    rounds = 10 if at_length else 2
    with mounted(tmp_path / "disk", size_bytes=DISK_BYTES) as disk:
        url = f"sqlite:///{disk.folder}/stagewire.db"
        upgrades.upgrade(url)
        with (
            ServerProcess(
                url, tmp_path / "server.log", bookmark_interval_seconds=BOOKMARK_SECONDS
            ) as server,
            grpc.insecure_channel(server.address, options=CHANNEL_OPTIONS) as channel,
        ):
            probe = Probe(channel)
            scene = Scene(server.address, seed=8, bookmark_seconds=BOOKMARK_SECONDS)
            refused = []
            with scene.playing():
                for _ in range(rounds):
                    threading.Event().wait(0.3)
                    disk.fill()
                    refused.append(probe.write_until(refused=True))
                    ends = time.monotonic() + FULL_SECONDS
                    while time.monotonic() < ends:
                        probe.expect_reads_and_health()
                    disk.free()
                    probe.write_until(refused=False)
                    # And what was refused left nothing behind: it is made now, once.
                    assert probe.write(refused[-1]) is None

    history = scene.history
    made = [event.payload.request_id for event in history.log]
    assert all(made.count(request.request_id) == 1 for request in refused)
    counts = checkers.check(history)
    repeated = sum(write.attempts > 1 for write in history.writes)
    record_property("runs", rounds)
    record_property("checked", {**counts, "repeated": repeated})
    # The writers met the full disk, too.
    assert repeated > 0
    assert server.lives == 1
    assert all(counts[name] > 0 for name in checkers.CHECKERS), counts
