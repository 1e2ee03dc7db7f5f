"""Real registries of MLflow come in whole, once, also after a kill, and go back out again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from stagewire import pb
from stagewire.client import Client
from tests.mlflow import processes
from tests.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.mlflow, pytest.mark.timeout(600)]

FILLING = Path(__file__).parent / "filling.py"
MANY = 10_000
#: What one command may take for all of them, many times what it takes.
MANY_SECONDS = 120


@pytest.fixture(scope="session")
def mlflow_python() -> str:
    """Give a Python that has MLflow, its server included."""
    return str(processes.mlflow_python("3"))


@pytest.fixture(scope="session")
def fill(mlflow_python: str) -> Callable[[str, str], None]:
    def run(url: str, what: str) -> None:
        subprocess.run([mlflow_python, "-W", "ignore", str(FILLING), url, what], check=True)

    return run


@pytest.fixture(scope="session")
def scene_url(fill: Callable[[str, str], None], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a database of MLflow's own with one of everything."""
    url = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    fill(url, "scene")
    return url


@pytest.fixture(scope="session")
def many_url(fill: Callable[[str, str], None], tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'many.db'}"
    fill(url, str(MANY))
    return url


@pytest.fixture
def server(database_url: str) -> Iterator[RunningServer]:
    with RunningServer(database_url) as running:
        yield running


class Mlflow:
    """A real `mlflow server` on a free port."""

    def __init__(self, python: str, database: str, folder: Path) -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [
                *(python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
                *("--workers", "1", "--backend-store-uri", database),
            ],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):  # noqa: S310
                    return self
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/2.0/mlflow/{path}") as answer:  # noqa: S310
            return json.load(answer)


def command(server: RunningServer, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "stagewire.cli.main", *arguments, "--address", server.address]


