"""MLflow's registry at `stagewire://`: the plugin obeys the laws of the REST API, and its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.mlflow.processes import CLIENTS, Release, run_inside

if TYPE_CHECKING:
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
