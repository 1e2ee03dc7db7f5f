"""Quotas of namespaces: what is counted, what is refused, and who pays for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import errors, pb, rights
from stagewire.callers import ANONYMOUS, Caller
from stagewire.rights import Scope
from stagewire.service import exports
from tests.factories import (
    delete,
    delete_version,
    head,
    last_event,
    model,
    refused,
    sql,
    undelete,
    version,
    versions,
)

if TYPE_CHECKING:
    from stagewire.service.registry import Registry


def update(
    registry: Registry, *paths: str, name: str = "default", **fields: Any
) -> pb.UpdateNamespaceResponse:
    request = pb.UpdateNamespaceRequest(
        name=name, update=pb.NamespaceUpdate(**fields), update_mask=FieldMask(paths=paths)
    )
    return registry.UpdateNamespace(request, ANONYMOUS)


def limit(registry: Registry, name: str = "default", **quota: int) -> pb.Namespace:
    """Set a namespace's whole quota."""
    return update(registry, "quota", name=name, quota=pb.Quota(**quota)).namespace


def get(registry: Registry, name: str = "default") -> pb.GetNamespaceResponse:
    return registry.GetNamespace(pb.GetNamespaceRequest(name=name), ANONYMOUS)


def used(registry: Registry) -> tuple[int, int]:
    usage = get(registry).usage
    return usage.models, usage.versions


def undelete_version(registry: Registry, number: int) -> None:
    request = pb.UndeleteModelVersionRequest(model="churn", version=number)
    registry.UndeleteModelVersion(request, ANONYMOUS)


def exported(registry: Registry) -> list[pb.RegistryRecord]:
    """Read what a registry holds, as it is imported elsewhere."""
    found = registry.database.read(lambda tx: list(exports.records(tx, pb.ExportRegistryRequest())))
    return [record for record in found if not record.HasField("header")]


def test_a_namespace_is_updated_as_the_mask_says_and_in_the_log(registry: Registry) -> None:
    before = get(registry).namespace

    changed = update(registry, "description", description="ours", quota=pb.Quota(max_models=1))

    assert changed.namespace == get(registry).namespace
    assert changed.namespace.description == "ours"
    assert not changed.namespace.HasField("quota")
    assert changed.namespace.revision == changed.revision == before.revision + 1
    (record,) = last_event(registry).payload.records
    assert record.change.kind == pb.CHANGE_KIND_NAMESPACE_UPDATED
    assert record.change.namespace_state.description == "ours"


def test_one_limit_of_a_quota_changes_alone_and_the_whole_goes_at_once(
    registry: Registry,
) -> None:
    limit(registry, max_models=5, max_watches=7)

    one = update(registry, "quota.max_models", quota=pb.Quota(max_models=6)).namespace
    none = update(registry, "quota").namespace

    assert one.quota == pb.Quota(max_models=6, max_watches=7)
    assert not none.HasField("quota")


def test_what_changes_nothing_writes_nothing(registry: Registry) -> None:
    limit(registry, max_models=5)
    before = head(registry)

    assert limit(registry, max_models=5).quota.max_models == 5
    assert head(registry) == before


def test_updating_refuses_what_can_not_be_meant(registry: Registry) -> None:
    with refused("INVALID_UPDATE_MASK"):
        update(registry)
    with refused("INVALID_UPDATE_MASK"):
        update(registry, "name")
    with refused("INVALID_FIELD"):
        limit(registry, max_models=-1)
    with refused("NAMESPACE_NOT_FOUND"):
        update(registry, "quota", name="nowhere")
    request = pb.UpdateNamespaceRequest(
        name="default",
        update=pb.NamespaceUpdate(description="x"),
        update_mask=FieldMask(paths=["description"]),
        expected_revision=99,
    )
    with refused("REVISION_MISMATCH"):
        registry.UpdateNamespace(request, ANONYMOUS)


