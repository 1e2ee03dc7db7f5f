"""Targets, and how many requests of a kind are sent: all of them with STAGEWIRE_HOSTILE=long."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from tests.hostile import tables
from tests.hostile.scenes import lay_out
from tests.hostile.targets import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

#: At length nothing hangs unseen either, but no test is ended for being thorough.
_LONGEST_SECONDS = 3600


@pytest.fixture
def target(database_url: str, tmp_path: Path) -> Iterator[Target]:
    """Run a watched server on each database in turn, with something in its registry."""
    with Target(database_url, tmp_path) as serving:
        serving.ids = lay_out(serving)
        yield serving


@pytest.fixture
def many() -> bool:
    """Say whether as many requests are sent as `make hostile` sends."""
    return _many()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests at length the time that they take."""
    for item in items:
        if _many() and item.get_closest_marker("hostile"):
            item.add_marker(pytest.mark.timeout(_LONGEST_SECONDS), append=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what came of each kind, and write it where a file is named for it."""
    rows = tables.gather(terminalreporter.stats)
    if not rows:
        return
    width = max(terminalreporter._tw.fullwidth, 160)
    Console(file=terminalreporter._tw._file, width=width).print(tables.show(rows))
    if path := os.environ.get(tables.FILE):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(tables.about(rows, many=_many()), indent=2) + "\n")


def _many() -> bool:
    return os.environ.get("STAGEWIRE_HOSTILE") == "long"
