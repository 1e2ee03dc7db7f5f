"""What every test of MLflow stands on: ours on each database, and a real server of MLflow's.

These tests run in our environment and ask MLflow's by `mlflow_python` or `run_inside`. What lies
in `clients/` runs inside MLflow's environments, and is collected there alone. A server is started
once a session: tests name their models apart.
"""

from __future__ import annotations

import base64
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
import sqlalchemy as sa

from tests.conftest import TEMPLATE, _administer
from tests.mlflow.processes import MlflowServer, Stagewire

if TYPE_CHECKING:
    from collections.abc import Iterator

collect_ignore = ["clients"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all that lies here as what `make test-mlflow` runs."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.mlflow)


class StartStagewire(Protocol):
    """Starts ours on a fresh registry, which ends with the session."""

    def __call__(self, kind: str, **settings: object) -> Stagewire:
        """Give it; `kind` is sqlite or postgresql."""


@pytest.fixture(scope="session")
def start_stagewire(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartStagewire]:
    """Start as many of ours as are asked for, each on a fresh registry."""
    started = 0

    def start(kind: str, **settings: object) -> Stagewire:
        nonlocal started
        started += 1
        folder = tmp_path_factory.mktemp("stagewire")
        url = f"sqlite:///{folder}/registry.db"
        if kind == "postgresql":
            maintenance: str = request.getfixturevalue("postgres")
            name = f"mlflow_{started}"
            _administer(maintenance, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
            url = sa.make_url(maintenance).set(database=name).render_as_string(hide_password=False)
        return stack.enter_context(Stagewire(url, folder / "server.log", **settings))

    # PostgreSQL has to outlast those that stand on it.
    request.getfixturevalue("postgres")
    with ExitStack() as stack:
        yield start


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def stagewire(
    request: pytest.FixtureRequest,
    start_stagewire: StartStagewire,
    tmp_path_factory: pytest.TempPathFactory,
) -> Stagewire:
    """Serve a registry on each database in turn, once a session."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(base64.urlsafe_b64encode(os.urandom(32)).decode())
    return start_stagewire(
        request.param,
        secrets_key_file=keys,
        # The laws' receivers of webhooks are on this host.
        webhook_allowed_schemes='["http", "https"]',
        webhook_allow_private_addresses=True,
    )


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Serve MLflow's own registry, runs and artifacts, once a session."""
    with MlflowServer(tmp_path_factory.mktemp("mlflow")) as running:
        yield running
