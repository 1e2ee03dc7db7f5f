"""What watches a server sees: an opened file, a started program and the words of its inside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.targets import Target


@pytest.fixture
def watched(sqlite_url: str, tmp_path: Path) -> Target:
    """Give a target that need not run."""
    return Target(sqlite_url, tmp_path)


def reached(target: Target, code: str) -> list[str]:
    """Run a line of Python under the hook, as if the server had."""
    words = target.process.inside
    subprocess.run([*words, sys.executable, "-c", code, str(target.secret)], check=True)
    return target.reached()


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("import sys; open(sys.argv[1])", "open"),
        ("import os, sys; os.open(sys.argv[1], os.O_RDONLY)", "open"),
        ("import os, sys; os.listdir(os.path.dirname(sys.argv[1]))", "os.listdir"),
        ("import os; os.system('true')", "os.system"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
        ("import socket; socket.getaddrinfo('localhost', 1)", "socket.getaddrinfo"),
    ],
)
def test_what_a_server_must_not_reach_for_is_told_of(
    watched: Target, code: str, event: str
) -> None:
    found = reached(watched, code)

    assert event in [line.partition("\t")[0] for line in found]


@pytest.mark.parametrize(
    "said",
    [
        "Traceback (most recent call last):",
        "(sqlite3.OperationalError) no such column: x",
        'column "x" does not exist [SQL: SELECT models.id, models.name FROM models]',
        "duplicate key value violates unique constraint",
        "<Row object at 0x7f3a2c1d>",
        "root:x:0:0:root:/root:/bin/sh",
        str(Path(__file__).resolve()),
    ],
)
def test_words_of_the_inside_are_leaks(watched: Target, said: str) -> None:
    assert watched.leaks(b"{" + said.encode() + b"}")
    assert not watched.leaks(b"model '../../etc/passwd' does not exist")
