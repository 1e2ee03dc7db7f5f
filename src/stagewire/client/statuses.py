"""From what gRPC raises to the error tree: code, reason and details of one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from stagewire.client import errors

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any
    from google.rpc import status_pb2

_FAMILIES = {
    family.code: family
    for family in errors.StagewireError.__subclasses__()
    if family is not errors.SnapshotDamaged
}


def of(error: grpc.RpcError) -> errors.StagewireError:
    """Translate what gRPC raised into the class of its reason, else of its code."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return errors.StagewireError(str(error), grpc_error=error)
    code = error.code()
    details = _Details(_status(error))
    return class_of(code, details.reason)(
        error.details() or code.name,
        code=code,
        reason=details.reason,
        field_violations=details.field_violations,
        preconditions=details.preconditions,
        metadata=details.metadata,
        resource=details.resource,
        retry_after=details.retry_after,
        grpc_error=error,
    )


def class_of(code: grpc.StatusCode, reason: str) -> type[errors.StagewireError]:
    """Return the class of a reason if it belongs to the code, else the code's own."""
    family = _FAMILIES.get(code, errors.StagewireError)
    name = "".join(word.capitalize() for word in reason.split("_"))
    named = getattr(errors, name, None)
    if isinstance(named, type) and issubclass(named, family):
        return named
    return family


def _status(error: grpc.Call | grpc.aio.AioRpcError) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(error)
    except ValueError:
        # The details contradict the code: a proxy rewrote one of them. The code stands.
        return None


class _Details:
    """The google.rpc.Status details of one answer."""

    def __init__(self, status: status_pb2.Status | None) -> None:
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.field_violations: list[errors.FieldViolation] = []
        self.preconditions: list[errors.PreconditionViolation] = []
        self.resource: errors.Resource | None = None
        self.retry_after: float | None = None
        for detail in status.details if status is not None else ():
            self._read(detail)

    def _read(self, detail: Any) -> None:
        match detail.TypeName():
            case "google.rpc.ErrorInfo":
                said = error_details_pb2.ErrorInfo.FromString(detail.value)
                self.reason = said.reason.removeprefix("ERROR_REASON_")
                self.metadata = dict(said.metadata)
            case "google.rpc.BadRequest":
                bad = error_details_pb2.BadRequest.FromString(detail.value)
                self.field_violations = [
                    errors.FieldViolation(one.field, one.description)
                    for one in bad.field_violations
                ]
            case "google.rpc.PreconditionFailure":
                failure = error_details_pb2.PreconditionFailure.FromString(detail.value)
                self.preconditions = [
                    errors.PreconditionViolation(one.type, one.subject, one.description)
                    for one in failure.violations
                ]
            case "google.rpc.ResourceInfo":
                about = error_details_pb2.ResourceInfo.FromString(detail.value)
                self.resource = errors.Resource(about.resource_type, about.resource_name)
            case "google.rpc.RetryInfo":
                retry = error_details_pb2.RetryInfo.FromString(detail.value)
                self.retry_after = retry.retry_delay.ToNanoseconds() / 1e9
