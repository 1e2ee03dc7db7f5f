"""Request ids: a call repeated is not done twice, and answers what it answered."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import pb
from stagewire.callers import ANONYMOUS, Caller
from stagewire.service.operations import REQUEST_KEPT_SECONDS
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
    sql,
    stage,
    version,
    versions,
    webhook,
)

if TYPE_CHECKING:
    from stagewire.service.registry import Registry

ID = "0b9c2f6e"
CHURN: dict[str, Any] = {"model": "churn", "request_id": ID}
FIRST: dict[str, Any] = {**CHURN, "version": 1}


def churn(registry: Registry) -> None:
    """Have two versions of which one is in Production after the other was."""
    versions(registry, 2)
    promote(registry, 1)
    promote(registry, 2)


def gone(registry: Registry) -> None:
    model(registry)
    version(registry)
    delete_version(registry, 1)


def champion(registry: Registry) -> None:
    versions(registry, 2)
    alias(registry, 1)


WRITES: dict[str, tuple[Any, Any]] = {
    "CreateNamespace": (
        None,
        pb.CreateNamespaceRequest(namespace=pb.Namespace(name="risk"), request_id=ID),
    ),
    "DeleteNamespace": (
        lambda r: r.CreateNamespace(
            pb.CreateNamespaceRequest(namespace=pb.Namespace(name="risk")), ANONYMOUS
        ),
        pb.DeleteNamespaceRequest(name="risk", request_id=ID),
    ),
    "CreateWebhook": (
        None,
        pb.CreateWebhookRequest(
            webhook=pb.Webhook(name="ci", url="https://a.example", events=["*"]), request_id=ID
        ),
    ),
    "CreateModel": (None, pb.CreateModelRequest(model=pb.Model(name="churn"), request_id=ID)),
    "UpdateNamespace": (
        None,
        pb.UpdateNamespaceRequest(
            name="default",
            update=pb.NamespaceUpdate(description="ours"),
            update_mask=FieldMask(paths=["description"]),
            request_id=ID,
        ),
    ),
    "UpdateModel": (
        model,
        pb.UpdateModelRequest(
            **CHURN,
            update=pb.ModelUpdate(owner="me"),
            update_mask=FieldMask(paths=["owner"]),
        ),
    ),
    "RenameModel": (model, pb.RenameModelRequest(**CHURN, new_name="leavers")),
    "DeleteModel": (model, pb.DeleteModelRequest(**CHURN)),
    "SetModelTags": (model, pb.SetModelTagsRequest(**CHURN, tags={"b": "1", "a": "2"})),
    "DeleteModelTags": (
        lambda r: model(r, tags={"a": "1"}),
        pb.DeleteModelTagsRequest(**CHURN, keys=["a"]),
    ),
    "CreateModelVersion": (
        model,
        pb.CreateModelVersionRequest(
            **CHURN, version=pb.ModelVersion(source="s3"), metrics=[pb.Metric(key="auc", value=1)]
        ),
    ),
    "UpdateModelVersion": (
        churn,
        pb.UpdateModelVersionRequest(
            **FIRST,
            update=pb.ModelVersionUpdate(description="x"),
            update_mask=FieldMask(paths=["description"]),
        ),
    ),
    "DeleteModelVersion": (churn, pb.DeleteModelVersionRequest(**FIRST, force=True)),
    "UndeleteModelVersion": (gone, pb.UndeleteModelVersionRequest(**FIRST)),
    "PurgeModelVersion": (gone, pb.PurgeModelVersionRequest(**FIRST, reason="law")),
    "SetModelVersionTags": (churn, pb.SetModelVersionTagsRequest(**FIRST, tags={"a": "1"})),
    "DeleteModelVersionTags": (churn, pb.DeleteModelVersionTagsRequest(**FIRST, keys=["a"])),
    "CopyModelVersion": (churn, pb.CopyModelVersionRequest(**FIRST, target_model="churn")),
    "SetAlias": (
        champion,
        pb.SetAliasRequest(**{**FIRST, "version": 2}, alias="champion", reassign=True),
    ),
    "DeleteAlias": (champion, pb.DeleteAliasRequest(**CHURN, alias="champion")),
    "CreateStage": (None, pb.CreateStageRequest(stage=pb.Stage(name="Canary"), request_id=ID)),
    "UpdateStage": (
        None,
        pb.UpdateStageRequest(
            stage="Staging",
            update=pb.StageUpdate(position=99),
            update_mask=FieldMask(paths=["position"]),
            request_id=ID,
        ),
    ),
    "DeleteStage": (
        lambda r: stage(r, "Canary"),
        pb.DeleteStageRequest(stage="Canary", request_id=ID),
    ),
    "TransitionStage": (churn, pb.TransitionStageRequest(**FIRST, stage="Production")),
    "BatchTransitionStages": (
        churn,
        pb.BatchTransitionStagesRequest(
            transitions=[pb.Transition(model="churn", version=1, stage="Staging")], request_id=ID
        ),
    ),
    "RemoveFromStage": (
        churn,
        pb.RemoveFromStageRequest(**{**FIRST, "version": 2}, stage="Production"),
    ),
    "RollbackStage": (churn, pb.RollbackStageRequest(**CHURN, stage="Production")),
    "ImportRegistry": (
        None,
        pb.ImportRegistryRequest(
            records=[pb.RegistryRecord(model=pb.ModelRecord(model=pb.Model(id="1", name="churn")))],
            request_id=ID,
        ),
    ),
    "CreateGrant": (
        None,
        pb.CreateGrantRequest(
            grant=pb.Grant(subject="alice", scope=pb.Scope(role=pb.ROLE_VIEWER)), request_id=ID
        ),
    ),
}


@pytest.mark.parametrize("operation", sorted(WRITES))
def test_a_repeated_call_answers_the_same_and_changes_nothing(
    registry: Registry, operation: str
) -> None:
    arrange, request = WRITES[operation]
    if arrange is not None:
        arrange(registry)
    call = getattr(registry, operation)
    first = call(request, ANONYMOUS)
    after = head(registry)

    again = call(request, ANONYMOUS)

    assert again == first
    assert first.revision == after == head(registry)


def test_every_write_that_takes_a_request_id_is_repeated_here() -> None:
    from stagewire.service.operations import Write
    from stagewire.service.registry import Registry

    by_id = {
        "UndeleteModel",
        "PurgeModel",
        "UpdateWebhook",
        "DeleteWebhook",
        "RevokeToken",
        "DeleteGrant",
    }
    # Its secret is shown once; tests of tokens have it.
    by_id.add("CreateToken")
    writes = {name for name, value in vars(Registry).items() if isinstance(value, Write)}

    assert writes == set(WRITES) | by_id


def test_writes_by_id_are_repeatable_too(registry: Registry) -> None:
    made = model(registry)
    delete(registry)
    undelete = pb.UndeleteModelRequest(model_id=made.id, request_id="a")
    purge = pb.PurgeModelRequest(model_id=made.id, reason="law", request_id="b")

    first = registry.UndeleteModel(undelete, ANONYMOUS)
    again = registry.UndeleteModel(undelete, ANONYMOUS)
    delete(registry)
    erased = registry.PurgeModel(purge, ANONYMOUS)

    assert again == first
    assert registry.PurgeModel(purge, ANONYMOUS) == erased


def test_writes_of_a_webhook_are_repeatable_too(registry: Registry) -> None:
    made = webhook(registry)
    update = pb.UpdateWebhookRequest(
        id=made.id,
        update=pb.WebhookUpdate(name="other"),
        update_mask=FieldMask(paths=["name"]),
        request_id="a",
    )
    delete_ = pb.DeleteWebhookRequest(id=made.id, request_id="b")

    changed = [registry.UpdateWebhook(update, ANONYMOUS) for _ in range(2)]
    deleted = [registry.DeleteWebhook(delete_, ANONYMOUS) for _ in range(2)]

    assert changed[0] == changed[1]
    assert deleted[0] == deleted[1]
    assert head(registry) == deleted[0].revision


def test_a_replay_answers_as_it_was_then_though_much_changed_since(registry: Registry) -> None:
    model(registry)
    request = pb.SetModelTagsRequest(**CHURN, tags={"a": "1"})
    first = registry.SetModelTags(request, ANONYMOUS)
    registry.SetModelTags(pb.SetModelTagsRequest(model="churn", tags={"a": "2"}), ANONYMOUS)
    delete(registry)

    assert registry.SetModelTags(request, ANONYMOUS) == first


def test_an_id_used_for_another_request_is_refused(registry: Registry) -> None:
    registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name="a"), request_id=ID), ANONYMOUS)

    with refused("REQUEST_ID_REUSED") as other_fields:
        registry.CreateModel(
            pb.CreateModelRequest(model=pb.Model(name="b"), request_id=ID), ANONYMOUS
        )
    with refused("REQUEST_ID_REUSED"):
        registry.DeleteModel(pb.DeleteModelRequest(model="a", request_id=ID), ANONYMOUS)

    assert [f.field for f in other_fields.error.fields] == ["request_id"]


def test_two_callers_may_use_one_id(registry: Registry) -> None:
    for who in ("ann", "bob"):
        request = pb.CreateModelRequest(model=pb.Model(name=who), request_id=ID)
        registry.CreateModel(request, Caller(who))

    assert found(registry, "ann").model.creator == "ann"
    assert found(registry, "bob").model.creator == "bob"


def test_a_no_op_is_stored(registry: Registry) -> None:
    model(registry, tags={"a": "1"})
    request = pb.SetModelTagsRequest(**CHURN, tags={"a": "1"})
    first = registry.SetModelTags(request, ANONYMOUS)
    registry.SetModelTags(pb.SetModelTagsRequest(model="churn", tags={"a": "2"}), ANONYMOUS)

    again = registry.SetModelTags(request, ANONYMOUS)

    assert again == first
    assert dict(found(registry).model.tags) == {"a": "2"}


def test_a_refusal_is_not_stored(registry: Registry) -> None:
    request = pb.SetModelTagsRequest(**CHURN, tags={"a": "1"})
    with refused("MODEL_NOT_FOUND"):
        registry.SetModelTags(request, ANONYMOUS)
    model(registry)

    assert dict(registry.SetModelTags(request, ANONYMOUS).model.tags) == {"a": "1"}


def test_a_call_that_only_validates_is_not_stored(registry: Registry) -> None:
    tried = pb.CreateModelRequest(model=pb.Model(name="a"), request_id=ID, validate_only=True)
    registry.CreateModel(tried, ANONYMOUS)

    request = pb.CreateModelRequest(model=pb.Model(name="a"), request_id=ID)

    assert registry.CreateModel(request, ANONYMOUS).revision == head(registry) == 2


def test_a_replay_wins_over_the_expected_revision(registry: Registry) -> None:
    made = model(registry)
    request = pb.SetModelTagsRequest(**CHURN, tags={"a": "1"}, expected_revision=made.revision)
    first = registry.SetModelTags(request, ANONYMOUS)

    assert registry.SetModelTags(request, ANONYMOUS) == first


def test_two_calls_with_one_id_at_once_are_one_change(registry: Registry) -> None:
    model(registry)
    request = pb.CreateModelVersionRequest(**CHURN)
    gate = threading.Barrier(8)

    def call() -> pb.CreateModelVersionResponse:
        gate.wait()
        return registry.CreateModelVersion(request, ANONYMOUS)

    with ThreadPoolExecutor(8) as pool:
        answers = [f.result() for f in [pool.submit(call) for _ in range(8)]]

    assert all(answer == answers[0] for answer in answers)
    assert found(registry).latest_version == 1
    assert head(registry) == answers[0].revision


def test_two_models_made_at_once_with_one_id_are_one(registry: Registry) -> None:
    request = pb.CreateModelRequest(model=pb.Model(name="churn"), request_id=ID)
    gate = threading.Barrier(4)

    def call() -> pb.CreateModelResponse:
        gate.wait()
        return registry.CreateModel(request, ANONYMOUS)

    with ThreadPoolExecutor(4) as pool:
        answers = [f.result() for f in [pool.submit(call) for _ in range(4)]]

    assert all(answer == answers[0] for answer in answers)


def test_an_id_is_forgotten_after_a_day(registry: Registry, database_url: str) -> None:
    model(registry)
    request = pb.CreateModelVersionRequest(**CHURN)
    registry.CreateModelVersion(request, ANONYMOUS)
    kept = registry.tidy()
    age = (REQUEST_KEPT_SECONDS + 1) * 1_000_000
    sql(database_url, "UPDATE requests SET time = time - :age", age=age)

    again = registry.CreateModelVersion(request, ANONYMOUS)
    sql(database_url, "UPDATE requests SET time = time - :age", age=age)

    assert again.version.version == 2
    assert (kept, registry.tidy()) == (0, 1)


def test_the_log_names_the_request(registry: Registry) -> None:
    model(registry)
    request = pb.CreateModelVersionRequest(**CHURN, reason="nightly")
    registry.CreateModelVersion(request, Caller("ann"))

    payload = last_event(registry).payload

    assert (payload.request_id, payload.actor, payload.reason, payload.method) == (
        ID,
        "ann",
        "nightly",
        "CreateModelVersion",
    )
    assert numbered(registry, 1).creator == "ann"
