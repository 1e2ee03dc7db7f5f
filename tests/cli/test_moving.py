"""`stagewire export` and `stagewire import` between real servers, killed, repeated and refused."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stagewire import pb
from stagewire.client import Client
from stagewire.service.registry import Registry
from stagewire.store.opening import open_database
from tests.cli.conftest import Ran, Run
from tests.factories import model, version
from tests.moving import content, exported, live
from tests.servers import RunningServer

pytestmark = pytest.mark.usefixtures("silent_servers")


@pytest.fixture
def source(database_url: str) -> Iterator[RunningServer]:
    """Serve a registry that has been through everything."""
    with RunningServer(database_url) as server:
        assert server.server.registry is not None
        live(server.server.registry)
        yield server


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> str:
    """Give another database of the same kind, with nothing in it."""
    if database_url.startswith("sqlite"):
        return f"sqlite:///{tmp_path / 'empty.db'}"
    make: Callable[[], str] = request.getfixturevalue("make_postgres_url")
    return make()


@pytest.fixture
def target(empty_url: str) -> Iterator[RunningServer]:
    """Serve it."""
    with RunningServer(empty_url) as server:
        yield server


def export(run: Run, server: RunningServer, path: Path, line: str = "") -> Path:
    ran = run(f"export --address {server.address} {line} -o", path)
    assert (ran.code, ran.out) == (0, ""), ran.err
    return path


def bring_in(run: Run, server: RunningServer, path: Path, line: str = "") -> Ran:
    return run(f"import --address {server.address} {line}", path)


def records(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_export_restores_an_empty_registry_to_the_same_lines(
    run: Run, source: RunningServer, target: RunningServer, tmp_path: Path
) -> None:
    first = export(run, source, tmp_path / "first.jsonl")

    ran = bring_in(run, target, first, "-o json")
    second = export(run, target, tmp_path / "second.jsonl")

    assert ran.json["imported"] > 30
    assert ran.json["skipped"] == []
    assert second.read_text().splitlines()[1:] == first.read_text().splitlines()[1:]
    assert set(records(first)[0]) == {"header"}
    assert records(first)[-1]["end"]["records"] == len(records(first)) - 2


def test_a_second_import_says_that_there_is_nothing_to_do(
    run: Run, source: RunningServer, target: RunningServer, tmp_path: Path
) -> None:
    path = export(run, source, tmp_path / "first.jsonl")
    bring_in(run, target, path)

    again = bring_in(run, target, path)

    assert again.code == 0
    assert (
        again.out == f"nothing to import: all {len(records(path)) - 2} records are here already\n"
    )


def test_a_dry_run_writes_nothing(
    run: Run, source: RunningServer, target: RunningServer, tmp_path: Path
) -> None:
    path = export(run, source, tmp_path / "first.jsonl")

    ran = bring_in(run, target, path, "--dry-run -o json").json

    assert ran["dry_run"]
    assert ran["imported"] + ran["unchanged"] == len(records(path)) - 2
    assert run(f"model list --address {target.address} -o json").json == []


def test_it_goes_through_pipes(run: Run, source: RunningServer, target: RunningServer) -> None:
    command = [sys.executable, "-m", "stagewire.cli.main"]
    with subprocess.Popen(
        [*command, "export", "--address", source.address, "-n", "risk"], stdout=subprocess.PIPE
    ) as out:
        done = subprocess.run(
            [*command, "import", "-", "--address", target.address],
            stdin=out.stdout,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 0, done.stderr
    listed = run(f"model list -n risk --address {target.address} -o name")
    assert listed.out == "scores\n"


def test_where_something_else_is_nothing_is_written_unless_told_to_skip_it(
    run: Run, source: RunningServer, target: RunningServer, tmp_path: Path
) -> None:
    path = export(run, source, tmp_path / "first.jsonl")
    address = target.address
    run(f"model create loyalty --description ours --address {address}")

    refused = bring_in(run, target, path)
    listed = run(f"model list --address {address} -o name").out
    skipping = bring_in(run, target, path, "--on-conflict skip -o json")

    assert (refused.code, listed) == (1, "loyalty\n")
    assert "imported nothing: " in refused.out
    assert "model 'loyalty' another model bears this name here" in refused.err
    assert skipping.json["skipped"][0]["subject"] == "model 'loyalty'"
    shown = run(f"model get loyalty --address {address} -o json").json
    assert shown["description"] == "ours"
    assert run(f"version get churn 4 --address {address} -o json").json["source"] == "s3://other"


def test_a_bad_line_is_refused_by_its_number_and_field_before_anything_is_written(
    run: Run, source: RunningServer, target: RunningServer, tmp_path: Path
) -> None:
    path = export(run, source, tmp_path / "first.jsonl")
    good = path.read_text().splitlines()
    place = next(n for n, line in enumerate(good) if line.startswith('{"version"'))
    long = json.loads(good[place])
    long["version"]["description"] = "x" * 5001
    wrong = {
        f"line {place + 1}: version.description: must have": json.dumps(long),
        f"line {place + 1}: is no JSON": "{",
        f"line {place + 1}: Message type": '{"version": {"colour": "red"}}',
        f"line {place + 1}: holds no record": "{}",
    }

    for said, line in wrong.items():
        path.write_text("\n".join([*good[:place], line, *good[place + 1 :]]) + "\n")
        ran = bring_in(run, target, path)
        assert (ran.code, ran.out) == (1, "")
        assert said in ran.err

    assert run(f"model list --address {target.address} -o json").json == []


def test_a_file_that_is_cut_or_changed_is_refused(
    run: Run, source: RunningServer, target: RunningServer, tmp_path: Path
) -> None:
    path = export(run, source, tmp_path / "first.jsonl")
    good = path.read_text().splitlines()
    changed = [line.replace("who leaves", "who stays") for line in good]
    end = json.loads(good[-1])
    del end["end"]["sha256"]

    for lines, said in (
        (good[:-1], "ends before the export does"),
        ([*good[:-2], good[-1]], "1 are missing"),
        (good[1:], "begins with its header"),
        ([*good, good[-1]], "follows the end"),
        (changed, "delete sha256"),
    ):
        path.write_text("\n".join(lines) + "\n")
        ran = bring_in(run, target, path)
        assert ran.code == 1
        assert said in ran.err
    path.write_text("\n".join([*changed[:-1], json.dumps(end)]) + "\n")

    assert bring_in(run, target, path).code == 0


MANY = 6000


def test_an_import_that_was_killed_half_way_is_run_again_and_completes(
    run: Run, database_url: str, target: RunningServer, tmp_path: Path
) -> None:
    database = open_database(database_url, readers=2)
    registry = Registry(database)
    registry.bootstrap()
    model(registry, "big")
    for _ in range(2):
        version(registry, "big")
    template = exported(registry)
    database.close()
    path = tmp_path / "big.jsonl"
    _multiply(template, path)

    with subprocess.Popen(
        [
            *(sys.executable, "-m", "stagewire.cli.main"),
            *("import", str(path), "--address", target.address),
        ],
        stdout=subprocess.DEVNULL,
    ) as importing:
        _wait_for(lambda: 0 < _latest(target) < MANY)
        os.kill(importing.pid, signal.SIGKILL)
    half = _latest(target)
    again = bring_in(run, target, path, "-o json").json

    assert 0 < half < MANY
    assert again["unchanged"] >= half
    assert again["imported"] + again["unchanged"] == len(path.read_text().splitlines()) - 2
    assert _latest(target) == MANY
    assert bring_in(run, target, path, "-o json").json["imported"] == 0


def _multiply(template: list[pb.RegistryRecord], path: Path) -> None:
    from stagewire.migrate import lines

    version = next(r for r in template if r.HasField("version"))
    written: list[str] = []
    for record in template:
        if record.HasField("version"):
            if record.version.version == 1:
                for number in range(1, MANY + 1):
                    version.version.version = number
                    written.append(lines.write(version))
            continue
        if record.HasField("model"):
            record.model.next_number = MANY + 1
        if record.HasField("end"):
            record.end.records = len(written) - 1
            record.end.ClearField("sha256")
        written.append(lines.write(record))
    path.write_text("\n".join(written) + "\n")


def _latest(server: RunningServer) -> int:
    with Client(server.address) as client:
        found = client.registry.ListModels(pb.ListModelsRequest()).models
        if not found:
            return 0
        return client.registry.GetModel(pb.GetModelRequest(model="big")).latest_version


def _wait_for(claim: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_export_with_its_log_is_restored_without_a_server(
    run: Run, source: RunningServer, empty_url: str, tmp_path: Path
) -> None:
    path = export(run, source, tmp_path / "whole.jsonl", "--log")

    restored = run("import -o json --database-url", empty_url, path)
    verified = run("verify-log -o json --database-url", empty_url)

    assert restored.json["revision"] == records(path)[0]["header"]["revision"]
    assert verified.json["intact"]
    assert verified.json["last_revision"] == restored.json["revision"]
    with RunningServer(empty_url) as server:
        again = export(run, server, tmp_path / "again.jsonl", "--log")
        promoted = run(f"promote loyalty 2 --stage Production --address {server.address}")
        assert promoted.code == 0
        assert run(f"verify-log -o json --address {server.address}").json["intact"]
    assert again.read_bytes() == path.read_bytes()


def test_a_compacted_log_is_restored_as_it_is(
    run: Run, database_url: str, empty_url: str, tmp_path: Path
) -> None:
    with RunningServer(database_url) as server:
        live(server.server.registry)
    assert run("database compact --keep-days 0 --database-url", database_url).code == 0
    with RunningServer(database_url) as server:
        run(f"model create after --address {server.address}")
        path = export(run, server, tmp_path / "whole.jsonl", "--log")

    assert run("import --database-url", empty_url, path).code == 0

    verified = run("verify-log -o json --database-url", empty_url).json
    assert verified["intact"]
    assert verified["first_revision"] == verified["last_revision"] > 1


def test_a_log_is_not_restored_where_something_is_or_a_server_runs(
    run: Run, source: RunningServer, target: RunningServer, tmp_path: Path
) -> None:
    path = export(run, source, tmp_path / "whole.jsonl", "--log")
    url = target.settings.database_url

    served = run("import --database-url", url, path)
    over_the_wire = bring_in(run, target, path)
    without = bring_in(run, target, path, "--without-log -o json")

    assert (served.code, served.out) == (1, "")
    assert "another process is serving" in served.err or "other sessions" in served.err
    assert "--database-url" in over_the_wire.err
    assert without.json["skipped"] == []


def test_a_log_that_does_not_hold_is_not_restored(
    run: Run, source: RunningServer, empty_url: str, tmp_path: Path
) -> None:
    path = export(run, source, tmp_path / "whole.jsonl", "--log")
    good = path.read_text().splitlines()
    place = next(n for n, line in enumerate(good) if line.startswith('{"log"'))
    row = json.loads(good[place + 1])
    row["log"]["payload"] = json.loads(good[place])["log"]["payload"]
    end = json.loads(good[-1])
    del end["end"]["sha256"]
    path.write_text(
        "\n".join([*good[: place + 1], json.dumps(row), *good[place + 2 : -1], json.dumps(end)])
    )

    ran = run("import --database-url", empty_url, path)

    assert ran.code == 1
    assert "does not hash onto the revision before it; nothing was restored" in ran.err
    database = open_database(empty_url, readers=2)
    try:
        registry = Registry(database)
        registry.bootstrap()
        assert len(content(exported(registry))) == 2
    finally:
        database.close()


def test_an_export_of_a_namespace_that_is_none_is_refused(
    run: Run, source: RunningServer, tmp_path: Path
) -> None:
    path = tmp_path / "none.jsonl"

    ran = run(f"export --address {source.address} -n nowhere -o", path)

    assert ran.code == 1
    assert "(NAMESPACE_NOT_FOUND)" in ran.err
    assert list(tmp_path.glob("*none*")) == []
