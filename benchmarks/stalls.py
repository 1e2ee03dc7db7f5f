"""A stalled reader among a thousand: what the others notice, in rounds with it and without."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks.fanout import FanOut
from tests.fleet.stalling import Ballast, Reader

if TYPE_CHECKING:
    from benchmarks.fleets import Figures
    from benchmarks.places import Stand

STREAMS = 1000
# Of 100 KB each, so that nothing more fits into the stalled reader's window.
_BALLAST_CHANGES = 3


async def measure_stall(stand: Stand, figures: Figures, *, rounds: int, events: int) -> None:
    """Time changes of a model that a thousand watch, and that the stalled one watches too."""
    fan_out = FanOut(stand.channel, stand.address, STREAMS)
    await fan_out.open_watchers()
    await fan_out.watch(1)
    ballast = await asyncio.to_thread(Ballast, stand.address, "ballast")
    with ballast:
        for _ in range(rounds):
            await asyncio.to_thread(ballast.change, _BALLAST_CHANGES)
            without = await fan_out.watch(events)
            reader = await asyncio.to_thread(Reader, stand.address, [ballast.model, fan_out.model])
            with reader:
                await asyncio.to_thread(ballast.change, _BALLAST_CHANGES)
                stalled = await fan_out.watch(events)
            figures.tell(f"1 event to {STREAMS:,}, all reading: p99", without.p99_ms, "ms")
            figures.tell(f"1 event to {STREAMS:,}, one stalled: p99", stalled.p99_ms, "ms")
            ratio = stalled.p99_ms / without.p99_ms
            figures.tell("stalled to all reading, p99", ratio, "x", most=1.3)
    fan_out.close()
