"""How commands connect: TLS, certificates, tokens, and what is said when that goes wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stagewire import pb
from tests.authorities import HERE, Authority, put
from tests.cli.conftest import Run
from tests.client.scripted import Registry
from tests.servers import RunningServer

SECRET = "sw_1_secret"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with files of TLS and a token, and with nothing in the environment."""
    for name in list(os.environ):
        if name.startswith("STAGEWIRE_") and name != "STAGEWIRE_HTTP_ADDRESS":
            monkeypatch.delenv(name)
    authority, clients = Authority(), Authority()
    authority.issue(HERE).write(tmp_path)
    put(tmp_path / "ca.crt", authority.pem)
    put(tmp_path / "clients.crt", clients.pem)
    mine = clients.issue("ci.example.com")
    put(tmp_path / "my.crt", mine.certificate)
    put(tmp_path / "my.key", mine.key)
    put(tmp_path / "token", SECRET.encode())
    other = authority.issue("registry.example")
    put(tmp_path / "other.crt", other.certificate)
    put(tmp_path / "other.key", other.key)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def serving(folder: Path, pair: str = "tls", **settings: str) -> RunningServer:
    return RunningServer(
        f"sqlite:///{folder}/registry.db",
        tls_certificate_file=str(folder / f"{pair}.crt"),
        tls_key_file=str(folder / f"{pair}.key"),
        **settings,
    )


@pytest.fixture
def encrypted(folder: Path) -> Iterator[str]:
    with serving(folder) as server:
        yield server.address


@pytest.fixture
def mutual(folder: Path) -> Iterator[str]:
    with serving(folder, tls_client_ca_file=str(folder / "clients.crt")) as server:
        yield server.address


def test_tls_is_spoken_with_options_before_and_after_and_variables(
    run: Run, encrypted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(f"--address {encrypted} --ca-file ca.crt model create churn")
    after = run(f"model get churn --ca-file ca.crt --address grpcs://{encrypted}")
    monkeypatch.setenv("STAGEWIRE_CA_FILE", "ca.crt")
    monkeypatch.setenv("STAGEWIRE_ADDRESS", f"grpcs://{encrypted}")
    varied = [run(line) for line in ("model list", "health", "head")]

    assert [ran.code for ran in (before, after, *varied)] == [0] * 5, [before, after, *varied]


def test_a_certificate_is_shown_where_one_is_wanted(run: Run, mutual: str) -> None:
    shown = "--cert-file my.crt --key-file my.key --ca-file ca.crt"

    for line in ("health", "head"):
        assert run(f"{line} --address {mutual} {shown}").code == 0
        assert run(f"{line} --address {mutual} --ca-file ca.crt").code == 1


def test_what_is_wrong_with_tls_is_said_in_one_line_with_the_remedy(run: Run, folder: Path) -> None:
    with serving(folder) as server:
        at = f"--address {server.address}"
        stranger = run(f"head {at} --ca-file clients.crt")
        unnamed = run(f"head {at} --tls")
        clear = run(f"head {at}")
    with serving(folder, pair="other") as server:
        named = run(f"head --address {server.address} --ca-file ca.crt")
    with RunningServer(f"sqlite:///{folder}/registry.db") as server:
        mute = run(f"head --address grpcs://{server.address} --ca-file ca.crt")

    for ran, remedy in (
        (stranger, "name whom to trust with --ca-file"),
        (unnamed, "name whom to trust with --ca-file"),
        (clear, "if it speaks TLS say --tls"),
        (named, "say --address as the certificate does"),
        (mute, "speaks no TLS; leave out grpcs://"),
    ):
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1), ran
        assert remedy in ran.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--address http://127.0.0.1:1", "is no HOST:PORT"),
        ("--address grpc://127.0.0.1:1 --tls", "leave one out"),
        ("--ca-file none", "none can't be read: No such file"),
        ("--ca-file token", "token holds no PEM"),
        ("--cert-file my.crt", "go together"),
        ("--token-file none", "none can't be read: No such file"),
        ("--token-file token --address registry.example:50051", "in clear"),
        ("--token x", "No such option"),
    ],
)
def test_what_can_not_be_connected_so_is_a_wrong_line(run: Run, line: str, said: str) -> None:
    for command in ("head", "health"):
        ran = run(f"{command} {line}")

        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert said in ran.err
        assert SECRET not in ran.err


def test_a_token_comes_from_a_file_or_the_environment_and_never_from_the_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    registry.on("GetHead", pb.GetHeadResponse(log_id="log-a", revision=1))
    try:
        run(f"head --address {registry.address} --token-file token")
        monkeypatch.setenv("STAGEWIRE_TOKEN_FILE", "token")
        run(f"head --address {registry.address}")
        monkeypatch.setenv("STAGEWIRE_TOKEN", "nearer")
        run(f"head --address {registry.address}")
    finally:
        registry.stop()

    said = [call.metadata.get("authorization") for call in registry.calls]
    assert said == [f"Bearer {SECRET}", f"Bearer {SECRET}", "Bearer nearer"]
    assert "--token " not in run("--help").out
