"""The agent before the real server: it always comes to run what the registry says."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tenacity

from stagewire import pb
from stagewire.agent import Agent, Order
from stagewire.client import Client
from tests.agent.test_executors import until
from tests.client.processes import ServerProcess
from tests.client.test_against_server import again
from tests.servers import RunningServer

SOON = tenacity.wait_random_exponential(multiplier=0.05, max=0.5)


class Following:
    """An agent in a thread, and the orders it got."""

    def __init__(self, address: str, *, token: str = "", **options: Any) -> None:
        self.orders: list[Order] = []
        self.client = Client(address, token=token)
        self.agent = Agent(
            self.client,
            **{
                "target": "eu/prod",
                "stage": "production",
                "name": "agent-1",
                "execute": self.orders.append,
                "backoff": SOON,
                **options,
            },
        )
        self._thread = threading.Thread(target=self.agent.run)
        self._thread.start()

    def until_runs(self, **versions: int) -> None:
        until(lambda: self.agent.running == versions, seconds=20)

    def stop(self) -> None:
        self.agent.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.client.close()


@pytest.fixture
def follow() -> Iterator[Callable[..., Following]]:
    made: list[Following] = []

    def start(address: str, **options: Any) -> Following:
        made.append(Following(address, **options))
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.fixture
def real(server: RunningServer) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


def test_it_follows_promotions_rollbacks_renames_and_deletion(
    server: RunningServer, real: Client, follow: Callable[..., Following]
) -> None:
    for _ in range(2):
        real.create_version("iris", source="file:///iris")
    real.create_version("other", source="file:///other")
    real.promote("iris", 1, "Production")
    following = follow(server.address, model="iris*", on_withdraw="stop")

    following.until_runs(iris=1)
    real.promote("iris", 2, "Production")
    following.until_runs(iris=2)
    real.promote("other", 1, "Production")
    real.rollback("iris", "Production")
    following.until_runs(iris=1)
    real.registry.RenameModel(pb.RenameModelRequest(model="iris", new_name="iris-setosa"))
    following.until_runs(**{"iris-setosa": 1})
    real.registry.DeleteModel(pb.DeleteModelRequest(model="iris-setosa", force=True))
    following.until_runs()

    assert [(one.action, one.version) for one in following.orders] == [
        ("deploy", 1),
        ("deploy", 2),
        ("deploy", 1),
        ("withdraw", 0),
    ]


def test_a_model_that_is_renamed_out_of_sight_is_withdrawn_and_comes_back(
    server: RunningServer, real: Client, follow: Callable[..., Following]
) -> None:
    real.create_version("iris", source="file:///iris")
    real.promote("iris", 1, "Production")
    following = follow(server.address, model="iris*", on_withdraw="stop")
    following.until_runs(iris=1)

    real.registry.RenameModel(pb.RenameModelRequest(model="iris", new_name="lily"))
    following.until_runs()
    real.registry.RenameModel(pb.RenameModelRequest(model="lily", new_name="iris"))

    following.until_runs(iris=1)


def test_only_the_primary_of_several_holders_is_run(
    server: RunningServer, real: Client, follow: Callable[..., Following]
) -> None:
    for _ in range(3):
        real.create_version("iris", source="file:///iris")
    real.promote("iris", 2, "Production")
    following = follow(server.address)
    following.until_runs(iris=2)

    real.promote("iris", 1, "Production", displace=pb.DISPLACEMENT_KEEP)
    real.promote("iris", 3, "Production", displace=pb.DISPLACEMENT_KEEP)
    following.until_runs(iris=3)
    for version in (3, 2):
        real.stages.RemoveFromStage(
            pb.RemoveFromStageRequest(model="iris", version=version, stage="Production")
        )

    following.until_runs(iris=1)
    versions = [order.version for order in following.orders]
    assert versions[:2] == [2, 3]
    assert versions[-1] == 1


def test_the_registry_sees_what_runs_and_that_it_is_in_sync(
    server: RunningServer, real: Client, follow: Callable[..., Following]
) -> None:
    real.create_version("iris", source="file:///iris")
    real.promote("iris", 1, "Production")
    follow(server.address)

    def deployments() -> list[pb.Deployment]:
        return list(real.deployments.ListDeployments(pb.ListDeploymentsRequest()).deployments)

    until(lambda: any(one.in_sync for one in deployments()), seconds=20)

    (deployment,) = deployments()
    assert (deployment.target, deployment.agent, deployment.model) == ("eu/prod", "agent-1", "iris")
    assert (deployment.desired_version, deployment.running_version) == (1, 1)
    assert deployment.state == pb.DEPLOYMENT_STATE_SERVING
    assert not deployment.silent


def test_of_two_processes_under_one_name_the_older_is_told_and_both_go_on(
    server: RunningServer,
    real: Client,
    follow: Callable[..., Following],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(2):
        real.create_version("iris", source="file:///iris")
    real.promote("iris", 1, "Production")

    def listed() -> list[tuple[str, int]]:
        found = real.deployments.ListDeployments(pb.ListDeploymentsRequest()).deployments
        return [(one.target, one.running_version) for one in found]

    older = follow(server.address, target="old")
    until(lambda: listed() == [("old", 1)], seconds=20)
    newer = follow(server.address, target="new")
    # What the newer one reports is all that this agent runs.
    until(lambda: listed() == [("new", 1)], seconds=20)
    real.promote("iris", 2, "Production")
    older.until_runs(iris=2)
    newer.until_runs(iris=2)
    until(lambda: "another process" in caplog.text, seconds=20)
    until(lambda: listed() == [("new", 2)], seconds=20)

    assert caplog.text.count("another process reports as agent 'agent-1'") == 1


def test_what_an_agent_no_longer_runs_is_no_longer_listed(
    server: RunningServer, real: Client, follow: Callable[..., Following]
) -> None:
    real.create_version("iris", source="file:///iris")
    real.promote("iris", 1, "Production")
    following = follow(server.address)
    following.until_runs(iris=1)

    real.registry.RenameModel(pb.RenameModelRequest(model="iris", new_name="lily"))

    def listed() -> list[str]:
        found = real.deployments.ListDeployments(pb.ListDeploymentsRequest()).deployments
        return [one.model for one in found]

    until(lambda: listed() == ["lily"], seconds=20)


def test_a_long_text_does_not_keep_a_version_from_being_deployed_whole(
    server: RunningServer, real: Client, follow: Callable[..., Following]
) -> None:
    source = "s3://bucket/" + "x" * 3000
    real.create_version("iris", source=source)
    real.promote("iris", 1, "Production")

    following = follow(server.address)

    following.until_runs(iris=1)
    assert following.orders[0].source == source


def test_once_applies_what_is_desired_and_ends(server: RunningServer, real: Client) -> None:
    real.create_version("iris", source="file:///iris")
    real.promote("iris", 1, "Production")
    orders: list[Order] = []

    with Client(server.address) as client:
        agent = Agent(client, target="eu/prod", stage="Production", execute=orders.append)
        succeeded = agent.run_once()

    status = real.deployments.GetDeploymentStatus(pb.GetDeploymentStatusRequest(model="iris"))
    assert succeeded
    assert [order.version for order in orders] == [1]
    assert (status.total, status.in_sync) == (1, 1)


def test_it_misses_nothing_while_the_server_is_killed_and_comes_back(
    tmp_path: Path, follow: Callable[..., Following]
) -> None:
    with ServerProcess(tmp_path / "registry.db") as server, Client(server.address) as client:
        for _ in range(2):
            client.create_version("iris", source="file:///iris")
        client.promote("iris", 1, "Production")
        following = follow(server.address, state_dir=tmp_path)
        following.until_runs(iris=1)

        server.kill()
        server.start()
        again(lambda: client.promote("iris", 2, "Production"))

        following.until_runs(iris=2)
        following.stop()
        again(lambda: client.rollback("iris", "Production"))
        restarted = follow(server.address, state_dir=tmp_path)
        restarted.until_runs(iris=1)

        assert [order.version for order in restarted.orders] == [1]
        assert restarted.orders[0].previous_version == 2


def test_it_goes_backwards_with_a_registry_that_lost_history(
    tmp_path: Path, follow: Callable[..., Following]
) -> None:
    backup = tmp_path / "backup.db"
    with ServerProcess(tmp_path / "registry.db") as server, Client(server.address) as client:
        client.create_version("iris", source="file:///before")
        client.promote("iris", 1, "Production")
        server.stop()
        shutil.copy(server.database, backup)
        server.start()
        following = follow(server.address, state_dir=tmp_path)
        again(lambda: client.create_version("iris", source="file:///lost"))
        client.promote("iris", 2, "Production")
        following.until_runs(iris=2)

        server.stop()
        for one in tmp_path.glob("registry.db*"):
            one.unlink()
        shutil.copy(backup, server.database)
        server.start()
        following.until_runs(iris=1)

        # The same number means another version now.
        again(lambda: client.create_version("iris", source="file:///other"))
        client.promote("iris", 2, "Production")
        following.until_runs(iris=2)

        assert [order.source for order in following.orders][-2:] == [
            "file:///before",
            "file:///other",
        ]
