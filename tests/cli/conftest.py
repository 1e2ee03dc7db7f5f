"""A real server on a free port for the whole run, and command lines against it."""

import logging
import os
import re
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from stagewire.cli import main

START_SECONDS = 60


@dataclass(frozen=True)
class Ran:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, parsed."""
        import json

        assert self.code == 0, self.err
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("STAGEWIRE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(autouse=True)
def _own_log_lines() -> Iterator[None]:
    """Let commands that silence the log silence only themselves."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture
def silent_servers() -> Iterator[None]:
    """Keep what servers of this process log out of what commands print."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process: split as a shell would, then arguments as they are."""

    def ran(line: str, *arguments: object) -> Ran:
        capsys.readouterr()
        code = main.main([*shlex.split(line), *map(str, arguments)])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return ran


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """Serve the SQLite registry of a folder with the command itself; gives where gRPC listens."""
    log = folder / "server.log"
    with (
        log.open("w") as written,
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "stagewire.cli.main",
                "serve",
                "--database-url",
                f"sqlite:///{folder / 'registry.sqlite3'}",
                "--grpc-address",
                "127.0.0.1:0",
                "--drain-seconds",
                "0",
                "--goodbye-seconds",
                "0",
                *options,
            ],
            stdout=written,
            stderr=subprocess.STDOUT,
        ) as server,
    ):
        try:
            yield _address(log, server)
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a new SQLite registry with the command itself."""
    pytest.importorskip("stagewire.server.serve")
    with serving(
        tmp_path_factory.mktemp("registry"),
        # The receivers of the tests' webhooks are on this host.
        "--webhook-allow-private-addresses",
        *("--webhook-allowed-schemes", "http"),
        *("--webhook-give-up-seconds", "0"),
    ) as found:
        yield found


def _address(log: Path, server: "subprocess.Popen[bytes]") -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        said = log.read_text()
        if found := re.search(r"127\.0\.0\.1:([1-9]\d*)", said):
            return found[0]
        if server.poll() is not None:
            break
        time.sleep(0.05)
    pytest.fail(f"the server did not start:\n{log.read_text()}")


@pytest.fixture
def registry(run: Run, address: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line against the server, in a namespace of this test's own."""
    namespace = f"t-{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("STAGEWIRE_ADDRESS", address)
    monkeypatch.setenv("STAGEWIRE_NAMESPACE", namespace)
    assert run("namespace", "create", namespace).code == 0
    return run


@pytest.fixture
def process(address: str) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run a command line in a process of its own against the server's `default` namespace."""

    def ran(line: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "stagewire.cli.main", *shlex.split(line), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "STAGEWIRE_ADDRESS": address},
        )

    return ran