def ran(server: RunningServer, *arguments: str) -> Any:
    done = subprocess.run(
        command(server, *arguments, "-o", "json"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_scene(server: RunningServer, *, deleted_known: bool) -> None:
    with Client(server.address) as client:
        listed = client.registry.ListModelVersions(
            pb.ListModelVersionsRequest(model="churn", order_by="version asc")
        ).versions
        model = client.registry.GetModel(pb.GetModelRequest(model="churn"))
        copied = client.resolve("пример ©", version=1)
        prompt = client.resolve("greeting")
        names = [m.name for m in client.registry.ListModels(pb.ListModelsRequest()).models]
        made = client.create_version("churn", source="s3://models/churn/next")

    assert names == ["churn", "empty", "greeting", "пример ©"]
    assert [(v.version, list(v.stages)) for v in listed] == [
        (1, ["Archived"]),
        (2, ["Production"]),
        (4, ["Staging"]),
    ]
    assert dict(model.aliases) == {"champion": 2, "challenger": 4}
    assert (model.model.description, dict(model.model.tags)) == ("who leaves", {"team": "crm"})
    second = listed[1]
    assert second.source == "s3://models/churn/2"
    assert second.lineage.run_id == f"{2:032x}"
    assert second.lineage.run_link == "http://mlflow/#/run/2"
    assert (second.description, dict(second.tags)) == ("attempt 2", {"auc": "0.2"})
    assert 0 < second.create_time.seconds <= second.update_time.seconds <= time.time()
    parents = [(p.model, p.version, p.derivation) for p in copied.lineage.parents]
    assert parents == [("churn", 2, pb.DERIVATION_COPIED)]
    assert prompt.tags["mlflow.prompt.text"] == "Hello {{name}}"
    assert made.version == (6 if deleted_known else 5)


def test_a_database_of_mlflow_is_brought_in_whole(server: RunningServer, scene_url: str) -> None:
    said = ran(server, "import", "mlflow", "--from", scene_url)

    problems = {f["subject"]: f["problem"] for f in said["findings"]}
    assert "begins or ends with white space" in problems["model ' padded '"]
    assert "2 were deleted" in problems["model 'churn'"]
    assert said["models"] == 4
    again = ran(server, "import", "mlflow", "--from", scene_url)
    assert (again["imported"], again["skipped"]) == (0, [])
    check_scene(server, deleted_known=True)


def test_a_server_of_mlflow_is_brought_in_whole(
    server: RunningServer, scene_url: str, mlflow_python: str, tmp_path: Path
) -> None:
    with Mlflow(mlflow_python, scene_url, tmp_path) as mlflow:
        said = ran(server, "import", "mlflow", "--from", mlflow.url)
        again = ran(server, "import", "mlflow", "--from", mlflow.url)
        from_database = ran(server, "import", "mlflow", "--from", scene_url, "--dry-run")

    assert said["models"] == 4
    assert (again["imported"], again["skipped"]) == (0, [])
    # The database tells besides that the highest version was deleted.
    assert (from_database["imported"], from_database["skipped"]) == (1, [])
    check_scene(server, deleted_known=False)


def test_ten_thousand_versions_come_in_by_one_command_and_once(
    server: RunningServer, many_url: str
) -> None:
    begun = time.monotonic()
    said = ran(server, "import", "mlflow", "--from", many_url)
    seconds = time.monotonic() - begun

    again = ran(server, "import", "mlflow", "--from", many_url)

    assert said["versions"] == MANY
    assert seconds < MANY_SECONDS
    assert (again["imported"], again["unchanged"]) == (0, said["imported"])
    with Client(server.address) as client:
        head = client.watches.GetHead(pb.GetHeadRequest()).revision
        last = client.resolve("model-99", version=100)
    assert last.tags["number"] == str(MANY - 1)
    # Its own event and one for each batch: the second run took no revision.
    assert head < 100


def test_an_import_killed_half_way_is_run_again_and_completes(
    server: RunningServer, many_url: str
) -> None:
    with subprocess.Popen(
        command(server, "import", "mlflow", "--from", many_url), stdout=subprocess.DEVNULL
    ) as importing:
        with Client(server.address) as client:
            deadline = time.monotonic() + 60
            while client.watches.GetHead(pb.GetHeadRequest()).revision < 4:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        os.kill(importing.pid, signal.SIGKILL)
    with Client(server.address) as client:
        request = pb.ListModelsRequest(page_size=1000)
        half = len(client.registry.ListModels(request).models)

    again = ran(server, "import", "mlflow", "--from", many_url)

    assert 0 < half < MANY // 100
    assert again["imported"] > 0
    assert again["unchanged"] > 0
    assert again["versions"] == MANY
    assert ran(server, "import", "mlflow", "--from", many_url)["imported"] == 0


def test_what_was_brought_in_goes_back_out_into_mlflow(
    server: RunningServer, scene_url: str, mlflow_python: str, tmp_path: Path
) -> None:
    ran(server, "import", "mlflow", "--from", scene_url)
    with Mlflow(mlflow_python, f"sqlite:///{tmp_path / 'back.db'}", tmp_path) as mlflow:
        said = ran(server, "export", "mlflow", "--to", mlflow.url, "--fill-gaps")
        again = ran(server, "export", "mlflow", "--to", mlflow.url, "--fill-gaps")
        model = mlflow.get("registered-models/get?name=churn")["registered_model"]
        found = mlflow.get("model-versions/search?filter=name%3D%27churn%27")["model_versions"]

    versions = {v["version"]: v for v in found}
    assert said["created"] >= 8
    assert (again["created"], again["changed"]) == (0, 0)
    assert model["description"] == "who leaves"
    aliases = {a["alias"]: str(a["version"]) for a in model["aliases"]}
    assert aliases == {"champion": "2", "challenger": "4"}
    assert {n: v["current_stage"] for n, v in versions.items()} == {
        "1": "Archived",
        "2": "Production",
        "4": "Staging",
    }
    assert versions["2"]["source"] == "s3://models/churn/2"
    assert {t["key"]: t["value"] for t in versions["2"]["tags"]} == {"auc": "0.2"}


def test_numbers_that_mlflow_gives_otherwise_are_reported_and_known_again(
    server: RunningServer, scene_url: str, mlflow_python: str, tmp_path: Path
) -> None:
    ran(server, "import", "mlflow", "--from", scene_url)
    with Mlflow(mlflow_python, f"sqlite:///{tmp_path / 'back.db'}", tmp_path) as mlflow:
        said = ran(server, "export", "mlflow", "--to", mlflow.url)
        again = ran(server, "export", "mlflow", "--to", mlflow.url)
        model = mlflow.get("registered-models/get?name=churn")["registered_model"]

    assert said["numbers"] == {"churn": {"4": 3}}
    assert (again["created"], again["changed"], again["numbers"]) == (0, 0, {})
    aliases = {a["alias"]: str(a["version"]) for a in model["aliases"]}
    assert aliases == {"champion": "2", "challenger": "3"}
