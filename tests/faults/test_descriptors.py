"""No file descriptor left: streams that are open go on, and others are served when some close."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stagewire import pb
from stagewire.client import Client
from tests.faults.processes import ServerProcess
from tests.wire import streams
from tests.wire.streams import Stream, watch

if TYPE_CHECKING:
    from collections.abc import Callable

STREAMS = 10
#: More than the server may open.
CONNECTIONS = 60
LEFT = 24
WATCHED_SECONDS = 3.0
DEADLINE_SECONDS = 30.0


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answers(address: str, timeout: float) -> bool:
    """Say whether a new connection is served."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as channel:
        try:
            health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout, wait_for_ready=True
            )
        except grpc.RpcError:
            return False
        return True


@pytest.mark.fault
@pytest.mark.timeout(180)
def test_without_a_descriptor_left_open_streams_go_on_and_new_ones_come_when_some_close(
    database_url: str,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("fault", "file descriptors exhausted")
    rounds = 5 if at_length else 1
    told = 0
    with (
        ServerProcess(database_url, tmp_path / "server.log") as server,
        Client(server.address) as client,
    ):
        pid = server.process.pid
        last = streams.versions(client, 2)
        opened = [Stream(client, watch()) for _ in range(STREAMS)]
        for stream in opened:
            stream.hello()
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        for _ in range(rounds):
            limit = descriptors(pid) + LEFT
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
            host, _, port = server.address.rpartition(":")
            # The kernel takes them all; the server can't.
            crowd = [socket.create_connection((host, int(port))) for _ in range(CONNECTIONS)]
            deadline = time.monotonic() + DEADLINE_SECONDS
            while descriptors(pid) < limit:
                assert time.monotonic() < deadline, (descriptors(pid), limit)
                threading.Event().wait(0.02)
            used = cpu_seconds(pid)
            assert not answers(server.address, 1.0)
            for _ in range(3):
                created = streams.version(client).revision
                assert created == last + 1
                last = created
                for stream in opened:
                    assert stream.transaction().revision == created
                    told += 1
            threading.Event().wait(WATCHED_SECONDS)
            used = cpu_seconds(pid) - used
            for connection in crowd:
                connection.close()
            assert answers(server.address, DEADLINE_SECONDS)
            assert server.process.poll() is None
            # One that asked again and again for what it can't have would use a core.
            assert used < WATCHED_SECONDS / 2, used
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        for stream in opened:
            stream.cancel()
        verified = client.audit.VerifyLog(pb.VerifyLogRequest())

    assert (verified.intact, verified.head_revision) == (True, last)
    record_property("runs", rounds)
    record_property("checked", {"W1": told, "W4": told, "W9": last})
