"""The calls that people type daily, on either client."""

from __future__ import annotations

from typing import Any

import pytest

from stagewire import pb
from stagewire.client import errors
from tests.client.scripted import Refusal, Registry

NO_MODEL = Refusal("NOT_FOUND", "MODEL_NOT_FOUND")


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({"version": 3}, pb.ResolveModelVersionRequest(model="iris", version=3)),
        ({"stage": "Production"}, pb.ResolveModelVersionRequest(model="iris", stage="Production")),
        ({"alias": "champion"}, pb.ResolveModelVersionRequest(model="iris", alias="champion")),
        ({}, pb.ResolveModelVersionRequest(model="iris")),
    ],
    ids=["version", "stage", "alias", "latest"],
)
def test_resolve_asks_for_the_selector_given(
    registry: Registry, client: Any, arguments: dict[str, Any], sent: Any
) -> None:
    registry.on(
        "ResolveModelVersion", pb.ResolveModelVersionResponse(version=pb.ModelVersion(version=3))
    )

    version = client.resolve("iris", **arguments)

    assert version.version == 3
    assert registry.requests("ResolveModelVersion") == [sent]


def test_resolve_takes_mlflows_uri(registry: Registry, client: Any) -> None:
    registry.on("ResolveModelVersion", pb.ResolveModelVersionResponse())

    client.resolve("models:/iris@champion")

    assert registry.requests("ResolveModelVersion")[0].uri == "models:/iris@champion"


def test_resolve_refuses_two_selectors(client: Any) -> None:
    with pytest.raises(ValueError, match="one of"):
        client.resolve("iris", version=3, stage="Production")


def test_a_first_version_registers_its_model(registry: Registry, client: Any) -> None:
    made = pb.CreateModelVersionResponse(version=pb.ModelVersion(version=1), revision=2)
    registry.on("CreateModelVersion", NO_MODEL, made)
    registry.on("CreateModel", pb.CreateModelResponse(revision=1))

    version = client.create_version(
        "iris",
        source="file:///models/iris",
        metrics={"accuracy": 0.97},
        tags={"team": "risk"},
        params={"depth": "3"},
        flavors=["sklearn"],
        lineage=pb.Lineage(run_id="r1"),
    )

    first, second = registry.requests("CreateModelVersion")
    assert version.version == 1
    assert [call.method for call in registry.calls] == [
        "CreateModelVersion",
        "CreateModel",
        "CreateModelVersion",
    ]
    assert first.version == second.version
    assert second.version.source == "file:///models/iris"
    assert [(one.key, one.value) for one in second.metrics] == [("accuracy", 0.97)]


def test_a_model_that_somebody_else_registered_meanwhile_is_as_good(
    registry: Registry, client: Any
) -> None:
    registry.on("CreateModelVersion", NO_MODEL, pb.CreateModelVersionResponse(revision=2))
    registry.on("CreateModel", Refusal("ALREADY_EXISTS", "MODEL_EXISTS"))

    client.create_version("iris")

    assert len(registry.requests("CreateModelVersion")) == 2


def test_a_model_is_not_registered_unless_wanted(registry: Registry, client: Any) -> None:
    registry.on("CreateModelVersion", NO_MODEL)

    with pytest.raises(errors.ModelNotFound):
        client.create_version("iris", create_model=False)

    assert registry.requests("CreateModel") == []


def test_promote_and_rollback_are_the_stages_calls(registry: Registry, client: Any) -> None:
    registry.on("TransitionStage", pb.TransitionStageResponse(revision=4))
    registry.on("RollbackStage", pb.RollbackStageResponse(revision=5))

    promoted = client.promote("iris", 2, "Production", reason="better")
    rolled_back = client.rollback("iris", "Production")

    (transition,) = registry.requests("TransitionStage")
    assert (promoted.revision, rolled_back.revision) == (4, 5)
    assert (transition.model, transition.version, transition.stage, transition.reason) == (
        "iris",
        2,
        "Production",
        "better",
    )


def test_metrics_may_be_points(registry: Registry, client: Any) -> None:
    registry.on("LogMetrics", pb.LogMetricsResponse(logged=1))
    point = pb.Metric(key="loss", value=float("inf"), step=9)
    point.time.FromSeconds(5)

    logged = client.log_metrics("iris", 1, [point])

    assert logged == 1
    assert registry.requests("LogMetrics")[0].metrics == [point]
