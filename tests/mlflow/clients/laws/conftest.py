"""An unmodified client, and plain HTTP, for the registry that the environment names.

`REGISTRY` is its address, `REGISTRY_HTTP` the one for plain HTTP where that is another,
`REGISTRY_IS` whose it is, and `TRACKING` is a tracking server. Models are named apart, for all
laws share a registry with other releases' laws.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import httpx
import mlflow
import pytest
from mlflow import MlflowClient

from tests.mlflow.clients.apis import Api
from tests.mlflow.clients.releases import RELEASE
from tests.mlflow.differences import LAWS

if TYPE_CHECKING:
    from collections.abc import Iterator

REGISTRY = os.environ["REGISTRY"]
REGISTRY_HTTP = os.environ.get("REGISTRY_HTTP", REGISTRY)
TRACKING = os.environ["TRACKING"]

#: What a release can't do, its laws can't tell.
collect_ignore = [
    *(["test_prompts.py"] if RELEASE < (2, 21) else []),
    *(["test_webhooks.py"] if RELEASE < (3, 3) else []),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect MLflow itself to break the laws that are ours alone, and to keep all others."""
    if os.environ["REGISTRY_IS"] == "mlflow":
        for item in items:
            reason = LAWS.get(getattr(item, "originalname", item.name))
            if reason is not None:
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.fixture(scope="session")
def registry() -> str:
    """Where the registry is."""
    return REGISTRY


@pytest.fixture(scope="session", autouse=True)
def _addresses() -> None:
    mlflow.set_tracking_uri(TRACKING)
    mlflow.set_registry_uri(REGISTRY)


@pytest.fixture(scope="session")
def client() -> MlflowClient:
    """Give MLflow's client as its users have it: told of two addresses and of nothing else."""
    return MlflowClient(tracking_uri=TRACKING, registry_uri=REGISTRY)


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """Send what a client would not."""
    with httpx.Client(base_url=REGISTRY_HTTP, timeout=30) as http:
        yield Api(http)


@pytest.fixture
def name() -> str:
    """Give a name that no other law has."""
    return f"law-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def other(name: str) -> str:
    """Give another such name, which comes after the first in every order."""
    return f"{name}-other"


@pytest.fixture
def model(client: MlflowClient, name: str) -> str:
    """Have a model, and give its name."""
    client.create_registered_model(name)
    return name


@pytest.fixture
def two(client: MlflowClient, model: str) -> str:
    """Have a model with two versions, and give its name."""
    for number in (1, 2):
        client.create_model_version(model, f"s3://models/{number}", run_id=f"run{number}")
    return model
