"""Revisions: one a change, none for nothing; a resource has that of the change that made it so."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from stagewire import pb
from stagewire.callers import ANONYMOUS, Caller
from tests.factories import (
    alias,
    delete,
    delete_version,
    found,
    head,
    last_event,
    model,
    numbered,
    promote,
    refused,
    rename,
    rollback,
    sql,
    stage,
    version,
    versions,
    webhook,
)

if TYPE_CHECKING:
    from stagewire.service.registry import Registry

READS: dict[str, Any] = {
    "GetNamespace": pb.GetNamespaceRequest(name="default"),
    "ListNamespaces": pb.ListNamespacesRequest(),
    "GetModel": pb.GetModelRequest(model="churn"),
    "ListModels": pb.ListModelsRequest(),
    "GetModelVersion": pb.GetModelVersionRequest(model="churn", version=1),
    "ListModelVersions": pb.ListModelVersionsRequest(),
    "ResolveModelVersion": pb.ResolveModelVersionRequest(model="churn"),
    "GetLatestVersions": pb.GetLatestVersionsRequest(model="churn"),
    "ListStages": pb.ListStagesRequest(),
    "GetStageHistory": pb.GetStageHistoryRequest(model="churn"),
    "ListMetrics": pb.ListMetricsRequest(model="churn"),
    "GetHead": pb.GetHeadRequest(),
    "GetCaller": pb.GetCallerRequest(),
    "ListTokens": pb.ListTokensRequest(),
    "ListGrants": pb.ListGrantsRequest(),
    "ListRefusals": pb.ListRefusalsRequest(),
    "ListEvents": pb.ListEventsRequest(),
    "VerifyLog": pb.VerifyLogRequest(),
    "ListDeployments": pb.ListDeploymentsRequest(),
    "ListWebhooks": pb.ListWebhooksRequest(),
    "GetDeploymentStatus": pb.GetDeploymentStatusRequest(model="churn"),
}


def events(registry: Registry) -> list[pb.Event]:
    request = pb.ListEventsRequest(namespace="*", page_size=1000)
    return list(reversed(registry.ListEvents(request, ANONYMOUS).events))


def busy_day(registry: Registry) -> None:
    """Change everything that can be changed, each kind of it once at least."""
    versions(registry, 3)
    promote(registry, 1)
    promote(registry, 2)
    promote(registry, 3, displace=pb.DISPLACEMENT_KEEP)
    rollback(registry)
    alias(registry, 1)
    alias(registry, 2, reassign=True)
    stage(registry, "Canary")
    rename(registry, "churn", "leavers")
    registry.CreateNamespace(
        pb.CreateNamespaceRequest(namespace=pb.Namespace(name="risk")), ANONYMOUS
    )
    delete(registry, "leavers", force=True)


@pytest.mark.parametrize("operation", sorted(READS))
def test_every_read_answers_with_its_revision_and_at_it(registry: Registry, operation: str) -> None:
    made = versions(registry, 1)[0]
    request = type(READS[operation])()
    request.CopyFrom(READS[operation])
    request.min_revision = made.revision

    answer = getattr(registry, operation)(request, ANONYMOUS)

    revision = answer.head_revision if operation == "VerifyLog" else answer.revision
    assert revision == made.revision


@pytest.mark.parametrize("operation", sorted(READS))
def test_no_read_answers_from_before_the_revision_asked_for(
    registry: Registry, operation: str
) -> None:
    versions(registry, 1)
    request = type(READS[operation])()
    request.CopyFrom(READS[operation])
    request.min_revision = 10**9

    with refused("REVISION_AHEAD") as caught:
        getattr(registry, operation)(request, ANONYMOUS)

    top = registry.GetHead(pb.GetHeadRequest(), ANONYMOUS)
    assert caught.error.metadata == {"log_id": top.log_id, "head": str(top.revision)}


def test_every_read_of_the_contract_is_read_here() -> None:
    from stagewire.service.operations import Read
    from stagewire.service.registry import Registry

    by_id = {"GetWebhook", "ListDeliveries"}
    reads = {name for name, value in vars(Registry).items() if isinstance(value, Read)}

    assert reads == set(READS) | by_id


def test_reads_of_a_webhook_answer_with_their_revision_and_at_it(registry: Registry) -> None:
    made = webhook(registry)
    for message, name in (
        (pb.GetWebhookRequest, "GetWebhook"),
        (pb.ListDeliveriesRequest, "ListDeliveries"),
    ):
        call = getattr(registry, name)

        answer = call(message(id=made.id, min_revision=made.revision), ANONYMOUS)

        assert answer.revision == made.revision
        with refused("REVISION_AHEAD"):
            call(message(id=made.id, min_revision=10**9), ANONYMOUS)


def test_a_refused_call_takes_no_revision(registry: Registry) -> None:
    versions(registry, 1)
    before = head(registry)

    with refused("MODEL_EXISTS"):
        model(registry)
    with refused("STAGE_NOT_FOUND"):
        promote(registry, 1, "Nowhere")
    with refused("VERSION_NOT_FOUND"):
        alias(registry, 9)

    assert version(registry).revision == before + 1


def test_a_new_version_alias_or_metric_leaves_the_models_revision_alone(
    registry: Registry,
) -> None:
    made = model(registry)

    version(registry)
    alias(registry, 1)
    promote(registry, 1)
    registry.LogMetrics(
        pb.LogMetricsRequest(model="churn", version=1, metrics=[pb.Metric(key="a", value=1)]),
        ANONYMOUS,
    )

    assert found(registry).model == made


def test_a_change_of_the_model_leaves_its_versions_revisions_alone(registry: Registry) -> None:
    made = versions(registry, 1)[0]

    registry.SetModelTags(pb.SetModelTagsRequest(model="churn", tags={"a": ""}), ANONYMOUS)

    assert numbered(registry, 1) == made


def test_the_log_has_no_gaps_and_its_times_never_run_backwards(registry: Registry) -> None:
    busy_day(registry)

    log = events(registry)

    assert [e.revision for e in log] == list(range(1, head(registry) + 1))
    times = [e.commit_time.ToNanoseconds() for e in log]
    assert times == sorted(times)


def test_what_a_transaction_changed_carries_none_of_its_own_revision_or_time_in_the_log(
    registry: Registry,
) -> None:
    busy_day(registry)

    for event in events(registry):
        for record in event.payload.records:
            change = record.change
            state = getattr(change, str(change.WhichOneof("resource")))
            own = change.kind != pb.CHANGE_KIND_STAGE_PRIMARY_CHANGED
            new = event.payload.method.startswith("Create") or event.revision == 1
            assert (state.revision == 0) == own
            assert state.HasField("update_time") == (not own)
            if new:
                assert not state.HasField("create_time")
            else:
                assert 0 < state.create_time.ToNanoseconds() < event.commit_time.ToNanoseconds()


def test_a_resource_has_the_revision_and_time_of_the_log_row_that_changed_it(
    registry: Registry,
) -> None:
    busy_day(registry)
    model(registry)
    version(registry)
    promote(registry, 4, "Staging")

    times = {e.revision: e.commit_time for e in events(registry)}
    got, at = found(registry).model, numbered(registry, 4)
    assert got.revision == got.revision
    assert times[got.revision] == got.update_time == got.create_time
    assert times[at.revision] == at.update_time
    assert times[at.revision - 1] == at.create_time
    space = registry.GetNamespace(pb.GetNamespaceRequest(name="risk"), ANONYMOUS).namespace
    assert times[space.revision] == space.update_time == space.create_time


def test_the_state_in_the_log_is_the_state_that_can_be_read(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    promote(registry, 2)

    event = last_event(registry)

    for record in event.payload.records:
        logged = record.change.version_state
        logged.revision = event.revision
        logged.update_time.CopyFrom(event.commit_time)
        logged.activity_time.CopyFrom(event.commit_time)
        assert logged == numbered(registry, logged.version)


def test_long_texts_stand_in_the_log_as_digest_and_length(
    registry: Registry, database_url: str
) -> None:
    import hashlib

    long = "é" * 600
    model(registry, description=long, tags={"note": long, "short": "s" * 1024})

    change = last_event(registry).payload.records[0].change
    state = change.model_state

    assert (state.description, state.tags["note"]) == ("", "")
    assert state.tags["short"] == "s" * 1024
    digest = hashlib.sha256(long.encode()).hexdigest()
    assert [(o.path, o.sha256, o.size_bytes) for o in change.omitted_texts] == [
        ("description", digest, 1200),
        ('tags["note"]', digest, 1200),
    ]
    bodies = sql(database_url, "SELECT body FROM texts WHERE sha256 = :digest", digest=digest)
    assert [row.body for row in bodies] == [long]
    assert found(registry).model.description == long


def test_a_purge_erases_the_bodies_of_long_texts_and_no_others(
    registry: Registry, database_url: str
) -> None:
    shared, own, older = "shared" * 300, "own" * 600, "older" * 300
    model(registry, "other", description=shared)
    made = model(registry, description=shared)
    version(registry, description=own, tags={"t": shared})
    registry.SetModelTags(pb.SetModelTagsRequest(model="churn", tags={"t": older}), ANONYMOUS)
    registry.DeleteModelTags(pb.DeleteModelTagsRequest(model="churn", keys=["t"]), ANONYMOUS)
    delete(registry)

    registry.PurgeModel(pb.PurgeModelRequest(model_id=made.id, reason="law"), ANONYMOUS)

    assert [row.body for row in sql(database_url, "SELECT body FROM texts")] == [shared]
    assert registry.VerifyLog(pb.VerifyLogRequest(), ANONYMOUS).intact


def test_a_purged_versions_long_texts_go_and_its_siblings_stay(
    registry: Registry, database_url: str
) -> None:
    model(registry)
    for _ in range(2):
        version(registry, description="long" * 300)
    delete_version(registry, 1)

    request = pb.PurgeModelVersionRequest(model="churn", version=1, reason="law")
    registry.PurgeModelVersion(request, ANONYMOUS)

    assert [row.number for row in sql(database_url, "SELECT number FROM texts")] == [2]


def test_purging_a_model_is_one_change_however_many_versions_it_had(registry: Registry) -> None:
    made = versions(registry, 3)[0]
    delete(registry)

    request = pb.PurgeModelRequest(model_id=made.model_id, reason="law")
    registry.PurgeModel(request, ANONYMOUS)

    kinds = [r.change.kind for r in last_event(registry).payload.records]
    assert kinds == [pb.CHANGE_KIND_MODEL_PURGED]


def test_one_call_may_write_so_much_and_no_more(registry: Registry) -> None:
    model(registry)
    values = {f"{number:0240}": "x" * 1000 for number in range(500)}

    with refused("TRANSACTION_TOO_LARGE"):
        version(registry, tags=values, params=values)

    assert version(registry, tags=values).version == 1


def test_sixteen_threads_number_one_models_versions_without_holes_or_twins(
    registry: Registry,
) -> None:
    model(registry)
    each, threads = 5, 16
    gate = threading.Barrier(threads)

    def create(who: int) -> list[pb.CreateModelVersionResponse]:
        gate.wait()
        request = pb.CreateModelVersionRequest(model="churn")
        return [registry.CreateModelVersion(request, Caller(f"t{who}")) for _ in range(each)]

    with ThreadPoolExecutor(threads) as pool:
        answers = [a for made in pool.map(create, range(threads)) for a in made]

    answers.sort(key=lambda a: a.version.version)
    assert [a.version.version for a in answers] == list(range(1, each * threads + 1))
    revisions = [a.revision for a in answers]
    assert revisions == list(range(3, each * threads + 3))
    assert all(a.version.revision == a.revision for a in answers)
    assert registry.VerifyLog(pb.VerifyLogRequest(), ANONYMOUS).intact


def test_writers_of_everything_at_once_end_in_one_order(registry: Registry) -> None:
    versions(registry, 4, "a")
    versions(registry, 4, "b")

    def promote_both(number: int) -> None:
        for name in ("a", "b") if number % 2 else ("b", "a"):
            promote(registry, number, name=name)
            moves = [
                pb.Transition(model=m, version=number, stage="Staging")
                for m in (("a", "b") if number > 2 else ("b", "a"))
            ]
            registry.BatchTransitionStages(
                pb.BatchTransitionStagesRequest(transitions=moves), ANONYMOUS
            )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(promote_both, (1, 2, 3, 4)))

    verified = registry.VerifyLog(pb.VerifyLogRequest(), ANONYMOUS)
    assert (verified.intact, verified.last_revision) == (True, head(registry))
    for name in ("a", "b"):
        held = {h.stage: list(h.versions) for h in found(registry, name).stages}
        assert len(held["Production"]) == len(held["Staging"]) == 1


def test_models_renamed_and_created_at_once_never_share_a_name(registry: Registry) -> None:
    for name in ("a", "b", "c", "d"):
        versions(registry, 1, name)
    outcomes: list[str] = []

    def take(name: str) -> None:
        from stagewire.errors import RegistryError

        try:
            rename(registry, name, "prize")
            outcomes.append("taken")
        except RegistryError as error:
            outcomes.append(error.reason)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(take, ("a", "b", "c", "d")))

    assert sorted(outcomes) == ["MODEL_EXISTS"] * 3 + ["taken"]
    assert found(registry, "prize").latest_version == 1
