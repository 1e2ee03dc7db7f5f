"""The gateway as an ASGI application: what surrounds every request of MLflow's clients.

Work runs on the unary pool under the same admission as gRPC's calls; the loop only reads and
sends. Every request has an id, ends in one log line, and what nobody foresaw tells nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
import uuid
from functools import cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from stagewire import errors as refusals
from stagewire import names, rights
from stagewire.access.gate import Credentials
from stagewire.gateway import reading, replies, wire
from stagewire.gateway import upstream as upstreams
from stagewire.gateway.paths import Paths
from stagewire.gateway.replies import Visit
from stagewire.mlflow import errors, workspaces
from stagewire.mlflow.calls import Call, Forward
from stagewire.mlflow.searches import Listing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from concurrent.futures import ThreadPoolExecutor

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from stagewire.access.gate import Gate, OpenGate
    from stagewire.access.rates import Rates
    from stagewire.callers import Caller
    from stagewire.gateway.upstream import Upstream
    from stagewire.mlflow.calls import Answer
    from stagewire.mlflow.routes import Route
    from stagewire.service.registry import Registry

log = structlog.get_logger("stagewire.http")

REQUEST_ID = "x-request-id"
_LONGEST_ID = 128
_LONGEST_PATH = 200
#: MLflow's clients wait 120 s: what was not begun by then is not begun for nobody.
_CALL_SECONDS = 110.0

_Result = TypeVar("_Result")


class Admission(Protocol):
    """How many calls are taken in; the server's own, shared with gRPC."""

    now: int

    def enter(self) -> None:
        """Take a call in, or refuse it."""

    def leave(self) -> None:
        """Let a call out."""


