"""Asks a server's health again and again, until nobody listens: `pulse GRPC_ADDRESS HTTP_ADDRESS`.

A process of its own, so that what it measures is the server and not who attacks it.
"""

from __future__ import annotations

import http.client
import json
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from types import TracebackType

    from tests.hostile.targets import Target

_PAUSE_SECONDS = 0.02


class Beat(NamedTuple):
    """How long answers took, in milliseconds; `failed` counts those that did not come."""

    asked: int
    p50: float
    p99: float
    failed: int


class Pulse:
    """Takes a target's pulse while it is attacked."""

    def __init__(self, target: Target) -> None:
        """Prepare."""
        command = [sys.executable, "-m", __name__, target.address, target.http_address]
        self._command = command
        self.beats: dict[str, Beat] = {}

    def __enter__(self) -> Self:
        """Begin."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """End, and say how it was."""
        told, _ = self._process.communicate()
        self.beats = {name: Beat(*beat) for name, beat in json.loads(told).items()}


def main(grpc_address: str, http_address: str) -> None:
    """Ask until standard input ends."""
    took: dict[str, list[float]] = {"gRPC": [], "HTTP": []}
    failed = dict.fromkeys(took, 0)
    with grpc.insecure_channel(grpc_address) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def ask_grpc() -> bool:
            found = health.Check(health_pb2.HealthCheckRequest(), timeout=10, wait_for_ready=True)
            return bool(found.status == health_pb2.HealthCheckResponse.SERVING)

        connection = http.client.HTTPConnection(http_address, timeout=10)

        def ask_http() -> bool:
            try:
                connection.request("GET", "/health")
                answer = connection.getresponse()
                return (answer.status, answer.read()) == (200, b"OK")
            except OSError:
                connection.close()
                raise

        while not select.select([sys.stdin], [], [], _PAUSE_SECONDS)[0]:
            for name, ask in (("gRPC", ask_grpc), ("HTTP", ask_http)):
                began = time.perf_counter()
                try:
                    failed[name] += not ask()
                except (grpc.RpcError, OSError, http.client.HTTPException):
                    failed[name] += 1
                took[name].append((time.perf_counter() - began) * 1000)
    print(json.dumps({name: _beat(times, failed[name]) for name, times in took.items()}))  # noqa: T201  # for whoever started it


def _beat(times: list[float], failed: int) -> Beat:
    ordered = sorted(times) or [0.0]
    p50, p99 = (round(ordered[int(len(ordered) * part)], 1) for part in (0.5, 0.99))
    return Beat(len(times), p50, p99, failed)


if __name__ == "__main__":
    main(*sys.argv[1:])
