"""The whole story in half a minute: train, register, promote, serve, compare, roll back.

Everything is real: a registry server, a training job and a serving agent, each a process of its
own; two scikit-learn models; predictions over HTTP. Every claim that is printed was checked:
the demo ends with status 1 at the first that does not hold.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_iris

from stagewire import pb
from stagewire.client import Client, errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
WAIT_SECONDS = 20.0
_Answer = TypeVar("_Answer")
console = Console(highlight=False)


class Differs(Exception):
    """Something is not as the story says."""


def check(claim: str, holds: object) -> None:
    """Print a claim that holds; refuse one that doesn't."""
    if not holds:
        raise Differs(claim)
    console.print(f"  [green]✓[/] {claim}", soft_wrap=True)


def step(number: int, title: str) -> None:
    """Begin a chapter."""
    console.print(f"\n[bold cyan]{number}[/] [bold]{title}[/]")


def until(ask: Callable[[], _Answer], good: Callable[[_Answer], bool], what: str) -> _Answer:
    """Ask until the answer is good; refuse when that takes too long."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not good(answer := ask()):
        if time.monotonic() > deadline:
            raise Differs(f"{what}: waited {WAIT_SECONDS:g} s, last answer {answer}")
        time.sleep(0.002)
    return answer


class Program:
    """A process of ours: its output in a file, its end by its own id."""

    def __init__(self, name: str, folder: Path, *arguments: str) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *arguments], stdout=log, stderr=subprocess.STDOUT
            )

    def said(self, key: str) -> dict[str, Any]:
        """Return the first JSON object it said that has a key."""

        def look() -> dict[str, Any] | None:
            for line in self._log.read_text().splitlines():
                with contextlib.suppress(ValueError):
                    found = json.loads(line)
                    if key in found:
                        return dict(found)
            if self.process.poll() is not None:
                raise Differs(f"{self.name} ended early:\n{self._log.read_text()[-3000:]}")
            return None

        return until(look, lambda found: found is not None, f"{self.name} says {key}") or {}

    def finished(self) -> list[dict[str, Any]]:
        """Wait for its end, and return the JSON objects it said."""
        status = self.process.wait(60)
        text = self._log.read_text()
        if status != 0:
            raise Differs(f"{self.name} ended with status {status}:\n{text[-3000:]}")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def end(self) -> None:
        """End it in order, else by force."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Service:
    """The serving process, as its users see it."""

    def __init__(self, address: str) -> None:
        self._address = address

    def version(self) -> int:
        """Return the version that answers."""
        return int(self._ask("GET", "/", None)["version"])

    def predict(self, rows: list[list[float]]) -> dict[str, Any]:
        """Return the species of each row, and which version said so."""
        return self._ask("POST", "/predict", {"rows": rows})

    def until_serves(self, version: int) -> None:
        """Wait for a version to answer."""
        until(self.version, lambda now: now == version, f"the service answers with {version}")

    def _ask(self, method: str, path: str, content: dict[str, Any] | None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._address, timeout=10)
        try:
            connection.request(method, path, json.dumps(content) if content else None)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return answer