def test_a_namespace_without_limits_of_what_it_holds_is_not_counted(
    registry: Registry, database_url: str
) -> None:
    versions(registry, 2)
    limit(registry, max_watches=5, requests_per_second=10)
    model(registry, "other")

    assert not get(registry).HasField("usage")
    assert sql(database_url, "SELECT count(*) FROM namespace_usage") == [(0,)]


def test_what_is_there_is_counted_when_a_limit_is_set_and_forgotten_with_it(
    registry: Registry,
) -> None:
    versions(registry, 3)
    delete_version(registry, 2)
    model(registry, "gone")
    version(registry, "gone")
    delete(registry, "gone")

    limit(registry, max_versions=10)
    counted = used(registry)
    limit(registry)

    assert counted == (1, 2)
    assert not get(registry).HasField("usage")


def test_a_model_too_many_is_refused_with_what_helps(registry: Registry) -> None:
    limit(registry, max_models=1)
    model(registry)
    before = head(registry)

    with pytest.raises(errors.RegistryError) as caught:
        model(registry, "other")

    error = caught.value
    assert (error.reason, error.code) == ("QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED")
    assert dict(error.metadata) == {
        "quota": "max_models",
        "limit": "1",
        "used": "1",
        "namespace": "default",
    }
    assert "stagewire namespace update default --max-models 2" in error.message
    assert error.quotas[0].subject == "namespace:default"
    assert error.retry_after_seconds is None
    assert head(registry) == before
    assert used(registry) == (1, 0)


def test_deleting_makes_room_and_coming_back_takes_it(registry: Registry) -> None:
    limit(registry, max_models=1, max_versions=2)
    first = model(registry)
    version(registry)
    version(registry)
    with refused("QUOTA_EXCEEDED"):
        version(registry)

    delete_version(registry, 1)
    version(registry)
    with refused("QUOTA_EXCEEDED"):
        undelete_version(registry, 1)
    delete(registry)
    model(registry, "other")

    assert used(registry) == (1, 0)
    with refused("QUOTA_EXCEEDED"):
        undelete(registry, first.id)
    delete(registry, "other")
    undelete(registry, first.id)
    assert used(registry) == (1, 2)


def test_a_model_that_comes_back_brings_its_versions_under_the_limit(registry: Registry) -> None:
    first = versions(registry, 3)[0]
    delete(registry)
    limit(registry, max_versions=2)

    with pytest.raises(errors.RegistryError) as caught:
        undelete(registry, first.model_id)

    assert caught.value.metadata["used"] == "0"
    assert "this would be 3 more" in caught.value.message


def test_a_limit_below_what_is_there_takes_nothing_away(registry: Registry) -> None:
    versions(registry, 3)

    limit(registry, max_versions=1)

    assert used(registry) == (1, 3)
    with refused("QUOTA_EXCEEDED"):
        version(registry)
    delete_version(registry, 1)
    assert used(registry) == (1, 2)


def test_a_copy_counts_as_a_version(registry: Registry) -> None:
    versions(registry, 1)
    model(registry, "live")
    limit(registry, max_versions=1)
    request = pb.CopyModelVersionRequest(model="churn", version=1, target_model="live")

    with refused("QUOTA_EXCEEDED"):
        registry.CopyModelVersion(request, ANONYMOUS)


def test_trying_first_counts_nothing_and_is_refused_alike(registry: Registry) -> None:
    limit(registry, max_models=1)
    request = pb.CreateModelRequest(model=pb.Model(name="churn"), validate_only=True)

    registry.CreateModel(request, ANONYMOUS)

    assert used(registry) == (0, 0)
    model(registry)
    request.model.name = "other"
    with refused("QUOTA_EXCEEDED"):
        registry.CreateModel(request, ANONYMOUS)


