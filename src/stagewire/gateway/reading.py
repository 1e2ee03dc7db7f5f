"""What is read of an HTTP request: its body within bounds, its fields, and the key of a repeat."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stagewire.gateway import wire
from stagewire.mlflow import errors, shapes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request

JSON = "application/json"
#: As much as gRPC takes in one message.
MOST_BODY_BYTES = 4 * 1024 * 1024
#: A body that takes longer is one that is held back.
_BODY_SECONDS = 30.0
IDEMPOTENCY_KEY = "idempotency-key"
_LONGEST_KEY = 128


def read_fields(shape: shapes.Shape, request: Request, body: bytes) -> shapes.Json:
    """Read what was sent, a GET's query, else the body, as the fields of a shape."""
    pairs = request.query_params.multi_items()
    if request.method == "GET" and pairs:
        given = wire.read_query(shape, pairs)
    else:
        if request.method == "POST":
            _check_content_type(request.headers.get("content-type"))
        given = wire.read_body(body)
    return shapes.fields(shape, {**given, **request.path_params})


def _check_content_type(given: str | None) -> None:
    if given is None:
        raise errors.invalid("Bad Request. Content-Type header is missing.")
    if given.split(";")[0].strip() != JSON:
        raise errors.invalid(f"Bad Request. Content-Type must be one of {[JSON]}.")


async def read_body(request: Request) -> bytes:
    """Read the whole body, within bounds of size and time."""
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > MOST_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BODY_BYTES:
                    raise _too_large()
    except TimeoutError:
        text = f"The request body did not arrive within {_BODY_SECONDS:.0f} seconds."
        raise errors.MlflowError("BAD_REQUEST", text, status=408) from None
    return bytes(body)


def has_two_lengths(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request says twice, in two ways, where it ends.

    Somebody between its sender and us may have believed the other one, and then what follows is
    not from whom it seems to be.
    """
    return {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}


def _too_large() -> errors.MlflowError:
    text = f"The request body must have at most {MOST_BODY_BYTES} bytes."
    return errors.MlflowError("BAD_REQUEST", text, status=413)


def idempotency_key(request: Request) -> str:
    """Read the key under which a repeated write is answered as before."""
    key = request.headers.get(IDEMPOTENCY_KEY, "")
    if len(key) > _LONGEST_KEY:
        raise errors.invalid(
            f"The Idempotency-Key header must have at most {_LONGEST_KEY} characters, has "
            f"{len(key)}."
        )
    return key
