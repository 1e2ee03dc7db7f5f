"""How much of a fault is shown: a fast part by default, all of it with STAGEWIRE_FAULTS=long."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def at_length() -> bool:
    """Say whether faults are to be shown as often and for as long as `make faults` does."""
    return os.environ.get("STAGEWIRE_FAULTS") == "long"
