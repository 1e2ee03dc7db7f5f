"""Watches that begin together are judged together, and none is forgotten."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from stagewire import pb
from stagewire.rights import EVERYTHING
from stagewire.service import watching
from stagewire.service.tail import Filter
from stagewire.service.watching import Beginnings

if TYPE_CHECKING:
    import pytest

    from stagewire.service.registry import Registry


async def test_a_watch_that_comes_just_as_the_last_worker_ends_is_judged_too(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "WORKERS", 1)
    request = pb.WatchRequest(start=pb.WATCH_START_NOW)
    filter_ = Filter.of(request.filter)

    with ThreadPoolExecutor(1) as pool:
        beginnings = Beginnings(registry.database, pool)
        async with asyncio.timeout(10):
            first = await beginnings.begin(request, filter_, EVERYTHING)
            second = await beginnings.begin(request, filter_, EVERYTHING)

    assert second.session > first.session
