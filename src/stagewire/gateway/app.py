"""The gateway as an ASGI application: what surrounds every request of MLflow's clients.

Work runs on the unary pool under the same admission as gRPC's calls; the loop only reads and
sends. Every request has an id, ends in one log line, and what nobody foresaw tells nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
import uuid
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from stagewire import errors as refusals
from stagewire import names
from stagewire.gateway import errors, wire, workspaces
from stagewire.gateway.calls import Call, LoggedModel
from stagewire.gateway.paths import Paths
from stagewire.gateway.searches import Listing
from stagewire.service.callers import Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from concurrent.futures import ThreadPoolExecutor

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from stagewire.gateway.routes import Route
    from stagewire.service.registry import Registry

log = structlog.get_logger("stagewire.http")

#: As much as gRPC takes in one message.
MOST_BODY_BYTES = 4 * 1024 * 1024
REQUEST_ID = "x-request-id"
IDEMPOTENCY_KEY = "idempotency-key"
_LONGEST_ID = 128
#: A body that takes longer is one that is held back.
_BODY_SECONDS = 30.0
#: MLflow's clients wait 120 s: what was not begun by then is not begun for nobody.
_CALL_SECONDS = 110.0
#: Where in a scope it is noted how a request ended.
_VISIT = "stagewire.visit"
_JSON = "application/json"

_Result = TypeVar("_Result")


class Admission(Protocol):
    """How many calls are taken in; the server's own, shared with gRPC."""

    now: int

    def enter(self) -> None:
        """Take a call in, or refuse it."""

    def leave(self) -> None:
        """Let a call out."""


@dataclass(slots=True)
class _Visit:
    """What is logged of one request."""

    request_id: str
    started: float
    route: str = ""
    caller: str = ""
    code: str = "OK"
    answering: bool = False


