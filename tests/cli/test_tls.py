"""What `stagewire serve` refuses about TLS and addresses: one line each, with the remedy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.authorities import HERE, Authority, private_pem

Process = Callable[..., "subprocess.CompletedProcess[str]"]

TLS = "--tls-certificate-file tls.crt --tls-key-file tls.key"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder that has a pair, another's key, and files that hold neither."""
    authority = Authority()
    authority.issue(HERE).write(tmp_path)
    (tmp_path / "other.key").write_bytes(authority.issue(HERE).key)
    (tmp_path / "garbage").write_text("no PEM")
    (tmp_path / "locked.key").write_bytes(
        private_pem(ec.generate_private_key(ec.SECP256R1()), b"secret")
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("--tls-certificate-file tls.crt", "say --tls-key-file too"),
        ("--tls-key-file tls.key", "say --tls-certificate-file too"),
        ("--tls-client-ca-file tls.crt", "say --tls-certificate-file too"),
        ("--tls-certificate-file none --tls-key-file tls.key", "none can't be read (No such file"),
        ("--tls-certificate-file tls.crt --tls-key-file .", ". can't be read (Is a directory)"),
        ("--tls-certificate-file tls.crt --tls-key-file other.key", "the server's own comes first"),
        ("--tls-certificate-file garbage --tls-key-file tls.key", "holds no certificates in PEM"),
        ("--tls-certificate-file tls.crt --tls-key-file garbage", "holds no private key in PEM"),
        ("--tls-certificate-file tls.crt --tls-key-file locked.key", "is encrypted; decrypt it"),
        (f"{TLS} --tls-client-ca-file garbage", "garbage holds no certificates in PEM"),
        (
            "--grpc-address 0.0.0.0:0",
            "0.0.0.0:0 can be reached from other hosts, without TLS",
        ),
        ("--http-address [::]:0", "[::]:0 can be reached from other hosts, without TLS; give"),
        ("--http-address :0", "with --allow-plaintext"),
    ],
)
def test_what_can_not_be_served_safely_is_refused_in_one_line(
    folder: Path, process: Process, line: str, remedy: str
) -> None:
    ran = process("serve --database-url sqlite:///registry.db", *line.split())

    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("stagewire: ")
    assert ran.stderr.count("\n") == 1
    assert remedy in ran.stderr
    assert not (folder / "registry.db").exists()


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 1024),  # noqa: S505  # refused, and that is the point
    ],
)
def test_a_key_that_grpc_can_not_speak_with_is_refused(
    folder: Path, process: Process, key: Any
) -> None:
    Authority().issue_named(key=key).write(folder)

    ran = process("serve", *TLS.split())

    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "use RSA with at least 2048 bits" in ran.stderr


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """Serve, give what it says on standard error once it serves, and stop it."""
    command = [sys.executable, "-m", "stagewire.cli.main", "serve", *options]
    command += ["--database-url", "sqlite:///registry.db", "--drain-seconds", "0"]
    command += ["--goodbye-seconds", "0"]
    with (
        Path("said").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            first = server.stdout.readline()
            yield first + Path("said").read_text()
        finally:
            server.terminate()


def test_each_flag_that_gives_safety_up_is_a_warning_at_every_start(folder: Path) -> None:
    beyond = ("--grpc-address", "0.0.0.0:0", "--http-address", "0.0.0.0:0")
    for _ in range(2):
        with serving(*beyond, "--allow-plaintext", "--allow-anonymous") as said:
            for flag in ("--allow-plaintext", "--allow-anonymous"):
                (line,) = (line for line in said.splitlines() if flag in line)
                assert '"level":"warning"' in line
                assert '"reachable":["0.0.0.0:0","0.0.0.0:0"]' in line


def test_with_a_certificate_addresses_that_others_reach_are_served(folder: Path) -> None:
    beyond = ("--grpc-address", "0.0.0.0:0", "--http-address", "[::]:0", "--allow-anonymous")

    with serving(*beyond, *TLS.split()) as said:
        assert "serves gRPC on grpcs://0.0.0.0:" in said
        assert "on https://[::]:" in said
        assert "PLAINTEXT" not in said
