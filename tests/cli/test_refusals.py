"""What must not be served is refused in one line that says the remedy, by real servers."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.factories import sql
from tests.faults.clusters import Cluster, folder
from tests.faults.processes import ServerProcess

# "A few seconds", on a machine whose cores do other things too.
SECONDS = 30.0
CARELESS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
WRITING = ("serve --grpc-address 127.0.0.1:0", "database upgrade", "database compact --keep-days 0")

Refuse = Callable[..., str]


@pytest.fixture(scope="module")
def careless() -> Iterator[Cluster]:
    """Run a PostgreSQL that may lose what it has committed, with a registry in it."""
    with folder() as here, Cluster(here / "careless", dict(CARELESS)) as cluster:
        cluster.create_registry()
        yield cluster


@pytest.fixture
def refuse() -> Refuse:
    """Run a command that has to refuse, and give the one line that it says."""

    def refused(line: str, url: str) -> str:
        began = time.monotonic()
        ran = subprocess.run(
            [sys.executable, "-m", "stagewire.cli.main", *line.split(), "--database-url", url],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert (ran.returncode, ran.stdout) == (1, ""), ran.stderr
        (said,) = ran.stderr.splitlines()
        assert said.startswith("stagewire: ")
        assert time.monotonic() - began < SECONDS
        return said

    return refused


@contextmanager
def serving(url: str, *options: str) -> Iterator[list[dict[str, object]]]:
    """Serve until the block ends; afterwards the list holds what was logged."""
    logged: list[dict[str, object]] = []
    command = [sys.executable, "-m", "stagewire.cli.main", "serve", "--database-url", url]
    command += ["--grpc-address", "127.0.0.1:0", "--drain-seconds", "0", "--goodbye-seconds", "0"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("Stagewire serves gRPC")
            yield logged
        finally:
            process.send_signal(signal.SIGTERM)
            _, lines = process.communicate(timeout=SECONDS)
            logged.extend(map(json.loads, lines.splitlines()))
            assert process.returncode == 0


def test_a_postgresql_that_can_lose_changes_is_refused_with_the_settings_named(
    careless: Cluster, refuse: Refuse
) -> None:
    said = refuse("serve", careless.url())

    assert "fsync=off, full_page_writes=off, synchronous_commit=off" in said
    assert "turn it on" in said
    assert "--trust-storage" in said


def test_storage_that_is_trusted_is_served_from_with_a_warning(careless: Cluster) -> None:
    with serving(careless.url(), "--trust-storage") as logged:
        pass

    (warning,) = [line for line in logged if line["level"] != "info"]
    assert warning["off"] == list(CARELESS)
    assert "could lose changes" in str(warning["event"])


def test_a_standby_is_refused_also_when_storage_is_trusted(
    careless: Cluster, refuse: Refuse
) -> None:
    with folder() as here, careless.standby(here / "standby", dict(CARELESS)) as standby:
        said = refuse("serve --trust-storage", standby.url())

    assert "is a standby" in said
    assert "give the primary's address" in said


def test_a_postgresql_that_says_nothing_is_refused_in_seconds(
    careless: Cluster, refuse: Refuse
) -> None:
    with careless.frozen():
        for line in ("serve", "verify-log"):
            assert "is it running" in refuse(line, careless.url())


def test_a_postgresql_that_is_not_there_is_refused(careless: Cluster, refuse: Refuse) -> None:
    for url in (careless.url(database="none"), careless.url().replace(str(careless.port), "1")):
        assert f"can't open {url}; is it running" in refuse("serve", url)


def test_a_postgresql_without_a_registry_is_refused_with_the_command_that_makes_one(
    careless: Cluster, refuse: Refuse
) -> None:
    url = careless.url(database="postgres")

    assert f"run: stagewire database upgrade --database-url {url}" in refuse("serve", url)


def test_the_schema_of_a_newer_release_is_refused_and_left_alone(
    database_url: str, tmp_path: Path, refuse: Refuse
) -> None:
    sql(database_url, "UPDATE alembic_version SET version_num = '9999'")

    for line in (*WRITING, "verify-log"):
        said = refuse(line, database_url)

        assert "has schema 9999 of a newer release; upgrade stagewire itself" in said
    assert [path.name for path in tmp_path.glob("*before*")] == []


def test_a_served_file_is_refused_to_all_who_write(sqlite_url: str, refuse: Refuse) -> None:
    with serving(sqlite_url):
        for line in WRITING:
            said = refuse(line, sqlite_url)

            assert "another process is serving or writing" in said
            assert "stop it first" in said


def test_a_served_file_is_refused_under_every_name_it_has(
    sqlite_url: str, tmp_path: Path, refuse: Refuse
) -> None:
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(sqlite_url.removeprefix("sqlite:///"))

    with serving(sqlite_url):
        assert "another process is serving" in refuse(WRITING[0], f"sqlite:///{link}")


def test_a_served_registry_is_checked_verified_and_copied(
    sqlite_url: str, tmp_path: Path, run: Run
) -> None:
    copy = tmp_path / "copy.db"

    with serving(sqlite_url):
        checked = run("database check -o json --database-url", sqlite_url).json
        verified = run("verify-log -o json --database-url", sqlite_url).json
        copied = run("database backup", copy, "--database-url", sqlite_url)

    assert checked["fits"] is True
    assert (verified["intact"], verified["last_revision"]) == (True, 1)
    assert copied.code == 0
    assert run("verify-log -o json --database-url", f"sqlite:///{copy}").json["last_revision"] == 1


def test_a_killed_servers_file_is_served_again_at_once(sqlite_url: str, tmp_path: Path) -> None:
    with ServerProcess(sqlite_url, tmp_path / "server.log") as server:
        server.kill()
        assert Path(sqlite_url.removeprefix("sqlite:///") + ".lock").exists()
        server.start()

        assert server.stop() == 0
