"""ExportRegistry: a registry is written to disk at one revision, then sent as it is taken.

The database is let go of before the first word, so a slow client costs disk and nothing else.
Whoever may not have it any more gets no more of it, however slowly it was taken.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc

from stagewire import errors, pb
from stagewire.server import interceptors, servicers
from stagewire.service import exports, limits, rules

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from stagewire.access.gate import Gate, OpenGate
    from stagewire.access.rates import Rates
    from stagewire.service.registry import Registry

METHOD = "modelregistry.v1.ConfigurationService.ExportRegistry"
# Each reads the whole registry and holds a copy of it on disk.
AT_ONCE = 2
# A pipe into a program that thinks between two records may stand still for a while.
SLOW_SECONDS = 300.0
# While a part is not taken it is asked this often whether the caller may still have it.
ASK_SECONDS = 10.0


class Exports:
    """All exports of this process."""

    def __init__(
        self, registry: Registry, executor: Executor, gate: Gate | OpenGate, rates: Rates
    ) -> None:
        """Read a registry, few at a time; others wait for their turn."""
        self.database = registry.database
        self.executor = executor
        self.gate = gate
        self.rates = rates
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def export(self, request: pb.ExportRegistryRequest, context: Any) -> None:
        """Serve one stream. Refuses what the contract's ExportRegistry refuses."""
        limits.check(request)
        self._authorise(request)
        async with self._turns:
            loop = asyncio.get_running_loop()
            spool = await loop.run_in_executor(
                self.executor, self.database.read, lambda tx: exports.spool(tx, request)
            )
            try:
                self._authorise(request)
                for part in spool.parts():
                    await self._write(part, request, context)
            finally:
                spool.close()

    def _authorise(self, request: pb.ExportRegistryRequest) -> None:
        """Refuse whoever may not have this, as of now."""
        rules.authorise("ExportRegistry", self.gate.renewed(servicers.CALLER.get()), request)

    async def _write(self, part: bytes, request: pb.ExportRegistryRequest, context: Any) -> None:
        writing = asyncio.ensure_future(context.write(part))
        ends = time.monotonic() + SLOW_SECONDS
        try:
            while not writing.done():
                if time.monotonic() >= ends:
                    raise errors.RegistryError(
                        "SLOW_CONSUMER",
                        f"nothing was taken from this export for {SLOW_SECONDS:g} s; export again",
                    )
                await asyncio.wait({writing}, timeout=min(ASK_SECONDS, SLOW_SECONDS))
                self._authorise(request)
            await writing
        finally:
            writing.cancel()

    def handler(self) -> grpc.RpcMethodHandler[Any, Any]:
        """Make the RPC's handler: what it writes is serialised already."""
        return grpc.unary_stream_rpc_method_handler(
            interceptors.answered(
                METHOD,
                interceptors.parsed(
                    pb.ExportRegistryRequest, interceptors.limited(self.export, self.rates)
                ),
                self.gate,
            ),
            request_deserializer=None,
            response_serializer=None,
        )
