"""The unary RPCs of every service, as plain synchronous servicers over `Registry`.

The methods are `(request, context)` by signature only: they never touch `context`. They raise
what `Registry` raises; the async adapter on the server, and `translated` under a test channel,
turn that into a status. Who is calling, and until when, reaches them by `CALLER`.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from modelregistry.v1 import (
    access_service_pb2,
    audit_service_pb2,
    configuration_service_pb2,
    deployment_service_pb2,
    metrics_service_pb2,
    namespace_service_pb2,
    registry_service_pb2,
    stage_service_pb2,
    watch_service_pb2,
    webhook_service_pb2,
)

from stagewire import errors
from stagewire.callers import ANONYMOUS, Caller
from stagewire.server import statuses

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

    from stagewire.service.registry import Registry

#: Every service of the contract.
SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service
    for module in (
        namespace_service_pb2,
        registry_service_pb2,
        stage_service_pb2,
        metrics_service_pb2,
        watch_service_pb2,
        deployment_service_pb2,
        access_service_pb2,
        audit_service_pb2,
        webhook_service_pb2,
        configuration_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)

CALLER: ContextVar[Caller] = ContextVar("CALLER", default=ANONYMOUS)


def unary_methods(service: ServiceDescriptor) -> list[MethodDescriptor]:
    """List a service's RPCs that take one message and give one."""
    return [m for m in service.methods if not (m.client_streaming or m.server_streaming)]


def servicer(service: ServiceDescriptor, registry: Registry) -> SimpleNamespace:
    """Make the servicer of one service: a method for each of its unary RPCs."""
    return SimpleNamespace(
        **{method.name: _behaviour(registry, method.name) for method in unary_methods(service)}
    )


def _behaviour(registry: Registry, name: str) -> Callable[[Any, Any], Any]:
    operation = getattr(registry, name)

    def call(request: Any, _context: Any) -> Any:
        return operation(request, CALLER.get())

    return call


def translated(behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Turn refusals into statuses for a synchronous server, such as a test channel's."""

    def call(request: Any, context: Any) -> Any:
        try:
            return behaviour(request, context)
        except errors.RegistryError as error:
            status = statuses.of(error)
            context.set_trailing_metadata(status.trailing_metadata)
            context.abort(status.code, status.details)

    return call
