"""Unmodified clients of three releases obey the same laws against ours, and against MLflow's own.

The laws lie in `clients/`. What MLflow itself does not obey is an intended difference: it is
listed with its reason in `differences.py`, and must differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.mlflow.processes import CLIENTS, RELEASES, Release, run_inside

if TYPE_CHECKING:
    from tests.mlflow.processes import MlflowServer, Stagewire

LAWS = str(CLIENTS / "laws")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("release", RELEASES)
def test_an_unmodified_client_needs_no_more_than_our_address(
    stagewire: Stagewire, release: Release
) -> None:
    run_inside(release, LAWS, REGISTRY=stagewire.url, REGISTRY_IS="stagewire")


@pytest.mark.timeout(400)
def test_the_laws_are_those_of_mlflow_but_for_the_intended_differences(
    mlflow_server: MlflowServer,
) -> None:
    run_inside("3", LAWS, REGISTRY=mlflow_server.url, REGISTRY_IS="mlflow")
