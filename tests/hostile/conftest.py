"""Targets, and how many requests of a kind are sent: all of them with STAGEWIRE_HOSTILE=long."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.hostile.scenes import lay_out
from tests.hostile.targets import Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def target(database_url: str, tmp_path: Path) -> Iterator[Target]:
    """Run a watched server on each database in turn, with something in its registry."""
    with Target(database_url, tmp_path) as serving:
        serving.ids = lay_out(serving)
        yield serving


@pytest.fixture
def many() -> bool:
    """Say whether as many requests are sent as `make hostile` sends."""
    return os.environ.get("STAGEWIRE_HOSTILE") == "long"
