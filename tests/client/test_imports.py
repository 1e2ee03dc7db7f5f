"""The SDK installs and starts without the server."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        blocked = {"sqlalchemy", "alembic", "psycopg", "lark", "orjson", "structlog", "uvloop",
                   "pydantic", "pydantic_settings", "grpc_health", "grpc_reflection"}
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Blocker())
import MODULE
loaded = [name for name in sys.modules if name.startswith(
    ("stagewire.server", "stagewire.service", "stagewire.store", "stagewire.cli."))]
assert not loaded, loaded
"""


@pytest.mark.parametrize("module", ["stagewire.client", "stagewire.agent"])
def test_it_imports_where_the_servers_dependencies_are_absent(module: str) -> None:
    script = BLOCKED.replace("MODULE", module)

    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stderr


def test_it_imports_in_under_a_third_of_a_second() -> None:
    script = (
        "import time; begun = time.process_time(); import stagewire.client;"
        " print(time.process_time() - begun)"
    )

    seconds = min(
        float(subprocess.check_output([sys.executable, "-c", script], text=True)) for _ in range(3)
    )

    assert seconds < 0.3
