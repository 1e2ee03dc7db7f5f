"""Deployments: the newest report of each agent, held against what the registry desires."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from stagewire import pb
from stagewire.callers import ANONYMOUS
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


def test_lag_beyond_a_compacted_log_is_known_in_revisions_only(
    registry: Registry, database_url: str
) -> None:
    versions(registry, 2)
    report(registry, target(), **observed(registry, 1))
    sql(database_url, "DELETE FROM log WHERE revision <= 2")

    one = deployments(registry)[0]

    assert one.lag_revisions == head(registry) - 1
    assert not one.HasField("lag")


def expire(database_url: str, agent: str = "a1", *, seconds: int = 31) -> None:
    """Let time pass for one agent."""
    sql(
        database_url,
        "UPDATE agents SET lease_end_time = lease_end_time - :micros WHERE agent = :agent",
        micros=seconds * 1_000_000,
        agent=agent,
    )


def test_an_agent_not_heard_of_for_long_is_silent(registry: Registry, database_url: str) -> None:
    model(registry)
    report(registry, target())
    expire(database_url, seconds=29)
    before = deployments(registry)[0].silent
    expire(database_url, seconds=2)

    silent = (deployments(registry)[0].silent, status(registry).silent)
    report(registry, seq=2)

    assert not before
    assert silent == (True, 1)
    assert not deployments(registry)[0].silent


def test_a_lease_lasts_three_times_the_pace_that_was_asked_for(registry: Registry) -> None:
    answer = report(registry, target())

    one = deployments(registry)[0]
    lease = one.lease_end_time.ToMicroseconds() - one.report_time.ToMicroseconds()
    assert answer.next_report_after.ToMicroseconds() == 10_000_000
    assert lease == 3 * answer.next_report_after.ToMicroseconds()


def test_an_agents_own_clock_judges_nothing(registry: Registry) -> None:
    for agent, seconds in (("past", 5), ("future", 9_000_000_000)):
        report(registry, target(agent_time=Timestamp(seconds=seconds)), agent=agent)

    assert [d.silent for d in deployments(registry)] == [False, False]


def test_reports_late_twice_or_out_of_order_do_not_prolong_a_lease(
    registry: Registry, database_url: str
) -> None:
    report(registry, target(), session=2, seq=5)
    expire(database_url)

    for session, seq in ((2, 5), (2, 4), (1, 9)):
        report(registry, target(), session=session, seq=seq)

    assert deployments(registry)[0].silent


def test_of_two_sessions_the_older_one_changes_nothing_and_is_told(registry: Registry) -> None:
    report(registry, target(2), session=2)

    older = report(registry, target(1), target(1, target="us"), session=1, seq=9)
    newer = report(registry, target(3), session=2, seq=2)

    assert [(d.target, d.running_version) for d in deployments(registry)] == [("eu/prod", 3)]
    assert (older.superseded, newer.superseded) == (True, False)


def test_a_repeated_report_is_not_superseded(registry: Registry) -> None:
    report(registry, target())

    assert not report(registry, target()).superseded


def test_a_session_that_was_never_handed_out_is_refused(registry: Registry) -> None:
    unknown = 10_000_000

    with refused("INVALID_FIELD") as caught:
        report(registry, target(), session=unknown)

    assert "Hello.session" in caught.error.message
    assert deployments(registry) == []


def test_a_complete_report_forgets_what_it_does_not_name(registry: Registry) -> None:
    report(registry, target(target="eu"), target(target="us"))
    report(registry, target(target="eu"), agent="a2")

    report(registry, target(target="us"), seq=2)
    partial = len(deployments(registry))
    report(registry, target(target="us"), seq=3, complete_from_seq=3)

    found = [(d.target, d.agent) for d in deployments(registry)]
    assert partial == 3
    assert found == [("eu", "a2"), ("us", "a1")]


def test_a_report_complete_with_earlier_ones_keeps_what_they_name(registry: Registry) -> None:
    report(registry, target(target="old"))
    report(registry, target(target="a"), seq=2)

    report(registry, target(target="b"), seq=3, complete_from_seq=2)

    assert [d.target for d in deployments(registry)] == ["a", "b"]


def test_a_part_that_comes_after_its_complete_report_is_stored(registry: Registry) -> None:
    report(registry, target(target="old"))
    report(registry, target(target="b"), seq=3, complete_from_seq=2)

    report(registry, target(target="a"), seq=2)

    assert [d.target for d in deployments(registry)] == ["a", "b"]


@pytest.mark.parametrize(("session", "seq"), [(1, 9), (2, 4)])
def test_a_late_report_does_not_bring_back_what_a_complete_one_forgot(
    registry: Registry, session: int, seq: int
) -> None:
    report(registry, target(target="us"), session=2, seq=5, complete_from_seq=5)
    report(registry, target(target="us"), session=2, seq=6)

    report(registry, target(target="ghost"), session=session, seq=seq)

    assert [d.target for d in deployments(registry)] == ["us"]


def test_an_agent_that_runs_nothing_any_more_has_no_deployments(registry: Registry) -> None:
    report(registry, target())

    report(registry, seq=2, complete_from_seq=2)

    assert deployments(registry) == []


def test_a_report_complete_from_later_than_itself_is_refused(registry: Registry) -> None:
    with refused("INVALID_FIELD"):
        report(registry, target(), seq=2, complete_from_seq=3)


def test_a_forgotten_agent_is_gone_until_it_reports_again(registry: Registry) -> None:
    report(registry, target(), target(target="us"))
    report(registry, target(), agent="a2")

    answer = registry.ForgetAgent(pb.ForgetAgentRequest(agent="a1"), ANONYMOUS)
    left = [d.agent for d in deployments(registry)]
    report(registry, target(), seq=2)

    assert answer.deployments == 2
    assert left == ["a2"]
    assert [d.agent for d in deployments(registry)] == ["a1", "a2"]
    assert head(registry) == 1


def test_an_agent_that_is_not_there_cannot_be_forgotten(registry: Registry) -> None:
    report(registry, target())
    for fields in ({"agent": "a1", "namespace": "nowhere"}, {"agent": "a9"}):
        reason = "NAMESPACE_NOT_FOUND" if "namespace" in fields else "AGENT_NOT_FOUND"
        with refused(reason):
            registry.ForgetAgent(pb.ForgetAgentRequest(**fields), ANONYMOUS)

    assert len(deployments(registry)) == 1


def test_a_deleted_namespace_takes_its_deployments_with_it(registry: Registry) -> None:
    space = pb.Namespace(name="risk")
    registry.CreateNamespace(pb.CreateNamespaceRequest(namespace=space), ANONYMOUS)
    report(registry, target(), namespace="risk")

    registry.DeleteNamespace(pb.DeleteNamespaceRequest(name="risk"), ANONYMOUS)
    registry.CreateNamespace(pb.CreateNamespaceRequest(namespace=space), ANONYMOUS)

    assert deployments(registry, namespace="risk") == []


@pytest.fixture
def fleet(registry: Registry, database_url: str) -> Registry:
    """Have deployments that are in sync, drift, fail, run nothing, and are silent."""
    versions(registry, 2)
    promote(registry, 2)
    for agent, targets in {
        "a1": [target(2, target="eu/1"), target(1, target="eu/2")],
        "a2": [target(1, target="us/1", desired_version=2, state=pb.DEPLOYMENT_STATE_FAILED)],
        "a3": [
            target(0, target="us/2", state=pb.DEPLOYMENT_STATE_PENDING),
            target(0, target="us/3", stage="Staging", state=pb.DEPLOYMENT_STATE_STOPPED),
            target(0, target="us/4", model="unknown", state=pb.DEPLOYMENT_STATE_STOPPED),
        ],
        "a4": [target(2, target="us/5"), target(1, target="us/6"), target(1, target="us_7")],
    }.items():
        report(registry, *targets, agent=agent)
    expire(database_url, "a4")
    return registry


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"in_sync": True}, "eu/1 us/3 us/4 us/5"),
        ({"in_sync": False}, "eu/2 us/1 us/2 us/6 us_7"),
        ({"silent": True}, "us/5 us/6 us_7"),
        ({"silent": False}, "eu/1 eu/2 us/1 us/2 us/3 us/4"),
        ({"in_sync": False, "silent": False}, "eu/2 us/1 us/2"),
        ({"in_sync": False, "silent": True}, "us/6 us_7"),
        ({"in_sync": False, "model": "churn", "stage": "production"}, "eu/2 us/1 us/2 us/6 us_7"),
        ({"in_sync": True, "stage": "staging"}, "us/3"),
        ({"in_sync": True, "model": "unknown"}, "us/4"),
        ({"target_prefix": "us/"}, "us/1 us/2 us/3 us/4 us/5 us/6"),
        ({"target_prefix": "us/", "in_sync": False}, "us/1 us/2 us/6"),
        ({"target_prefix": "%"}, ""),
        ({"states": [pb.DEPLOYMENT_STATE_FAILED]}, "us/1"),
        (
            {"states": [pb.DEPLOYMENT_STATE_STOPPED, pb.DEPLOYMENT_STATE_PENDING]},
            "us/2 us/3 us/4",
        ),
        ({"states": [pb.DEPLOYMENT_STATE_REJECTED]}, ""),
        ({"agent": "a1", "in_sync": False}, "eu/2"),
    ],
    ids=str,
)
@pytest.mark.parametrize("page_size", [1, 100])
def test_filters_pick_the_same_on_any_page(
    fleet: Registry, fields: dict[str, Any], expected: str, page_size: int
) -> None:
    found: list[pb.Deployment] = []
    token = ""
    while True:
        request = pb.ListDeploymentsRequest(page_size=page_size, page_token=token, **fields)
        page = fleet.ListDeployments(request, ANONYMOUS)
        found += page.deployments
        token = page.next_page_token
        if not token:
            break

    assert " ".join(d.target for d in found) == expected
    if "in_sync" in fields:
        assert {d.in_sync for d in found} <= {fields["in_sync"]}
    if "silent" in fields:
        assert {d.silent for d in found} <= {fields["silent"]}


def test_a_page_token_belongs_to_its_filters(fleet: Registry) -> None:
    request = pb.ListDeploymentsRequest(page_size=1, in_sync=False)
    token = fleet.ListDeployments(request, ANONYMOUS).next_page_token

    for fields in ({}, {"in_sync": True}, {"in_sync": False, "silent": False}):
        with refused("INVALID_PAGE_TOKEN"):
            deployments(fleet, page_size=1, page_token=token, **fields)


def test_a_models_deployments_are_counted_apart(fleet: Registry) -> None:
    counted = status(fleet)

    counts = (counted.total, counted.in_sync, counted.drifting, counted.silent)
    assert counts == (8, 3, 3, 3)
    assert len(counted.deployments) == 8


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
