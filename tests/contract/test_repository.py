"""What the files around the code promise: locks without addresses, a README that is true."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

import pytest

import stagewire
from tests.contract.protos import ROOT

if TYPE_CHECKING:
    from pathlib import Path

LOCKS = sorted(ROOT.glob("requirements*.lock"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("lock", LOCKS, ids=[lock.name for lock in LOCKS])
def test_locks_name_no_host(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")

    assert re.findall(r"\S*://\S*|^-.*|\S+ @ \S+", text, re.MULTILINE) == []


@pytest.mark.parametrize("lock", LOCKS, ids=[lock.name for lock in LOCKS])
def test_locks_pin_every_package_by_hash(lock: Path) -> None:
    entries = re.split(r"\n(?=\w)", lock.read_text(encoding="utf-8").strip())

    assert [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []


def test_the_readme_names_folders_that_exist() -> None:
    table = README.partition("## Layout")[2].partition("\n## ")[0]
    folders = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)

    assert len(folders) > 5
    assert [folder for folder in folders if not (ROOT / folder).exists()] == []


def test_the_documents_name_files_that_exist() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    files = [
        f"/{path.relative_to(ROOT)}"
        for folder in ("protos", "src", "tests", "tools", "examples", "benchmarks")
        for path in (ROOT / folder).rglob("*.*")
    ]

    lost = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in pages
        for name in re.findall(r"`([\w/]+\.(?:py|proto))`", page.read_text(encoding="utf-8"))
        if not any(file.endswith(f"/{name}") for file in files)
    ]

    assert lost == []


def test_the_page_on_security_names_tests_that_exist() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)

    lost = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).exists() or f"def {test}(" not in (ROOT / file).read_text("utf-8")
    ]

    assert named
    assert lost == []


def test_the_readme_names_make_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))

    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets


def test_the_release_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert project["version"] == stagewire.__version__