def test_a_namespace_may_have_a_quota_from_its_beginning_and_goes_with_it(
    registry: Registry,
) -> None:
    wanted = pb.Namespace(name="risk", quota=pb.Quota(max_models=1))
    made = registry.CreateNamespace(pb.CreateNamespaceRequest(namespace=wanted), ANONYMOUS)

    assert made.namespace == get(registry, "risk").namespace
    assert get(registry, "risk").usage == pb.NamespaceUsage()
    assert get(registry, "risk").HasField("usage")
    registry.DeleteNamespace(pb.DeleteNamespaceRequest(name="risk"), ANONYMOUS)
    registry.CreateNamespace(
        pb.CreateNamespaceRequest(namespace=pb.Namespace(name="risk")), ANONYMOUS
    )
    assert not get(registry, "risk").HasField("usage")


def test_an_import_brings_its_quota_and_counts_without_being_refused(registry: Registry) -> None:
    versions(registry, 3)
    delete_version(registry, 3)
    records = exported(registry)
    for record in records:
        if record.HasField("namespace"):
            record.namespace.namespace.name = "twin"
            record.namespace.namespace.quota.CopyFrom(pb.Quota(max_versions=1))
            for stage in record.namespace.stages:
                stage.namespace = "twin"
        for kind in ("model", "version"):
            if record.HasField(kind):
                part = getattr(record, kind)
                whole = part.model if kind == "model" else part
                whole.namespace = "twin"
                setattr(whole, "id" if kind == "model" else "model_id", "f" * 32)
    records = [r for r in records if r.WhichOneof("record") in ("namespace", "model", "version")]

    request = pb.ImportRegistryRequest(records=records)
    first = registry.ImportRegistry(request, ANONYMOUS)
    again = registry.ImportRegistry(request, ANONYMOUS)

    assert (first.imported, again.imported) == (len(records), 0)
    assert get(registry, "twin").usage == pb.NamespaceUsage(models=1, versions=2)


def test_grants_on_a_deleted_namespace_do_not_come_back_with_its_name(registry: Registry) -> None:
    registry.CreateNamespace(
        pb.CreateNamespaceRequest(namespace=pb.Namespace(name="risk")), ANONYMOUS
    )
    for space in ("risk", "default", "*"):
        grant = pb.Grant(subject="ann", scope=pb.Scope(role=pb.ROLE_VIEWER, namespace=space))
        registry.CreateGrant(pb.CreateGrantRequest(grant=grant), ANONYMOUS)

    registry.DeleteNamespace(pb.DeleteNamespaceRequest(name="risk"), ANONYMOUS)

    event = last_event(registry)
    taken = [r.change for r in event.payload.records if r.change.HasField("grant_state")]
    assert [(c.kind, c.grant_state.scope.namespace) for c in taken] == [
        (pb.CHANGE_KIND_GRANT_DELETED, "risk")
    ]
    registry.CreateNamespace(
        pb.CreateNamespaceRequest(namespace=pb.Namespace(name="risk")), ANONYMOUS
    )
    left = registry.ListGrants(pb.ListGrantsRequest(), ANONYMOUS).grants
    assert sorted(g.scope.namespace for g in left) == ["*", "default"]


def test_a_namespaces_admin_describes_it_and_does_not_say_how_much_it_may_have(
    registry: Registry,
) -> None:
    admin = Caller(
        name="ann",
        rights=rights.of(frozenset({Scope("admin", "default")})),
        method=pb.AUTHENTICATION_METHOD_TOKEN,
    )

    def change(*paths: str) -> pb.UpdateNamespaceResponse:
        request = pb.UpdateNamespaceRequest(
            name="default",
            update=pb.NamespaceUpdate(description="ours", quota=pb.Quota(max_models=5)),
            update_mask=FieldMask(paths=paths),
        )
        return registry.UpdateNamespace(request, admin)

    assert change("description").namespace.description == "ours"
    for paths in (("quota",), ("quota.max_models",), ("description", "quota.max_watches")):
        with pytest.raises(errors.RegistryError) as caught:
            change(*paths)
        assert caught.value.reason == "PERMISSION_DENIED"
        assert caught.value.metadata["namespace"] == "*"
