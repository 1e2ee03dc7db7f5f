"""What the tests of MLflow start: ours and MLflow's servers, and pythons that have MLflow.

Every process ends with what started it, its children too; none keeps a word from going out to
where MLflow counts its users.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from tests.faults.processes import free_port

if TYPE_CHECKING:
    from types import TracebackType

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "tests/mlflow/clients"
START_SECONDS = 90.0

Release = Literal["3", "2.22", "2.9"]
#: The releases whose clients are tested; each has an environment of its own.
RELEASES: tuple[Release, ...] = ("3", "2.22", "2.9")

#: Stopping in order takes no time where nobody waits for it.
SWIFT = {"DRAIN_SECONDS": "0", "GOODBYE_SECONDS": "0.1", "STOP_SECONDS": "2"}


def mlflow_python(release: Release) -> Path:
    """Give the python that has this release of MLflow; `make test-mlflow` makes them."""
    found = ROOT / f".venv-mlflow-{release}/bin/python"
    assert found.exists(), f"{found} is missing; this makes it: make test-mlflow"
    return found


def environment(**more: str) -> dict[str, str]:
    """Give this environment without what it says of MLflow, and with what keeps tests alone."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "STAGEWIRE_"))
    }
    alone = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        # What would be tried again for minutes shall fail at once.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    }
    return {**kept, **alone, **more}


class Process:
    """A server in a process of its own, from entering to leaving."""

    def __init__(self, command: list[str], log: Path, **variables: str) -> None:
        self._command = command
        self._log = log
        self._variables = variables
        #: Where it answers HTTP.
        self.url = ""

    def __enter__(self) -> Self:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                cwd=self._log.parent,
                env=environment(**self._variables),
                # A group of its own, so that its workers end with it.
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.end()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            alive = self.process.poll() is None
            assert alive, f"it ended: {self.said()[-4000:]}"
            assert time.monotonic() < deadline, f"it does not answer: {self.said()[-4000:]}"
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it says that it is well."""
        if not self.url:
            return False
        try:
            # It is ours, whoever certified it.
            unverified = ssl._create_unverified_context()  # noqa: S323
            with urllib.request.urlopen(  # noqa: S310
                f"{self.url}/health", timeout=5, context=unverified
            ) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def said(self) -> str:
        """Give what it has logged."""
        return self._log.read_text(errors="replace")

    def end(self) -> None:
        """End it in order, and whatever of its group is left at once."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


class Stagewire(Process):
    """`stagewire serve` on a database, over gRPC and HTTP; settings are named as in settings.py."""

    def __init__(self, database_url: str, log: Path, **settings: object) -> None:
        command = [sys.executable, "-m", "stagewire.cli.main", "serve"]
        command += ["--database-url", database_url]
        command += ["--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"]
        given = {**SWIFT, **{name.upper(): str(value) for name, value in settings.items()}}
        super().__init__(command, log, **{f"STAGEWIRE_{name}": given[name] for name in given})
        #: Where it answers gRPC, as HOST:PORT.
        self.grpc = ""
        self._scheme = "https" if "tls_certificate_file" in settings else "http"

    def answers(self) -> bool:
        """Whether it says that it is well, once it has said where it is."""
        for line in self.said().splitlines():
            if '"event":"serving"' in line.replace(" ", ""):
                announced = json.loads(line)
                self.grpc, self.url = announced["grpc"], f"{self._scheme}://{announced['http']}"
        return super().answers()


class MlflowServer(Process):
    """A real `mlflow server`, its registry, runs and artifacts in a folder of their own."""

    def __init__(self, folder: Path, *options: str, release: Release = "3") -> None:
        port = free_port()
        command = [str(mlflow_python(release)), "-m", "mlflow", "server"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        command += ["--artifacts-destination", f"{folder}/artifacts"]
        super().__init__(
            [*command, *options],
            folder / "server.log",
            # Five more processes, for work that nobody gives it here.
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
            MLFLOW_WEBHOOK_ALLOWED_SCHEMES="http,https",
            MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS="true",
            # Else a new webhook may hear nothing for a minute.
            MLFLOW_WEBHOOK_CACHE_TTL="0",
        )
        self.url = f"http://127.0.0.1:{port}"
        self.folder = folder


def run_inside(release: Release, *arguments: str, **variables: str) -> str:
    """Run a suite in a release's environment with these arguments for pytest; it must pass.

    What runs there has no configuration, fixtures or dependencies of ours but `clients/pytest.ini`
    and the conftest next to the suite.
    """
    command = [str(mlflow_python(release)), "-m", "pytest", "-c", str(CLIENTS / "pytest.ini")]
    command += ["--rootdir", str(ROOT), "--confcutdir", str(CLIENTS), *arguments]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(PYTHONPATH=str(ROOT), **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-20_000:]
    return ended.stdout
