"""What surrounds every call: who calls, until when, one log line, one status whatever happens.

Unary calls run on a bounded pool in a copy of the caller's context, so that logging reaches the
thread. A refusal, an unforeseen exception and a cancellation of our own all end in a status: a
CancelledError that a handler lets out would leave the client hanging.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import grpc
import structlog
from google.protobuf import message_factory
from google.protobuf.message import DecodeError

from stagewire import errors, failpoints
from stagewire.access.gate import Credentials
from stagewire.access.rates import space_of
from stagewire.server import peers, servicers, statuses
from stagewire.service.hot import keeps

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import ThreadPoolExecutor

    from google.protobuf.descriptor import ServiceDescriptor
    from google.protobuf.message import Message

    from stagewire.access.gate import Gate, OpenGate
    from stagewire.access.rates import Rates
    from stagewire.service.hot import HotReads
    from stagewire.service.registry import Registry

log = structlog.get_logger("stagewire.rpc")

REQUEST_ID = "x-request-id"
_LONGEST_ID = 128
_ABORT_SECONDS = 5.0
_NOBODY = Credentials()
#: What a call asks for, once it is read: a refusal is noted with what it was about.
_REQUEST: contextvars.ContextVar[Any] = contextvars.ContextVar("REQUEST", default=None)


class Admission:
    """How many unary calls are taken in before the next one is told to come back."""

    def __init__(self, most: int) -> None:
        """Admit `most` at once."""
        self.most = most
        self.now = 0
        self.closing = False

    def enter(self) -> None:
        """Take a call in. Refuses OVERLOADED, and SHUTTING_DOWN once the server stops."""
        if self.closing:
            raise shutting_down()
        if self.now >= self.most:
            raise errors.RegistryError(
                "OVERLOADED",
                f"the server works on {self.most} calls already; try again",
                retry_after_seconds=0.5,
            )
        self.now += 1

    def leave(self) -> None:
        """Let a call out."""
        self.now -= 1


def shutting_down() -> errors.RegistryError:
    """Build the refusal of a server that is stopping."""
    return errors.RegistryError(
        "SHUTTING_DOWN",
        "this server is stopping; another one answers",
        retry_after_seconds=1.0,
    )


def handlers(
    service: ServiceDescriptor,
    registry: Registry,
    pool: ThreadPoolExecutor,
    admission: Admission,
    *,
    gate: Gate | OpenGate,
    rates: Rates,
    hot: HotReads | None = None,
) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Make the handlers of a service's unary RPCs; those that may are answered from `hot`."""
    servicer = servicers.servicer(service, registry)
    found: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in servicers.unary_methods(service):
        work = _on_pool(getattr(servicer, method.name), pool, admission)
        if hot is not None and keeps(registry, method.name):
            work = _from_memory(method.name, hot, work)
        request = message_factory.GetMessageClass(method.input_type)
        work = limited(settled(method.name, work, gate), rates)
        found[method.name] = grpc.unary_unary_rpc_method_handler(
            answered(method.full_name, parsed(request, work), gate),
            request_deserializer=None,
            response_serializer=_serialize,
        )
    return found


def _serialize(message: Any) -> bytes:
    data: bytes = message if isinstance(message, bytes) else message.SerializeToString()
    return data


def _from_memory(
    method: str, hot: HotReads, work: Callable[[Any, Any], Awaitable[Any]]
) -> Callable[[Any, Any], Awaitable[Any]]:
    """Answer on the loop what is known; a hop to the pool costs more than such an answer."""

    async def call(request: Any, context: Any) -> Any:
        known = hot.recall(method, request, servicers.CALLER.get().rights)
        if known is not None:
            return known
        answer = await work(request, context)
        hot.keep(method, request, answer)
        return answer

    return call


def limited(
    work: Callable[[Any, Any], Awaitable[Any]], rates: Rates
) -> Callable[[Any, Any], Awaitable[Any]]:
    """Do what neither its caller nor its namespace asks for too often."""

    async def call(request: Any, context: Any) -> Any:
        rates.check(servicers.CALLER.get(), space_of(request))
        return await work(request, context)

    return call


def settled(
    method: str, work: Callable[[Any, Any], Awaitable[Any]], gate: Gate | OpenGate
) -> Callable[[Any, Any], Awaitable[Any]]:
    """Answer a change of who may do what once it is so on this server."""
    if method not in gate.settles:
        return work

    async def call(request: Any, context: Any) -> Any:
        answer = await work(request, context)
        await gate.settle(answer)
        return answer

    return call


