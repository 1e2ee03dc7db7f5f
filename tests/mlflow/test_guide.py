"""The documents' examples, read out of them and run: real training, a real server, real files."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mlflow.processes import RELEASES, ROOT, Release, environment, mlflow_python

if TYPE_CHECKING:
    from tests.mlflow.processes import Stagewire

GUIDE = ROOT / "docs/mlflow.md"
SECURITY = ROOT / "docs/security.md"
README = ROOT / "README.md"
EXAMPLE = ROOT / "examples/mlflow/iris.py"
TELLING = Path(__file__).with_name("telling.py")


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on."""
    with ExitStack() as probes:
        found = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in found:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in found]


def reading(release: Release, **more: str) -> dict[str, str]:
    """Give a reader's environment: our commands and this MLflow's, and nothing said of either."""
    found = environment(**more)
    programs = (Path(sys.executable).parent, mlflow_python(release).parent)
    return {**found, "PATH": os.pathsep.join([*map(str, programs), found["PATH"]])}


def tell(release: Release, document: Path, folder: Path, *options: str) -> tuple[int, int]:
    """Run a document's blocks in a folder; give how many there were, and how many expectations."""
    grpc, http, tracking = free_ports(3)
    ports = {"8080": http, "50051": grpc, "5000": tracking}
    replaced = [word for old, new in ports.items() for word in ("--replace", old, str(new))]
    # Only where gRPC listens can't be read in the document: it is the default there.
    address = f"127.0.0.1:{grpc}"
    swift = {"STAGEWIRE_DRAIN_SECONDS": "0", "STAGEWIRE_GOODBYE_SECONDS": "0.1"}
    command = [str(mlflow_python(release)), "-W", "ignore", str(TELLING), str(document)]
    ended = subprocess.run(
        [*command, *replaced, *options],
        cwd=folder,
        env=reading(release, STAGEWIRE_GRPC_ADDRESS=address, STAGEWIRE_ADDRESS=address, **swift),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    counted = re.search(r"^=== (\d+) blocks, (\d+) expectations$", ended.stdout, re.MULTILINE)
    assert ended.returncode == 0, ended.stdout[-8000:]
    assert counted is not None, ended.stdout[-8000:]
    return int(counted[1]), int(counted[2])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("release", RELEASES)
def test_the_guide_runs_from_top_to_bottom_and_is_true(release: Release, tmp_path: Path) -> None:
    blocks, expectations = tell(release, GUIDE, tmp_path)

    assert blocks >= (32 if release == "3" else 24)
    assert expectations >= (45 if release == "3" else 36)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("release", RELEASES)
def test_access_is_set_up_as_the_page_on_security_says(release: Release, tmp_path: Path) -> None:
    blocks, expectations = tell(release, SECURITY, tmp_path)

    assert (blocks, expectations) == (14, 10)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("release", RELEASES)
def test_what_the_readme_says_of_mlflow_runs_and_is_true(release: Release, tmp_path: Path) -> None:
    blocks, expectations = tell(release, README, tmp_path, "--below", "## With MLflow's API")

    assert (blocks, expectations) == (3, 1)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("release", RELEASES)
def test_the_example_holds_what_it_claims(
    stagewire: Stagewire, release: Release, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [str(mlflow_python(release)), "-W", "ignore", str(EXAMPLE)],
        cwd=tmp_path,
        env=reading(release, MLFLOW_REGISTRY_URI=stagewire.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout[-8000:]
    assert (
        len(re.findall(r"^models:/\S+ predicts as version \d+ does$", ended.stdout, re.MULTILINE))
        == 6
    )
