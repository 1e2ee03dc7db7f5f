"""Every field of what the contract answers is set by somebody: a new one can't be forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from stagewire import pb
from stagewire.callers import ANONYMOUS
from stagewire.hooks import HookRules, Vault
from stagewire.service.cursors import Cursor
from tests.factories import (
    alias,
    delete,
    delete_version,
    found,
    hand_out_sessions,
    model,
    numbered,
    promote,
    sql,
    stage,
    version,
    webhook,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from google.protobuf.message import Message

    from stagewire.service.registry import Registry


def unset(messages: Iterable[Message]) -> set[str]:
    """Name the fields that none of some messages of one type has set."""
    kept = list(messages)
    every = {field.name for field in kept[0].DESCRIPTOR.fields}
    return every - {descriptor.name for m in kept for descriptor, _ in m.ListFields()}


def test_every_field_of_a_namespace_is_set(registry: Registry) -> None:
    quota = pb.Quota(max_models=1, max_versions=2, max_watches=3, requests_per_second=4)
    wanted = pb.Namespace(name="risk", description="the risk team", quota=quota)
    registry.CreateNamespace(pb.CreateNamespaceRequest(namespace=wanted), ANONYMOUS)

    got = registry.GetNamespace(pb.GetNamespaceRequest(name="risk"), ANONYMOUS).namespace

    assert unset([got]) == set()
    assert got.quota == quota


def test_every_field_of_a_stage_is_set(registry: Registry) -> None:
    stage(registry, "Canary", description="few", active=True, displace_to="Archived")

    stages = registry.ListStages(pb.ListStagesRequest(), ANONYMOUS).stages

    assert unset(s for s in stages if s.name == "Canary") == set()


def test_every_field_of_a_model_is_set(registry: Registry) -> None:
    made = model(registry, description="who leaves", tags={"a": "b"})
    living = found(registry).model
    delete(registry)
    request = pb.PurgeModelRequest(model_id=made.id, reason="law")
    purged = registry.PurgeModel(request, ANONYMOUS).model

    assert unset([living, purged]) == set()
    assert unset([living]) == {"deleted", "purged"}


def test_every_field_of_a_version_and_its_lineage_is_set(registry: Registry) -> None:
    model(registry)
    version(registry)
    lineage = pb.Lineage(
        run_id="r",
        run_link="l",
        experiment="e",
        git_commit="c",
        git_repository="g",
        logged_model_id="m",
        datasets=[
            pb.Dataset(name="d", digest="x", use=pb.DATASET_USE_EVALUATION, source="s"),
        ],
        parents=[
            pb.ParentVersion(model="churn", version=1, derivation=pb.DERIVATION_MERGED),
        ],
    )
    version(
        registry,
        source="s3",
        status_message="fine",
        description="d",
        tags={"a": "b"},
        params={"p": "q"},
        signature="{}",
        flavors=["sklearn"],
        lineage=lineage,
        metrics=[pb.Metric(key="auc", value=1, step=1, dataset="test")],
    )
    promote(registry, 2)
    alias(registry, 2)

    whole = numbered(registry, 2, include_metrics=True)
    delete_version(registry, 2, force=True)
    request = pb.PurgeModelVersionRequest(model="churn", version=2, reason="law")
    purged = registry.PurgeModelVersion(request, ANONYMOUS).version

    assert unset([whole, purged]) == set()
    assert unset([whole]) == {"deleted", "purged"}
    assert unset([whole.lineage]) == set()
    assert unset(whole.lineage.datasets) == set()
    assert unset(whole.lineage.parents) == set()


def test_every_field_of_a_metric_is_set(registry: Registry) -> None:
    model(registry)
    version(registry, metrics=[pb.Metric(key="auc", value=1, step=1, dataset="test")])

    page = registry.ListMetrics(pb.ListMetricsRequest(model="churn"), ANONYMOUS)

    assert unset(page.metrics) == set()


def test_every_field_of_a_deployment_is_set(registry: Registry) -> None:
    model(registry)
    version(registry)
    promote(registry, 1)
    top = registry.GetHead(pb.GetHeadRequest(), ANONYMOUS)
    target = pb.TargetStatus(
        target="eu",
        model="churn",
        stage="Production",
        desired_version=1,
        running_version=1,
        running_digest="sha256:1",
        state=pb.DEPLOYMENT_STATE_SERVING,
        error="none",
        agent_time=Timestamp(seconds=5),
    )
    request = pb.ReportStatusRequest(
        agent="a1",
        session=1,
        seq=1,
        log_id=top.log_id,
        observed_cursor=Cursor(top.log_id, 1, b"12345678", b"12345678").encode(),
        targets=[target],
    )
    hand_out_sessions(registry)
    registry.ReportStatus(request, ANONYMOUS)

    page = registry.ListDeployments(pb.ListDeploymentsRequest(), ANONYMOUS)

    # Silence takes half a minute; test_deployments.py has it.
    assert unset(page.deployments) == {"silent"}


def test_every_field_of_a_webhook_and_its_deliveries_is_set(
    registry: Registry, database_url: str, tmp_path: Path
) -> None:
    registry.hooks = HookRules(Vault(tmp_path / "keys", makes=True))
    made = webhook(registry, description="d", models=["churn"], secret="hidden")
    prefixed = webhook(registry, model_prefix="ch")
    sql(
        database_url,
        "UPDATE webhook_cursors SET attempts = 1, failing_since_time = 1, next_attempt_time = 1, "
        "error = 'status', delivered_revision = 1, delivered_time = 1, missed_revisions = 1, "
        "last_missed_revision = 1, revision = 1",
    )
    sql(
        database_url,
        "INSERT INTO webhook_deliveries VALUES ('d', :hook, 1, 1, 'e', :dead, 1, 500, 'status', "
        "1, 1, 1, 2)",
        hook=made.id,
        dead=pb.DELIVERY_STATUS_DEAD,
    )

    got = [
        registry.GetWebhook(pb.GetWebhookRequest(id=hook.id), ANONYMOUS).webhook
        for hook in (made, prefixed)
    ]
    page = registry.ListDeliveries(pb.ListDeliveriesRequest(id=made.id), ANONYMOUS)

    # A secret is never answered.
    assert unset(got) == {"secret"}
    assert unset(hook.progress for hook in got) == set()
    assert unset(page.deliveries) == set()


def test_every_field_of_a_tenure_is_set(registry: Registry) -> None:
    model(registry)
    version(registry)
    promote(registry, 1, reason="good")
    promote(registry, 1, "None", reason="bad")

    page = registry.GetStageHistory(pb.GetStageHistoryRequest(model="churn"), ANONYMOUS)

    assert unset(page.tenures) == set()


def test_every_field_of_an_event_and_its_records_is_set(registry: Registry) -> None:
    model(registry)
    for _ in range(2):
        version(registry)
    alias(registry, 1)
    promote(registry, 1)
    promote(registry, 2, request_id="one", reason="better")
    registry.SetModelTags(
        pb.SetModelTagsRequest(model="churn", tags={"note": "long" * 300}), ANONYMOUS
    )
    registry.DeleteModelTags(pb.DeleteModelTagsRequest(model="churn", keys=["note"]), ANONYMOUS)
    registry.RenameModel(pb.RenameModelRequest(model="churn", new_name="leavers"), ANONYMOUS)
    webhook(registry)
    registry.CreateToken(pb.CreateTokenRequest(token=pb.Token(subject="alice")), ANONYMOUS)
    viewer = pb.Grant(subject="alice", scope=pb.Scope(role=pb.ROLE_VIEWER))
    registry.CreateGrant(pb.CreateGrantRequest(grant=viewer), ANONYMOUS)

    log = registry.ListEvents(pb.ListEventsRequest(namespace="*"), ANONYMOUS).events
    records: list[Any] = [r for e in log for r in e.payload.records]

    assert unset(log) == set()
    assert unset(e.payload for e in log) == set()
    assert unset(records) == set()
    assert unset(r.change for r in records) == set()
    assert unset(keys for r in records for keys in (r.before, r.after)) == set()
    assert unset(p for r in records for p in r.change.primaries) == set()
    assert unset(o for r in records for o in r.change.omitted_texts) == set()


def test_every_field_of_the_head_is_set_once_the_log_is_compacted(registry: Registry) -> None:
    top = registry.GetHead(pb.GetHeadRequest(), ANONYMOUS)

    assert unset([top]) == {"compacted_revision"}
