"""The file that hands the first admin's token to the server."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import structlog

from stagewire.access import bootstrap
from stagewire.service import tokens


def test_what_is_written_is_read_and_is_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "bootstrap"
    id_, secret = tokens.mint()

    bootstrap.write(path, id_, secret)

    assert bootstrap.read(path) == (id_, tokens.hashed(secret))
    assert secret.rpartition("_")[2] not in path.read_text()


def test_nobody_else_may_read_it_whatever_the_umask_is(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "bootstrap"
    before = os.umask(0)

    try:
        bootstrap.write(path, *tokens.mint())
        kept = os.umask(0)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in path.parents[:2]] == [0o700, 0o700]
    assert kept == 0


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_it_never_writes_over_anything_nor_through_a_link(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bootstrap"
    elsewhere = tmp_path / "elsewhere"
    if kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(elsewhere)

    with pytest.raises(FileExistsError):
        bootstrap.write(path, *tokens.mint())

    assert not elsewhere.exists()


def test_an_orchestrator_may_mount_the_token_itself(tmp_path: Path) -> None:
    id_, secret = tokens.mint()
    path = tmp_path / "token"
    path.write_text(f"{secret}\n")

    assert bootstrap.read(path) == (id_, tokens.hashed(secret))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "letmein",
        "sw_0123456789abcdef_short",
        f"sw_0123456789ABCDEF_{'a' * 43}",
        f"sw_0123456789abcdef_{'é' * 43}",
        f"sw_0123456789abcdef_{'a' * 5000}",
        "0123456789abcdef sha256:0123",
        f"0123456789abcdef md5:{'0' * 64}",
        f"0123456789abcdef sha256:{'0' * 64} # mine",
        f"0123456789abcdef sha256:{'0' * 64}\n0123456789abcdef sha256:{'0' * 64}",
    ],
)
def test_what_is_no_token_is_refused_without_repeating_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bootstrap"
    path.write_text(text)

    with pytest.raises(ValueError, match="holds no token; delete it and run") as refused:
        bootstrap.read(path)

    assert not text or text not in str(refused.value)


def test_a_file_that_can_not_be_read_is_refused_by_its_name(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=rf"{path} can't be read \("):
            bootstrap.read(path)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o640, 1), (0o604, 1), (0o620, 1)])
def test_a_file_that_others_may_use_is_warned_of(tmp_path: Path, mode: int, warned: int) -> None:
    path = tmp_path / "bootstrap"
    bootstrap.write(path, *tokens.mint())
    path.chmod(mode)

    with structlog.testing.capture_logs() as lines:
        bootstrap.read(path)

    assert [line["log_level"] for line in lines] == ["warning"] * warned


@pytest.mark.parametrize(
    ("file", "url", "found"),
    [
        ("", "sqlite:///data/registry.db", Path("data/registry.db.bootstrap")),
        ("/run/secrets/admin", "sqlite:///data/registry.db", Path("/run/secrets/admin")),
        ("/run/secrets/admin", "postgresql://db/registry", Path("/run/secrets/admin")),
        ("", "postgresql://db/registry", None),
    ],
)
def test_it_is_where_it_was_said_else_beside_the_database(
    file: str, url: str, found: Path | None
) -> None:
    assert bootstrap.place(file, url) == found