def parsed(
    message: type[Message], work: Callable[[Any, Any], Awaitable[Any]]
) -> Callable[[Any, Any], Awaitable[Any]]:
    """Read the request where a refusal still gets its status: grpc's own would be UNKNOWN."""

    async def call(data: bytes, context: Any) -> Any:
        try:
            request = message.FromString(data)
        except DecodeError:
            name = message.DESCRIPTOR.name
            text = (
                f"is no {name}: it can't be decoded, or a text in it is not UTF-8; mend the client"
            )
            raise errors.invalid("request", text) from None
        _REQUEST.set(request)
        return await work(request, context)

    return call


def _on_pool(
    behaviour: Callable[[Any, Any], Any],
    pool: ThreadPoolExecutor,
    admission: Admission,
) -> Callable[[Any, Any], Awaitable[Any]]:
    async def work(request: Any, _context: Any) -> Any:
        failpoints.hit("handler")
        admission.enter()
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        try:
            future = loop.run_in_executor(pool, context.run, behaviour, request, None)
        except RuntimeError:
            admission.leave()
            raise shutting_down() from None
        # What has begun is not stopped by a caller who hangs up: it commits or fails whole, and
        # takes its place until then, or impatient callers could fill the pool unseen.
        future.add_done_callback(lambda done: _leave(admission, done))
        try:
            return await asyncio.shield(future)
        finally:
            # A refusal holds this frame, which would hold the refusal: a whole request would wait
            # for garbage to be looked for.
            del future

    return work


def _leave(admission: Admission, done: asyncio.Future[Any]) -> None:
    admission.leave()
    if not done.cancelled():
        # Looked at, or asyncio logs the refusal of a caller who hung up as an error nobody saw.
        done.exception()


def answered(
    name: str, work: Callable[[Any, Any], Awaitable[Any]], gate: Gate | OpenGate
) -> Callable[[Any, Any], Awaitable[Any]]:
    """Surround one call: identify, log, and translate whatever it raises into a status."""

    async def call(request: Any, context: Any) -> Any:
        started = time.monotonic()
        request_id, shown = _read_metadata(context, gate)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        code = "OK"
        caller = None
        try:
            caller = await gate.admit(shown, _deadline(context, started))
            servicers.CALLER.set(caller)
            return await work(request, context)
        except asyncio.CancelledError as error:
            if context.cancelled() or _being_cancelled():
                code = "CANCELLED"
                raise
            code = "INTERNAL"
            log.exception("a handler cancelled itself", method=name)
            await _abort(context, error, request_id)
        except errors.RegistryError as error:
            code = error.code
            gate.note_refusal(shown, caller, name, error, _REQUEST.get())
            await _abort(context, error, request_id)
        except Exception as error:
            code = "INTERNAL"
            log.exception("unforeseen error", method=name)
            await _abort(context, error, request_id)
        finally:
            log.info(
                "call",
                method=name,
                caller="" if caller is None else caller.name,
                code=code,
                duration_ms=round((time.monotonic() - started) * 1000, 3),
            )
            # gRPC keeps an aborted call and this frame in a circle, until garbage is looked for.
            del request

    return call


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _abort(context: Any, error: BaseException, request_id: str) -> None:
    status = statuses.of(error)
    trailer = (*status.trailing_metadata, (REQUEST_ID, request_id))
    # It is in that circle too, with every frame that it came through, and so with the request.
    error.__traceback__ = error.__context__ = None
    # To a client that takes nothing the status waits for the same flow control as the rest:
    # leave it to the connection's age then.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ABORT_SECONDS):
            await context.abort(status.code, status.details, trailing_metadata=trailer)


def _read_metadata(context: Any, gate: Gate | OpenGate) -> tuple[str, Credentials]:
    """Read the call's id, and what it shows of whoever makes it."""
    request_id = authorization = ""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and isinstance(value, str) and value.isprintable():
            request_id = request_id or value[:_LONGEST_ID]
        elif key == "authorization" and isinstance(value, str):
            authorization = authorization or value
    request_id = request_id or uuid.uuid4().hex
    if not gate.controls:
        return request_id, _NOBODY
    certificate = None if authorization else peers.of(context.auth_context())
    return request_id, Credentials(authorization, certificate, _host(context.peer()))


def _host(peer: str) -> str:
    """Give the address in what gRPC says of a peer, such as ipv4:127.0.0.1:50000."""
    kind, _, rest = peer.partition(":")
    return unquote(rest.rpartition(":")[0]).strip("[]") if kind in ("ipv4", "ipv6") else peer


def _deadline(context: Any, now: float) -> float | None:
    remaining = context.time_remaining()
    return None if remaining is None else now + remaining
