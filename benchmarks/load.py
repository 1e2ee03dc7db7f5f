"""A closed loop of callers: each asks again as soon as it is answered."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks import wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

WARM_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Sample:
    """What one round found."""

    rate: float
    p50_ms: float
    p99_ms: float
    calls: int
    #: CPU seconds a second: of whoever made the load, and of the server.
    load_cpu: float = 0.0
    server_cpu: float = 0.0


def sample(latencies_ns: Sequence[int], seconds: float, *, calls: int = 0) -> Sample:
    """Sum a round up; `calls` counts those of the warm-up too."""
    ordered = sorted(latencies_ns)
    return Sample(
        rate=len(ordered) / seconds,
        p50_ms=ordered[len(ordered) // 2] / 1e6,
        p99_ms=ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] / 1e6,
        calls=calls or len(ordered),
    )


@dataclass(slots=True)
class _Round:
    """What the callers of a round share."""

    warm_until: int
    until: int
    running: int
    over: asyncio.Future[None]
    latencies: list[int] = field(default_factory=list)
    calls: int = 0
    failures: int = 0


class _Caller:
    """One that waits for its answer before it asks again."""

    __slots__ = ("_answered", "_bodies", "_headers", "_round", "_started", "_wire")

    def __init__(
        self, shared: _Round, connection: wire.Wire, headers: bytes, bodies: Iterator[bytes]
    ) -> None:
        self._round = shared
        self._wire = connection
        self._headers = headers
        self._bodies = bodies
        self._answered = False
        self._started = 0

    def ask(self) -> None:
        self._answered = False
        body = next(self._bodies)
        self._started = time.monotonic_ns()
        self._wire.call(self._headers, body, self)

    def data(self, _payload: bytes) -> None:
        self._answered = True

    def end(self) -> None:
        now = time.monotonic_ns()
        shared = self._round
        shared.calls += 1
        shared.failures += not self._answered
        if self._started >= shared.warm_until:
            shared.latencies.append(now - self._started)
        if now < shared.until:
            self.ask()
            return
        shared.running -= 1
        if not shared.running:
            shared.over.set_result(None)


@dataclass(slots=True)
class Generator:
    """Load on one server over a few connections."""

    address: str
    wires: list[wire.Wire]
    #: Reads the server's CPU time so far, in seconds.
    server_cpu: Callable[[], Awaitable[float]]

    async def measure(
        self, path: str, bodies: Sequence[Iterator[bytes]], *, seconds: float
    ) -> Sample:
        """Call `path` with one caller for each of `bodies`; any failure spoils the round."""
        headers = wire.header_block(self.address, path)
        gc.collect()
        gc.disable()
        try:
            server = await self.server_cpu()
            own = time.process_time()
            began = time.monotonic_ns()
            shared = _Round(
                warm_until=began + int(seconds * WARM_SHARE * 1e9),
                until=began + int(seconds * 1e9),
                running=len(bodies),
                over=asyncio.get_running_loop().create_future(),
            )
            for index, body in enumerate(bodies):
                connection = self.wires[index % len(self.wires)]
                _Caller(shared, connection, headers, body).ask()
            await asyncio.wait_for(shared.over, seconds + 30)
            whole = (time.monotonic_ns() - began) / 1e9
            own = time.process_time() - own
            server = await self.server_cpu() - server
        finally:
            gc.enable()
        if shared.failures:
            raise RuntimeError(f"{path}: {shared.failures} of {shared.calls} calls were refused")
        found = sample(
            shared.latencies, whole - (shared.warm_until - began) / 1e9, calls=shared.calls
        )
        return Sample(
            rate=found.rate,
            p50_ms=found.p50_ms,
            p99_ms=found.p99_ms,
            calls=found.calls,
            load_cpu=own / whole,
            server_cpu=server / whole,
        )
