"""MLflow's registry at `stagewire://`: the plugin obeys the laws of the REST API, and its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.authorities import HERE, Authority, put
from tests.mlflow.processes import CLIENTS, Release, run_inside

if TYPE_CHECKING:
    from pathlib import Path

    from tests.mlflow.conftest import StartStagewire
    from tests.mlflow.processes import MlflowServer, Stagewire

#: MLflow 2.9 holds protobuf below what our messages need.
NATIVE: tuple[Release, ...] = ("3", "2.22")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("release", NATIVE)
def test_the_plugin_gives_what_the_rest_api_gives(
    stagewire: Stagewire, mlflow_server: MlflowServer, release: Release
) -> None:
    run_inside(
        release,
        str(CLIENTS / "plugin"),
        REGISTRY=stagewire.url,
        REGISTRY_GRPC=stagewire.grpc,
        MLFLOW_TRACKING_URI=mlflow_server.url,
    )


@pytest.mark.timeout(400)
@pytest.mark.parametrize("release", NATIVE)
def test_the_laws_of_unmodified_clients_hold_without_http(
    stagewire: Stagewire, mlflow_server: MlflowServer, release: Release
) -> None:
    run_inside(
        release,
        str(CLIENTS / "laws"),
        REGISTRY=f"stagewire://{stagewire.grpc}",
        REGISTRY_HTTP=stagewire.url,
        REGISTRY_IS="stagewire",
        TRACKING=mlflow_server.url,
    )


@pytest.mark.timeout(400)
@pytest.mark.parametrize("release", NATIVE)
def test_the_registry_is_reached_by_tls_either_way(
    start_stagewire: StartStagewire, tmp_path: Path, release: Release
) -> None:
    authority = Authority()
    put(tmp_path / "ca.crt", authority.pem)
    served = start_stagewire("sqlite", **authority.issue(HERE).write(tmp_path / "tls"))

    run_inside(
        release,
        str(CLIENTS / "tls"),
        REGISTRY_HTTP=served.url,
        REGISTRY_GRPC=served.grpc,
        AUTHORITY=str(tmp_path / "ca.crt"),
        MLFLOW_TRACKING_URI=served.url,
    )
