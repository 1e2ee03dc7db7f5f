"""One address for runs, files and versions: ours, with a real server of MLflow's behind it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.mlflow.processes import CLIENTS, run_inside

if TYPE_CHECKING:
    from tests.mlflow.conftest import StartStagewire
    from tests.mlflow.processes import MlflowServer

SUITE = CLIENTS / "one_address"


@pytest.mark.timeout(300)
def test_one_address_serves_runs_files_and_versions(
    start_stagewire: StartStagewire, mlflow_server: MlflowServer
) -> None:
    ours = start_stagewire("sqlite", upstream_tracking_uri=mlflow_server.url)
    told = {"ADDRESS": ours.url, "NAME": "one-address"}
    said = run_inside("3", str(SUITE / "test_logging.py"), "-s", **told)
    expected = re.search(r"^\.?(\[[0-9, ]+\])$", said, re.MULTILINE)
    assert expected, said
    run_inside("2.22", str(SUITE / "test_reading.py"), EXPECTED=expected[1], **told)
