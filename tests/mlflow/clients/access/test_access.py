"""An unmodified client against a registry that asks who calls: it says so in MLflow's own ways.

`TRAINER` may register models named `seen-*` and move nothing, `VIEWER` sees them; `HIDDEN` is a
model of another name. `REVOKED` was a token once.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import httpx
import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REGISTRY = os.environ["REGISTRY"]
HIDDEN = os.environ["HIDDEN"]


@pytest.fixture(params=["bearer", "basic"])
def login(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., MlflowClient]:
    """Give what makes a client of whoever has a token, sent in one way or the other."""

    def logged_in(token: str) -> MlflowClient:
        if request.param == "bearer":
            monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
        else:
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anybody")
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", token)
        return MlflowClient(tracking_uri=REGISTRY, registry_uri=REGISTRY)

    return logged_in


def refusal(work: Callable[[], object]) -> MlflowException:
    with pytest.raises(MlflowException) as caught:
        work()
    return caught.value


def fresh() -> str:
    return f"seen-{uuid.uuid4().hex}"


def test_a_token_is_taken_as_a_bearers_and_as_a_password(
    login: Callable[..., MlflowClient],
) -> None:
    client, name = login(os.environ["TRAINER"]), fresh()

    client.create_registered_model(name)
    version = client.create_model_version(name, source="s3://models/1")

    assert client.get_model_version(name, version.version).source == "s3://models/1"


def test_a_refusal_says_which_grant_would_help(login: Callable[..., MlflowClient]) -> None:
    client, name = login(os.environ["TRAINER"]), fresh()
    client.create_registered_model(name)
    client.create_model_version(name, source="s3://models/1")

    refused = refusal(lambda: client.transition_model_version_stage(name, "1", "Production"))

    assert refused.error_code == "PERMISSION_DENIED", refused.message
    assert refused.get_http_status_code() == 403
    assert f"stagewire grant create trainer --role approver --namespace default --model {name}" in (
        refused.message
    )


def test_who_may_only_look_changes_nothing(login: Callable[..., MlflowClient]) -> None:
    name = fresh()
    login(os.environ["TRAINER"]).create_registered_model(name)
    viewer = login(os.environ["VIEWER"])

    assert viewer.get_registered_model(name).name == name
    for work in (
        lambda: viewer.create_registered_model(fresh()),
        lambda: viewer.create_model_version(name, source="s3://models/1"),
        lambda: viewer.set_registered_model_tag(name, "a", "b"),
        lambda: viewer.rename_registered_model(name, fresh()),
        lambda: viewer.delete_registered_model(name),
    ):
        assert refusal(work).error_code == "PERMISSION_DENIED"


def test_what_may_not_be_seen_is_not_there(login: Callable[..., MlflowClient]) -> None:
    client = login(os.environ["VIEWER"])

    listed = [model.name for model in client.search_registered_models(max_results=1000)]

    assert HIDDEN not in listed
    assert list(client.search_model_versions(f"name = '{HIDDEN}'")) == []
    assert refusal(lambda: client.get_registered_model(HIDDEN)).error_code == (
        "RESOURCE_DOES_NOT_EXIST"
    )
    assert refusal(lambda: client.get_model_version(HIDDEN, "1")).error_code == (
        "RESOURCE_DOES_NOT_EXIST"
    )


@pytest.mark.parametrize("token", ["REVOKED", "changed", "nonsense"])
def test_who_is_not_known_is_told_so(login: Callable[..., MlflowClient], token: str) -> None:
    trainer = os.environ["TRAINER"]
    shown = {
        "REVOKED": os.environ["REVOKED"],
        "changed": trainer[:-1] + ("A" if trainer[-1] != "A" else "B"),
        "nonsense": "hunter2",
    }[token]

    refused = refusal(lambda: login(shown).search_registered_models())

    assert refused.error_code == "UNAUTHENTICATED"
    assert refused.get_http_status_code() == 401
    assert shown not in refused.message


def test_nobody_is_told_what_to_send() -> None:
    client = MlflowClient(tracking_uri=REGISTRY, registry_uri=REGISTRY)

    refused = refusal(client.search_registered_models)

    assert refused.error_code == "UNAUTHENTICATED"
    assert "Bearer TOKEN" in refused.message


def test_plain_http_is_told_by_status_and_header_how_to_log_in() -> None:
    answer = httpx.get(f"{REGISTRY}/api/2.0/mlflow/registered-models/search")

    assert answer.status_code == 401
    assert answer.json()["error_code"] == "UNAUTHENTICATED"
    assert "Basic" in answer.headers["www-authenticate"]
    assert "Bearer" in answer.headers["www-authenticate"]


def test_the_fluent_api_says_who_calls_as_well(
    login: Callable[..., MlflowClient], tmp_path: Path
) -> None:
    login(os.environ["VIEWER"])
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    mlflow.set_registry_uri(REGISTRY)

    refused = refusal(lambda: mlflow.register_model("s3://models/1", fresh()))

    assert refused.error_code == "PERMISSION_DENIED", refused.message
