"""A provider for every test that wants one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.access.issuers import Clock, Issuer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as started:
        yield started


@pytest.fixture
def clock() -> Clock:
    return Clock()
