"""Reflection for whoever may call at all: what a server offers is nobody else's business."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from stagewire.server import interceptors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    import grpc

    from stagewire.access.gate import Gate, OpenGate

SERVICE_NAME: str = reflection.SERVICE_NAME
_METHOD = f"{SERVICE_NAME}.ServerReflectionInfo"


class Reflection(ReflectionServicer):  # type: ignore[misc]  # it has no types
    """Answers about the server's services."""

    def __init__(self, names: Iterable[str], gate: Gate | OpenGate) -> None:
        """Tell of these services to whom `gate` lets in."""
        super().__init__(names)
        self._gate = gate

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it."""
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(self, server)

    async def ServerReflectionInfo(  # gRPC's name
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        """Answer one caller's questions."""
        await interceptors.answered(_METHOD, _nothing, self._gate)(None, context)
        async for answer in super().ServerReflectionInfo(requests, context):
            yield answer


async def _nothing(_request: Any, _context: Any) -> None:
    """Let in, and leave the rest to whoever asked."""
