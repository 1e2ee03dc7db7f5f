"""The agent from the command line, against a real server."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run

CARRY_OUT = "import os, shutil, sys; shutil.copyfileobj(sys.stdin, open(sys.argv[1], 'a'))"


@pytest.fixture
def deploy(tmp_path: Path) -> tuple[str, Path]:
    """A command that writes each order to a file, and the file."""
    script = tmp_path / "deploy.py"
    script.write_text(CARRY_OUT)
    orders = tmp_path / "orders"
    return f"{sys.executable} {script} {orders}", orders


def test_once_carries_out_what_is_desired_and_reports_it(
    registry: Run, deploy: tuple[str, Path]
) -> None:
    command, orders = deploy
    registry("version create churn --create-model --source s3://m/1")
    registry("promote churn 1 --stage Production")

    ran = registry("agent --target eu/prod --stage Production --once --exec", command)

    assert ran.code == 0, ran.err
    assert json.loads(orders.read_text())["source"] == "s3://m/1"
    assert registry("deployment status churn -o name").out == "1/1\n"


def test_once_says_when_something_could_not_be_carried_out(registry: Run) -> None:
    registry("version create churn --create-model")
    registry("promote churn 1 --stage Production")

    ran = registry("agent --target eu/prod --stage Production --once --exec false")

    assert ran.code == 1
    assert ran.err.endswith("(NOT_IN_SYNC)\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_an_agent_that_is_told_to_stop_stops_in_order(
    registry: Run, deploy: tuple[str, Path], number: signal.Signals, code: int
) -> None:
    registry("version create churn --create-model")
    registry("promote churn 1 --stage Production")

    with subprocess.Popen(
        [
            *(sys.executable, "-m", "stagewire.cli.main", "agent", "--target", "t"),
            *("--stage", "Production", "--exec", deploy[0]),
        ],
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        assert agent.stderr is not None
        first = agent.stderr.readline()
        agent.send_signal(number)
        left = agent.wait(30)
        rest = agent.stderr.read()

    assert re.fullmatch(r"stagewire: deploy churn version 1\n", first)
    assert left == code
    assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("", "--exec"),
        ("--exec true --http http://x/", "--exec"),
        ("--http ftp://x/", "--http"),
        ("--exec true --timeout nan", "--timeout"),
        ("--exec true --model a --model b*", "--model"),
    ],
)
def test_a_wrong_agent_is_a_usage_error(run: Run, options: str, named: str) -> None:
    ran = run(f"--address 127.0.0.1:1 agent --target t --stage s {options}")

    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert named in ran.err
