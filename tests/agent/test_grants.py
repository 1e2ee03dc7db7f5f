"""An agent before a server that asks who calls: a lost grant stops nothing that serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stagewire import pb
from stagewire.client import Client
from stagewire.server import streams
from tests.agent.test_against_server import SOON, Following
from tests.agent.test_executors import until
from tests.guarded import Door, GuardedServer, grant, make_token


@pytest.fixture
def server(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GuardedServer]:
    monkeypatch.setattr(streams, "PERMISSIONS_SPREAD_SECONDS", 0.05)
    with GuardedServer(database_url, tmp_path) as started:
        yield started


@pytest.fixture
def door(server: GuardedServer) -> Iterator[Door]:
    with server.door() as made:
        yield made


@pytest.fixture
def admin(server: GuardedServer) -> Iterator[Client]:
    with Client(server.address, token=server.secret) as made:
        for model in ("iris", "lily"):
            for _ in range(2):
                made.create_version(model, source=f"file:///{model}")
            made.promote(model, 1, "Production")
        yield made


@pytest.fixture
def following(
    server: GuardedServer,
    admin: Client,  # what it makes is there before
    door: Door,
) -> Iterator[Following]:
    grant(door, "agent", "deployer", model="iris")
    _, secret = make_token(door, "agent")
    started = Following(server.address, token=secret, on_withdraw="stop", backoff=SOON)
    yield started
    started.stop()


def reported(admin: Client) -> dict[str, int]:
    listed = admin.deployments.ListDeployments(pb.ListDeploymentsRequest()).deployments
    return {one.model: one.running_version for one in listed if one.agent}


def test_what_it_may_not_see_any_more_runs_on_until_it_may_see_it_again(
    admin: Client, door: Door, following: Following
) -> None:
    lily = grant(door, "agent", "deployer", model="lily")
    following.until_runs(iris=1, lily=1)
    until(lambda: reported(admin) == {"iris": 1, "lily": 1}, seconds=20)

    door("DeleteGrant", pb.DeleteGrantRequest(id=lily))
    # A report of what it may not see would be refused as a whole.
    until(lambda: reported(admin) == {"iris": 1}, seconds=20)
    admin.promote("lily", 2, "Production")
    admin.promote("iris", 2, "Production")
    following.until_runs(iris=2, lily=1)
    until(lambda: reported(admin) == {"iris": 2}, seconds=20)

    grant(door, "agent", "deployer", model="lily")
    following.until_runs(iris=2, lily=2)
    assert {order.action for order in following.orders} == {"deploy"}


def test_what_went_while_it_was_out_of_sight_is_withdrawn_once_that_may_be_seen(
    admin: Client, door: Door, following: Following
) -> None:
    lily = grant(door, "agent", "deployer", model="lily")
    following.until_runs(iris=1, lily=1)

    door("DeleteGrant", pb.DeleteGrantRequest(id=lily))
    until(lambda: reported(admin) == {"iris": 1}, seconds=20)
    admin.registry.DeleteModel(pb.DeleteModelRequest(model="lily", force=True))
    admin.promote("iris", 2, "Production")
    following.until_runs(iris=2, lily=1)

    grant(door, "agent", "deployer", model="lily")
    following.until_runs(iris=2)


def test_without_any_grant_it_holds_everything_and_comes_back_by_itself(
    server: GuardedServer, admin: Client, door: Door, following: Following
) -> None:
    following.until_runs(iris=1)
    granted = door("ListGrants", pb.ListGrantsRequest(subject="agent")).grants

    for one in granted:
        door("DeleteGrant", pb.DeleteGrantRequest(id=one.id))
    until(lambda: server.server.watches.open == 0, seconds=20)
    admin.promote("iris", 2, "Production")
    grant(door, "agent", "deployer", model="iris")

    following.until_runs(iris=2)
    assert {order.action for order in following.orders} == {"deploy"}
