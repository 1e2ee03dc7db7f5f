"""How much of a fault is shown: a fast part by default, all of it with STAGEWIRE_FAULTS=long."""

from __future__ import annotations

import os

import pytest

#: At length nothing hangs unseen either, but no test is ended for being thorough.
LONGEST_SECONDS = 3600


@pytest.fixture
def at_length() -> bool:
    """Say whether faults are to be shown as often and for as long as `make faults` does."""
    return _at_length()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests at length the time that they take."""
    if not _at_length():
        return
    for item in items:
        if item.get_closest_marker("fault"):
            # Before the test's own, which is for its short form.
            item.add_marker(pytest.mark.timeout(LONGEST_SECONDS), append=False)


def _at_length() -> bool:
    return os.environ.get("STAGEWIRE_FAULTS") == "long"
