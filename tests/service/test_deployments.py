"""Deployments: the newest report of each agent, held against what the registry desires."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from stagewire import pb
from stagewire.service.callers import ANONYMOUS
from stagewire.service.cursors import Cursor
from tests.factories import (
    hand_out_sessions,
    head,
    model,
    promote,
    refused,
    rename,
    sql,
    version,
    versions,
)

if TYPE_CHECKING:
    from stagewire.service.registry import Registry


@pytest.fixture(autouse=True)
def _sessions(registry: Registry) -> None:
    hand_out_sessions(registry)


def target(running: int = 1, **fields: Any) -> pb.TargetStatus:
    whole: dict[str, Any] = {
        "target": "eu/prod",
        "model": "churn",
        "stage": "Production",
        "desired_version": running,
        "running_version": running,
        "state": pb.DEPLOYMENT_STATE_SERVING,
        **fields,
    }
    return pb.TargetStatus(**whole)


def report(
    registry: Registry, *targets: pb.TargetStatus, session: int = 1, seq: int = 1, **fields: Any
) -> pb.ReportStatusResponse:
    request = pb.ReportStatusRequest(
        **{"agent": "a1", **fields}, session=session, seq=seq, targets=targets
    )
    return registry.ReportStatus(request, ANONYMOUS)


def deployments(registry: Registry, **fields: Any) -> list[pb.Deployment]:
    request = pb.ListDeploymentsRequest(**fields)
    return list(registry.ListDeployments(request, ANONYMOUS).deployments)


def status(registry: Registry, name: str = "churn") -> pb.GetDeploymentStatusResponse:
    return registry.GetDeploymentStatus(pb.GetDeploymentStatusRequest(model=name), ANONYMOUS)


def observed(registry: Registry, revision: int) -> dict[str, Any]:
    top = registry.GetHead(pb.GetHeadRequest(), ANONYMOUS)
    cursor = Cursor(top.log_id, revision, b"12345678", b"12345678").encode()
    return {"log_id": top.log_id, "observed_cursor": cursor}


def test_a_report_is_held_against_what_is_desired(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 2)

    answer = report(
        registry,
        target(
            1,
            desired_version=2,
            running_digest="sha256:1",
            state=pb.DEPLOYMENT_STATE_FAILED,
            error="out of memory",
            agent_time=Timestamp(seconds=5),
        ),
        session=7,
    )

    one = deployments(registry)[0]
    assert answer.next_report_after.seconds > 0
    assert (one.namespace, one.target, one.agent, one.model, one.stage) == (
        "default",
        "eu/prod",
        "a1",
        "churn",
        "Production",
    )
    assert (one.desired_version, one.agent_desired_version, one.running_version) == (2, 2, 1)
    assert (one.running_digest, one.state, one.error) == (
        "sha256:1",
        pb.DEPLOYMENT_STATE_FAILED,
        "out of memory",
    )
    assert (one.in_sync, one.silent, one.session) == (False, False, 7)
    assert one.agent_time == Timestamp(seconds=5)
    assert one.report_time.seconds > 1_700_000_000


@pytest.mark.parametrize(("session", "seq"), [(1, 9), (2, 4), (2, 5)])
def test_an_older_report_never_wins(registry: Registry, session: int, seq: int) -> None:
    report(registry, target(2), session=2, seq=5)

    report(registry, target(1), session=session, seq=seq)

    assert [d.running_version for d in deployments(registry)] == [2]


@pytest.mark.parametrize(("session", "seq"), [(2, 6), (3, 0)])
def test_a_newer_report_wins(registry: Registry, session: int, seq: int) -> None:
    report(registry, target(2), session=2, seq=5)

    report(registry, target(1), session=session, seq=seq)

    assert [d.running_version for d in deployments(registry)] == [1]


def test_a_promotion_puts_a_deployment_out_of_sync_until_it_follows(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    report(registry, target(1))
    before = status(registry)

    promote(registry, 2)
    behind = status(registry)
    report(registry, target(2), seq=2)
    after = status(registry)

    assert [(s.total, s.in_sync) for s in (before, behind, after)] == [(1, 1), (1, 0), (1, 1)]


def test_an_agent_that_runs_nothing_as_desired_is_in_sync(registry: Registry) -> None:
    versions(registry, 1)

    report(registry, target(0, state=pb.DEPLOYMENT_STATE_STOPPED))

    assert deployments(registry)[0].in_sync


def test_lag_counts_the_revisions_not_dealt_with(registry: Registry) -> None:
    versions(registry, 2)
    report(registry, target(), **observed(registry, head(registry)))
    current = deployments(registry)[0]

    version(registry)
    version(registry)
    behind = deployments(registry)[0]

    assert current.lag_revisions == 0
    assert current.lag.ToMicroseconds() == 0
    assert behind.lag_revisions == 2
    assert behind.lag.ToMicroseconds() > 0


def test_lag_is_unknown_without_a_cursor_of_this_logs_history(registry: Registry) -> None:
    model(registry)
    report(registry, target(), agent="none")
    report(registry, target(), agent="other", **{**observed(registry, 1), "log_id": "another log"})
    report(registry, target(), agent="ahead", **observed(registry, 99))

    for one in deployments(registry):
        assert one.lag_revisions == -1
        assert not one.HasField("lag")


def test_an_agent_not_heard_of_for_long_is_silent(registry: Registry, database_url: str) -> None:
    model(registry)
    report(registry, target())
    sql(database_url, "UPDATE agents SET lease_end_time = lease_end_time - 31 * 1000000")

    silent = (deployments(registry)[0].silent, status(registry).silent)
    report(registry, seq=2)

    assert silent == (True, 1)
    assert not deployments(registry)[0].silent


def test_deployments_are_listed_in_order_filtered_and_in_pages(registry: Registry) -> None:
    for agent in ("a2", "a1"):
        report(
            registry,
            target(target="us"),
            target(target="eu"),
            target(target="eu", stage="Staging"),
            target(target="eu", model="fraud"),
            agent=agent,
        )

    def places(found: list[pb.Deployment]) -> list[tuple[str, str, str, str]]:
        return [(d.target, d.model, d.stage, d.agent) for d in found]

    seen: list[pb.Deployment] = []
    token = ""
    while True:
        request = pb.ListDeploymentsRequest(page_size=3, page_token=token)
        page = registry.ListDeployments(request, ANONYMOUS)
        seen += page.deployments
        token = page.next_page_token
        if not token:
            break

    assert places(seen) == sorted(places(seen))
    assert len(seen) == 8
    assert {d.target for d in deployments(registry, target="us")} == {"us"}
    assert {d.stage for d in deployments(registry, stage="sTAGING")} == {"Staging"}
    assert {d.model for d in deployments(registry, model="fraud")} == {"fraud"}
    assert {d.agent for d in deployments(registry, agent="a1")} == {"a1"}


def test_a_stage_in_other_letters_is_the_same_deployment(registry: Registry) -> None:
    report(registry, target(1))

    report(registry, target(2, stage="PRODUCTION"), seq=2)

    assert [d.running_version for d in deployments(registry)] == [2]


def test_a_renamed_models_status_counts_its_new_name(registry: Registry) -> None:
    versions(registry, 1)
    promote(registry, 1)
    rename(registry, "churn", "leavers")
    report(registry, target(1, model="leavers"))

    assert status(registry, "churn").in_sync == 1


def test_reports_take_no_revision(registry: Registry) -> None:
    report(registry, target())

    assert head(registry) == 1


@pytest.mark.parametrize(
    "fields",
    [{"target": ""}, {"state": 0}, {"state": 99}, {"running_version": -1}, {"stage": ""}],
    ids=str,
)
def test_a_report_that_says_nothing_is_refused(registry: Registry, fields: dict[str, Any]) -> None:
    with refused("INVALID_FIELD"):
        report(registry, target(**fields))


def test_what_is_not_there_is_refused(registry: Registry) -> None:
    with refused("NAMESPACE_NOT_FOUND"):
        report(registry, namespace="nowhere")
    with refused("NAMESPACE_NOT_FOUND"):
        deployments(registry, namespace="nowhere")
    with refused("MODEL_NOT_FOUND"):
        status(registry, "ghost")
    with refused("INVALID_CURSOR"):
        report(registry, observed_cursor=b"damaged")
