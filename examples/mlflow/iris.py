"""Train on the irises, log, register, move through stages, load back: all of it MLflow's own API.

Needs MLflow and scikit-learn, 2.x or 3.x alike, and knows nothing of Stagewire but its address:
`MLFLOW_REGISTRY_URI=http://127.0.0.1:8080 python examples/mlflow/iris.py`. Runs and files go to
wherever MLflow keeps them.
"""

from __future__ import annotations

import mlflow
from mlflow import MlflowClient
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

NAME = "iris-classifier"


def register(strength: float) -> str:
    """Fit a model, log it, and register it from its run; return the version's number."""
    rows, labels = load_iris(return_X_y=True)
    with mlflow.start_run() as run:
        model = LogisticRegression(C=strength, max_iter=1000).fit(rows, labels)
        mlflow.log_param("C", strength)
        mlflow.log_metric("accuracy", model.score(rows, labels))
        mlflow.sklearn.log_model(model, "model", input_example=rows[:2])
    registered = mlflow.register_model(f"runs:/{run.info.run_id}/model", NAME)
    print(f"version {registered.version}: C={strength}, run {run.info.run_id}")
    return str(registered.version)


def main() -> None:
    """Register two versions, promote both in turn, and load them by every name they have."""
    client = MlflowClient()
    rows, _ = load_iris(return_X_y=True)
    weak, strong = register(0.01), register(10.0)
    expected = {
        number: mlflow.pyfunc.load_model(f"models:/{NAME}/{number}").predict(rows).tolist()
        for number in (weak, strong)
    }
    assert expected[weak] != expected[strong]

    client.transition_model_version_stage(NAME, weak, "Staging")
    client.transition_model_version_stage(NAME, weak, "Production")
    client.transition_model_version_stage(NAME, strong, "Staging")
    client.set_registered_model_alias(NAME, "champion", weak)
    assert [v.version for v in client.get_latest_versions(NAME, stages=["Staging"])] == [strong]
    for uri, number in {
        f"models:/{NAME}/Production": weak,
        f"models:/{NAME}/Staging": strong,
        f"models:/{NAME}@champion": weak,
        f"models:/{NAME}/latest": strong,
    }.items():
        assert mlflow.pyfunc.load_model(uri).predict(rows).tolist() == expected[number]
        print(f"{uri} predicts as version {number} does")

    client.transition_model_version_stage(
        NAME, strong, "Production", archive_existing_versions=True
    )
    client.set_registered_model_alias(NAME, "champion", strong)
    assert client.get_model_version(NAME, weak).current_stage == "Archived"
    for uri in (f"models:/{NAME}/Production", f"models:/{NAME}@champion"):
        assert mlflow.pyfunc.load_model(uri).predict(rows).tolist() == expected[strong]
        print(f"{uri} predicts as version {strong} does")


if __name__ == "__main__":
    main()
