"""Trains two classifiers on Fisher's irises and registers both as versions of one model.

Each version says what it is: metrics measured on data it was not fitted on, parameters,
signature, the digest of its file, and where it comes from. Prints one JSON object a version.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from stagewire import pb
from stagewire.client import Client

SEED = 7


@dataclass
class Irises:
    """The irises, split once for all models, with the digest of each half."""

    names: list[str]
    classes: list[str]
    train_rows: Any
    train_labels: Any
    test_rows: Any
    test_labels: Any

    def datasets(self) -> list[pb.Dataset]:
        """Return both halves by content."""
        return [
            pb.Dataset(
                name="iris/training",
                digest=digest_of(self.train_rows, self.train_labels),
                use=pb.DATASET_USE_TRAINING,
                source="sklearn.datasets.load_iris",
            ),
            pb.Dataset(
                name="iris/holdout",
                digest=digest_of(self.test_rows, self.test_labels),
                use=pb.DATASET_USE_EVALUATION,
                source="sklearn.datasets.load_iris",
            ),
        ]


def split_irises() -> Irises:
    """Load the irises and hold a third of them out."""
    irises = load_iris()
    train_rows, test_rows, train_labels, test_labels = train_test_split(
        irises.data, irises.target, test_size=1 / 3, random_state=SEED, stratify=irises.target
    )
    return Irises(
        list(irises.feature_names),
        [str(name) for name in irises.target_names],
        train_rows,
        train_labels,
        test_rows,
        test_labels,
    )


def digest_of(*arrays: Any) -> str:
    """Return the SHA-256 of arrays' bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return f"sha256:{digest.hexdigest()}"


def candidates() -> dict[str, Any]:
    """Return what is trained: a stump that can't tell three classes, and a model that can."""
    return {
        "stump": DecisionTreeClassifier(max_depth=1, random_state=SEED),
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(C=10.0, max_iter=500)),
    }


def measure(model: Any, irises: Irises) -> dict[str, float]:
    """Measure a fitted model on the rows held out."""
    begun = time.perf_counter()
    predicted = model.predict(irises.test_rows)
    seconds = time.perf_counter() - begun
    return {
        "accuracy": float(accuracy_score(irises.test_labels, predicted)),
        "f1_macro": float(f1_score(irises.test_labels, predicted, average="macro")),
        "log_loss": float(log_loss(irises.test_labels, model.predict_proba(irises.test_rows))),
        "predict_us_per_row": seconds * 1e6 / len(irises.test_rows),
    }


def git_commit() -> str:
    """Return the commit of this code, or nothing where there is none."""
    git = shutil.which("git")
    if git is None:
        return ""
    asked = subprocess.run(
        [git, "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip()


def register(client: Client, root: Path, name: str, model: Any, irises: Irises) -> pb.ModelVersion:
    """Fit a model, keep its file under the root, and register it."""
    begun = time.perf_counter()
    model.fit(irises.train_rows, irises.train_labels)
    metrics = {"fit_ms": (time.perf_counter() - begun) * 1e3, **measure(model, irises)}
    run_id = uuid.uuid4().hex
    path = root / run_id / "model.joblib"
    path.parent.mkdir(parents=True)
    joblib.dump(model, path)
    parameters = {key: repr(value) for key, value in model.get_params(deep=False).items()}
    signature = {
        "inputs": [{"name": name, "type": "double"} for name in irises.names],
        "outputs": [{"name": "species", "type": "string", "values": irises.classes}],
    }
    return client.create_version(
        "iris",
        source=path.as_uri(),
        metrics=metrics,
        tags={"family": name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        params={key: value[:6000] for key, value in parameters.items()},
        signature=json.dumps(signature),
        flavors=["sklearn"],
        lineage=pb.Lineage(
            run_id=run_id,
            experiment="iris demo",
            git_commit=git_commit(),
            datasets=irises.datasets(),
        ),
        description=f"A {name} model of the irises, trained by examples/iris/train.py.",
        reason="trained",
    )


def main() -> None:
    """Train, register, and say what was made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--models-root", required=True, type=Path)
    options = parser.parse_args()
    irises = split_irises()
    with Client(options.address) as client:
        for name, model in candidates().items():
            version = register(client, options.models_root, name, model, irises)
            print(json.dumps({"name": name, "version": version.version}), flush=True)


if __name__ == "__main__":
    main()
