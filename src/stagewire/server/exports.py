"""ExportRegistry: a registry is written to disk at one revision, then sent as it is taken.

The database is let go of before the first word, so a slow client costs disk and nothing else.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from stagewire import errors, pb
from stagewire.server import interceptors
from stagewire.service import exports, limits

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from stagewire.access.gate import Gate, OpenGate
    from stagewire.service.registry import Registry

METHOD = "modelregistry.v1.ConfigurationService.ExportRegistry"
# Each reads the whole registry and holds a copy of it on disk.
AT_ONCE = 2
# A pipe into a program that thinks between two records may stand still for a while.
SLOW_SECONDS = 300.0


class Exports:
    """All exports of this process."""

    def __init__(self, registry: Registry, executor: Executor) -> None:
        """Read a registry, few at a time; others wait for their turn."""
        self.database = registry.database
        self.executor = executor
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def export(self, request: pb.ExportRegistryRequest, context: Any) -> None:
        """Serve one stream. Refuses what the contract's ExportRegistry refuses."""
        limits.check(request)
        async with self._turns:
            loop = asyncio.get_running_loop()
            spool = await loop.run_in_executor(
                self.executor, self.database.read, lambda tx: exports.spool(tx, request)
            )
            try:
                for part in spool.parts():
                    async with asyncio.timeout(SLOW_SECONDS):
                        await context.write(part)
            except TimeoutError:
                raise errors.RegistryError(
                    "SLOW_CONSUMER",
                    f"nothing was taken from this export for {SLOW_SECONDS:g} s; export again",
                ) from None
            finally:
                spool.close()

    def handler(self, gate: Gate | OpenGate) -> grpc.RpcMethodHandler[Any, Any]:
        """Make the RPC's handler: what it writes is serialised already."""
        return grpc.unary_stream_rpc_method_handler(
            interceptors.answered(
                METHOD, interceptors.parsed(pb.ExportRegistryRequest, self.export), gate
            ),
            request_deserializer=None,
            response_serializer=None,
        )
