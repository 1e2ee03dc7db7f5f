"""A registry at the other end of a client, called as endpoints call the one in a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stagewire.client import StagewireError
from stagewire.errors import CODES, FieldViolation, PreconditionViolation, RegistryError
from stagewire.mlflow import errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from stagewire.client import Client


@dataclass(frozen=True, slots=True)
class Self:
    """Who calls: this process, whose token the client sends and whose patience is the client's."""

    deadline: float | None = None


class Remote:
    """The operations that a client's stubs carry out; refusals are raised as in the server."""

    def __init__(self, client: Client) -> None:
        self._stubs = (client.registry, client.stages, client.namespaces, client.webhooks)

    def __getattr__(self, name: str) -> Callable[[Any, Any], Any]:
        """Give the RPC of this name."""
        rpc = next((getattr(stub, name) for stub in self._stubs if hasattr(stub, name)), None)
        if rpc is None:
            raise AttributeError(name)

        def operation(request: Any, _caller: Any) -> Any:
            try:
                return rpc(request)
            except StagewireError as error:
                raise _as_in_the_server(error) from error

        return operation


def _as_in_the_server(error: StagewireError) -> Exception:
    if error.reason not in CODES:
        # No server answered, or one that refuses for reasons this release does not know.
        return errors.MlflowError(errors.of_grpc(error.code.name), error.message)
    return RegistryError(
        error.reason,
        error.message,
        fields=[FieldViolation(one.field, one.description) for one in error.field_violations],
        preconditions=[
            PreconditionViolation(one.type, one.subject, one.description)
            for one in error.preconditions
        ],
        metadata=error.metadata,
        retry_after_seconds=error.retry_after,
    )
