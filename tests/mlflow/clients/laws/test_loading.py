"""What users write: runs and files elsewhere, and a registry that says which of them to load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlflow
import mlflow.pyfunc
import mlflow.sklearn
import pytest
from mlflow import MlflowClient
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from tests.mlflow.clients.releases import RELEASE

FEATURES, LABELS = load_iris(return_X_y=True)
SAMPLE = FEATURES[::10]


@dataclass(frozen=True)
class Trained:
    """A model that was logged to a run, and what it answers."""

    run_id: str
    expected: list[int]

    @property
    def uri(self) -> str:
        return f"runs:/{self.run_id}/model"


def train(strength: float, **logged: Any) -> Trained:
    """Train and log a model; one with more strength answers otherwise than one with less."""
    # The place of a logged model was given by another name.
    where = {"name": "model"} if RELEASE >= (3, 0) else {"artifact_path": "model"}
    # Newer releases keep pickles only where they are told to.
    form = {"serialization_format": "cloudpickle"}
    with mlflow.start_run() as run:
        model = LogisticRegression(C=strength, max_iter=500).fit(FEATURES, LABELS)
        mlflow.sklearn.log_model(
            model, **where, **form, pip_requirements=["scikit-learn"], **logged
        )
    return Trained(run.info.run_id, model.predict(SAMPLE).tolist())


@pytest.fixture(scope="module")
def weak() -> Trained:
    return train(1e-4)


@pytest.fixture(scope="module")
def strong() -> Trained:
    return train(1.0)


def predicted(uri: str) -> list[int]:
    """Load what a models: address names, and ask it."""
    answers: list[int] = mlflow.pyfunc.load_model(uri).predict(SAMPLE).tolist()
    return answers


def test_a_runs_model_is_registered_and_loaded_by_its_number(
    name: str, weak: Trained, strong: Trained
) -> None:
    assert weak.expected != strong.expected
    first = mlflow.register_model(weak.uri, name)
    second = mlflow.register_model(strong.uri, name)

    assert [str(first.version), str(second.version)] == ["1", "2"]
    assert (first.run_id, second.run_id) == (weak.run_id, strong.run_id)
    assert predicted(f"models:/{name}/1") == weak.expected
    assert predicted(f"models:/{name}/2") == strong.expected


def test_a_model_is_loaded_by_stage_alias_and_latest(
    client: MlflowClient, name: str, weak: Trained, strong: Trained
) -> None:
    for trained in (strong, weak):
        mlflow.register_model(trained.uri, name)
    client.transition_model_version_stage(name, "1", "Production")
    client.set_registered_model_alias(name, "champion", "1")

    assert predicted(f"models:/{name}/Production") == strong.expected
    assert predicted(f"models:/{name}/production") == strong.expected
    assert predicted(f"models:/{name}@champion") == strong.expected
    assert predicted(f"models:/{name}/latest") == weak.expected


def test_a_model_is_registered_while_it_is_logged(client: MlflowClient, name: str) -> None:
    trained = train(1.0, registered_model_name=name)

    assert client.get_model_version(name, "1").current_stage == "None"
    assert predicted(f"models:/{name}/1") == trained.expected


def test_a_copy_is_loaded_from_where_the_original_lies(
    client: MlflowClient, name: str, other: str, strong: Trained
) -> None:
    mlflow.register_model(strong.uri, name)
    client.copy_model_version(f"models:/{name}/1", other)

    assert predicted(f"models:/{other}/1") == strong.expected


def test_tags_are_given_with_the_registration(
    client: MlflowClient, name: str, strong: Trained
) -> None:
    mlflow.register_model(strong.uri, name, tags={"team": "risk"})

    assert client.get_model_version(name, "1").tags["team"] == "risk"


def test_a_model_that_lies_anywhere_is_registered(client: MlflowClient, name: str) -> None:
    mlflow.register_model("s3://bucket/model", name)

    assert client.get_model_version(name, "1").source == "s3://bucket/model"


def test_a_loaded_model_is_the_library_s_own(name: str, strong: Trained) -> None:
    mlflow.register_model(strong.uri, name)

    model = mlflow.sklearn.load_model(f"models:/{name}/1")

    assert isinstance(model, LogisticRegression)
    assert model.predict(SAMPLE).tolist() == strong.expected
