"""Runs, files and versions at one address: what the registry has not, it has passed on."""

from __future__ import annotations

import json
import os

import httpx
import mlflow
import mlflow.sklearn
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

ADDRESS, NAME = os.environ["ADDRESS"], os.environ["NAME"]
FEATURES, LABELS = load_iris(return_X_y=True)
SAMPLE = FEATURES[::10]


@pytest.fixture(scope="module", autouse=True)
def client() -> MlflowClient:
    mlflow.set_tracking_uri(ADDRESS)
    return MlflowClient()


@pytest.fixture(scope="module")
def expected() -> list[int]:
    """Log a model and register it in one call, as users do."""
    mlflow.set_experiment("one-address")
    with mlflow.start_run():
        model = LogisticRegression(max_iter=500).fit(FEATURES, LABELS)
        mlflow.log_metric("accuracy", model.score(FEATURES, LABELS))
        mlflow.sklearn.log_model(
            model,
            name="model",
            serialization_format="cloudpickle",
            pip_requirements=["scikit-learn"],
            registered_model_name=NAME,
        )
    return [int(label) for label in model.predict(SAMPLE)]


def test_a_logged_model_is_registered_and_loaded(client: MlflowClient, expected: list[int]) -> None:
    version = client.get_model_version(NAME, "1")
    assert version.source.startswith("models:/m-")
    assert client.get_run(version.run_id).data.metrics["accuracy"] > 0.9
    assert client.get_model_version_download_uri(NAME, "1").startswith("mlflow-artifacts:/")
    client.set_registered_model_alias(NAME, "champion", "1")
    for uri in (f"models:/{NAME}/1", f"models:/{NAME}@champion", f"models:/{NAME}/latest"):
        assert mlflow.pyfunc.load_model(uri).predict(SAMPLE).tolist() == expected
    print(json.dumps(expected))  # noqa: T201  # for who reads it with an older release


def test_files_of_a_version_are_shown(expected: list[int]) -> None:
    found = httpx.get(
        f"{ADDRESS}/model-versions/get-artifact",
        params={"name": NAME, "version": "1", "path": "MLmodel"},
    )
    assert "sklearn" in found.text
    pages = httpx.get(f"{ADDRESS}/")
    assert pages.headers["content-type"].startswith("text/html")


def test_large_files_go_up_and_come_down(client: MlflowClient, tmp_path: object) -> None:
    size = 64 * 1024 * 1024
    path = f"{tmp_path}/large.bin"
    with open(path, "wb") as file:  # noqa: PTH123  # as users write
        file.write(os.urandom(size))
    with mlflow.start_run() as run:
        mlflow.log_artifact(path)
    got = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="large.bin", dst_path=f"{tmp_path}/down"
    )
    with open(path, "rb") as sent, open(got, "rb") as found:  # noqa: PTH123
        assert sent.read() == found.read()


def test_what_is_not_logged_is_not_registered(client: MlflowClient) -> None:
    with pytest.raises(MlflowException, match="Unable to fetch model from model URI source") as no:
        client._get_registry_client().create_model_version(
            NAME, "models:/m-0123456789abcdef0123456789abcdef", await_creation_for=0
        )
    assert no.value.error_code == "INVALID_PARAMETER_VALUE"