class Story:
    """What is told, chapter by chapter."""

    def __init__(self, folder: Path, client: Client, service: Service) -> None:
        self._models = folder / "models"
        self._client = client
        self._service = service
        irises = load_iris()
        self._rows = irises.data.tolist()
        self._species = [str(irises.target_names[label]) for label in irises.target]

    def tell(self) -> None:
        """Promote, compare, roll back, refuse, and look back."""
        step(4, "Version 1 goes into Production")
        self.promote(1)
        weak = self.measure_service(1)

        step(5, "Version 2 is better; side by side")
        self.compare(self.show_versions())
        self.promote(2)
        strong = self.measure_service(2)
        check(f"the service itself got better: {weak:.1%} → {strong:.1%}", strong > weak)

        step(6, "Rolled back")
        self.roll_back(1)
        check("and predicts as it did before", self.measure_service(1) == weak)

        step(7, "A file that is not what was registered")
        self.promote_a_tampered_version(self._client.resolve("iris", version=2), serving=1)
        self._client.rollback("iris", "Production", reason="demo")
        until(self.deployment, lambda seen: seen.in_sync, "the agent is in sync again")
        check("rolled back: it runs what the registry says", self._service.version() == 1)

        step(8, "What is on record")
        self.show_history()

    def compare(self, metrics: dict[int, dict[str, float]]) -> None:
        """Claim that the second version is the better one."""
        first, second = metrics[1]["accuracy"], metrics[2]["accuracy"]
        check(
            f"version 2 is right more often, {second:.1%} against {first:.1%},"
            " on irises it was not fitted on",
            second > first,
        )
        good = self._client.registry.ListModelVersions(
            pb.ListModelVersionsRequest(model="iris", filter="metrics.accuracy >= 0.9")
        )
        check(
            "the filter `metrics.accuracy >= 0.9` finds it alone",
            [one.version for one in good.versions] == [2],
        )

    def show_versions(self) -> dict[int, dict[str, float]]:
        """Print both versions side by side; return their metrics."""
        listed = self._client.registry.ListModelVersions(
            pb.ListModelVersionsRequest(model="iris", order_by="version", include_metrics=True)
        )
        versions = listed.versions
        metrics = {one.version: {m.key: m.value for m in one.metrics} for one in versions}
        table = Table("", *(f"version {one.version}" for one in versions), box=None, padding=(0, 2))
        table.add_row("family", *(one.tags["family"] for one in versions))
        table.add_row("stages", *(", ".join(one.stages) or "-" for one in versions))
        for key in sorted({key for known in metrics.values() for key in known}):
            table.add_row(key, *(f"{known[key]:.4g}" for known in metrics.values()))
        table.add_row("run", *(one.lineage.run_id[:12] for one in versions))
        table.add_row("code", *(one.lineage.git_commit[:12] or "-" for one in versions))
        table.add_row("trained on", *(_dataset(one, pb.DATASET_USE_TRAINING) for one in versions))
        table.add_row("held out", *(_dataset(one, pb.DATASET_USE_EVALUATION) for one in versions))
        console.print(table)
        return metrics

    def promote(self, version: int) -> None:
        """Promote a version and wait for the service to answer with it."""
        begun = time.perf_counter()
        answer = self._client.promote("iris", version, "Production", reason="demo")
        committed = time.perf_counter()
        self._service.until_serves(version)
        served = time.perf_counter()
        check(
            f"promoted version {version} at revision {answer.revision}"
            f" in {(committed - begun) * 1e3:.1f} ms; it answers predictions"
            f" {(served - committed) * 1e3:.1f} ms later",
            answer.version.stages == ["Production"],
        )

    def measure_service(self, version: int) -> float:
        """Predict every iris over HTTP; return the accuracy."""
        begun = time.perf_counter()
        answer = self._service.predict(self._rows)
        seconds = time.perf_counter() - begun
        pairs = zip(answer["species"], self._species, strict=True)
        accuracy = float(sum(said == true for said, true in pairs) / len(self._species))
        check(
            f"{len(self._rows)} predictions over HTTP in {seconds * 1e3:.1f} ms:"
            f" {accuracy:.1%} right, all by version {version}",
            answer["version"] == version,
        )
        return accuracy

    def roll_back(self, expected: int) -> None:
        """Roll Production back and wait for the service to answer with the version before."""
        begun = time.perf_counter()
        answer = self._client.rollback("iris", "Production", reason="demo")
        self._service.until_serves(expected)
        seconds = time.perf_counter() - begun
        restored = [one.version for one in answer.restored]
        check(
            f"one call, and version {expected} answers again after {seconds * 1e3:.1f} ms",
            restored == [expected],
        )

    def promote_a_tampered_version(self, original: pb.ModelVersion, serving: int) -> None:
        """Register a file that is not what was registered; the agent must not load it."""
        path = self._models / "tampered" / "model.joblib"
        path.parent.mkdir()
        content = (self._models / original.lineage.run_id / "model.joblib").read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        tampered = self._client.create_version(
            "iris",
            source=path.as_uri(),
            tags=dict(original.tags),
            signature=original.signature,
            flavors=["sklearn"],
        )
        self._client.promote("iris", tampered.version, "Production", reason="demo")
        deployment = until(
            self.deployment,
            lambda seen: seen.state == pb.DEPLOYMENT_STATE_REJECTED,
            "the agent rejects the tampered file",
        )
        check(f"the agent reports REJECTED: {deployment.error}", deployment.error)
        check(
            f"it is asked for version {deployment.desired_version}"
            f" and goes on serving version {serving}",
            (deployment.desired_version, deployment.running_version) == (tampered.version, serving)
            and self._service.version() == serving,
        )

    def deployment(self) -> pb.Deployment:
        """Return what the registry knows of the agent."""
        asked = pb.GetDeploymentStatusRequest(model="iris")
        found = self._client.deployments.GetDeploymentStatus(asked).deployments
        return found[0] if found else pb.Deployment()

    def show_history(self) -> None:
        """Print who held Production when, and verify the log."""
        history = self._client.stages.GetStageHistory(
            pb.GetStageHistoryRequest(model="iris", stage="Production")
        )
        table = Table("version", "from revision", "to revision", "cause", box=None, padding=(0, 2))
        for tenure in history.tenures:
            cause = pb.StageEntryCause.Name(tenure.cause).removeprefix("STAGE_ENTRY_CAUSE_")
            left = str(tenure.left_revision) if tenure.left_revision else "now"
            table.add_row(str(tenure.version), str(tenure.entered_revision), left, cause.lower())
        console.print(table)
        verified = self._client.audit.VerifyLog(pb.VerifyLogRequest())
        check(
            f"the log's {verified.last_revision} revisions form one unbroken chain of hashes",
            verified.intact and verified.last_revision == verified.head_revision,
        )


