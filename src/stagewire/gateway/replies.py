"""Refusals as HTTP answers: MLflow's error body, and nothing of what nobody foresaw."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.responses import Response

from stagewire import errors as refusals
from stagewire.access.gate import Credentials
from stagewire.gateway import wire
from stagewire.gateway.reading import JSON
from stagewire.mlflow import errors

if TYPE_CHECKING:
    from stagewire.callers import Caller

_UNAUTHENTICATED = 401
#: Where in a scope its visit is kept.
VISIT = "stagewire.visit"


@dataclass(slots=True)
class Visit:
    """What is logged of one request."""

    request_id: str
    started: float
    route: str = ""
    caller: str = ""
    code: str = "OK"
    answering: bool = False
    shown: Credentials = field(default_factory=Credentials)
    by: Caller | None = None


def refused(visit: Visit, error: errors.MlflowError | refusals.RegistryError) -> Response:
    """Answer a refusal, and note its code."""
    if isinstance(error, refusals.RegistryError):
        if error.reason == "INTERNAL":
            return unforeseen(visit)
        error = errors.translated(error)
    visit.code = error.code
    # It may repeat a lone surrogate that JSON let in, and nothing lets out.
    message = error.message.encode(errors="replace").decode()
    body = wire.dumped({"error_code": error.code, "message": message})
    response = Response(body, error.http_status, media_type=JSON)
    if error.retry_after_seconds is not None:
        response.headers["retry-after"] = str(max(1, round(error.retry_after_seconds)))
    if error.http_status == _UNAUTHENTICATED:
        response.headers["www-authenticate"] = 'Basic realm="stagewire", charset="UTF-8", Bearer'
    if error.http_status in (408, 413):
        # The rest of the body is not read, so nothing more can come over this connection.
        response.headers["connection"] = "close"
    return response


def unforeseen(visit: Visit) -> Response:
    """Answer what nobody foresaw: it tells nothing but the request's id."""
    visit.code = "INTERNAL_ERROR"
    text = f"A fault of the server's; its log has it under request id {visit.request_id}."
    body = wire.dumped({"error_code": "INTERNAL_ERROR", "message": text})
    return Response(body, 500, media_type=JSON)
