"""Unmodified clients of three releases obey the same laws against ours, and against MLflow's own.

The laws lie in `clients/`. What MLflow itself does not obey is an intended difference: it is
listed with its reason in `differences.py`, and must differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.mlflow.processes import CLIENTS, RELEASES, Process, Release, run_inside

if TYPE_CHECKING:
    from tests.mlflow.processes import MlflowServer, Stagewire

LAWS = str(CLIENTS / "laws")


def obey(release: Release, registry: Process, tracking: MlflowServer) -> None:
    """Hold a registry to every law, as a release's client does that has its runs elsewhere."""
    is_mlflow = registry is tracking
    run_inside(
        release,
        LAWS,
        REGISTRY=registry.url,
        REGISTRY_IS="mlflow" if is_mlflow else "stagewire",
        TRACKING=tracking.url,
    )


@pytest.mark.timeout(400)
@pytest.mark.parametrize("release", RELEASES)
def test_an_unmodified_client_needs_no_more_than_our_address(
    stagewire: Stagewire, mlflow_server: MlflowServer, release: Release
) -> None:
    obey(release, stagewire, mlflow_server)


@pytest.mark.timeout(400)
def test_the_laws_are_those_of_mlflow_but_for_the_intended_differences(
    mlflow_server: MlflowServer,
) -> None:
    obey("3", mlflow_server, mlflow_server)
