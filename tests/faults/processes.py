"""A real `stagewire serve` in a process of its own, to be killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from modelregistry.v1.watch_service_pb2_grpc import WatchServiceStub

from stagewire import pb

if TYPE_CHECKING:
    from types import TracebackType

#: Clients that come back at once: gRPC's own pauses would outlast the server's absence.
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 200),
)
START_SECONDS = 60.0


def free_port() -> int:
    """Find a port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """`stagewire serve` on one database and one port, over any number of lives.

    `inside` are words before its command, which may have it run elsewhere than on loopback.
    """

    def __init__(
        self,
        database_url: str,
        log: Path,
        *,
        host: str = "127.0.0.1",
        inside: tuple[str, ...] = (),
        **settings: object,
    ) -> None:
        self.address = f"{host}:{free_port()}"
        self.inside = inside
        self.database_url = database_url
        self._log = log
        self._environment = {
            **os.environ,
            "STAGEWIRE_LOG_LEVEL": "warning",
            "STAGEWIRE_HTTP_ADDRESS": "127.0.0.1:0",
            "STAGEWIRE_SOURCE_POLICY": "permissive",
            **{f"STAGEWIRE_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None
        #: Who asks whether it answers, where it matters who asks.
        self.shown: tuple[tuple[str, str], ...] = ()
        self.lives = 0
        #: Whether it has answered in this life.
        self.serving = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self, *, failpoints: str = "") -> None:
        """Start it, with these failpoints for this life, and wait until it answers."""
        self.launch(failpoints=failpoints)
        self.wait_until_serving()

    def launch(self, *, failpoints: str = "") -> None:
        """Start it, and wait for nothing."""
        command = [*self.inside, sys.executable, "-m", "stagewire.cli.main", "serve"]
        command += ["--database-url", self.database_url, "--grpc-address", self.address]
        environment = {**self._environment, "STAGEWIRE_FAILPOINTS": failpoints}
        self.serving = False
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.lives += 1

    def wait_until_serving(self) -> None:
        """Wait until it answers a call; fail with its log when it does not."""
        with grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS) as channel:
            try:
                WatchServiceStub(channel).GetHead(
                    pb.GetHeadRequest(),
                    metadata=self.shown,
                    timeout=START_SECONDS,
                    wait_for_ready=True,
                )
            except grpc.RpcError as error:
                raise AssertionError(self._log.read_text()[-4000:]) from error
        self.serving = True

    def healthy(self) -> bool:
        """Ask its health, as a load balancer does."""
        with grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS) as channel:
            found = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=10, wait_for_ready=True
            )
        return bool(found.status == health_pb2.HealthCheckResponse.SERVING)

    def said(self) -> str:
        """Give what it has logged, over all its lives."""
        return self._log.read_text()

    def kill(self) -> None:
        """Kill it as the kernel does: nothing is flushed, said or closed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def freeze(self) -> None:
        """Stop it where it stands; its sockets stay open."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on, whoever stopped it."""
        self.process.send_signal(signal.SIGCONT)

    @property
    def frozen(self) -> bool:
        """Whether it has been stopped, by `freeze` or by itself at a failpoint."""
        state = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "T"

    def stop(self) -> int:
        """Ask it to stop, and answer its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)