def _dataset(version: pb.ModelVersion, use: pb.DatasetUse.ValueType) -> str:
    digests = [one.digest for one in version.lineage.datasets if one.use == use]
    return f"{digests[0][:19]}…" if digests else "-"


@contextlib.contextmanager
def running(program: Program) -> Iterator[Program]:
    """End a program when its part is over."""
    try:
        yield program
    finally:
        program.end()


def tell(folder: Path) -> None:
    """Tell the whole story; refuse at the first claim that does not hold."""
    models = folder / "models"
    models.mkdir()
    with contextlib.ExitStack() as stack:
        step(1, "A registry on SQLite")
        serve = (
            "-m",
            "stagewire.cli.main",
            "serve",
            "--grpc-address",
            "127.0.0.1:0",
            "--http-address",
            "",
        )
        # What is registered here lies here, and is nobody's run of MLflow.
        database = (
            "--database-url",
            f"sqlite:///{folder / 'registry.db'}",
            "--source-roots",
            str(models.resolve()),
        )
        swift = ("--drain-seconds", "0", "--goodbye-seconds", "0.1")
        server = Program("server", folder, *serve, *database, *swift)
        stack.enter_context(running(server))
        address = server.said("grpc")["grpc"]
        client = stack.enter_context(Client(address))
        head = client.watches.GetHead(pb.GetHeadRequest())
        check(f"it serves at {address}; its log is {head.log_id}", head.log_id)

        step(2, "Two models of Fisher's irises, trained and registered in one job")
        where = ("--address", address, "--models-root", str(models))
        with running(Program("train", folder, str(HERE / "train.py"), *where)) as job:
            made = job.finished()
        names = " and ".join(f"{one['name']} as version {one['version']}" for one in made)
        check(f"registered {names}", [one["version"] for one in made] == [1, 2])

        step(3, "An agent in another process follows the stage Production")
        agent = Program("serve", folder, str(HERE / "serve.py"), *where)
        stack.enter_context(running(agent))
        service = Service(agent.said("http")["http"])
        check("it listens, and serves nothing yet", service.version() == 0)

        Story(folder, client, service).tell()


def main() -> int:
    """Tell the story in a folder of its own; return the process's status."""
    # The processes are ended on the way out, and SIGTERM alone would skip that.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="stagewire-demo-"))
    try:
        tell(folder)
    except (Differs, errors.StagewireError, OSError) as failure:
        console.print(f"\n[bold red]This is not as it should be:[/] {failure}", soft_wrap=True)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print(f"\n[bold green]All of it held[/], in {time.perf_counter() - begun:.1f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