class Gateway:
    """MLflow's API over a registry."""

    def __init__(
        self,
        registry: Registry,
        pool: ThreadPoolExecutor,
        admission: Admission,
        *,
        beyond: ASGIApp | None = None,
        logged_model: Callable[[str, Mapping[str, str]], LoggedModel | None] | None = None,
    ) -> None:
        """Serve `registry`; `beyond` answers what is not its own, `logged_model` finds those."""
        self.registry = registry
        self.pool = pool
        self.admission = admission
        self.beyond = beyond or self._nothing
        self.logged_model = logged_model
        #: Turned off first when the server stops, so that nobody new is sent here.
        self.healthy = True
        self._paths = Paths()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        visit = _Visit(_request_id(scope), time.monotonic())
        scope[_VISIT] = visit
        structlog.contextvars.bind_contextvars(request_id=visit.request_id)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.answering = True
                MutableHeaders(scope=message)[REQUEST_ID] = visit.request_id
            await send(message)

        try:
            await self._answered(scope, receive, sent)
        except ClientDisconnect:
            visit.code = "CANCELLED"
        except asyncio.CancelledError:
            visit.code = "CANCELLED"
            raise
        finally:
            self._log(scope, visit)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit: _Visit = scope[_VISIT]
        try:
            await self._dispatch(scope, receive, send)
        except (errors.MlflowError, refusals.RegistryError) as error:
            if visit.answering:
                raise
            await _refused(visit, error)(scope, receive, send)
        except ClientDisconnect:
            raise
        except Exception:
            visit.code = "INTERNAL_ERROR"
            log.exception("unforeseen error", method=scope["method"], route=visit.route)
            if visit.answering:
                # Half an answer must not look like a whole one: the connection is cut.
                raise
            await _unforeseen(visit)(scope, receive, send)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit: _Visit = scope[_VISIT]
        path = scope["path"]
        if path in ("/health", "/version"):
            await self._plain(path)(scope, receive, send)
            return
        found = self._paths.find(path)
        if found is None:
            visit.route = "beyond"
            await self.beyond(scope, receive, send)
            return
        visit.route = found.template
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        route = found.methods.get(method)
        if route is None:
            allowed = ", ".join(sorted(found.methods))
            refusal = errors.MlflowError("BAD_REQUEST", f"Use {allowed} here.", status=405)
            response = _refused(visit, refusal)
            response.headers["allow"] = allowed
        else:
            scope["path_params"] = found.params
            response = await self._respond(route, Request(scope, receive), visit)
        await response(scope, receive, send)

    def _plain(self, path: str) -> Response:
        if path == "/version":
            return Response(_release(), media_type="text/plain")
        if self.healthy:
            return Response("OK", media_type="text/plain")
        return Response("NOT_SERVING", 503, media_type="text/plain")

    async def _nothing(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = errors.MlflowError(
            "ENDPOINT_NOT_FOUND", f"There is no endpoint {scope['method']} {scope['path']} here."
        )
        await _refused(scope[_VISIT], refusal)(scope, receive, send)

    async def _respond(self, route: Route, request: Request, visit: _Visit) -> Response:
        caller = Caller(deadline=visit.started + _CALL_SECONDS)
        visit.caller = caller.name
        key = _idempotency_key(request)
        body = await _body(request)

        def work() -> tuple[bytes, Listing | None]:
            return self._perform(route, request, body, key, caller)

        answer, listing = await self.run(work)
        if listing is None or listing.ended:
            return Response(answer, media_type=_JSON)
        return StreamingResponse(self._rest(answer, listing), media_type=_JSON)

    def _perform(
        self, route: Route, request: Request, body: bytes, key: str, caller: Caller
    ) -> tuple[bytes, Listing | None]:
        """Do a request's work; on the pool, with all that takes time: parsing and writing too."""
        shape = route.endpoint.shape
        call = Call(
            registry=self.registry,
            caller=caller,
            namespace=request.headers.get(workspaces.HEADER, "").strip(),
            request_id=key,
            fields=wire.fields(shape, _given(shape, request, body)),
            headers=request.headers,
            logged_model=self.logged_model,
        )
        if route.in_workspace and call.namespace not in ("", names.DEFAULT_NAMESPACE):
            workspaces.found(call, call.namespace)
        answer = route.endpoint.work(call)
        if isinstance(answer, Listing):
            return answer.chunk(), answer
        return wire.dumped(answer), None

    async def _rest(self, first: bytes, listing: Listing) -> AsyncIterator[bytes]:
        yield first
        while not listing.ended:
            yield await self.run(listing.chunk, begun=True)

    async def run(self, work: Callable[[], _Result], *, begun: bool = False) -> _Result:
        """Run work on the pool; what has begun to be answered is not refused halfway."""
        if begun:
            self.admission.now += 1
        else:
            self.admission.enter()
        loop = asyncio.get_running_loop()
        try:
            future = loop.run_in_executor(self.pool, contextvars.copy_context().run, work)
        except RuntimeError:
            self.admission.leave()
            raise refusals.RegistryError(
                "SHUTTING_DOWN",
                "this server is stopping; another one answers",
                retry_after_seconds=1.0,
            ) from None
        # As gRPC's calls: what has begun ends, and keeps its place until then.
        future.add_done_callback(self._leave)
        return await asyncio.shield(future)

    def _leave(self, done: asyncio.Future[Any]) -> None:
        self.admission.leave()
        if not done.cancelled():
            done.exception()

    def _log(self, scope: Scope, visit: _Visit) -> None:
        if scope["path"] == "/health":
            return
        log.info(
            "request",
            method=scope["method"],
            route=visit.route or scope["path"],
            caller=visit.caller,
            code=visit.code,
            duration_ms=round((time.monotonic() - visit.started) * 1000, 3),
        )


def _given(shape: wire.Shape, request: Request, body: bytes) -> wire.Json:
    """Read what was sent: a GET's query, else the body."""
    pairs = request.query_params.multi_items()
    if request.method == "GET" and pairs:
        given = wire.read_query(shape, pairs)
    else:
        if request.method == "POST":
            _check_content_type(request.headers.get("content-type"))
        given = wire.read_body(body)
    return {**given, **request.path_params}


def _check_content_type(given: str | None) -> None:
    if given is None:
        raise errors.invalid("Bad Request. Content-Type header is missing.")
    if given.split(";")[0].strip() != _JSON:
        raise errors.invalid(f"Bad Request. Content-Type must be one of {[_JSON]}.")


async def _body(request: Request) -> bytes:
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


def _too_large() -> errors.MlflowError:
    text = f"The request body must have at most {MOST_BODY_BYTES} bytes."
    return errors.MlflowError("BAD_REQUEST", text, status=413)


def _idempotency_key(request: Request) -> str:
    key = request.headers.get(IDEMPOTENCY_KEY, "")
    if len(key) > _LONGEST_ID:
        raise errors.invalid(
            f"The Idempotency-Key header must have at most {_LONGEST_ID} characters, has "
            f"{len(key)}."
        )
    return key


def _refused(visit: _Visit, error: errors.MlflowError | refusals.RegistryError) -> Response:
    if isinstance(error, refusals.RegistryError):
        if error.reason == "INTERNAL":
            return _unforeseen(visit)
        error = errors.translated(error)
    visit.code = error.code
    body = wire.dumped({"error_code": error.code, "message": error.message})
    response = Response(body, error.http_status, media_type=_JSON)
    if error.retry_after_seconds is not None:
        response.headers["retry-after"] = str(max(1, round(error.retry_after_seconds)))
    if error.http_status in (408, 413):
        # The rest of the body is not read, so nothing more can come over this connection.
        response.headers["connection"] = "close"
    return response


def _unforeseen(visit: _Visit) -> Response:
    visit.code = "INTERNAL_ERROR"
    text = f"A fault of the server's; its log has it under request id {visit.request_id}."
    body = wire.dumped({"error_code": "INTERNAL_ERROR", "message": text})
    return Response(body, 500, media_type=_JSON)


@cache
def _release() -> str:
    return version("stagewire")


def _request_id(scope: Scope) -> str:
    for key, value in scope["headers"]:
        if key == REQUEST_ID.encode():
            text: str = value.decode("latin-1")[:_LONGEST_ID]
            if text.isascii() and text.isprintable() and text:
                return text
    return uuid.uuid4().hex
