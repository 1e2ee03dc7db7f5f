"""MLflow's own server and ours answer alike, but for the differences that are meant.

STAGEWIRE_DIFFERENTIAL_EXAMPLES=2000 makes it longer, and random.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.mlflow.processes import CLIENTS, run_inside

if TYPE_CHECKING:
    from tests.mlflow.processes import MlflowServer, Stagewire

ASKED = {k: v for k, v in os.environ.items() if k.startswith("STAGEWIRE_DIFFERENTIAL_")}


@pytest.mark.timeout(3600)
def test_the_same_requests_get_the_same_answers(
    stagewire: Stagewire, mlflow_server: MlflowServer
) -> None:
    run_inside(
        "3", str(CLIENTS / "differential"), THEIRS=mlflow_server.url, OURS=stagewire.url, **ASKED
    )
