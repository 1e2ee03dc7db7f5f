"""Serving and the database from the command line; and the CLI where no server is installed."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Run

Process = Callable[..., "subprocess.CompletedProcess[str]"]

SDK_ALONE = """
import sys
for name in ("alembic", "grpc_health", "lark", "psycopg", "pydantic", "pydantic_settings",
             "sqlalchemy", "structlog", "uvloop"):
    sys.modules[name] = None
from stagewire.cli import main
"""


def test_a_setting_that_is_wrong_is_a_usage_error(run: Run) -> None:
    for line in ("serve --pool-threads 0", "serve --pool-threads many"):
        ran = run(line)

        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert "--pool-threads" in ran.err


def test_a_wrong_variable_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEWIRE_POOL_THREADS", "0")

    ran = run("database check")

    assert ran.code == 2
    assert "STAGEWIRE_POOL_THREADS" in ran.err


def test_every_setting_is_an_option(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from stagewire.settings import Settings

    # Wide enough for the longest name, which a narrow terminal cuts off.
    monkeypatch.setenv("COLUMNS", "160")
    said = run("serve --help").out

    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in said


def test_a_taken_port_is_refused_in_one_line(
    process: Process, address: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'second.sqlite3'}"

    taken = process("serve --grpc-address", address, "--database-url", url)
    http = ("--grpc-address", "127.0.0.1:0", "--http-address", address)
    ran = process("serve", *http, "--database-url", url)

    assert taken.returncode == ran.returncode == 1
    assert address in taken.stderr
    said = [line for line in ran.stderr.splitlines() if line.startswith("stagewire: ")]
    assert len(said) == 1
    assert address in said[0]
    assert "Traceback" not in ran.stderr


def test_a_backup_verifies_by_itself(tmp_path: Path, process: Process) -> None:
    url = f"sqlite:///{tmp_path / 'own.sqlite3'}"
    copy = tmp_path / "copy.sqlite3"

    fresh = process("database check --database-url", url)
    made = process("database upgrade --database-url", url)
    checked = process("database check --database-url", url, "-o", "json")
    copied = process("database backup", copy, "--database-url", url)
    again = process("database backup", copy, "--database-url", url)
    verified = process("verify-log -o json --database-url", f"sqlite:///{copy}")

    assert (fresh.returncode, fresh.stderr.count("\n")) == (1, 1)
    assert made.returncode == 0, made.stderr
    assert json.loads(checked.stdout)["fits"] is True
    assert copied.returncode == 0, copied.stderr
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert json.loads(verified.stdout)["intact"] is True


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite:///no-such-folder/none.db"])
def test_a_database_that_is_none_is_refused_in_one_line(process: Process, url: str) -> None:
    for line in ("verify-log", "database check" if "none" not in url else "verify-log"):
        ran = process(line, "--database-url", url)

        assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1), ran.stderr


def test_where_only_the_sdk_is_installed_serve_says_what_is_missing() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SDK_ALONE + "sys.exit(main.main(['serve']))"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert "pip install 'stagewire[server]'" in ran.stderr


def test_where_only_the_sdk_is_installed_every_other_command_works() -> None:
    script = (
        SDK_ALONE + "[main.load(name) for name in main.CONTENTS.keys() - {'serve', 'database'}]"
    )

    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_server_says_where_it_listens_and_what_to_try(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "stagewire.cli.main", "serve", "--database-url", url),
            *("--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"),
            *("--drain-seconds", "0", "--goodbye-seconds", "0"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as serving:
        assert serving.stdout is not None
        first = serving.stdout.readline()
        serving.terminate()
        rest = serving.stdout.read()

    assert first.startswith("Stagewire serves gRPC on 127.0.0.1:")
    assert "and MLflow's API on http://127.0.0.1:" in first
    assert ":0" not in first
    assert str(tmp_path) in first
    assert "stagewire model create" in rest
