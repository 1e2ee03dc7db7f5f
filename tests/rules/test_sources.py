"""Which sources a version may be registered with, under each policy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagewire import errors
from stagewire.sources import Origin, Policy, Sources, is_logged_model, names_a_version

RUN = Origin("run1")
LOGGED = Origin("", "m-1")

CLIMBING = [
    "s3://models/../secret",
    "s3://models/..",
    "s3://models/%2e%2e/secret",
    "s3://models/%252e%252e%252fsecret",
    "s3://models/..%5csecret",
    "s3://models/a\\..\\b",
    "s3://models/./a",
    "s3:models/a",
    "s3://models/a%00",
    "https://host/a/..;x/b/../c",
    "https://host/a?b=/../c",
    "https://host/a#/../c",
    "mlflow-artifacts://host:1/..%2f..%2f",
    "file://elsewhere/etc/passwd",
    "http://[::1/a",
    "s3://models/" + "%" + "25" * 40 + "2e",
]
LOCAL = ["/etc", "etc", "./model", "file:///etc/passwd", "FILE:/etc", "/models/run2/artifacts", ""]
PLAIN = [
    "s3://models/churn/3",
    "s3://models//churn/3/",
    "s3://models",
    "gs://models/a b/c",
    "runs:/run1/model",
    "runs:/another/model",
    "models:/m-1",
    "models:/churn/3",
    "mlflow-artifacts:/1/run2/artifacts/model",
    "dbfs:/models/a",
    "https://host/a;x?b=c#d",
    "dummy-source",
    "prompt-template",
]


def reason(source: str, *, policy: Policy = "traversal", origin: Origin = RUN) -> str:
    """Give why a source is refused, '' when it is not."""
    sources = Sources(policy, ("/srv/models",))
    try:
        sources.check(source, origin)
    except errors.RegistryError as refusal:
        return f"{refusal.reason}{refusal.fields[0].field.removeprefix('version.source')}"
    return ""


@pytest.mark.parametrize("source", PLAIN)
def test_a_source_that_says_where_it_is_is_taken(source: str) -> None:
    assert reason(source) == ""


@pytest.mark.parametrize("source", CLIMBING)
@pytest.mark.parametrize("policy", ["traversal", "strict"])
def test_a_source_that_climbs_out_of_its_path_is_unsafe(source: str, policy: Policy) -> None:
    assert reason(source, policy=policy) in {"SOURCE_UNSAFE", "SOURCE_NOT_IN_RUN"}
    assert reason(source, policy="permissive") == ""


@pytest.mark.parametrize("source", [source for source in LOCAL if source])
def test_a_local_path_needs_its_run_or_a_root(source: str) -> None:
    assert reason(source) == "SOURCE_NOT_IN_RUN"
    assert reason(source, policy="permissive") == ""


@pytest.mark.parametrize(
    ("source", "origin"),
    [
        ("/home/me/mlruns/0/run1/artifacts/model", RUN),
        ("file:///home/me/mlruns/0/run1/artifacts/model", RUN),
        ("/home/me/mlruns/0/models/m-1/artifacts", LOGGED),
        ("/srv/models/churn", Origin()),
        ("file:/srv/models/churn", Origin()),
        ("/srv/models", Origin()),
    ],
)
def test_a_local_path_of_its_run_or_below_a_root_is_taken(source: str, origin: Origin) -> None:
    assert reason(source, origin=origin) == ""


@pytest.mark.parametrize("source", ["/srv/models/../secret", "/srv/models2/a", "/x/run1/../b"])
def test_neither_run_nor_root_lets_a_path_climb(source: str) -> None:
    assert reason(source) == "SOURCE_NOT_IN_RUN"


@pytest.mark.parametrize(
    ("source", "origin", "wanted"),
    [
        ("runs:/run1/model", RUN, ""),
        ("runs:/run2/model", RUN, "SOURCE_NOT_IN_RUN"),
        ("runs:/run1/model", Origin(), "SOURCE_NOT_IN_RUN"),
        ("models:/m-1", LOGGED, ""),
        ("models:/m-2", LOGGED, "SOURCE_NOT_IN_RUN"),
        ("mlflow-artifacts:/1/run1/artifacts", RUN, ""),
        ("mlflow-artifacts:/1/run2/artifacts", RUN, "SOURCE_NOT_IN_RUN"),
        ("s3://models/a", RUN, ""),
    ],
)
def test_the_strict_policy_wants_the_versions_own_run(
    source: str, origin: Origin, wanted: str
) -> None:
    assert reason(source, policy="strict", origin=origin) == wanted


def test_a_registered_version_and_a_logged_model_are_told_apart() -> None:
    named = ["models:/churn/3", "models:/churn@champion", "models:/m-1/2", "models:/m-1@a"]

    assert all(names_a_version(source) for source in named)
    assert is_logged_model("models:/m-0123abc")
    assert not names_a_version("models:/m-0123abc")
    assert not names_a_version("s3://models/churn")


@given(st.text(st.sampled_from("/.%2e\\:?#;a\0s3h"), max_size=40))
def test_no_text_gets_more_than_a_refusal(source: str) -> None:
    for policy in ("permissive", "traversal", "strict"):
        reason(source, policy=policy)
