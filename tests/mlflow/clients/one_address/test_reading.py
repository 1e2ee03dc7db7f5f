"""What a newer client registered as a logged model, an older one loads, which knows of none."""

from __future__ import annotations

import json
import os

import mlflow
import mlflow.pyfunc
from sklearn.datasets import load_iris

NAME = os.environ["NAME"]


def test_an_older_client_loads_a_newer_ones_version() -> None:
    mlflow.set_tracking_uri(os.environ["ADDRESS"])
    features, _ = load_iris(return_X_y=True)
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    assert loaded.predict(features[::10]).tolist() == json.loads(os.environ["EXPECTED"])
