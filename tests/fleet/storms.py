"""A storm: every member of a fleet loses its stream at once, while others write and probe.

What is told of it: how long until the last member was greeted again and had received every
change acknowledged by then, and the longest answer of health meanwhile.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from modelregistry.v1.registry_service_pb2_grpc import RegistryServiceStub

from stagewire import pb
from tests.faults.processes import CHANNEL_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.faults.processes import ServerProcess
    from tests.fleet.controls import Fleet, State

PROBE_SECONDS = 0.05
PROBE_DEADLINE_SECONDS = 1.0
#: Longer than any storm is meant to last: what is slower is told as slow, not as broken.
PATIENCE_SECONDS = 60.0
OWN_CONNECTION = (*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
TICKS_A_SECOND = 100


class _Companion(threading.Thread):
    """Somebody who does the same again and again while a storm goes on."""

    def __init__(self, address: str) -> None:
        super().__init__(name=type(self).__name__)
        self._channel = grpc.insecure_channel(address, options=OWN_CONNECTION)
        self._halted = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._halted.is_set():
                self._halted.wait(self.act())
        except BaseException as error:  # noqa: BLE001  # told when it is stopped
            self._failure = error

    def act(self) -> float:
        """Do it once; answers how long to wait."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._halted.set()
        self.join(PATIENCE_SECONDS + 10)
        self._channel.close()
        if self._failure is not None:
            raise self._failure


class Prober(_Companion):
    """Asks health on a connection of its own, every 50 ms."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = health_pb2_grpc.HealthStub(self._channel)
        self.answers: Counter[str] = Counter()
        self.longest_seconds = 0.0

    def act(self) -> float:
        began = time.monotonic()
        try:
            answer = self._stub.Check(
                health_pb2.HealthCheckRequest(), timeout=PROBE_DEADLINE_SECONDS
            )
            took = time.monotonic() - began
            self.answers[health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)] += 1
            self.longest_seconds = max(self.longest_seconds, took)
        except grpc.RpcError as error:
            took = time.monotonic() - began
            self.answers[error.code().name] += 1
        return max(PROBE_SECONDS - took, 0)


class ModelWriter(_Companion):
    """Changes one of some models after another, and knows what became of every change."""

    def __init__(self, address: str, models: Sequence[str], *, pause_seconds: float) -> None:
        super().__init__(address)
        self._stub = RegistryServiceStub(self._channel)
        self._models = models
        self._pause_seconds = pause_seconds
        self._random = random.Random(1)
        #: By model, the revisions of its changes.
        self.written: dict[str, list[int]] = {model: [] for model in models}

    def make_models(self) -> None:
        """Create the models."""
        for model in self._models:
            self._stub.CreateModel(pb.CreateModelRequest(model=pb.Model(name=model)), timeout=30)

    def act(self) -> float:
        model = self._random.choice(self._models)
        request = pb.SetModelTagsRequest(
            model=model, tags={"n": uuid.uuid4().hex}, request_id=uuid.uuid4().hex
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self._stub.SetModelTags(request, timeout=5, wait_for_ready=True)
            except grpc.RpcError:
                # Nobody knows whether it was made; the same request_id will tell.
                if time.monotonic() > deadline:
                    raise
                threading.Event().wait(0.05)
            else:
                self.written[model].append(answer.revision)
                return self._pause_seconds

    def count(self) -> int:
        """Say how many changes were acknowledged."""
        return sum(map(len, self.written.values()))

    def last(self) -> dict[str, int]:
        """Give each model's last acknowledged revision."""
        return {model: revisions[-1] for model, revisions in self.written.items() if revisions}


@dataclass(frozen=True, slots=True)
class Storm:
    """What one storm was like. Seconds run from the server's being there for everybody."""

    served_seconds: float
    caught_up_seconds: float
    fleet_cpu_seconds: float
    server_cpu_seconds: float
    state: State


def cpu_seconds(pid: int) -> float:
    """Read the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def resident_bytes(pid: int) -> int:
    """Read how much memory a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def cut_connections(fleet: Fleet, server: ServerProcess, writer: ModelWriter) -> Storm:
    """Cut every connection of the fleet at once, and watch it come back."""

    def drop() -> float:
        now = time.monotonic()
        fleet.cut()
        return now

    return _storm(fleet, server, writer, drop)


def kill_server(fleet: Fleet, server: ServerProcess, writer: ModelWriter) -> Storm:
    """Kill the server and start it again; time runs from its first answer."""

    def drop() -> float:
        server.kill()
        server.start()
        return time.monotonic()

    return _storm(fleet, server, writer, drop)


def _storm(
    fleet: Fleet, server: ServerProcess, writer: ModelWriter, drop: Callable[[], float]
) -> Storm:
    fleet.state()
    began, own, pid = time.monotonic(), fleet.cpu_seconds, server.process.pid
    before = cpu_seconds(pid)
    there = drop()
    state = fleet.wait_until_served(seconds=PATIENCE_SECONDS, since=began)
    state, now = fleet.wait(
        lambda s: s.served == s.reached == s.members,
        seconds=PATIENCE_SECONDS,
        since=began,
        reached=writer.last(),
    )
    # A server that was started anew has used nothing before.
    before = before if server.process.pid == pid else 0.0
    return Storm(
        served_seconds=state.last_served - there,
        caught_up_seconds=now - there,
        fleet_cpu_seconds=fleet.cpu_seconds - own,
        server_cpu_seconds=cpu_seconds(server.process.pid) - before,
        state=state,
    )
