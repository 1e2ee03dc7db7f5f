"""Resolving: which version a number, a stage, an alias, "latest" or a models:/ URI means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stagewire import pb
from stagewire.callers import ANONYMOUS
from tests.factories import (
    alias,
    delete_version,
    head,
    model,
    numbered,
    promote,
    refused,
    version,
    versions,
)

if TYPE_CHECKING:
    from stagewire.service.registry import Registry


def resolved(registry: Registry, **fields: Any) -> int:
    request = pb.ResolveModelVersionRequest(**fields)
    return registry.ResolveModelVersion(request, ANONYMOUS).version.version


@pytest.fixture
def churn(registry: Registry) -> Registry:
    """Have churn: 1 and 2 in Production, 3 in Staging, champion on 1, 4 deleted."""
    versions(registry, 4)
    promote(registry, 1)
    promote(registry, 2, displace=pb.DISPLACEMENT_KEEP)
    promote(registry, 3, "Staging")
    alias(registry, 1)
    delete_version(registry, 4)
    return registry


@pytest.mark.parametrize(
    ("selector", "number"),
    [
        ({}, 3),
        ({"version": 1}, 1),
        ({"stage": "Production"}, 2),
        ({"stage": "pRODUCTION"}, 2),
        ({"alias": "champion"}, 1),
    ],
    ids=str,
)
def test_a_selector_means_one_version(
    churn: Registry, selector: dict[str, Any], number: int
) -> None:
    assert resolved(churn, model="churn", **selector) == number


@pytest.mark.parametrize(
    ("uri", "number"),
    [
        ("models:/churn/2", 2),
        ("models:/churn/Production", 2),
        ("models:/churn/staging", 3),
        ("models:/churn/latest", 3),
        ("models:/churn@champion", 1),
    ],
)
def test_an_mlflow_uri_is_a_selector(churn: Registry, uri: str, number: int) -> None:
    assert resolved(churn, uri=uri) == number


def test_the_answer_is_the_version_whole(churn: Registry) -> None:
    request = pb.ResolveModelVersionRequest(model="churn", stage="Production")

    answer = churn.ResolveModelVersion(request, ANONYMOUS)

    assert answer.version == numbered(churn, 2)
    assert answer.revision == head(churn)


def test_metrics_are_shown_when_asked_for(registry: Registry) -> None:
    model(registry)
    version(registry, metrics=[pb.Metric(key="auc", value=0.5)])

    def metrics(*, include_metrics: bool) -> list[str]:
        request = pb.ResolveModelVersionRequest(model="churn", include_metrics=include_metrics)
        return [m.key for m in registry.ResolveModelVersion(request, ANONYMOUS).version.metrics]

    assert metrics(include_metrics=True) == ["auc"]
    assert metrics(include_metrics=False) == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": "ghost"}, "MODEL_NOT_FOUND"),
        ({"model": "churn", "version": 4}, "VERSION_NOT_FOUND"),
        ({"model": "churn", "version": 99}, "VERSION_NOT_FOUND"),
        ({"model": "churn", "stage": "Prodution"}, "STAGE_NOT_FOUND"),
        ({"model": "churn", "stage": "Archived"}, "STAGE_EMPTY"),
        ({"model": "churn", "alias": "challenger"}, "ALIAS_NOT_FOUND"),
        ({"model": "churn", "version": 0}, "INVALID_FIELD"),
        ({"model": "churn", "uri": "models:/churn/1"}, "INVALID_FIELD"),
        ({"uri": "models:/churn"}, "INVALID_FIELD"),
        ({"uri": "s3://churn/1"}, "INVALID_FIELD"),
        ({"uri": "models:/churn/0"}, "INVALID_FIELD"),
        ({"version": 1}, "INVALID_FIELD"),
        ({}, "INVALID_FIELD"),
        ({"namespace": "nowhere", "model": "churn"}, "NAMESPACE_NOT_FOUND"),
        ({"namespace": "nowhere", "model": "churn", "version": 1}, "NAMESPACE_NOT_FOUND"),
    ],
    ids=str,
)
def test_what_means_nothing_is_refused(
    churn: Registry, fields: dict[str, Any], reason: str
) -> None:
    with refused(reason):
        resolved(churn, **fields)


def test_a_misspelt_stage_is_answered_with_the_one_meant(churn: Registry) -> None:
    with refused("STAGE_NOT_FOUND") as caught:
        resolved(churn, model="churn", stage="Prodution")

    assert "did you mean 'Production'?" in caught.error.message


def test_a_model_without_versions_has_no_latest(registry: Registry) -> None:
    model(registry)

    with refused("VERSION_NOT_FOUND"):
        resolved(registry, model="churn")