class Gateway:
    """MLflow's API over a registry."""

    def __init__(
        self,
        registry: Registry,
        pool: ThreadPoolExecutor,
        admission: Admission,
        gate: Gate | OpenGate,
        rates: Rates,
        *,
        slow_seconds: float = 30.0,
        upstream: Upstream | None = None,
    ) -> None:
        """Serve `registry`; `upstream`, where there is one, answers what is not its own.

        Who takes nothing of an answer for `slow_seconds` gets no more of it.
        """
        self.registry = registry
        self.pool = pool
        self.admission = admission
        self.gate = gate
        self.rates = rates
        self.upstream = upstream
        self.slow_seconds = slow_seconds
        #: Turned off first when the server stops, so that nobody new is sent here.
        self.healthy = True
        self._paths = Paths()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        visit = Visit(_request_id(scope), time.monotonic())
        scope[replies.VISIT] = visit
        structlog.contextvars.bind_contextvars(request_id=visit.request_id)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.answering = True
                MutableHeaders(scope=message)[REQUEST_ID] = visit.request_id
            try:
                async with asyncio.timeout(self.slow_seconds):
                    await send(message)
            except TimeoutError:
                raise ClientDisconnect from None

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
        visit: Visit = scope[replies.VISIT]
        try:
            await self._dispatch(scope, receive, send)
        except (errors.MlflowError, refusals.RegistryError) as error:
            if isinstance(error, refusals.RegistryError):
                method = f"{scope['method']} {visit.route or scope['path'][:_LONGEST_PATH]}"
                self.gate.note_refusal(visit.shown, visit.by, method, error)
            if visit.answering:
                visit.code = error.code
                raise
            await replies.refused(visit, error)(scope, receive, send)
        except ClientDisconnect:
            raise
        except Exception:
            visit.code = "INTERNAL_ERROR"
            log.exception("unforeseen error", method=scope["method"], route=visit.route)
            if visit.answering:
                # Half an answer must not look like a whole one: the connection is cut.
                raise
            await replies.unforeseen(visit)(scope, receive, send)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit: Visit = scope[replies.VISIT]
        path = scope["path"]
        if reading.has_two_lengths(scope["headers"]):
            text = "Send either Content-Length or Transfer-Encoding, not both."
            refused = replies.refused(visit, errors.MlflowError("BAD_REQUEST", text))
            refused.headers["connection"] = "close"
            await refused(scope, receive, send)
            return
        if path == "/health":
            await self._plain(path, scope, visit)(scope, receive, send)
            return
        caller = await self._admit(scope, visit)
        self.rates.check(caller, _space(scope))
        if path == "/version":
            await self._plain(path, scope, visit)(scope, receive, send)
            return
        found = self._paths.find(path)
        if found is None:
            visit.route = "beyond"
            if not caller.rights.sees_namespace(names.DEFAULT_NAMESPACE):
                raise rights.denied(rights.SEE, names.DEFAULT_NAMESPACE, caller=caller.name)
            await self._beyond(scope, receive, send)
            return
        visit.route = found.template
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        route = found.methods.get(method)
        if route is None:
            await _use_instead(visit, found.methods)(scope, receive, send)
            return
        scope["path_params"] = found.params
        response = await self._respond(route, Request(scope, receive), caller)
        await response(scope, receive, send)

    async def _admit(self, scope: Scope, visit: Visit) -> Caller:
        """Say who calls. What it showed us of itself is not for the server behind us."""
        shown = _credentials(scope) if self.gate.controls else Credentials()
        visit.shown = shown
        caller = await self.gate.admit(shown, visit.started + _CALL_SECONDS)
        visit.caller, visit.by = caller.name, caller
        if caller.token_id:
            scope["headers"] = [h for h in scope["headers"] if h[0] != b"authorization"]
        return caller

    def _plain(self, path: str, scope: Scope, visit: Visit) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            return _use_instead(visit, ("GET", "HEAD"))
        if path == "/version":
            return Response(_release(), media_type="text/plain")
        if self.healthy:
            return Response("OK", media_type="text/plain")
        return Response("NOT_SERVING", 503, media_type="text/plain")

    async def _beyond(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = f"There is no endpoint {scope['method']} {scope['path']} here."
        if not upstreams.forwards(scope["path"]):
            raise errors.MlflowError("ENDPOINT_NOT_FOUND", text)
        if self.upstream is None:
            raise errors.MlflowError(
                "ENDPOINT_NOT_FOUND",
                f"{text} This is a model registry; to have it pass everything else on to an MLflow "
                f"tracking server, set {upstreams.SETTING} ({upstreams.OPTION}) to that server's "
                "URI.",
            )
        await self.upstream(scope, receive, send)

    async def _respond(self, route: Route, request: Request, caller: Caller) -> ASGIApp:
        key = reading.idempotency_key(request)
        body = await reading.read_body(request)

        def work() -> tuple[bytes, Answer | wire.Stream]:
            return self._perform(route, request, body, key, caller)

        answer, whole = await self.run(work)
        if isinstance(whole, Forward) and self.upstream is not None:
            return partial(self.upstream.fetch, whole.target)
        if isinstance(whole, wire.Stream) and not whole.ended:
            return StreamingResponse(self._rest(answer, whole), media_type=reading.JSON)
        return Response(answer, media_type=reading.JSON)

    def _perform(
        self, route: Route, request: Request, body: bytes, key: str, caller: Caller
    ) -> tuple[bytes, Answer | wire.Stream]:
        """Do a request's work; on the pool, with all that takes time: parsing and writing too."""
        call = Call(
            registry=self.registry,
            caller=caller,
            namespace=request.headers.get(workspaces.HEADER, "").strip(),
            request_id=key,
            fields=reading.read_fields(route.endpoint.shape, request, body),
            headers=request.headers,
            upstream=self.upstream,
        )
        if route.in_workspace and call.namespace not in ("", names.DEFAULT_NAMESPACE):
            workspaces.found(call, call.namespace)
        answer = route.endpoint.work(call)
        if isinstance(answer, Listing):
            stream = wire.Stream(answer)
            return stream.chunk(), stream
        return b"" if isinstance(answer, Forward) else wire.dumped(answer), answer

    async def _rest(self, first: bytes, stream: wire.Stream) -> AsyncIterator[bytes]:
        yield first
        while not stream.ended:
            yield await self.run(stream.chunk, begun=True)

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
        try:
            return await asyncio.shield(future)
        finally:
            # A refusal holds this frame, which would hold the refusal: a whole request would wait
            # for garbage to be looked for.
            del future

    def _leave(self, done: asyncio.Future[Any]) -> None:
        self.admission.leave()
        if not done.cancelled():
            done.exception()

    def _log(self, scope: Scope, visit: Visit) -> None:
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


def _use_instead(visit: Visit, methods: Iterable[str]) -> Response:
    """Answer a method that a path does not have."""
    allowed = ", ".join(sorted(methods))
    refusal = errors.MlflowError("BAD_REQUEST", f"Use {allowed} here.", status=405)
    refused = replies.refused(visit, refusal)
    refused.headers["allow"] = allowed
    return refused


@cache
def _release() -> str:
    return version("stagewire")


def _space(scope: Scope) -> str:
    """Give the namespace that a request names."""
    name = workspaces.HEADER.lower().encode()
    found = [value for key, value in scope["headers"] if key == name]
    return (found[0].decode("latin-1").strip() if found else "") or names.DEFAULT_NAMESPACE


def _credentials(scope: Scope) -> Credentials:
    found = [value for key, value in scope["headers"] if key == b"authorization"]
    host = scope["client"][0] if scope.get("client") else ""
    return Credentials(found[0].decode("latin-1") if found else "", None, host)


def _request_id(scope: Scope) -> str:
    for key, value in scope["headers"]:
        if key == REQUEST_ID.encode():
            text: str = value.decode("latin-1")[:_LONGEST_ID]
            if text.isascii() and text.isprintable() and text:
                return text
    return uuid.uuid4().hex
