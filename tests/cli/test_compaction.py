"""`stagewire database compact`, with real processes that are killed, interrupted and in the way."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stagewire import pb
from stagewire.client import Client
from stagewire.service.registry import Registry
from stagewire.store.opening import open_database
from tests.cli.conftest import Run
from tests.cli.test_log import AS_FROM_A_TERMINAL
from tests.factories import versions
from tests.servers import RunningServer
from tests.wire import streams

VERSIONS = 8
HEAD = VERSIONS + 2
DEADLINE_SECONDS = 30.0


@pytest.fixture
def log_url(database_url: str) -> str:
    """Give a registry of some revisions that nobody serves."""
    database = open_database(database_url, readers=2)
    registry = Registry(database)
    registry.bootstrap()
    versions(registry, VERSIONS)
    database.close()
    return database_url


@contextmanager
def compacting(url: str, line: str, failpoints: str = "") -> "Iterator[subprocess.Popen[str]]":
    with subprocess.Popen(
        [
            *(sys.executable, "-c", AS_FROM_A_TERMINAL, "database", "compact"),
            *("--database-url", url, *shlex.split(line)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "STAGEWIRE_FAILPOINTS": failpoints},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def compact(url: str, line: str = "--keep-days 0", failpoints: str = "") -> tuple[int, str, str]:
    with compacting(url, line, failpoints) as process:
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
        return process.returncode, out, err


def mark(run: Run, url: str) -> int:
    ran = run("verify-log -o json --database-url", url).json
    assert ran["intact"]
    return int(ran["first_revision"]) - 1


def test_old_revisions_go_and_one_line_says_so(log_url: str, run: Run) -> None:
    code, out, err = compact(log_url)

    assert (code, err) == (0, "")
    assert out.startswith(f"compacted {HEAD} revisions, up to revision {HEAD} of 20")
    assert out.endswith("; the log holds 0\n")
    assert run("verify-log --database-url", log_url).out.startswith("intact: there is nothing")


def test_a_dry_run_says_what_would_go_and_changes_nothing(log_url: str, run: Run) -> None:
    said = run("database compact --keep-days 0 --dry-run -o json --database-url", log_url).json
    text = run("database compact --keep-days 0 --dry-run --database-url", log_url).out
    young = run("database compact --keep-days 1 --database-url", log_url)

    assert (said["revisions"], said["compacted_revision"], said["kept"]) == (HEAD, HEAD, 0)
    assert said["dry_run"] is True
    assert f"{HEAD} revisions, up to revision {HEAD} of {said['compacted_time']}" in text
    assert (young.code, young.out) == (0, f"nothing is as old as that; the log holds {HEAD}\n")
    assert mark(run, log_url) == 0


@pytest.mark.parametrize("days", ["-1", "many", "nan", "inf"])
def test_an_age_that_is_none_is_a_usage_error(run: Run, days: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"

    for line in (f"--keep-days={days}", ""):
        ran = run(f"database compact {line} --database-url", url)

        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert "--keep-days" in ran.err


def test_a_database_without_a_registry_is_refused(run: Run, tmp_path: Path) -> None:
    ran = run("database compact --keep-days 0 --database-url", f"sqlite:///{tmp_path / 'none.db'}")

    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "run: stagewire database upgrade" in ran.err


@pytest.mark.fault
def test_a_killed_compaction_leaves_whole_batches_and_the_next_goes_on(
    log_url: str, run: Run
) -> None:
    killed = compact(log_url, "--keep-days 0 --batch 3", "mark.moved=kill@3")
    left = mark(run, log_url)
    code, out, _ = compact(log_url, "--keep-days 0 --batch 3")

    assert killed == (-signal.SIGKILL, "", "")
    assert left == 6
    assert (code, out.partition(",")[0]) == (0, f"compacted {HEAD - 6} revisions")


@pytest.mark.fault
def test_an_interrupted_compaction_ends_with_130_and_whole_batches(log_url: str, run: Run) -> None:
    with compacting(log_url, "--keep-days 0 --batch 3", "mark.moved=stop@2") as process:
        _wait_until_stopped(process.pid)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=DEADLINE_SECONDS)

    assert (process.returncode, out, err) == (130, "", "")
    assert mark(run, log_url) in {3, 6}


def _wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def served_file(sqlite_url: str) -> Iterator[str]:
    """Serve a file of some revisions."""
    with RunningServer(sqlite_url) as server, Client(server.address) as client:
        streams.versions(client, VERSIONS)
        yield sqlite_url


def test_a_served_file_is_not_compacted(served_file: str, run: Run) -> None:
    ran = run("database compact --keep-days 0 --database-url", served_file)
    dry = run("database compact --keep-days 0 --dry-run --database-url", served_file)

    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "stop it first" in ran.err
    assert dry.out.startswith(f"would compact {HEAD} revisions")
    assert mark(run, served_file) == 0


def test_a_served_postgresql_is_compacted(postgres_url: str) -> None:
    with RunningServer(postgres_url) as server, Client(server.address) as client:
        streams.versions(client, VERSIONS)
        code, out, err = compact(postgres_url, "--keep-days 0 -o json")
        created = streams.version(client).revision
        top = client.watches.GetHead(pb.GetHeadRequest())

    assert (code, err) == (0, "")
    assert json.loads(out)["revisions"] == HEAD
    assert (top.compacted_revision, top.revision) == (HEAD, created)
