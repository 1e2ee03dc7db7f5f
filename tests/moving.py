"""Export and import of a registry without a server between, for tests on every floor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stagewire import pb
from stagewire.callers import ANONYMOUS
from stagewire.service import exports
from tests.factories import (
    alias,
    delete,
    delete_version,
    model,
    promote,
    rename,
    rollback,
    stage,
    version,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stagewire.service.registry import Registry


def exported(registry: Registry, **request: Any) -> list[pb.RegistryRecord]:
    """Export everything, the end included."""
    spool = registry.database.read(
        lambda tx: exports.spool(tx, pb.ExportRegistryRequest(**request))
    )
    try:
        parts = [pb.ExportRegistryResponse.FromString(part) for part in spool.parts()]
    finally:
        spool.close()
    found = [record for part in parts for record in part.records]
    assert parts[0].total_records == len(found)
    return found


def content(records: Iterable[pb.RegistryRecord]) -> list[bytes]:
    """Give the bytes of all but the header, whose log is each registry's own."""
    return [
        record.SerializeToString(deterministic=True)
        for record in records
        if not record.HasField("header")
    ]


def batches(records: Iterable[pb.RegistryRecord], size: int = 100) -> Iterator[Any]:
    """Cut records into requests."""
    wanted = [r for r in records if r.WhichOneof("record") not in {"header", "end"}]
    for place in range(0, len(wanted), size):
        yield pb.ImportRegistryRequest(records=wanted[place : place + size])


def imported(
    registry: Registry, records: Iterable[pb.RegistryRecord], *, size: int = 100, **request: Any
) -> pb.ImportRegistryResponse:
    """Import everything and give the sum of the answers."""
    total = pb.ImportRegistryResponse()
    for batch in batches(records, size):
        batch.MergeFrom(pb.ImportRegistryRequest(**request))
        answer = registry.ImportRegistry(batch, ANONYMOUS)
        total.imported += answer.imported
        total.unchanged += answer.unchanged
        total.conflicts.extend(answer.conflicts)
    return total


def live(registry: Registry) -> None:
    """Let a registry go through everything that there is to restore."""
    registry.CreateNamespace(
        pb.CreateNamespaceRequest(namespace=pb.Namespace(name="risk", description="the risk team")),
        ANONYMOUS,
    )
    registry.DeleteStage(pb.DeleteStageRequest(namespace="risk", stage="Staging"), ANONYMOUS)
    stage(registry, "Canary", namespace="risk", active=True, displace_to="Archived")
    model(registry, "churn", description="who leaves", tags={"team": "crm"}, owner="ann")
    version(
        registry,
        "churn",
        source="s3://models/churn/1",
        tags={"long": "x" * 3000, "empty": ""},
        params={"depth": "3"},
        signature="{}",
        flavors=["sklearn"],
        description="the first",
        lineage=pb.Lineage(run_id="r1", datasets=[pb.Dataset(name="d", digest="sha256:1")]),
        metrics=[pb.Metric(key="auc", value=0.9), pb.Metric(key="loss", value=float("nan"))],
    )
    version(
        registry, "churn", lineage=pb.Lineage(parents=[pb.ParentVersion(model="churn", version=1)])
    )
    version(registry, "churn", status=pb.MODEL_VERSION_STATUS_PENDING_REGISTRATION)
    for number in (1, 2, 1):
        promote(registry, number, name="churn", reason="try")
    rollback(registry, name="churn")
    promote(registry, 1, "Staging", name="churn")
    for number in (1, 2):
        alias(registry, number, name="churn", reassign=True)
    alias(registry, 1, "old", name="churn")
    registry.DeleteAlias(pb.DeleteAliasRequest(model="churn", alias="old"), ANONYMOUS)
    delete_version(registry, 3, "churn")
    registry.PurgeModelVersion(
        pb.PurgeModelVersionRequest(model="churn", version=3, reason="by law"), ANONYMOUS
    )
    rename(registry, "churn", "retention")
    rename(registry, "retention", "loyalty")
    model(registry, "churn")
    version(registry, "churn", source="s3://other")
    model(registry, "gone")
    version(registry, "gone")
    promote(registry, 1, name="gone")
    alias(registry, 1, name="gone")
    delete(registry, "gone", force=True)
    model(registry, "gone")
    version(registry, "gone")
    model(registry, "purged", description="secret")
    version(registry, "purged", description="secret too")
    dead = delete(registry, "purged")
    registry.PurgeModel(pb.PurgeModelRequest(model_id=dead.id, reason="by law"), ANONYMOUS)
    model(registry, "scores", namespace="risk")
    version(registry, "scores", namespace="risk")
    registry.TransitionStage(
        pb.TransitionStageRequest(namespace="risk", model="scores", version=1, stage="canary"),
        ANONYMOUS,
    )
