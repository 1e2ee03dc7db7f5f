"""What a version takes over from the one that its source names, and where its files are."""

from __future__ import annotations

import pytest

from stagewire import pb
from stagewire.callers import ANONYMOUS
from stagewire.service.registry import Registry
from stagewire.sources import Sources
from stagewire.store.database import Database
from tests.factories import alias, model, numbered, promote, refused, rename, version


@pytest.fixture
def origin(registry: Registry) -> pb.ModelVersion:
    """Have a version with a run, a stage and an alias."""
    model(registry)
    lineage = pb.Lineage(run_id="run1", logged_model_id="m-1")
    version(registry, source="s3://models/old")
    made = version(registry, source="models:/m-1", storage_uri="s3://models/a", lineage=lineage)
    promote(registry, 2)
    alias(registry, 2)
    return made


def test_the_files_are_where_the_source_says_unless_told_otherwise(registry: Registry) -> None:
    model(registry)

    assert version(registry, source="s3://models/a").storage_uri == "s3://models/a"
    assert version(registry, source="models:/m-1", storage_uri="s3://b").storage_uri == "s3://b"
    assert numbered(registry, 1).storage_uri == "s3://models/a"
    assert numbered(registry, 2).storage_uri == "s3://b"


@pytest.mark.parametrize("selector", ["/2", "/02", "/production", "/latest", "@champion"])
def test_a_source_that_names_a_version_becomes_that_version(
    registry: Registry, origin: pb.ModelVersion, selector: str
) -> None:
    model(registry, "copy")

    made = version(registry, "copy", source=f"models:/churn{selector}")

    assert made.source == "models:/churn/2"
    assert made.storage_uri == "s3://models/a"
    assert (made.lineage.run_id, made.lineage.logged_model_id) == ("run1", "m-1")
    parent = made.lineage.parents[0]
    assert (parent.model, parent.version) == ("churn", 2)
    assert parent.derivation == pb.DERIVATION_COPIED
    assert numbered(registry, 1, "copy") == made


def test_a_copy_of_a_copy_has_the_first_ones_files(
    registry: Registry, origin: pb.ModelVersion
) -> None:
    version(registry, source="models:/churn/2")

    assert version(registry, source="models:/churn/3").storage_uri == "s3://models/a"


def test_a_copys_files_stay_where_they_are_after_a_rename(
    registry: Registry, origin: pb.ModelVersion
) -> None:
    model(registry, "copy")
    version(registry, "copy", source="models:/churn/2")
    rename(registry, "churn", "retention")

    assert numbered(registry, 1, "copy").storage_uri == "s3://models/a"


def test_what_the_caller_says_of_the_run_is_kept(
    registry: Registry, origin: pb.ModelVersion
) -> None:
    lineage = pb.Lineage(run_id="run9")

    made = version(registry, source="models:/churn/2", lineage=lineage)

    assert (made.lineage.run_id, made.lineage.logged_model_id) == ("run9", "m-1")


def test_the_strict_policy_refuses_another_run_than_the_sources(
    registry: Registry, origin: pb.ModelVersion, database: Database
) -> None:
    strict = Registry(database, sources=Sources("strict"))
    lineage = pb.Lineage(run_id="run9")

    with refused("SOURCE_NOT_IN_RUN"):
        version(strict, source="models:/churn/2", lineage=lineage)
    with refused("SOURCE_UNSAFE"):
        version(strict, source="s3://a", storage_uri="s3://a/../b")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("models:/churn/9", "VERSION_NOT_FOUND"),
        ("models:/ghost/1", "MODEL_NOT_FOUND"),
        ("models:/churn/Nowhere", "STAGE_NOT_FOUND"),
        ("models:/churn/Staging", "STAGE_EMPTY"),
        ("models:/churn@nobody", "ALIAS_NOT_FOUND"),
        ("models:/churn", "INVALID_FIELD"),
        ("models:/churn/1/x", "INVALID_FIELD"),
    ],
)
def test_a_source_that_names_nothing_is_refused(
    registry: Registry, origin: pb.ModelVersion, source: str, reason: str
) -> None:
    with refused(reason):
        version(registry, source=source)

    latest = pb.ResolveModelVersionRequest(model="churn")
    assert registry.ResolveModelVersion(latest, ANONYMOUS).version.version == 2
